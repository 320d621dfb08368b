"""Discovery and signaling inside one process."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import trio
import trio.testing

from handclasp.abc import Context, PeerRecord
from handclasp.discovery.memory import MemoryBackend, MemoryMeeting, memory_channel_pair
from handclasp.errors import PeerUnreachable
from handclasp.identity import Identity, PeerId

ALICE, BOB = Identity.generate(), Identity.generate()


@asynccontextmanager
async def backends(meeting: MemoryMeeting) -> AsyncGenerator[tuple[MemoryBackend, MemoryBackend]]:
    async with meeting.backend(Context(ALICE)) as alice, meeting.backend(Context(BOB)) as bob:
        yield alice, bob


async def finds_nobody(found: AsyncIterator[PeerRecord]) -> bool:
    async with trio.open_nursery() as nursery:

        async def look() -> None:
            pytest.fail(f"found {await anext(found)}")

        nursery.start_soon(look)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    return True


def record(peer: PeerId, *addresses: str) -> PeerRecord:
    return PeerRecord(peer, addresses)


# --- discovery ---


async def test_those_who_are_there_are_found_and_then_those_who_come() -> None:
    async with backends(MemoryMeeting()) as (alice, bob), AsyncExitStack() as later:
        first, second = record(ALICE.peer_id, "/memory/1"), record(ALICE.peer_id, "/memory/2")
        async with alice.advertise("tea", first), bob.find("tea") as found:
            assert await anext(found) == first
            await later.enter_async_context(alice.advertise("tea", second))
            assert await anext(found) == second


async def test_whoever_left_is_not_found() -> None:
    async with backends(MemoryMeeting()) as (alice, bob):
        with pytest.raises(ValueError, match="mine"):
            async with alice.advertise("tea", record(ALICE.peer_id)):
                raise ValueError("mine")
        async with bob.find("tea") as found:
            assert await finds_nobody(found)


async def test_topics_and_meetings_are_separate() -> None:
    meeting, elsewhere = MemoryMeeting(), MemoryMeeting()
    async with backends(meeting) as (alice, bob), elsewhere.backend(Context(BOB)) as stranger:
        mine = record(ALICE.peer_id)
        async with alice.advertise("tea", mine), bob.find("coffee") as other, stranger.find("tea") as nothing:
            assert await finds_nobody(other)
            assert await finds_nobody(nothing)


async def test_a_topic_may_have_any_number_of_peers() -> None:
    async with backends(MemoryMeeting()) as (alice, bob), AsyncExitStack() as stack:
        records = [record(ALICE.peer_id, f"/memory/{number}") for number in range(1_000)]
        for each in records:
            await stack.enter_async_context(alice.advertise("tea", each))
        async with bob.find("tea") as found:
            assert [await anext(found) for _ in records] == records


async def test_somebody_who_does_not_look_at_what_was_found_holds_up_nobody() -> None:
    async with backends(MemoryMeeting()) as (alice, bob), bob.find("tea") as found, AsyncExitStack() as stack:
        records = [record(ALICE.peer_id, f"/memory/{number}") for number in range(1_000)]
        for each in records:
            await stack.enter_async_context(alice.advertise("tea", each))
        assert [await anext(found) for _ in records] == records


async def test_advertising_is_not_disturbed_by_somebody_who_stops_looking() -> None:
    async with backends(MemoryMeeting()) as (alice, bob):
        looking, may_stop, advertised = trio.Event(), trio.Event(), trio.Event()

        async def look() -> None:
            async with bob.find("tea"):
                looking.set()
                await may_stop.wait()

        async def advertise() -> None:
            async with alice.advertise("tea", record(ALICE.peer_id)):
                advertised.set()

        # Both run in the same pass of the scheduler, in either order.
        for _ in range(50):
            looking, may_stop, advertised = trio.Event(), trio.Event(), trio.Event()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(look)
                await looking.wait()
                may_stop.set()
                await trio.lowlevel.checkpoint()
                nursery.start_soon(advertise)
            assert advertised.is_set()


async def test_a_cancelled_advertiser_is_not_found() -> None:
    async with backends(MemoryMeeting()) as (alice, bob):
        with trio.CancelScope() as scope:
            scope.cancel()
            async with alice.advertise("tea", record(ALICE.peer_id)):
                await trio.lowlevel.checkpoint()
        async with bob.find("tea") as found:
            assert await finds_nobody(found)


# --- signaling ---


async def test_a_channel_reaches_the_peer_that_listens() -> None:
    async with backends(MemoryMeeting()) as (alice, bob), bob.incoming() as channels:
        async with (
            await alice.open_channel(alice.address, BOB.peer_id) as ours,
            await anext(channels) as theirs,
        ):
            assert (ours.peer, theirs.peer) == (BOB.peer_id, ALICE.peer_id)
            assert (ours.offers, theirs.offers) == (True, False)
            assert ours.binding == theirs.binding
            assert ours.binding is not None
            assert len(ours.binding) == 32


async def test_two_channels_have_different_bindings() -> None:
    one, _ = memory_channel_pair(ALICE.peer_id, BOB.peer_id)
    another, _ = memory_channel_pair(ALICE.peer_id, BOB.peer_id)
    assert one.binding != another.binding


async def test_messages_keep_their_order_in_both_directions() -> None:
    ours, theirs = memory_channel_pair(ALICE.peer_id, BOB.peer_id)
    async with ours, theirs:
        for number in range(10):
            await ours.send(b"there %d" % number)
            await theirs.send(b"back %d" % number)
        assert [await theirs.receive() for _ in range(10)] == [b"there %d" % number for number in range(10)]
        assert [await ours.receive() for _ in range(10)] == [b"back %d" % number for number in range(10)]


async def test_what_was_sent_before_a_close_still_arrives() -> None:
    ours, theirs = memory_channel_pair(ALICE.peer_id, BOB.peer_id)
    async with theirs:
        async with ours:
            await ours.send(b"last words")
        assert await theirs.receive() == b"last words"
        with pytest.raises(trio.EndOfChannel):
            await theirs.receive()
        await theirs.send(b"nobody hears this")
        with pytest.raises(trio.ClosedResourceError):
            await ours.send(b"x")
        with pytest.raises(trio.ClosedResourceError):
            await ours.receive()


async def test_nobody_answers_for_a_peer_that_does_not_listen() -> None:
    async with backends(MemoryMeeting()) as (alice, bob):
        with pytest.raises(PeerUnreachable):
            await alice.open_channel(alice.address, BOB.peer_id)
        async with bob.incoming():
            await (await alice.open_channel(alice.address, BOB.peer_id)).aclose()
        with pytest.raises(PeerUnreachable):
            await alice.open_channel(alice.address, BOB.peer_id)


async def test_a_channel_that_nobody_took_ends_when_the_peer_stops_listening() -> None:
    async with backends(MemoryMeeting()) as (alice, bob):
        async with bob.incoming():
            ours = await alice.open_channel(alice.address, BOB.peer_id)
        async with ours:
            with pytest.raises(trio.EndOfChannel):
                await ours.receive()


async def test_opening_a_channel_to_a_peer_that_just_stopped_listening_says_so() -> None:
    async with backends(MemoryMeeting()) as (alice, bob):
        for _ in range(20):
            listening, may_stop = trio.Event(), trio.Event()

            async def listen(listening: trio.Event = listening, may_stop: trio.Event = may_stop) -> None:
                async with bob.incoming():
                    listening.set()
                    await may_stop.wait()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(listen)
                await listening.wait()
                may_stop.set()
                await trio.lowlevel.checkpoint()
                try:
                    async with await alice.open_channel(alice.address, BOB.peer_id) as ours:
                        with pytest.raises(trio.EndOfChannel):
                            await ours.receive()
                except PeerUnreachable:
                    pass
