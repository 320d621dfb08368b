"""Peers without a node: what the suites and backend authors need to get hold of a pair of anything."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from handclasp.abc import (
    Connection,
    Context,
    Discovery,
    DiscoveryFactory,
    Listener,
    Signaling,
    Stream,
    Transport,
    TransportFactory,
)
from handclasp.identity import Identity, PeerId

from .connection import ConnectionPairMaker
from .stream import StreamPairMaker


@dataclass(frozen=True)
class Peer:
    """Somebody with a transport, and with the signaling that it may need."""

    identity: Identity
    transport: Transport
    backend: Discovery | Signaling | None

    @property
    def id(self) -> PeerId:
        """Who it is."""
        return self.identity.peer_id


@asynccontextmanager
async def open_peer(
    transport: TransportFactory, signaling: DiscoveryFactory | None = None
) -> AsyncGenerator[Peer]:
    """A peer with a new identity while the block runs."""
    context = Context(Identity.generate())
    if signaling is None:
        async with transport(context) as opened:
            yield Peer(context.identity, opened, None)
        return
    async with signaling(context) as backend:
        channels = (backend,) if isinstance(backend, Signaling) else ()
        async with transport(Context(context.identity, channels)) as opened:
            yield Peer(context.identity, opened, backend)


async def connect(dialer: Peer, listener: Listener, listening: PeerId) -> tuple[Connection, Connection]:
    """Dial a listener and accept: the dialer's end and the other one."""
    accepted: list[Connection] = []

    async def accept() -> None:
        accepted.append(await listener.accept())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(accept)
        dialled = await dialer.transport.dial(listener.addresses[0], listening)
    return dialled, accepted[0]


@asynccontextmanager
async def open_connections(
    transport: TransportFactory, signaling: DiscoveryFactory | None = None
) -> AsyncGenerator[ConnectionPairMaker]:
    """Two peers, one of which listens, while the block runs; yields what connects them: for `check_connection`.

    Args:
        transport: the transport of both.
        signaling: what the transport needs to reach the other peer, if anything.
    """
    async with open_peer(transport, signaling) as alice, open_peer(transport, signaling) as bob:
        async with bob.transport.listen() as listener:

            async def make_pair() -> tuple[Connection, Connection]:
                return await connect(alice, listener, bob.id)

            yield make_pair


@asynccontextmanager
async def open_streams(make_connection_pair: ConnectionPairMaker) -> AsyncGenerator[StreamPairMaker]:
    """One connection while the block runs; yields what opens streams on it: for `check_stream`."""
    ours, theirs = await make_connection_pair()
    async with ours, theirs:

        async def make_pair() -> tuple[Stream, Stream]:
            return await ours.open_stream(), await theirs.accept_stream()

        yield make_pair
