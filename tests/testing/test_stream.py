"""`check_stream` finds what is wrong with a stream, and says which claim it breaks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import trio
import trio.testing

from handclasp.abc import Stream
from handclasp.testing import check_stream
from handclasp.transports.memory import memory_stream_pair

from .broken import AStream, each, fails_with


class LosesData(AStream):
    received = 0

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        data = await super().receive_some(max_bytes)
        self.received += len(data)
        return data[1:] if self.received > 1_500_000 else data


class TakesEverything(AStream):
    """Buffers without a bound, in the sender's memory."""

    def __init__(self, stream: Stream) -> None:
        super().__init__(stream)
        self.waiting = bytearray()

    async def send_all(self, data: Any) -> None:
        await trio.lowlevel.checkpoint()
        self.waiting += data

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()


class EndsWithNothing(AStream):
    """The second empty send in a row is an end of file."""

    empty = 0

    async def send_all(self, data: Any) -> None:
        self.empty = 0 if data else self.empty + 1
        await super().send_all(data)
        if self.empty == 2:
            await self.send_eof()


class EndsBothWays(AStream):
    """The end of file ends the other direction, too, once something longer had come."""

    received = 0

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        data = await super().receive_some(max_bytes)
        self.received += len(data)
        if not data and self.received > 1:
            await self.send_eof()
        return data


class LosesWhatACancelledReaderHad(AStream):
    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        data = await super().receive_some(max_bytes)
        await trio.lowlevel.checkpoint()
        return data


class ResetsQuietly(AStream):
    async def reset(self) -> None:
        await self.stream.aclose()


class DropsAtClose(AStream):
    async def aclose(self) -> None:
        await self.stream.reset()


STREAMS = {
    LosesData: "a reader that pauses while 2097152 bytes arrive loses nothing",
    TakesEverything: "half_closeable_stream",
    EndsWithNothing: "an empty send_all looks like neither",
    EndsBothWays: "a reply after the peer's end of file arrives",
    LosesWhatACancelledReaderHad: "a cancelled receive_some loses nothing",
    ResetsQuietly: "a reset breaks the peer's reading",
    DropsAtClose: "half_closeable_stream",
}


@each(STREAMS)
async def test_a_broken_stream_is_found_out(
    kind: Callable[[Stream], Stream], claim: str, clock: trio.testing.MockClock
) -> None:
    async def make_pair() -> tuple[Stream, Stream]:
        ours, theirs = memory_stream_pair()
        return kind(ours), kind(theirs)

    await fails_with(claim, check_stream(make_pair, paused_bytes=2**21))


async def test_a_stream_that_buffers_more_than_it_said_is_found_out(clock: trio.testing.MockClock) -> None:
    async def make_pair() -> tuple[Stream, Stream]:
        return memory_stream_pair()

    suite = check_stream(make_pair, paused_bytes=2**21, most_buffered=-32 * 1024)
    await fails_with("is there any backpressure", suite)


async def test_a_stream_that_is_only_wrapped_passes(clock: trio.testing.MockClock) -> None:
    async def make_pair() -> tuple[Stream, Stream]:
        ours, theirs = memory_stream_pair()
        return AStream(ours), AStream(theirs)

    await check_stream(make_pair, paused_bytes=2**21)
