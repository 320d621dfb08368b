"""The contract suite for `handclasp.abc.Stream`."""

from __future__ import annotations

import math
from array import array
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import trio
import trio.testing

from handclasp.abc import Stream

from .cancellation import check_nothing_lost
from .claims import PATIENCE, claim, raises, read_all

#: Makes a fresh pair of connected streams.
StreamPairMaker: TypeAlias = Callable[[], Awaitable[tuple[Stream, Stream]]]

MIB = 1024 * 1024
_PIECE = 64 * 1024  # bytes for one send_all
_MORE_THAN_ANY_WINDOW = 1024 * MIB
_FILLINGS = 20
_STALLED = 0.2  # seconds without progress after which a writer counts as waiting


async def check_stream(
    make_pair: StreamPairMaker,
    make_clogged_pair: StreamPairMaker | None = None,
    *,
    paused_bytes: int = 30 * MIB,
    most_buffered: int = 16 * MIB,
) -> None:
    """Check that streams keep what `handclasp.abc.Stream` promises.

    - trio's own ``check_half_closeable_stream``, also with streams that are full in both directions;
    - an empty ``send_all`` is neither data nor an end of file, before, between and after other data;
    - after the peer's end of file the other direction still works;
    - a reader that pauses while *paused_bytes* arrive loses nothing, and at no time do more than
      *most_buffered* bytes wait between writer and reader, in whoever's memory;
    - a cancelled ``receive_some`` loses nothing;
    - a reset breaks what the peer waits for, in both directions, and drops what it has not read;
    - a close delivers what was sent before it.

    Args:
        make_pair: called many times; the suite closes what it gets.
        make_clogged_pair: makes a pair that cannot take more data in either direction. Default: the suite
            fills pairs by itself, which takes some seconds.
        paused_bytes: how much is sent to a reader that pauses; smaller is faster and proves less.
        most_buffered: what the backend may buffer, all windows and queues of both ends together. The
            default leaves room for the kernel's TCP buffers.

    Raises:
        AssertionError: a claim does not hold; which one is in the error's notes.
    """

    async def make_full_pair() -> tuple[Stream, Stream]:
        ours, theirs = await make_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_fill, ours)
            nursery.start_soon(_fill, theirs)
        return ours, theirs

    with claim("trio's check_half_closeable_stream passes", within=5 * PATIENCE):
        await trio.testing.check_half_closeable_stream(make_pair, make_clogged_pair or make_full_pair)
    await _check_nothing_is_nothing(make_pair)
    await _check_reply_after_eof(make_pair)
    await _check_paused_reader(make_pair, paused_bytes, most_buffered)
    await _check_cancelled_reader(make_pair)
    await _check_reset_is_seen(make_pair)
    await _check_close_delivers_what_was_sent(make_pair)


async def _fill(stream: Stream) -> None:
    """Send until nothing more goes in. A writer that waits need not mean that: some are only woken by much room."""
    for _ in range(_FILLINGS):
        async with trio.open_nursery() as nursery:
            upload = Upload(stream, _MORE_THAN_ANY_WINDOW)
            nursery.start_soon(upload.send)
            await upload.wait_stalled()
            nursery.cancel_scope.cancel()
        with trio.move_on_after(_STALLED) as waiting:
            await stream.wait_send_all_might_not_block()
        if waiting.cancelled_caught:
            return
    raise AssertionError("wait_send_all_might_not_block says that there is room, and send_all finds none")


async def _check_nothing_is_nothing(make_pair: StreamPairMaker) -> None:
    ours, theirs = await make_pair()
    with claim("an empty send_all looks like neither data nor an end of file"):
        async with ours, theirs:
            for data in (b"", b"a", b"", b"", b"b", b""):
                await ours.send_all(data)
            received = b""
            while len(received) < len(b"ab"):
                chunk = await theirs.receive_some()
                assert chunk, "the reader was told that the stream ended"
                received += chunk
            assert received == b"ab"
            await ours.send_eof()
            assert await theirs.receive_some() == b""


async def _check_reply_after_eof(make_pair: StreamPairMaker) -> None:
    ours, theirs = await make_pair()
    with claim("a reply after the peer's end of file arrives"):
        async with ours, theirs:
            await ours.send_all(b"question")
            await ours.send_eof()
            assert await read_all(theirs) == b"question"
            await theirs.send_all(b"answer")
            await theirs.send_eof()
            assert await read_all(ours) == b"answer"


class Upload:
    """*size* bytes on their way through a stream, of which at most *most* may wait between the two ends."""

    def __init__(self, stream: Stream, size: int, *, most: float = math.inf) -> None:
        self._stream = stream
        self._size = size
        self._most = most
        self._sent = self._received = 0
        self._progress = trio.Event()

    async def send(self) -> None:
        """Send everything, then the end of file."""
        while self._sent < self._size:
            piece = _bytes_at(self._sent, min(_PIECE, self._size - self._sent))
            await self._stream.send_all(piece)
            self._sent += len(piece)
            self._progress.set()
            self._progress = trio.Event()
            waiting = self._sent - self._received
            assert waiting <= self._most + _PIECE, (
                f"{waiting} bytes wait between writer and reader, more than {self._most}: is there any backpressure?"
            )
        await self._stream.send_eof()

    async def wait_stalled(self) -> None:
        """Wait until the sender waits for the reader, or has sent everything."""
        stalled = False
        while self._sent < self._size and not stalled:
            with trio.move_on_after(_STALLED) as waiting:
                await self._progress.wait()
            stalled = waiting.cancelled_caught

    async def receive(self, stream: Stream) -> None:
        """Read everything at the other end and compare it."""
        async for chunk in stream:
            assert chunk == _bytes_at(self._received, len(chunk)), (
                f"after {self._received} bytes comes something else"
            )
            self._received += len(chunk)
        assert self._received == self._size, f"the end of file came after {self._received} bytes"


def _bytes_at(start: int, size: int) -> bytes:
    """Some bytes of a sequence that never repeats: the numbers from 0, 8 bytes each."""
    numbers = array("Q", range(start // 8, (start + size + 7) // 8))
    return numbers.tobytes()[start % 8 : start % 8 + size]


async def _check_paused_reader(make_pair: StreamPairMaker, size: int, most: int) -> None:
    ours, theirs = await make_pair()
    upload = Upload(ours, size, most=most)
    with claim(f"a reader that pauses while {size} bytes arrive loses nothing", within=5 * PATIENCE):
        async with ours, theirs, trio.open_nursery() as nursery:
            nursery.start_soon(upload.send)
            await upload.wait_stalled()
            await upload.receive(theirs)


async def _check_cancelled_reader(make_pair: StreamPairMaker) -> None:
    ours, theirs = await make_pair()
    with claim("a cancelled receive_some loses nothing"):
        async with ours, theirs:
            await check_nothing_lost(lambda: ours.send_all(b"x"), theirs.receive_some)


async def _check_reset_is_seen(make_pair: StreamPairMaker) -> None:
    ours, theirs = await make_pair()
    with claim("a reset breaks the peer's reading and writing, and closes our own end"):
        async with ours, theirs:
            await ours.send_all(b"x")
            await ours.reset()
            with raises(trio.BrokenResourceError):
                while await theirs.receive_some():
                    pass
            with raises(trio.BrokenResourceError):
                await theirs.send_all(b"x")
            with raises(trio.ClosedResourceError):
                await ours.send_all(b"x")
            with raises(trio.ClosedResourceError):
                await ours.receive_some()
    ours, theirs = await make_pair()
    with claim("a reset wakes a peer that waits for data"):
        async with ours, theirs, trio.open_nursery() as nursery:
            nursery.start_soon(_expect_broken, theirs)
            await trio.testing.wait_all_tasks_blocked(0.01)
            await ours.reset()


async def _expect_broken(stream: Stream) -> None:
    with raises(trio.BrokenResourceError):
        await stream.receive_some()


async def _check_close_delivers_what_was_sent(make_pair: StreamPairMaker) -> None:
    ours, theirs = await make_pair()
    with claim("a close does not overtake what was sent"):
        async with ours, theirs:
            await ours.send_all(b"last words")
            await ours.aclose()
            assert await read_all(theirs) == b"last words"
