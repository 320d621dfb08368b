"""aiortc's SCTP association with flow control, its data path rewritten to be fast.

Like `internals`, this touches what is private; the same canary test watches both.

Source: RFC 9260 (SCTP), RFC 8831 and 8832 (data channels); the constants are those of §16 unless they say why not.
"""

# The point of this module is to use what is private, of a package that carries few types.
# ruff: noqa: SLF001
# pyright: reportPrivateUsage=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false
from __future__ import annotations

import asyncio
import time
from typing import Any

import aiortc
from aiortc import rtcsctptransport as sctp
from aiortc.utils import uint32_gte

from .chunks import Chunk, InboundStream, gap_blocks
from .internals import DtlsTransport
from .recovery import MTU, SACK_DELAY, LossRecovery, at_once

_STREAM_IDS = (
    65_534  # RFC 8832 §6: 65,535 is reserved; an even number, so that counting in twos keeps odd and even
)

#: Bytes that may be under way. aiortc announces 1 MiB, too.
RECEIVE_WINDOW = 1024 * 1024
#: Bytes of received messages that may wait unread in one connection; about what go-libp2p lets wait in one of QUIC.
#: Eight paused readers (credit.py); a peer that does not know our flow control may fill it with one.
MAX_UNREAD = 16 * 1024 * 1024

_HEADER = sctp.SCTP_COMMON_HEADER_LENGTH
_ROOM = sctp.SCTP_MAX_PACKET_LENGTH - _HEADER
_TSNS = sctp.SCTP_TSN_MODULO
_SACK_SIZE = 16  # bytes, without gaps and duplicates
_MOST_DUPLICATES = 32  # in one acknowledgement, which has to fit a packet


class SctpTransport(LossRecovery):
    """aiortc's association with flow control in both directions and delayed acknowledgements.

    aiortc announces a receive window but counts a message as read the moment it hands it
    out, and does not look at the peer's window when it sends. So slow readers would
    collect everything in memory. Here a message counts until `consumed` says it was read,
    the sender keeps within the peer's window, and what is beyond ours is dropped (RFC 9260
    §6.2: the sender repeats it).

    aiortc acknowledges every packet at once, before the application sees what is in it. Here
    every second packet is, or the first one after `SACK_DELAY` (RFC 9260 §6.2 allows 0.2 s):
    half the datagrams, and a message that gets an answer does not wait for its acknowledgement,
    which travels with the answer.

    aiortc uses a stream id again the moment it is free, and ends the connection when an id is used again
    before the end of the last use was acknowledged, which one lost datagram is enough for. Here ids are
    used in turn, and a peer that is too early is not heard until it repeats itself.

    What every packet passes through is rewritten: aiortc spends more time on coroutines that never wait than
    on the packets.
    """

    _next_id: int
    _peer_window: int
    _window_closed: bool
    _sack_timer: asyncio.TimerHandle | None
    _unacknowledged: int
    _dtls: DtlsTransport

    @classmethod
    def adopt(cls, peer: aiortc.RTCPeerConnection) -> SctpTransport:
        """Take over the association of a peer connection that has not started yet; its DTLS was adopted."""
        association: Any = peer.sctp
        association.__class__ = cls
        association._advertised_rwnd = MAX_UNREAD
        association._peer_window = RECEIVE_WINDOW
        association._window_closed = False
        association._sack_timer = None
        association._unacknowledged = 0
        association._dtls = association.transport
        association._start_recovery()
        adopted: SctpTransport = association
        return adopted

    @property
    def _data_channel_id(self) -> int | None:
        """The id for the next channel that is opened here; aiortc reads it once for each."""
        id_ = self._next_id
        while id_ in self._data_channels:
            id_ = (id_ + 2) % _STREAM_IDS
        self._next_id = (id_ + 2) % _STREAM_IDS
        return id_

    @_data_channel_id.setter
    def _data_channel_id(self, first: int | None) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        self._next_id = first or 0

    # --- receiving ---

    def received(self, size: int) -> None:
        """Count a message that was handed out as unread."""
        self._advertised_rwnd -= size
        self._window_closed = self._window_closed or self._advertised_rwnd < RECEIVE_WINDOW // 2

    def consumed(self, size: int) -> None:
        """Count bytes as read; tell the peer once a closed window is mostly open again."""
        self._advertised_rwnd += size
        if self._window_closed and self._advertised_rwnd > RECEIVE_WINDOW * 3 // 4:
            self._window_closed = False
            if self._association_state is self.State.ESTABLISHED:
                self._put(self._take_sack())

    async def _handle_data(self, data: bytes) -> None:
        self.receive_packet_untrusted(data)

    def receive_packet_untrusted(self, data: bytes) -> None:
        """Take one packet, and send what follows from it.

        Raises:
            Exception: whatever aiortc's parsers trip over.
        """
        try:
            _, _, tag, chunks = sctp.parse_packet(data)
        except ValueError:
            return
        if not chunks:
            return
        with self._dtls.flight:
            if isinstance(chunks[0], sctp.InitChunk):
                at_once(super()._handle_data(data))
                return
            if tag != self._local_verification_tag:
                return
            for chunk in chunks:
                if type(chunk) is sctp.DataChunk:
                    self._take_data(chunk)
                elif type(chunk) is sctp.SackChunk:
                    at_once(self._receive_sack_chunk(chunk))
                else:
                    at_once(self._receive_chunk(chunk))
            if self._sack_needed:
                at_once(self._send_sack())

    def _take_data(self, chunk: sctp.DataChunk) -> None:
        beyond_window = self._advertised_rwnd <= 0 and chunk.tsn != sctp.tsn_plus_one(
            self._last_received_tsn or 0
        )
        too_early = (
            chunk.protocol == sctp.WEBRTC_DCEP
            and chunk.user_data[:1] == bytes([sctp.DATA_CHANNEL_OPEN])
            and chunk.stream_id in self._data_channel_inbound_reset
        )
        self._sack_needed = True
        if too_early or beyond_window or self._advertised_rwnd < -MTU * 16:
            return
        if self._mark_received(chunk.tsn):
            return
        stream = self._get_inbound_stream(chunk.stream_id)
        stream.add_chunk(chunk)
        self._advertised_rwnd -= len(chunk.user_data)
        for message in stream.pop_messages():
            self._advertised_rwnd += len(message[2])
            at_once(self._receive(*message))
        if self._reconfig_deferred is not None:
            at_once(self._reset_deferred_streams())

    def _mark_received(self, tsn: int) -> bool:
        last = self._last_received_tsn or 0
        if uint32_gte(last, tsn) or tsn in self._sack_misordered:
            if len(self._sack_duplicates) < _MOST_DUPLICATES:
                self._sack_duplicates.append(tsn)
            return True
        following = (last + 1) % _TSNS
        if tsn != following:
            self._sack_misordered.add(tsn)
            return False
        while (following := (tsn + 1) % _TSNS) in self._sack_misordered:
            self._sack_misordered.discard(following)
            tsn = following
        self._last_received_tsn = tsn
        return False

    def _get_inbound_stream(self, stream_id: int) -> sctp.InboundStream:
        stream = self._inbound_streams.get(stream_id)
        if stream is None:
            stream = self._inbound_streams[stream_id] = InboundStream()
        return stream

    @property
    def _out_of_order(self) -> bool:
        return bool(self._sack_misordered or self._sack_duplicates)

    async def _send_sack(self) -> None:
        # Duplicates and gaps mean that something was lost: the sender has to know at once.
        if self._unacknowledged == 0 and not self._out_of_order and not self._window_closed:
            self._sack_needed = False
            self._unacknowledged = 1
            if self._sack_timer is None:
                self._sack_timer = asyncio.get_running_loop().call_later(SACK_DELAY, self._sack_is_due)
            return
        self._put(self._take_sack())

    def _take_sack(self) -> bytes:
        """The acknowledgement of everything so far."""
        last = self._last_received_tsn or 0
        sack: Any = sctp.SackChunk()
        sack.cumulative_tsn = last
        sack.advertised_rwnd = max(0, min(RECEIVE_WINDOW, self._advertised_rwnd))
        if self._sack_misordered:
            sack.gaps = gap_blocks(sorted((tsn - last) % _TSNS for tsn in self._sack_misordered))
        sack.duplicates = self._sack_duplicates
        self._sack_duplicates = []
        self._sack_needed = False
        self._unacknowledged = 0
        return bytes(sack)

    def _sack_is_due(self) -> None:
        self._sack_timer = None
        if self._unacknowledged and self._association_state is self.State.ESTABLISHED:
            self._put(self._take_sack())

    # --- sending ---

    async def flush(self) -> None:
        """Wait until everything that was sent is acknowledged, or the association is over."""
        while not self._everything_acknowledged and self._association_state is self.State.ESTABLISHED:
            self._flushed.clear()
            await self._flushed.wait()

    def _set_state(self, state: Any) -> None:
        super()._set_state(state)
        if state is self.State.CLOSED:
            self._flushed.set()

    def _data_channel_send(self, channel: aiortc.RTCDataChannel, data: bytes | str) -> None:
        limit = self._remote_max_message_size or len(data)
        if not isinstance(data, bytes) or not 0 < len(data) <= limit:
            super()._data_channel_send(channel, data)
            return
        established = self._association_state is self.State.ESTABLISHED
        if established and channel.id is not None and not (self._data_channel_queue or self._outbound_queue):
            with self._dtls.flight:
                self._send_message(channel.id, sctp.WEBRTC_BINARY, data)
            return
        channel._addBufferedAmount(len(data))
        self._data_channel_queue.append((channel, sctp.WEBRTC_BINARY, data))

    async def _send(  # noqa: PLR0917 - aiortc's signature
        self,
        stream_id: int,
        pp_id: int,
        user_data: bytes,
        expiry: float | None = None,
        max_retransmits: int | None = None,
        ordered: bool = True,  # noqa: FBT001, FBT002 - aiortc's signature
    ) -> None:
        if expiry is not None or max_retransmits is not None or not ordered:
            self._partially_reliable = True
            await super()._send(stream_id, pp_id, user_data, expiry, max_retransmits, ordered)
        else:
            self._send_message(stream_id, pp_id, user_data)

    def _send_message(self, stream_id: int, pp_id: int, user_data: bytes) -> None:
        """Cut a message into chunks, and send what the windows allow."""
        sequence = self._outbound_stream_seq.get(stream_id, 0)
        tsn = self._local_tsn
        flags = sctp.SCTP_DATA_FIRST_FRAG
        for start in range(0, len(user_data), MTU):
            end = start + MTU
            if end >= len(user_data):
                flags |= sctp.SCTP_DATA_LAST_FRAG
            self._outbound_queue.append(Chunk(flags, tsn, stream_id, sequence, pp_id, user_data[start:end]))
            flags = 0
            tsn = (tsn + 1) % _TSNS
        self._local_tsn = tsn
        self._outbound_stream_seq[stream_id] = (sequence + 1) % 65_536
        self._transmit_now()

    async def _transmit(self) -> None:
        with self._dtls.flight:
            self._transmit_now()

    def _transmit_now(self) -> None:
        forward: Any = self._forward_tsn_chunk
        if forward is not None:
            self._put(bytes(forward))
            self._forward_tsn_chunk = None
            if not self._t3_runs:
                self._t3_start()
        recovering: Any = self._fast_recovery_exit
        burst = (2 if recovering is not None else sctp.SCTP_MAX_BURST) * MTU
        # One chunk may always be under way: it probes a closed window (RFC 9260 §6.1 A).
        window = min(self._flight_size + burst, self._cwnd, max(self._peer_window, 1))
        if self._some_lost and not self._repeat_lost(window):
            return
        body = b""
        now = time.monotonic()
        while self._outbound_queue and self._flight_size < window:
            chunk = self._outbound_queue.popleft()
            self._sent_queue.append(chunk)
            chunk._sent_time = now
            data = self._dispatch(chunk)
            if not body:
                body = data
                if self._unacknowledged and len(data) <= _ROOM - _SACK_SIZE and not self._out_of_order:
                    body = self._take_sack() + data
            elif len(body) + len(data) <= _ROOM:
                body += data
            else:
                self._put(body)
                body = data
            if not self._t3_runs:
                self._t3_start()
        if body:
            self._put(body)

    async def _send_chunk(self, chunk: sctp.Chunk) -> None:
        self._put(bytes(chunk))

    def _put(self, chunks: bytes) -> None:
        """Send one packet."""
        packet = sctp.serialize_packet(  # takes anything that bytes() takes
            self._local_port,
            self._remote_port or 0,
            self._remote_verification_tag,
            chunks,  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
        )
        self._dtls.send_packet(packet)
