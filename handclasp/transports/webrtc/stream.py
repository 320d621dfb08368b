"""One stream on one data channel: libp2p's framing and close handshake behind trio's stream contract.

Source: libp2p webrtc specification, "Multiplexing" (flags FIN, STOP_SENDING, RESET, FIN_ACK).
"""

from __future__ import annotations

import operator
from collections.abc import Callable

import trio

from handclasp.abc import Stream
from handclasp.errors import ProtocolViolation

from .credit import ReadReports, SendCredit
from .engine import DataChannel
from .framing import MAX_PAYLOAD, Flag, Frame, FrameReader, encode_data, encode_flag, encode_read

#: Bytes that may wait in the engine before `send_all` waits: enough to keep a 100 MB/s engine
#: busy for the milliseconds that trio needs to come back, and a bound on a stalled stream's memory.
SEND_WINDOW = 256 * 1024
#: Bytes that `receive_some` returns at most when it is not told.
_DEFAULT_READ = 64 * 1024


class DataChannelStream(Stream):
    """A libp2p stream on a data channel of its own.

    Args:
        channel: the channel; nothing else uses it.
        on_finished: called once when both directions are over and the channel is closing.
        peer_window: bytes that may wait unread at the peer, as it declared (credit.py).
    """

    def __init__(
        self,
        channel: DataChannel,
        on_finished: Callable[[DataChannelStream], None],
        peer_window: int | None = None,
    ) -> None:
        self._channel = channel
        self._on_finished = on_finished
        self._credit = None if peer_window is None else SendCredit(peer_window)
        self._reports = ReadReports()
        self._frames = FrameReader()
        self._buffer = bytearray()
        self._wake_reader = trio.Event()
        self._wake_writer = trio.Event()
        self._only_sender = _OneTask("another task is sending on this stream")
        self._only_receiver = _OneTask("another task is receiving on this stream")
        self._closed = False
        self._broken: str | None = None  # why neither direction works any more
        self._stopped = False  # the peer takes no more data
        self._fin_sent = self._fin_acknowledged = self._fin_received = False
        self._finished = False
        self._truncated = False  # a reset threw away what was not read yet
        channel.on_message = self._received
        channel.on_drain = self._wake_writer_now
        channel.on_close = lambda: self.break_off("the peer closed the data channel")

    # --- sending ---

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of *data*; see `trio.abc.SendStream.send_all`. Waits while the peer does not keep up."""
        with self._only_sender:
            # The bytes leave before the checkpoint: a pass of the scheduler would add to every round trip.
            await trio.lowlevel.checkpoint_if_cancelled()
            self._check_writable()
            rest = memoryview(data)
            while rest:
                room = self._room
                if not room:
                    await self._wait_for_room()
                    self._check_writable()
                    continue
                piece, rest = rest[:room], rest[room:]
                if self._credit is not None:
                    self._credit.spend(len(piece))
                self._channel.send(encode_data(bytes(piece)))
            await trio.lowlevel.cancel_shielded_checkpoint()

    async def wait_send_all_might_not_block(self) -> None:
        """See `trio.abc.SendStream.wait_send_all_might_not_block`."""
        with self._only_sender:
            await trio.lowlevel.checkpoint()
            self._check_writable(eof=False)
            while not self._room:
                await self._wait_for_room()
                self._check_writable(eof=False)

    async def send_eof(self) -> None:
        """Say that nothing more will be sent; reading goes on."""
        with self._only_sender:
            await trio.lowlevel.checkpoint()
            if self._closed:
                raise trio.ClosedResourceError("this stream is closed")
            if self._broken is None:
                self._send_fin()

    @property
    def _room(self) -> int:
        """Bytes that may go into the next frame."""
        if self._channel.buffered >= SEND_WINDOW:
            return 0
        return MAX_PAYLOAD if self._credit is None else min(MAX_PAYLOAD, self._credit.room)

    async def _wait_for_room(self) -> None:
        self._wake_writer = trio.Event()
        await self._wake_writer.wait()

    def _wake_writer_now(self) -> None:
        self._wake_writer.set()

    def _check_writable(self, *, eof: bool = True) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this stream is closed")
        if self._broken is not None:
            raise trio.BrokenResourceError(self._broken)
        if self._stopped:
            raise trio.BrokenResourceError("the peer stopped reading")
        if eof and self._fin_sent:
            raise trio.ClosedResourceError("send_eof() was called before")

    def _send_fin(self) -> None:
        if not self._fin_sent:
            self._fin_sent = True
            self._channel.send(encode_flag(Flag.FIN))

    # --- receiving ---

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive 1 to *max_bytes* bytes, or ``b""`` at the end; see `trio.abc.ReceiveStream.receive_some`."""
        if max_bytes is not None and operator.index(max_bytes) < 1:
            raise ValueError("max_bytes must be at least 1")
        with self._only_receiver:
            await trio.lowlevel.checkpoint_if_cancelled()
            if self._nothing_to_tell:
                self._wake_reader = trio.Event()
                await self._wake_reader.wait()
            else:
                await trio.lowlevel.cancel_shielded_checkpoint()
            if self._closed:
                raise trio.ClosedResourceError("this stream is closed")
            if self._buffer:
                return self._take(max_bytes or _DEFAULT_READ)
            if self._broken is not None and (self._truncated or not self._fin_received):
                raise trio.BrokenResourceError(self._broken)
            return b""

    @property
    def _nothing_to_tell(self) -> bool:
        return not (self._buffer or self._fin_received or self._closed or self._broken)

    def _take(self, size: int) -> bytes:
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        self._channel.consumed(len(data))
        if self._credit is not None and not self._fin_received:
            read = self._reports.read(len(data))
            if read is not None and self._broken is None:
                self._channel.send(encode_read(read))
        return data

    def _received(self, message: bytes) -> None:
        if self._broken is not None:  # a peer that goes on after a reset must not fill the frame reader
            self._channel.consumed(len(message))
            return
        kept = 0
        try:
            for frame in self._frames.receive_untrusted(message):
                kept += self._frame_untrusted(frame)
        except ProtocolViolation as exc:
            self._send_reset()
            self.break_off(f"the peer broke the framing: {exc}")
        # Framing, and data that nobody will read, do not wait for a reader.
        self._channel.consumed(len(message) - kept)

    def _frame_untrusted(self, frame: Frame) -> int:
        """Take one frame; returns how many bytes of it count as unread until a reader takes them."""
        flag, data, read = frame
        if read is not None and self._credit is not None:
            self._credit.reported_untrusted(read)
            self._wake_writer.set()
        kept = 0 if self._fin_received or self._closed or self._broken else len(data)
        if kept:
            self._buffer += data
            self._wake_reader.set()
        if flag is Flag.FIN and not self._fin_received:
            self._fin_received = True
            self._channel.send(encode_flag(Flag.FIN_ACK))
            self._wake_reader.set()
        elif flag is Flag.FIN_ACK and self._fin_sent:
            self._fin_acknowledged = True
        elif flag is Flag.STOP_SENDING and not self._stopped:
            self._stopped = True
            self._send_fin()
            self._wake_writer.set()
        elif flag is Flag.RESET:
            # Once both directions are over there is nothing left to reset: all data is here.
            self.break_off("the peer reset the stream", lose_buffer=not self._finished)
        self._finish_if_done()
        return kept

    # --- ending ---

    async def aclose(self) -> None:
        """Close both directions; what was sent before still arrives, what was not read is dropped.

        The close handshake goes on by itself: a peer that follows the specification ends it by
        answering STOP_SENDING with FIN, however long its application keeps the stream.
        """
        if not self._closed:
            self._closed = True
            self._channel.consumed(len(self._buffer))
            self._buffer.clear()
            if self._broken is None:
                self._send_fin()
                if not self._fin_received:
                    self._channel.send(encode_flag(Flag.STOP_SENDING))
            self._wake_everyone()
            self._finish_if_done()
        await trio.lowlevel.checkpoint()

    async def reset(self) -> None:
        """End both directions at once; the peer sees a broken stream."""
        self.refuse()
        await trio.lowlevel.checkpoint()

    def refuse(self) -> None:
        """Reset without a checkpoint."""
        if not self._closed:
            self._closed = True
            self._send_reset()
            self.break_off("this stream was reset", lose_buffer=True)

    def break_off(self, reason: str, *, lose_buffer: bool = False) -> None:
        """End both directions without telling the peer: it knows, or cannot be told."""
        if self._broken is None and not self._finished:
            self._broken = reason
        if lose_buffer:
            self._truncated = bool(self._buffer)
            self._channel.consumed(len(self._buffer))
            self._buffer.clear()
        self._finish()
        self._wake_everyone()

    def _send_reset(self) -> None:
        if self._broken is None:
            self._channel.send(encode_flag(Flag.RESET))

    def _finish_if_done(self) -> None:
        if self._fin_received and self._fin_acknowledged:
            self._finish()

    def _finish(self) -> None:
        if not self._finished:
            self._finished = True
            self._channel.close()
            self._on_finished(self)

    def _wake_everyone(self) -> None:
        self._wake_reader.set()
        self._wake_writer.set()


class _OneTask:
    """Lets one task at a time into a ``with`` block, as trio's contract asks of each direction.

    A plain object: a generator would be a twentieth of what a small message costs.
    """

    def __init__(self, refusal: str) -> None:
        self._refusal = refusal
        self._busy = False

    def __enter__(self) -> None:
        if self._busy:
            raise trio.BusyResourceError(self._refusal)
        self._busy = True

    def __exit__(self, *_: object) -> None:
        self._busy = False
