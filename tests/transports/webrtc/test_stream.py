"""Streams on data channels: libp2p's close handshake, and the memory that a peer can make us spend."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from handclasp.abc import Connection, Stream
from handclasp.testing import check_stream
from handclasp.transports.webrtc.credit import WINDOW
from handclasp.transports.webrtc.engine import DataChannel
from handclasp.transports.webrtc.framing import (
    MAX_FRAME,
    Flag,
    Frame,
    FrameReader,
    encode_data,
    encode_flag,
    encode_read,
)
from handclasp.transports.webrtc.stream import SEND_WINDOW, DataChannelStream


class Wire(DataChannel):
    """A data channel whose other end is the test: what was sent is noted, and what arrives is up to it."""

    def __init__(self) -> None:
        super().__init__()
        self.frames: list[Frame] = []
        self.arrived = self.read = self.closings = self.waiting = self.longest = 0
        self.takes_more = True
        self._reader = FrameReader()

    @property
    def label(self) -> str:
        return ""

    @property
    def buffered(self) -> int:
        return self.waiting

    def send(self, message: bytes) -> None:
        self.frames += self._reader.receive_untrusted(message)
        self.longest = max(self.longest, len(message))
        if not self.takes_more:
            self.waiting += len(message)

    def consumed(self, size: int) -> None:
        self.read += size

    def close(self) -> None:
        self.closings += 1

    @property
    def flags(self) -> list[Flag]:
        return [frame.flag for frame in self.frames if frame.flag is not None]

    @property
    def reports(self) -> list[int]:
        return [frame.read for frame in self.frames if frame.read is not None]

    @property
    def sent(self) -> int:
        """Bytes of data."""
        return sum(len(frame.data) for frame in self.frames)

    @property
    def unread(self) -> int:
        """Bytes that keep the receive window from opening."""
        return self.arrived - self.read

    def arrive(self, message: bytes) -> None:
        self.arrived += len(message)
        self.on_message(message)


class Finished:
    """Counts how often a stream said that it is over."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self, _stream: DataChannelStream) -> None:
        self.times += 1


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
def finished() -> Finished:
    return Finished()


@pytest.fixture
def stream(wire: Wire, finished: Finished) -> DataChannelStream:
    return DataChannelStream(wire, finished)


async def expect_broken(function: Callable[..., Awaitable[object]], *args: object) -> None:
    with pytest.raises(trio.BrokenResourceError):
        await function(*args)


async def read_all(stream: Stream) -> bytes:
    data = bytearray()
    async for chunk in stream:
        data += chunk
    return bytes(data)


# --- the close handshake ---


async def test_data_goes_out_in_frames_of_at_most_16_kib(stream: DataChannelStream, wire: Wire) -> None:
    data = bytes(range(256)) * 256
    await stream.send_all(data)
    assert b"".join(frame.data for frame in wire.frames) == data
    assert wire.longest == MAX_FRAME


async def test_the_end_of_file_is_a_fin_and_said_once(stream: DataChannelStream, wire: Wire) -> None:
    await stream.send_eof()
    await stream.send_eof()
    assert wire.flags == [Flag.FIN]
    with pytest.raises(trio.ClosedResourceError):
        await stream.send_all(b"x")


async def test_a_fin_is_acknowledged_before_anyone_reads(stream: DataChannelStream, wire: Wire) -> None:
    wire.arrive(encode_data(b"x") + encode_flag(Flag.FIN))
    assert wire.flags == [Flag.FIN_ACK]
    assert await read_all(stream) == b"x"
    assert await stream.receive_some() == b""


async def test_both_directions_over_close_the_channel_once(
    stream: DataChannelStream, wire: Wire, finished: Finished
) -> None:
    await stream.send_eof()
    wire.arrive(encode_flag(Flag.FIN))
    assert wire.closings == 0
    wire.arrive(encode_flag(Flag.FIN_ACK))
    wire.on_close()
    await stream.aclose()
    assert (wire.closings, finished.times) == (1, 1)
    assert wire.flags == [Flag.FIN, Flag.FIN_ACK]


async def test_an_acknowledgement_of_nothing_is_ignored(stream: DataChannelStream, wire: Wire) -> None:
    wire.arrive(encode_flag(Flag.FIN_ACK))
    wire.arrive(encode_flag(Flag.FIN))
    assert wire.closings == 0
    await stream.send_all(b"still open")


async def test_closing_asks_the_peer_to_stop_and_waits_for_its_fin(
    stream: DataChannelStream, wire: Wire, finished: Finished
) -> None:
    await stream.aclose()
    assert wire.flags == [Flag.FIN, Flag.STOP_SENDING]
    wire.arrive(encode_flag(Flag.FIN_ACK))
    assert (wire.closings, finished.times) == (0, 0)
    wire.arrive(encode_flag(Flag.FIN))
    assert wire.flags[-1] is Flag.FIN_ACK
    assert (wire.closings, finished.times) == (1, 1)


async def test_closing_after_the_peers_fin_asks_for_nothing(stream: DataChannelStream, wire: Wire) -> None:
    wire.arrive(encode_flag(Flag.FIN))
    await stream.aclose()
    assert wire.flags == [Flag.FIN_ACK, Flag.FIN]


async def test_a_peer_that_stops_reading_ends_sending_and_nothing_else(
    stream: DataChannelStream, wire: Wire
) -> None:
    wire.arrive(encode_flag(Flag.STOP_SENDING))
    assert wire.flags == [Flag.FIN]
    with pytest.raises(trio.BrokenResourceError):
        await stream.send_all(b"x")
    wire.arrive(encode_data(b"still here"))
    assert await stream.receive_some() == b"still here"


async def test_a_writer_that_waits_is_told_that_the_peer_stopped_reading(
    stream: DataChannelStream, wire: Wire
) -> None:
    wire.takes_more = False
    async with trio.open_nursery() as nursery:
        nursery.start_soon(expect_broken, stream.send_all, bytes(2 * SEND_WINDOW))
        await trio.testing.wait_all_tasks_blocked()
        wire.arrive(encode_flag(Flag.STOP_SENDING))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(expect_broken, stream.wait_send_all_might_not_block)


async def test_a_reset_by_the_peer_breaks_both_directions_and_drops_what_was_not_read(
    stream: DataChannelStream, wire: Wire, finished: Finished
) -> None:
    wire.arrive(encode_data(b"lost"))
    wire.arrive(encode_flag(Flag.RESET))
    with pytest.raises(trio.BrokenResourceError):
        await stream.receive_some()
    with pytest.raises(trio.BrokenResourceError):
        await stream.send_all(b"x")
    assert (wire.closings, finished.times, wire.unread) == (1, 1, 0)


async def test_a_reset_after_the_fin_is_no_end_of_file_while_data_is_missing(
    stream: DataChannelStream, wire: Wire
) -> None:
    wire.arrive(encode_data(b"first half, second half") + encode_flag(Flag.FIN))
    assert await stream.receive_some(10) == b"first half"
    wire.arrive(encode_flag(Flag.RESET))
    with pytest.raises(trio.BrokenResourceError):
        await stream.receive_some()


async def test_a_reset_after_both_directions_are_over_loses_nothing(
    stream: DataChannelStream, wire: Wire
) -> None:
    await stream.send_eof()
    wire.arrive(encode_data(b"all") + encode_flag(Flag.FIN) + encode_flag(Flag.FIN_ACK))
    wire.arrive(encode_flag(Flag.RESET))
    assert await read_all(stream) == b"all"


async def test_resetting_tells_the_peer_once_and_closes_the_channel(
    stream: DataChannelStream, wire: Wire, finished: Finished
) -> None:
    await stream.reset()
    await stream.reset()
    await stream.aclose()
    assert wire.flags == [Flag.RESET]
    assert (wire.closings, finished.times) == (1, 1)
    with pytest.raises(trio.ClosedResourceError):
        await stream.receive_some()


async def test_a_reset_wakes_the_reader_and_the_writer(stream: DataChannelStream, wire: Wire) -> None:
    wire.takes_more = False
    async with trio.open_nursery() as nursery:
        nursery.start_soon(expect_broken, stream.send_all, bytes(2 * SEND_WINDOW))
        nursery.start_soon(expect_broken, stream.receive_some)
        await trio.testing.wait_all_tasks_blocked()
        wire.arrive(encode_flag(Flag.RESET))


@pytest.mark.parametrize("garbage", [b"\x80\x00", b"\x02\x08\x09", b"\xff\xff\x7f", b"\x01\x13"])
async def test_broken_framing_resets_the_stream(
    stream: DataChannelStream, wire: Wire, finished: Finished, garbage: bytes
) -> None:
    wire.arrive(encode_data(b"good") + garbage)
    assert wire.flags == [Flag.RESET]
    assert finished.times == 1
    assert await stream.receive_some() == b"good"
    with pytest.raises(trio.BrokenResourceError):
        await stream.receive_some()


async def test_a_peer_that_goes_on_after_broken_framing_fills_no_memory(
    stream: DataChannelStream, wire: Wire
) -> None:
    wire.arrive(b"\x80\x00")
    for _ in range(100):
        wire.arrive(bytes(16_384))
    assert len(stream._frames._buffer) < MAX_FRAME
    assert wire.unread == 0


async def test_a_channel_that_the_engine_closes_keeps_what_had_arrived(
    stream: DataChannelStream, wire: Wire
) -> None:
    wire.arrive(encode_data(b"rest"))
    wire.on_close()
    assert await stream.receive_some() == b"rest"
    with pytest.raises(trio.BrokenResourceError):
        await stream.receive_some()
    with pytest.raises(trio.BrokenResourceError):
        await stream.send_all(b"x")
    await stream.send_eof()
    await stream.aclose()
    assert Flag.RESET not in wire.flags


async def test_a_channel_that_closes_after_the_fin_is_a_plain_end_of_file(
    stream: DataChannelStream, wire: Wire
) -> None:
    wire.arrive(encode_data(b"rest") + encode_flag(Flag.FIN))
    wire.on_close()
    assert await read_all(stream) == b"rest"


async def test_data_after_the_fin_is_dropped(stream: DataChannelStream, wire: Wire) -> None:
    wire.arrive(encode_flag(Flag.FIN))
    wire.arrive(encode_data(b"too late"))
    assert await read_all(stream) == b""
    assert wire.unread == 0


# --- memory ---


async def test_a_writer_waits_while_the_engine_has_a_window_full(
    stream: DataChannelStream, wire: Wire
) -> None:
    wire.takes_more = False
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.send_all, bytes(2 * SEND_WINDOW))
        await trio.testing.wait_all_tasks_blocked()
        assert SEND_WINDOW <= wire.waiting < SEND_WINDOW + MAX_FRAME
        wire.on_drain()  # without room: it has to look again
        await trio.testing.wait_all_tasks_blocked()
        assert wire.waiting < SEND_WINDOW + MAX_FRAME
        wire.waiting, wire.takes_more = 0, True
        wire.on_drain()
    assert wire.sent == 2 * SEND_WINDOW


async def test_a_writer_waits_while_as_much_is_unread_as_the_peer_declared(
    wire: Wire, finished: Finished
) -> None:
    stream = DataChannelStream(wire, finished, 100_000)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.send_all, bytes(250_000))
        await trio.testing.wait_all_tasks_blocked()
        assert wire.sent == 100_000
        wire.arrive(encode_read(30_000))
        await trio.testing.wait_all_tasks_blocked()
        assert wire.sent == 130_000
        wire.arrive(encode_read(130_000))
        await trio.testing.wait_all_tasks_blocked()
        assert wire.sent == 230_000
        wire.arrive(encode_read(150_000))
    assert wire.sent == 250_000
    assert wire.unread == 0


async def test_the_end_of_a_stream_does_not_wait_for_the_peer_to_read(wire: Wire, finished: Finished) -> None:
    stream = DataChannelStream(wire, finished, 10)
    await stream.send_all(bytes(10))
    with pytest.raises(trio.TooSlowError), trio.fail_after(0):
        await stream.wait_send_all_might_not_block()
    await stream.send_eof()
    assert wire.flags == [Flag.FIN]


async def test_a_report_of_what_was_never_sent_resets_the_stream(wire: Wire, finished: Finished) -> None:
    stream = DataChannelStream(wire, finished, 100)
    await stream.send_all(bytes(10))
    wire.arrive(encode_read(11))
    assert wire.flags == [Flag.RESET]
    await expect_broken(stream.send_all, b"x")


async def test_a_report_that_nobody_asked_for_is_passed_over(stream: DataChannelStream, wire: Wire) -> None:
    wire.arrive(encode_read(10))
    await stream.send_all(b"x")
    assert wire.unread == 0


async def test_a_reader_reports_what_it_has_read_until_the_peer_has_said_all(
    wire: Wire, finished: Finished
) -> None:
    stream = DataChannelStream(wire, finished, WINDOW)
    due = WINDOW // 8
    for _ in range(2 * due // 10_000 + 2):
        wire.arrive(encode_data(bytes(10_000)))
        await stream.receive_some()
    assert len(wire.reports) == 2
    assert due <= wire.reports[0] < due + 10_000
    assert wire.reports[0] + due <= wire.reports[1] < wire.reports[0] + due + 10_000
    for _ in range(due // 10_000 + 1):
        wire.arrive(encode_data(bytes(10_000)))
    wire.arrive(encode_flag(Flag.FIN))
    while await stream.receive_some():
        pass
    assert len(wire.reports) == 2


async def test_a_peer_that_declared_nothing_gets_no_report(stream: DataChannelStream, wire: Wire) -> None:
    for _ in range(WINDOW // 10_000):
        wire.arrive(encode_data(bytes(10_000)))
        await stream.receive_some()
    assert wire.frames == []


async def test_closing_gives_back_what_was_not_read(stream: DataChannelStream, wire: Wire) -> None:
    wire.arrive(encode_data(bytes(1_000)))
    assert wire.unread == 1_000
    await stream.aclose()
    wire.arrive(encode_data(bytes(1_000)))
    assert wire.unread == 0


arrivals = st.lists(
    st.one_of(
        st.binary(min_size=1, max_size=300).map(encode_data),
        st.sampled_from([Flag.FIN, Flag.FIN_ACK, Flag.STOP_SENDING, Flag.RESET]).map(encode_flag),
        st.just(b"\x80\x00"),
    ),
    max_size=12,
)


@given(arrivals, st.data())
def test_what_closes_the_receive_window_is_exactly_what_a_reader_can_still_get(
    messages: list[bytes], data: st.DataObject
) -> None:
    wire = Wire()
    stream = DataChannelStream(wire, Finished())
    incoming = b"".join(messages)

    async def receive_and_sometimes_read() -> None:
        left = incoming
        while left:
            size = data.draw(st.integers(1, len(left)))
            wire.arrive(left[:size])
            left = left[size:]
            available = await everything_at_once(stream)
            assert wire.unread == 0, "what was read must not count any more"
            assert available >= 0
        await stream.aclose()
        assert wire.unread == 0

    async def everything_at_once(stream: DataChannelStream) -> int:
        """Read what is there; the window must have been closed by just that."""
        closed_by, got = wire.unread, 0
        with trio.CancelScope() as scope:
            try:
                while wire.unread:
                    scope.deadline = trio.current_time() + 60
                    got += len(await stream.receive_some())
            except trio.BrokenResourceError:
                pass
        assert got == closed_by
        return got

    trio.run(receive_and_sometimes_read, clock=trio.testing.MockClock(autojump_threshold=0))


# --- the contract, on an engine without a network ---


class Local(DataChannel):
    """Two of these are one channel of an engine with a receive window and no network."""

    def __init__(self, window: int) -> None:
        super().__init__()
        self.other: Local = self
        self._window = window
        self._outgoing: deque[bytes] = deque()
        self._buffered = self._unread = 0
        self._closing = self._busy = False

    @property
    def label(self) -> str:
        return ""

    @property
    def buffered(self) -> int:
        return self._buffered

    def send(self, message: bytes) -> None:
        if not self._closing:
            self._outgoing.append(message)
            self._buffered += len(message)
            self._move()

    def consumed(self, size: int) -> None:
        self._unread -= size
        self.other._move()

    def close(self) -> None:
        self._closing = True
        self._move()

    def _move(self) -> None:
        if self._busy:
            return
        self._busy = True
        while self._outgoing and self.other._unread <= self._window:
            message = self._outgoing.popleft()
            self._buffered -= len(message)
            self.other._unread += len(message)
            self.other.on_message(message)
            self.on_drain()
        self._busy = False
        if self._closing and not self._outgoing and not self.other._closing:
            self.other._closing = True
            self.other.on_close()


def local_pair(window: int = 64 * 1024) -> tuple[DataChannelStream, DataChannelStream]:
    ours, theirs = Local(window), Local(window)
    ours.other, theirs.other = theirs, ours
    return DataChannelStream(ours, Finished()), DataChannelStream(theirs, Finished())


async def fill(*streams: Stream) -> None:
    """Write until nothing moves any more, then give up on the rest."""
    async with trio.open_nursery() as nursery:
        for stream in streams:
            nursery.start_soon(stream.send_all, bytes(8 * 1024 * 1024))
        await trio.testing.wait_all_tasks_blocked(0.1)
        nursery.cancel_scope.cancel()


async def test_a_stream_on_an_engine_without_a_network_keeps_the_contract(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def make_pair() -> tuple[Stream, Stream]:
        return local_pair()

    async def make_clogged_pair() -> tuple[Stream, Stream]:
        ours, theirs = local_pair()
        await fill(ours, theirs)
        return ours, theirs

    await check_stream(make_pair, make_clogged_pair)


# --- on every engine; the contract: tests/contract ---


async def test_a_writer_that_waits_on_an_engine_is_woken_by_a_read_a_close_and_a_reset(
    webrtc_pair: list[Connection],
) -> None:
    ours, theirs = webrtc_pair
    for end in (read_all, lambda stream: stream.aclose(), lambda stream: stream.reset()):
        writing, reading = await ours.open_stream(), await theirs.accept_stream()
        async with writing, reading:
            await fill(writing)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(write_until_the_end, writing)
                await trio.testing.wait_all_tasks_blocked(0.1)
                nursery.start_soon(end, reading)


async def write_until_the_end(stream: Stream) -> None:
    try:
        await stream.send_all(b"x")
        await stream.send_eof()
    except trio.BrokenResourceError:
        return


async def test_a_paused_reader_bounds_the_memory_of_both_ends_and_loses_nothing(
    webrtc_pair: list[Connection],
) -> None:
    offered = bytes(range(256)) * (30_000_000 // 256)
    ours, theirs = webrtc_pair
    sending, receiving = await ours.open_stream(), await theirs.accept_stream()
    assert isinstance(sending, DataChannelStream)
    assert isinstance(receiving, DataChannelStream)
    most_buffered = most_unread = 0

    class Watch(trio.abc.Instrument):
        def after_task_step(self, task: trio.lowlevel.Task) -> None:
            nonlocal most_buffered, most_unread
            most_buffered = max(most_buffered, sending._channel.buffered)
            most_unread = max(most_unread, len(receiving._buffer))

    async def send() -> None:
        await sending.send_all(offered)
        await sending.send_eof()

    async with trio.open_nursery() as nursery:
        trio.lowlevel.add_instrument(watch := Watch())
        nursery.start_soon(send)
        await trio.testing.wait_all_tasks_blocked(0.2)
        assert most_unread >= WINDOW // 2, "the reader paused, but nothing came to wait for it"
        digest, got = hashlib.sha256(), 0
        async for chunk in receiving:
            digest.update(chunk)
            got += len(chunk)
        trio.lowlevel.remove_instrument(watch)
    assert got == len(offered)
    assert digest.digest() == hashlib.sha256(offered).digest()
    assert most_buffered < SEND_WINDOW + MAX_FRAME
    assert most_unread <= WINDOW
