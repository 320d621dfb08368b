"""The contract suite for `handclasp.abc.Stream`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

import trio
import trio.testing

from handclasp.abc import Stream

#: Makes a fresh pair of connected streams.
StreamPairMaker: TypeAlias = Callable[[], Awaitable[tuple[Stream, Stream]]]

_LARGE = 4 * 1024 * 1024  # bytes: far more than any window


async def check_stream(make_pair: StreamPairMaker, make_clogged_pair: StreamPairMaker | None = None) -> None:
    """Check that streams keep what `handclasp.abc.Stream` promises; raises AssertionError where they do not.

    Runs trio's own ``check_half_closeable_stream`` and what our contract adds to it.

    Args:
        make_pair: called many times; the suite closes what it gets.
        make_clogged_pair: makes a pair that cannot take more data in either direction; without it
            the suite cannot check that a waiting sender is woken by a close.
    """
    await trio.testing.check_half_closeable_stream(make_pair, make_clogged_pair)
    await _check_nothing_is_nothing(make_pair)
    await _check_reply_after_eof(make_pair)
    await _check_paused_reader_loses_nothing(make_pair)
    await _check_reset_is_seen(make_pair)
    await _check_close_delivers_what_was_sent(make_pair)


async def _check_nothing_is_nothing(make_pair: StreamPairMaker) -> None:
    ours, theirs = await make_pair()
    async with ours, theirs:
        await ours.send_all(b"")
        await ours.send_all(b"x")
        assert await theirs.receive_some() == b"x", (
            "an empty send_all must not look like data or an end of file"
        )


async def _check_reply_after_eof(make_pair: StreamPairMaker) -> None:
    ours, theirs = await make_pair()
    async with ours, theirs:
        await ours.send_all(b"question")
        await ours.send_eof()
        assert await _read_all(theirs) == b"question"
        await theirs.send_all(b"answer")
        await theirs.send_eof()
        assert await _read_all(ours) == b"answer", "a reply after the peer's end of file must arrive"


async def _check_paused_reader_loses_nothing(make_pair: StreamPairMaker) -> None:
    ours, theirs = await make_pair()
    data = bytes(range(256)) * (_LARGE // 256)
    sent = trio.Event()

    async def send() -> None:
        await ours.send_all(data)
        sent.set()
        await ours.send_eof()

    async with ours, theirs, trio.open_nursery() as nursery:
        nursery.start_soon(send)
        # Until the writer waits for the reader: with real backpressure it cannot get rid of everything.
        with trio.move_on_after(2):
            await sent.wait()
        assert not sent.is_set(), (
            f"{_LARGE} bytes went into a stream that nobody reads: there is no backpressure"
        )
        assert await _read_all(theirs) == data, "what a paused reader gets must be complete and in order"


async def _check_reset_is_seen(make_pair: StreamPairMaker) -> None:
    ours, theirs = await make_pair()
    async with ours, theirs:
        await ours.reset()
        with _raises(trio.BrokenResourceError):
            while await theirs.receive_some():
                pass
        with _raises(trio.ClosedResourceError):
            await ours.send_all(b"x")


async def _check_close_delivers_what_was_sent(make_pair: StreamPairMaker) -> None:
    ours, theirs = await make_pair()
    async with ours, theirs:
        await ours.send_all(b"last words")
        await ours.aclose()
        assert await _read_all(theirs) == b"last words", "closing must not overtake what was sent"


async def _read_all(stream: Stream) -> bytes:
    data = bytearray()
    async for chunk in stream:
        data += chunk
    return bytes(data)


class _raises:  # noqa: N801 - reads as pytest's
    """The block must raise *kind*."""

    def __init__(self, kind: type[BaseException]) -> None:
        self._kind = kind

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: object) -> bool:
        assert exc is not None, f"{self._kind.__name__} was due"
        return isinstance(exc, self._kind)
