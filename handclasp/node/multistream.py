r"""multistream-select 1.0: which protocol a stream speaks.

Both lines of the dialer go out together, so that agreeing costs one round trip.
Source: multistream-select specification (lines with a uvarint length and a closing ``\\n``).
"""

from __future__ import annotations

from collections.abc import Container

from handclasp.abc import Stream
from handclasp.errors import ProtocolRefused, ProtocolViolation
from handclasp.messages import encode_message, receive_message_untrusted

_HEADER = "/multistream/1.0.0"
_REFUSAL = "na"
#: Bytes of a line; the longest protocol id in the wild has about 60.
_LONGEST_LINE = 1_024
#: Proposals that a listener looks at before it gives up on a dialer that tries names.
_MOST_PROPOSALS = 16


async def propose(stream: Stream, protocol: str) -> None:
    """Ask the peer to speak *protocol* on this stream; returns once it agreed.

    Raises:
        ProtocolRefused: it has no handler for it.
        ProtocolViolation: it does not speak multistream-select.
        trio.BrokenResourceError: the stream broke.
    """
    await stream.send_all(_encode(_HEADER) + _encode(protocol))
    if await _read_line_untrusted(stream) != _HEADER:
        raise ProtocolViolation("the peer does not speak multistream-select 1.0")
    answer = await _read_line_untrusted(stream)
    if answer == _REFUSAL:
        raise ProtocolRefused(f"the peer has no handler for {protocol}")
    if answer != protocol:
        raise ProtocolViolation(f"the peer answered the proposal of {protocol} with another protocol")


async def choose_untrusted(stream: Stream, protocols: Container[str]) -> str:
    """Answer a dialer's proposals; returns the protocol that both agreed on.

    Raises:
        ProtocolRefused: nothing it proposed is in *protocols*.
        ProtocolViolation: it does not speak multistream-select.
        trio.BrokenResourceError: the stream broke.
    """
    if await _read_line_untrusted(stream) != _HEADER:
        raise ProtocolViolation("the peer does not speak multistream-select 1.0")
    reply = _encode(_HEADER)
    for _ in range(_MOST_PROPOSALS):
        protocol = await _read_line_untrusted(stream)
        if protocol in protocols:
            await stream.send_all(reply + _encode(protocol))
            return protocol
        await stream.send_all(reply + _encode(_REFUSAL))
        reply = b""
    raise ProtocolRefused(f"the peer proposed {_MOST_PROPOSALS} protocols that this node does not speak")


def _encode(line: str) -> bytes:
    return encode_message(line.encode() + b"\n")


async def _read_line_untrusted(stream: Stream) -> str:
    # Never more than the line: what follows belongs to the protocol that will be agreed on.
    line = await receive_message_untrusted(stream, _LONGEST_LINE)
    try:
        text = line.decode()
    except UnicodeDecodeError:
        raise ProtocolViolation("a multistream-select line is not UTF-8") from None
    if not text.endswith("\n"):
        raise ProtocolViolation("a multistream-select line does not end in a line feed")
    return text[:-1]
