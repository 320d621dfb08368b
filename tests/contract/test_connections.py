"""Connections of every transport keep the contract."""

from __future__ import annotations

from handclasp.abc import Connection
from handclasp.identity import Identity
from handclasp.testing import check_connection, open_connections
from handclasp.transports.memory import memory_connection_pair

from .backends import TRANSPORTS, TransportBackend, cases, open_transport


@cases(TRANSPORTS, "connection")
async def test_the_connections_of_a_transport(backend: TransportBackend) -> None:
    async with (
        open_transport(backend) as (factory, signaling),
        open_connections(factory, signaling) as make_pair,
    ):
        await check_connection(make_pair, quiet=backend.quiet)


async def test_a_pair_of_memory_connections() -> None:
    async def make_pair() -> tuple[Connection, Connection]:
        return memory_connection_pair(Identity.generate().peer_id, Identity.generate().peer_id)

    await check_connection(make_pair)
