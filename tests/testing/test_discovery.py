"""`check_discovery` finds what is wrong with discovery, and says which claim it breaks."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

import trio
import trio.testing

from handclasp.abc import Context, Discovery, DiscoveryFactory, PeerRecord
from handclasp.discovery.memory import MemoryMeeting
from handclasp.identity import Identity, PeerId
from handclasp.scope import open_scope
from handclasp.testing import check_discovery

from .broken import each, fails_with, leaky

pytestmark = leaky


class ADiscovery(Discovery):
    """Good discovery, to be broken."""

    def __init__(self, discovery: Discovery) -> None:
        self.discovery = discovery

    def advertise(self, topic: str, me: PeerRecord) -> AbstractAsyncContextManager[None]:
        return self.discovery.advertise(topic, me)

    def find(self, topic: str) -> AbstractAsyncContextManager[AsyncIterator[PeerRecord]]:
        return self.discovery.find(topic)


class Twice(AsyncIterator[PeerRecord]):
    def __init__(self, source: AsyncIterator[PeerRecord]) -> None:
        self._source = source
        self._again: list[PeerRecord] = []

    async def __anext__(self) -> PeerRecord:
        if self._again:
            return self._again.pop()
        self._again = [await anext(self._source)]
        return self._again[0]


class Without(AsyncIterator[PeerRecord]):
    """Leaves out some peers, which the predicate names."""

    def __init__(self, source: AsyncIterator[PeerRecord], hidden: Callable[[PeerId], bool]) -> None:
        self._source = source
        self._hidden = hidden

    async def __anext__(self) -> PeerRecord:
        while True:
            record = await anext(self._source)
            if not self._hidden(record.peer):
                return record


class RepeatsItself(ADiscovery):
    @asynccontextmanager
    async def find(self, topic: str) -> AsyncGenerator[AsyncIterator[PeerRecord]]:
        async with self.discovery.find(topic) as found:
            yield Twice(found)


class ForgetsToLeave(ADiscovery):
    @asynccontextmanager
    async def advertise(self, topic: str, me: PeerRecord) -> AsyncGenerator[None]:
        self.block = self.discovery.advertise(topic, me)
        await self.block.__aenter__()
        yield


class ForgetsToLeaveWhenCancelled(ADiscovery):
    @asynccontextmanager
    async def advertise(self, topic: str, me: PeerRecord) -> AsyncGenerator[None]:
        self.block = self.discovery.advertise(topic, me)
        await self.block.__aenter__()
        yield
        await self.block.__aexit__(None, None, None)


class LosesAddresses(ADiscovery):
    def advertise(self, topic: str, me: PeerRecord) -> AbstractAsyncContextManager[None]:
        return super().advertise(topic, PeerRecord(me.peer, me.addresses[:1]))


class KnowsEachPeerOnce(ADiscovery):
    """Does not tell of a peer that comes again with other addresses."""

    @asynccontextmanager
    async def find(self, topic: str) -> AsyncGenerator[AsyncIterator[PeerRecord]]:
        seen: set[PeerId] = set()

        def hidden(peer: PeerId) -> bool:
            known = peer in seen
            seen.add(peer)
            return known

        async with self.discovery.find(topic) as found:
            yield Without(found, hidden)


class HidesItsOwn(ADiscovery):
    mine: PeerId | None = None

    def advertise(self, topic: str, me: PeerRecord) -> AbstractAsyncContextManager[None]:
        self.mine = me.peer
        return super().advertise(topic, me)

    @asynccontextmanager
    async def find(self, topic: str) -> AsyncGenerator[AsyncIterator[PeerRecord]]:
        async with self.discovery.find(topic) as found:
            yield Without(found, lambda peer: peer == self.mine)


class IgnoresCase(ADiscovery):
    def advertise(self, topic: str, me: PeerRecord) -> AbstractAsyncContextManager[None]:
        return super().advertise(topic.lower(), me)

    def find(self, topic: str) -> AbstractAsyncContextManager[AsyncIterator[PeerRecord]]:
        return super().find(topic.lower())


class CountsLetters(ADiscovery):
    """Shortens what is too long instead of refusing it."""

    def advertise(self, topic: str, me: PeerRecord) -> AbstractAsyncContextManager[None]:
        return super().advertise(topic[:255], me)

    def find(self, topic: str) -> AbstractAsyncContextManager[AsyncIterator[PeerRecord]]:
        return super().find(topic[:255])


class WrapsErrorsOfFind(ADiscovery):
    @asynccontextmanager
    async def find(self, topic: str) -> AsyncGenerator[AsyncIterator[PeerRecord]]:
        async with trio.open_nursery(), super().find(topic) as found:
            yield found


class LeavesAFileWhenCancelled(ADiscovery):
    @asynccontextmanager
    async def find(self, topic: str) -> AsyncGenerator[AsyncIterator[PeerRecord]]:
        pipe = os.pipe()  # bare numbers: a socket object would close itself
        async with super().find(topic) as found:
            yield found
        for end in pipe:
            os.close(end)


DISCOVERY = {
    RepeatsItself: "who is there is found",
    ForgetsToLeave: "whoever stopped advertising is not found any more",
    ForgetsToLeaveWhenCancelled: "whoever was cancelled while advertising",
    LosesAddresses: "with all addresses",
    KnowsEachPeerOnce: "with other addresses is found again",
    HidesItsOwn: "also by the node that advertises it",
    IgnoresCase: "topics are separate",
    CountsLetters: "bytes is a MisuseError",
    WrapsErrorsOfFind: "comes out of find as it is",
    LeavesAFileWhenCancelled: "a find that is cancelled anywhere leaves nothing behind",
}


def at(meeting: MemoryMeeting, kind: Callable[[Discovery], Discovery]) -> DiscoveryFactory:
    @asynccontextmanager
    async def factory(context: Context) -> AsyncGenerator[Discovery]:
        async with meeting.backend(context) as backend:
            yield kind(backend)

    return factory


@each(DISCOVERY)
async def test_broken_discovery_is_found_out(
    kind: Callable[[Discovery], Discovery], claim: str, clock: trio.testing.MockClock
) -> None:
    await fails_with(claim, check_discovery(at(MemoryMeeting(), kind), patience=1))


class HoldsNurseries(ADiscovery):
    @asynccontextmanager
    async def advertise(self, topic: str, me: PeerRecord) -> AsyncGenerator[None]:
        async with open_scope(), super().advertise(topic, me):
            yield

    @asynccontextmanager
    async def find(self, topic: str) -> AsyncGenerator[AsyncIterator[PeerRecord]]:
        async with open_scope(), super().find(topic) as found:
            yield found


async def test_a_backend_whose_blocks_hold_nurseries_passes(clock: trio.testing.MockClock) -> None:
    open_backend = at(MemoryMeeting(), HoldsNurseries)

    @asynccontextmanager
    async def factory(context: Context) -> AsyncGenerator[Discovery]:
        async with open_scope(), open_backend(context) as backend:
            yield backend

    await check_discovery(factory)


async def test_strangers_in_the_same_place_do_not_matter(clock: trio.testing.MockClock) -> None:
    meeting = MemoryMeeting()
    stranger = Identity.generate()
    async with meeting.backend(Context(stranger)) as there, AsyncExitStack() as stack:
        for topic in ("tea", "coffee", ""):
            await stack.enter_async_context(there.advertise(topic, PeerRecord(stranger.peer_id)))
        await check_discovery(meeting.backend)
