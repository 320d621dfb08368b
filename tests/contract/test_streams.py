"""Streams of every transport keep the contract."""

from __future__ import annotations

from handclasp.abc import Stream
from handclasp.testing import check_stream, open_connections, open_streams
from handclasp.transports.memory import WINDOW, memory_stream_pair

from .backends import TRANSPORTS, TransportBackend, cases, open_transport


@cases(TRANSPORTS, "stream")
async def test_the_streams_of_a_connection(backend: TransportBackend) -> None:
    async with (
        open_transport(backend) as (factory, signaling),
        open_connections(factory, signaling) as make_connections,
        open_streams(make_connections) as make_pair,
    ):
        await check_stream(make_pair, most_buffered=backend.most_buffered)


async def test_a_pair_of_memory_streams() -> None:
    async def make_pair() -> tuple[Stream, Stream]:
        return memory_stream_pair()

    await check_stream(make_pair, most_buffered=WINDOW)
