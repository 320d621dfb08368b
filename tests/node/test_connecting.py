"""How a node comes to a connection: every backend at once, the first address that works, one for each peer."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
import trio
import trio.testing

from handclasp.abc import (
    Connection,
    Context,
    Discovery,
    Handler,
    Listener,
    PeerRecord,
    Stream,
    Transport,
    TransportFactory,
)
from handclasp.discovery.memory import MemoryMeeting
from handclasp.errors import (
    ConnectionLost,
    HandclaspError,
    LimitReached,
    MisuseError,
    PeerNotAllowed,
    PeerUnreachable,
    ServiceUnavailable,
    WrongPeer,
)
from handclasp.identity import Identity, PeerId
from handclasp.node import Limits, Node, open_node
from handclasp.node.multistream import choose_untrusted
from handclasp.transports.memory import MemoryNetwork, memory_connection_pair
from handclasp.transports.webrtc import webrtc
from handclasp.transports.webrtc.aiortc import AiortcEngine

ME, PEER = sorted([Identity.generate(), Identity.generate()], key=lambda identity: identity.peer_id)
ECHO = "/echo/1.0.0"


async def echo(stream: Stream, peer: PeerId) -> None:
    async for data in stream:
        await stream.send_all(data)


async def turned_away(node: Node, address: str) -> None:
    """Connect, and be shut out at once or a moment later."""
    try:
        connection = await node.connect(address)
    except ConnectionLost:
        return
    await connection.wait_closed()


async def ask(node: Node, peer: PeerId) -> bytes:
    async with await node.open_stream(peer, ECHO) as stream:
        await stream.send_all(b"x")
        return await stream.receive_some()


class TooLateToStop(float):
    """Seconds until a dial is through although it was cancelled meanwhile."""


class Scripted(Transport):
    """A transport whose addresses behave as they are named: ``/memory/<n>/p2p/…`` does what script[n] says."""

    def __init__(self, *script: float | HandclaspError) -> None:
        self.script = script  # seconds until it connects, or what it raises at once
        self.began: list[tuple[int, float]] = []
        self.cancelled: list[int] = []
        self.made: list[Connection] = []

    @asynccontextmanager
    async def open(self, context: Context) -> AsyncGenerator[Transport]:
        self.me = context.identity.peer_id
        yield self

    def can_dial(self, address: str) -> bool:
        return address.startswith("/memory/")

    async def dial(self, address: str, peer: PeerId) -> Connection:
        number = int(address.split("/")[2])
        self.began.append((number, trio.current_time()))
        what = self.script[number]
        if isinstance(what, HandclaspError):
            await trio.lowlevel.checkpoint()
            raise what
        try:
            with trio.CancelScope(shield=isinstance(what, TooLateToStop)):
                await trio.sleep(what)
        except trio.Cancelled:
            self.cancelled.append(number)
            raise
        ours, _ = memory_connection_pair(self.me, peer, network=f"/memory/{number}")
        self.made.append(ours)
        return ours

    def listen(self) -> AbstractAsyncContextManager[Listener]:
        return nobody_comes()


class Silent(Listener):
    addresses = ()

    async def accept(self) -> Connection:
        await trio.sleep_forever()
        raise AssertionError

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


@asynccontextmanager
async def nobody_comes() -> AsyncGenerator[Listener]:
    yield Silent()


class Known(Discovery):
    """Tells a peer's addresses, each after some seconds; or fails."""

    def __init__(self, *numbers: int, after: float = 0, fails: HandclaspError | None = None) -> None:
        self._numbers = numbers
        self._after = after
        self._fails = fails

    @asynccontextmanager
    async def open(self, context: Context) -> AsyncGenerator[Discovery]:
        yield self

    @asynccontextmanager
    async def advertise(self, topic: str, me: PeerRecord) -> AsyncGenerator[None]:
        yield

    @asynccontextmanager
    async def find(self, topic: str) -> AsyncGenerator[AsyncIterator[PeerRecord]]:
        if self._fails is not None:
            raise self._fails
        send, receive = trio.open_memory_channel[PeerRecord](1)

        async def tell() -> None:
            await trio.sleep(self._after)
            addresses = tuple(f"/memory/{n}/p2p/{PEER.peer_id}" for n in self._numbers)
            await send.send(PeerRecord(PEER.peer_id, addresses))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(tell)
            yield receive
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def dialing(transport: Scripted, *backends: Known) -> AsyncGenerator[Node]:
    async with open_node(
        identity=ME, transports=[transport.open], discovery=[backend.open for backend in backends]
    ) as node:
        yield node


# --- happy eyeballs ---


async def test_the_next_address_is_tried_when_one_hangs_and_the_first_connection_wins(
    autojump_clock: trio.testing.MockClock,
) -> None:
    transport = Scripted(100, 1, 100)
    async with dialing(transport, Known(0, 1, 2)) as node:
        began = trio.current_time()
        connection = await node.connect(PEER.peer_id)
        assert connection.address == f"/memory/1/p2p/{PEER.peer_id}"
        assert trio.current_time() - began == pytest.approx(1.25)
    starts = [(number, at - began) for number, at in transport.began]
    assert starts == [(0, pytest.approx(0)), (1, pytest.approx(0.25)), (2, pytest.approx(0.5))]
    assert sorted(transport.cancelled) == [0, 2]


async def test_an_address_that_fails_makes_way_for_the_next_at_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    transport = Scripted(PeerUnreachable("nobody there"), 0)
    async with dialing(transport, Known(0, 1)) as node:
        began = trio.current_time()
        await node.connect(PEER.peer_id)
        assert trio.current_time() == pytest.approx(began)


async def test_every_backend_is_asked_at_once_and_the_quicker_one_is_not_waited_for(
    autojump_clock: trio.testing.MockClock,
) -> None:
    transport = Scripted(0, 0)
    async with dialing(transport, Known(0, after=5), Known(1, after=2)) as node:
        began = trio.current_time()
        connection = await node.connect(PEER.peer_id)
        assert connection.address.startswith("/memory/1/")
        assert trio.current_time() - began == pytest.approx(2)


async def test_a_backend_that_fails_does_not_keep_the_others_from_finding(
    autojump_clock: trio.testing.MockClock,
) -> None:
    backends = Known(fails=ServiceUnavailable("no service")), Known(0, after=1)
    async with dialing(Scripted(0), *backends) as node:
        await node.connect(PEER.peer_id)


async def test_one_error_tells_every_attempt(autojump_clock: trio.testing.MockClock) -> None:
    failures = PeerUnreachable("the first is gone"), WrongPeer("the second is Eve")
    async with dialing(Scripted(*failures), Known(0), Known(1, after=0.5)) as node:
        with pytest.raises(PeerUnreachable) as caught:
            await node.connect(PEER.peer_id)
    told = str(caught.value)
    assert f"/memory/0/p2p/{PEER.peer_id}: the first is gone" in told
    assert f"/memory/1/p2p/{PEER.peer_id}: the second is Eve" in told
    assert isinstance(caught.value.__cause__, ExceptionGroup)
    assert caught.value.__cause__.exceptions == failures


async def test_a_backend_that_is_a_little_slower_still_gets_its_chance(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with dialing(Scripted(PeerUnreachable("no"), 0), Known(0), Known(1, after=0.9)) as node:
        await node.connect(PEER.peer_id)


async def test_no_more_addresses_are_tried_than_the_limit(autojump_clock: trio.testing.MockClock) -> None:
    transport = Scripted(*[PeerUnreachable("no")] * 1_000)
    async with dialing(transport, *(Known(*range(n, n + 100)) for n in range(0, 1_000, 100))) as node:
        with pytest.raises(PeerUnreachable):
            await node.connect(PEER.peer_id)
    assert len(transport.began) == 32


async def test_connections_that_came_too_late_are_closed(autojump_clock: trio.testing.MockClock) -> None:
    transport = Scripted(1, TooLateToStop(2))
    async with dialing(transport, Known(0, 1)) as node:
        connection = await node.connect(PEER.peer_id)
        await connection.open_stream()
        first, late = transport.made
        assert first is connection
        with pytest.raises(trio.ClosedResourceError):
            await late.open_stream()


async def test_a_dial_that_nobody_waits_for_any_more_is_broken_off(
    autojump_clock: trio.testing.MockClock,
) -> None:
    transport = Scripted(100)
    async with dialing(transport, Known(0)) as node:
        for _ in range(2):
            with trio.move_on_after(1):
                await node.connect(PEER.peer_id)
            await trio.testing.wait_all_tasks_blocked()
        assert transport.cancelled == [0, 0]


# --- one connection for each peer ---


async def test_however_many_ask_at_once_one_dial_is_made(autojump_clock: trio.testing.MockClock) -> None:
    transport = Scripted(1)
    async with dialing(transport, Known(0)) as node:
        found: list[Connection] = []

        async def connect() -> None:
            found.append(await node.connect(PEER.peer_id))

        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(connect)
        assert len(transport.made) == 1
        assert found == transport.made * 50


async def test_one_of_several_who_wait_may_give_up(autojump_clock: trio.testing.MockClock) -> None:
    transport = Scripted(2)
    async with dialing(transport, Known(0)) as node, trio.open_nursery() as nursery:

        async def give_up() -> None:
            with trio.move_on_after(1):
                await node.connect(PEER.peer_id)

        nursery.start_soon(give_up)
        await node.connect(PEER.peer_id)
        assert not transport.cancelled


def memory() -> Callable[[], TransportFactory]:
    network = MemoryNetwork()
    return lambda: network.transport


def over_webrtc() -> Callable[[], TransportFactory]:
    return lambda: webrtc(engine=AiortcEngine(addresses=["127.0.0.1"]))


@pytest.mark.parametrize("world", [memory, over_webrtc])
async def test_both_ends_dial_at_once_and_settle_on_the_same_connection(
    world: Callable[[], Callable[[], TransportFactory]],
) -> None:
    meeting, transport = MemoryMeeting(), world()

    @asynccontextmanager
    async def peer(identity: Identity, protocols: dict[str, Handler]) -> AsyncGenerator[Node]:
        async with open_node(
            identity=identity, discovery=[meeting.backend], transports=[transport()], protocols=protocols
        ) as node:
            yield node

    for _ in range(10):
        async with peer(ME, {ECHO: echo}) as one, peer(PEER, {ECHO: echo}) as other:
            async with trio.open_nursery() as nursery:  # five from each end
                for _ in range(5):
                    nursery.start_soon(ask, one, other.peer_id)
                    nursery.start_soon(ask, other, one.peer_id)
            assert await ask(one, other.peer_id) == await ask(other, one.peer_id) == b"x"
            assert list(one.connections) == [other.peer_id]
            assert list(other.connections) == [one.peer_id]
            # A stream opened by one comes out of the connection that the other one uses, too.
            async with await one.connections[other.peer_id].open_stream():
                with trio.fail_after(5):
                    while not other.connections[one.peer_id].streams:
                        await trio.testing.wait_all_tasks_blocked()


async def test_of_two_connections_the_one_that_the_smaller_peer_dialled_stays_and_the_other_ends_unused(
    autojump_clock: trio.testing.MockClock,
) -> None:
    network = MemoryNetwork()
    async with (
        open_node(identity=ME, transports=[network.transport], protocols={ECHO: echo}) as small,
        open_node(identity=PEER, transports=[network.transport], protocols={ECHO: echo}) as large,
    ):
        by_large = await large.connect(f"{network.address}/p2p/{small.peer_id}")
        stream = await large.open_stream(small.peer_id, ECHO)
        async with network.transport(Context(ME)) as transport:
            by_small = await transport.dial(f"{network.address}/p2p/{large.peer_id}", large.peer_id)
        async with by_small, stream:
            await trio.testing.wait_all_tasks_blocked()
            assert large.connections[small.peer_id] is not by_large
            await trio.sleep(60)
            await stream.send_all(b"x")  # still in use: nothing happens to it
            assert await stream.receive_some() == b"x"
            await stream.aclose()
            with trio.fail_after(60):
                await by_large.wait_closed()
            assert list(large.connections) == [small.peer_id]


async def test_when_the_connection_in_use_breaks_another_one_takes_over(
    autojump_clock: trio.testing.MockClock,
) -> None:
    network = MemoryNetwork()
    async with (
        open_node(identity=ME, transports=[network.transport], protocols={ECHO: echo}),
        open_node(identity=PEER, transports=[network.transport]) as large,
        large.events() as events,
    ):
        by_large = await large.connect(f"{network.address}/p2p/{ME.peer_id}")
        async with network.transport(Context(ME)) as transport:
            by_small = await transport.dial(f"{network.address}/p2p/{PEER.peer_id}", PEER.peer_id)
        async with by_small:
            await trio.testing.wait_all_tasks_blocked()
        await trio.testing.wait_all_tasks_blocked()
        assert large.connections[ME.peer_id] is by_large
        assert await ask(large, ME.peer_id) == b"x"
        names = [type(await anext(events)).__name__ for _ in range(3)]
        assert names == ["PeerConnected", "PathChanged", "PathChanged"]


async def test_a_peer_that_comes_by_itself_ends_the_wait_for_a_dial_that_hangs() -> None:
    network, transport = MemoryNetwork(), Scripted(3_600)
    async with (
        open_node(
            identity=ME, transports=[network.transport, transport.open], discovery=[Known(0).open]
        ) as node,
        open_node(identity=PEER, transports=[network.transport]) as peer,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(peer.connect, f"{network.address}/p2p/{ME.peer_id}")
        connection = await node.connect(PEER.peer_id)
        assert connection.address == f"{network.address}/p2p/{PEER.peer_id}"
        assert transport.began


async def test_a_connection_that_is_over_is_replaced_for_the_next_stream() -> None:
    network = MemoryNetwork()
    meeting = MemoryMeeting()
    async with (
        open_node(
            identity=PEER,
            transports=[network.transport],
            discovery=[meeting.backend],
            protocols={ECHO: echo},
        ),
        open_node(identity=ME, transports=[network.transport], discovery=[meeting.backend]) as node,
    ):
        for _ in range(3):
            await (await node.connect(PEER.peer_id)).aclose()
            assert await ask(node, PEER.peer_id) == b"x"  # at once: nothing was told of the end yet


async def test_a_stream_whose_connection_makes_way_for_another_is_opened_on_that_one() -> None:
    network = MemoryNetwork()
    async with (
        network.transport(Context(ME)) as raw,
        raw.listen() as listener,
        open_node(identity=PEER, transports=[network.transport]) as node,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(node.connect, listener.addresses[0])
        first = await listener.accept()
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(ask, node, ME.peer_id)
        await first.accept_stream()  # and say nothing
        async with await raw.dial(f"{network.address}/p2p/{PEER.peer_id}", PEER.peer_id) as second:
            await trio.testing.wait_all_tasks_blocked()
            await first.aclose()
            async with await second.accept_stream() as stream:
                assert await choose_untrusted(stream, {ECHO}) == ECHO
                await echo(stream, PEER.peer_id)


async def test_a_node_does_not_connect_to_itself() -> None:
    async with open_node(identity=ME) as node:
        with pytest.raises(MisuseError, match="itself"):
            await node.connect(ME.peer_id)


# --- whom it takes, and how many ---


async def test_a_peer_that_the_hook_refuses_is_neither_dialled_nor_taken() -> None:
    network = MemoryNetwork()
    async with (
        open_node(
            identity=ME, transports=[network.transport], allow=lambda peer: peer != PEER.peer_id
        ) as picky,
        open_node(identity=PEER, transports=[network.transport]) as refused,
        open_node(transports=[network.transport]) as welcome,
    ):
        with pytest.raises(PeerNotAllowed):
            await picky.connect(f"{network.address}/p2p/{PEER.peer_id}")
        await turned_away(refused, f"{network.address}/p2p/{ME.peer_id}")
        await picky.connect(f"{network.address}/p2p/{welcome.peer_id}")
        assert list(picky.connections) == [welcome.peer_id]


async def test_no_more_connections_are_taken_than_the_limits_allow_and_room_comes_back() -> None:
    network = MemoryNetwork()

    @asynccontextmanager
    async def guest() -> AsyncGenerator[Node]:
        async with open_node(transports=[network.transport]) as node:
            yield node

    address = f"{network.address}/p2p/{ME.peer_id}"
    async with open_node(
        identity=ME, transports=[network.transport], limits=Limits(connections=3, inbound=2)
    ) as node:
        async with guest() as one, guest() as two, guest() as three, guest() as four:
            await one.connect(address)
            await two.connect(address)
            await turned_away(three, address)
            await node.connect(f"{network.address}/p2p/{three.peer_id}")  # the third is for our own dials
            with pytest.raises(LimitReached):
                await node.connect(f"{network.address}/p2p/{four.peer_id}")
            assert set(node.connections) == {one.peer_id, two.peer_id, three.peer_id}
        for _ in range(500):  # a slot that is not given back would be missed here
            async with guest() as visitor:
                await visitor.connect(address)
                assert visitor.peer_id in node.connections
            await trio.testing.wait_all_tasks_blocked()
        assert not node.connections


async def test_more_streams_than_the_limit_are_reset_and_the_others_go_on() -> None:
    network = MemoryNetwork()
    async with (
        open_node(
            identity=ME, transports=[network.transport], protocols={ECHO: echo}, limits=Limits(streams=3)
        ),
        open_node(transports=[network.transport]) as guest,
    ):
        await guest.connect(f"{network.address}/p2p/{ME.peer_id}")
        streams = [await guest.open_stream(ME.peer_id, ECHO) for _ in range(3)]
        with pytest.raises(HandclaspError):
            await guest.open_stream(ME.peer_id, ECHO)
        for stream in streams:
            await stream.send_all(b"x")
            assert await stream.receive_some() == b"x"
            await stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert await ask(guest, ME.peer_id) == b"x"
