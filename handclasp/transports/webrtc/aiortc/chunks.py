"""The parts of an SCTP association that say what is in its packets: chunks to send, streams to put together.

Like `internals`, this touches what is private; the same canary test watches both.
"""

# The point of this module is to use what is private, of a package that carries few types.
# pyright: reportPrivateUsage=false, reportUnknownMemberType=false, reportUnknownVariableType=false
from __future__ import annotations

from collections.abc import Iterator

from aiortc import rtcsctptransport as sctp

#: Gap blocks in one acknowledgement at most, so that it fits a packet; and how far they reach (16 bits).
_MOST_GAPS, _FURTHEST = 200, 0xFFFF


class Chunk(sctp.DataChunk):
    """A DATA chunk to send. Its fields begin as those of the class, which is what makes one cheap."""

    _abandoned = _acked = _in_flight = _retransmit = False
    _expiry = _max_retransmits = _sent_time = None
    _misses = _sent_count = _order = 0

    def __init__(  # noqa: PLR0917 - the order of the fields on the wire
        self, flags: int, tsn: int, stream_id: int, stream_seq: int, protocol: int, user_data: bytes
    ) -> None:
        self.flags = flags
        self.tsn = tsn
        self.stream_id = stream_id
        self.stream_seq = stream_seq
        self.protocol = protocol
        self.user_data = user_data
        self._book_size = len(user_data)


class InboundStream(sctp.InboundStream):
    """aiortc's reassembly; looks for whole messages only where there may be a new one."""

    _complete = False

    def add_chunk(self, chunk: sctp.DataChunk) -> None:
        """Keep a chunk in the order of its number."""
        super().add_chunk(chunk)
        at_end = self.reassembly[-1] is chunk
        self._complete = not at_end or bool(chunk.flags & sctp.SCTP_DATA_LAST_FRAG)

    def pop_messages(self) -> Iterator[tuple[int, int, bytes]]:
        """The messages that are whole and in turn: stream id, protocol, data."""
        return super().pop_messages() if self._complete else iter(())


def gap_blocks(offsets: list[int]) -> list[tuple[int, int]]:
    """Runs of *offsets*, as in RFC 9260 §3.3.4."""
    gaps: list[tuple[int, int]] = []
    for offset in offsets:
        if gaps and offset == gaps[-1][1] + 1:
            gaps[-1] = (gaps[-1][0], offset)
        elif len(gaps) == _MOST_GAPS or offset > _FURTHEST:
            break
        else:
            gaps.append((offset, offset))
    return gaps
