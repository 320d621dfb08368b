"""`check_transport` finds what is wrong with a transport, and says which claim it breaks."""

from __future__ import annotations

import math
import os
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import trio
import trio.testing

from handclasp.abc import Connection, Context, Listener, Transport
from handclasp.errors import PeerUnreachable
from handclasp.identity import Identity, PeerId
from handclasp.testing import check_transport
from handclasp.transports.memory import MemoryNetwork

from .broken import each, fails_with, leaky

pytestmark = leaky


class ATransport(Transport):
    """A good transport, to be broken."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport

    def can_dial(self, address: str) -> bool:
        return self.transport.can_dial(address)

    async def dial(self, address: str, peer: PeerId) -> Connection:
        return await self.transport.dial(address, peer)

    def listen(self) -> AbstractAsyncContextManager[Listener]:
        return self.transport.listen()


class AListener(Listener):
    def __init__(self, listener: Listener) -> None:
        self.listener = listener

    @property
    def addresses(self) -> Any:
        return self.listener.addresses

    async def accept(self) -> Connection:
        return await self.listener.accept()

    async def aclose(self) -> None:
        await self.listener.aclose()


class DialsAnything(ATransport):
    def can_dial(self, address: str) -> bool:
        return True


class CallsGarbageUnreachable(ATransport):
    async def dial(self, address: str, peer: PeerId) -> Connection:
        if not self.can_dial(address):
            raise PeerUnreachable(address)
        return await super().dial(address, peer)


class TakesWhoeverAnswers(ATransport):
    async def dial(self, address: str, peer: PeerId) -> Connection:
        if not self.can_dial(address):
            return await super().dial(address, peer)
        (only,) = self.transport._listening  # type: ignore[attr-defined]
        return await super().dial(f"{self.transport._network}/p2p/{only}", only)  # type: ignore[attr-defined]


class LeavesASocketWhenCancelled(ATransport):
    async def dial(self, address: str, peer: PeerId) -> Connection:
        pipe = os.pipe()  # bare numbers: a socket object would close itself
        await trio.lowlevel.checkpoint()
        for end in pipe:
            os.close(end)
        return await super().dial(address, peer)


class LeavesATaskWhenCancelled(ATransport):
    async def dial(self, address: str, peer: PeerId) -> Connection:
        done = trio.Event()
        trio.lowlevel.spawn_system_task(done.wait)
        await trio.lowlevel.checkpoint()
        done.set()
        return await super().dial(address, peer)


class KeepsTheConnectionWhenCancelled(ATransport):
    async def dial(self, address: str, peer: PeerId) -> Connection:
        connection = await super().dial(address, peer)
        await trio.lowlevel.checkpoint()
        return connection


class LosesWhatACancelledAcceptHad(ATransport):
    @asynccontextmanager
    async def listen(self) -> AsyncGenerator[Listener]:
        class Loses(AListener):
            async def accept(self) -> Connection:
                connection = await super().accept()
                await trio.lowlevel.checkpoint()
                return connection

        async with self.transport.listen() as listener:
            yield Loses(listener)


class WrapsErrors(ATransport):
    @asynccontextmanager
    async def listen(self) -> AsyncGenerator[Listener]:
        async with trio.open_nursery(), self.transport.listen() as listener:
            yield listener


class KeepsUnaccepted(ATransport):
    @asynccontextmanager
    async def listen(self) -> AsyncGenerator[Listener]:
        async with self.transport.listen() as listener:
            yield listener
            with trio.move_on_after(1):
                self.kept = await listener.accept()


TRANSPORTS = {
    DialsAnything: "is no address: can_dial says no",
    CallsGarbageUnreachable: "dial raises InvalidAddress",
    TakesWhoeverAnswers: "another peer id is refused",
    LeavesASocketWhenCancelled: "a dial that is cancelled anywhere leaves nothing behind",
    LeavesATaskWhenCancelled: "a dial that is cancelled anywhere leaves nothing behind",
    KeepsTheConnectionWhenCancelled: "what was cancelled after it had connected closes its connection",
    LosesWhatACancelledAcceptHad: "a cancelled accept loses no connection",
    WrapsErrors: "comes out of the transport and its listener as it is",
    KeepsUnaccepted: "a connection that nobody accepted is closed",
}


async def transport_suite(kind: Callable[[Transport], Transport], **options: Any) -> None:
    network = MemoryNetwork()

    @asynccontextmanager
    async def factory(context: Context) -> AsyncGenerator[Transport]:
        async with network.transport(context) as transport:
            yield kind(transport)

    await check_transport(factory, **options)


@each(TRANSPORTS)
async def test_a_broken_transport_is_found_out(
    kind: Callable[[Transport], Transport], claim: str, clock: trio.testing.MockClock
) -> None:
    await fails_with(claim, transport_suite(kind))


class HangsForever(ATransport):
    def can_dial(self, address: str) -> bool:
        return address.startswith("/memory/0/") or super().can_dial(address)

    async def dial(self, address: str, peer: PeerId) -> Connection:
        if address.startswith("/memory/0/"):
            with trio.move_on_after(self.patience):
                await trio.sleep_forever()
            raise PeerUnreachable(address)
        return await super().dial(address, peer)

    patience = math.inf


class HangsForAWhile(HangsForever):
    patience = 30


@asynccontextmanager
async def nowhere() -> AsyncGenerator[str]:
    yield f"/memory/0/p2p/{Identity.generate().peer_id}"


async def test_a_dial_without_a_deadline_is_found_out(clock: trio.testing.MockClock) -> None:
    suite = transport_suite(HangsForever, hanging=nowhere)
    await fails_with("a dial that hangs ends by itself within 60 s", suite)
    await transport_suite(HangsForAWhile, hanging=nowhere)


async def test_a_transport_that_is_only_wrapped_passes(clock: trio.testing.MockClock) -> None:
    await transport_suite(ATransport)
