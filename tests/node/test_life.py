"""What a node tells of its connections, how it keeps them, and how it ends."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from handclasp.abc import Handler, Stream, TransportFactory
from handclasp.discovery.memory import MemoryMeeting
from handclasp.errors import (
    ConnectionLost,
    DeadlineExceeded,
    InvalidAddress,
    MisuseError,
    ProtocolViolation,
)
from handclasp.identity import Identity, PeerId
from handclasp.node import (
    Limits,
    Node,
    PeerConnected,
    PeerInfo,
    PeerLost,
    identify,
    open_node,
    ping,
)
from handclasp.protobuf import encode_field, encode_uvarint
from handclasp.transports.memory import MemoryNetwork, memory_stream_pair
from handclasp.transports.webrtc import webrtc
from handclasp.transports.webrtc.aiortc import AiortcEngine

ALICE = Identity.generate()
ECHO = "/echo/1.0.0"


class World:
    """One network and one meeting."""

    def __init__(self, transport: Callable[[], TransportFactory] | None = None) -> None:
        network = MemoryNetwork()
        self.meeting = MemoryMeeting()
        self._transport = transport or (lambda: network.transport)

    @asynccontextmanager
    async def node(
        self,
        identity: Identity | None = None,
        protocols: dict[str, Handler] | None = None,
        limits: Limits | None = None,
    ) -> AsyncGenerator[Node]:
        async with open_node(
            identity=identity,
            discovery=[self.meeting.backend],
            transports=[self._transport()],
            protocols=protocols,
            limits=limits,
        ) as node:
            yield node


def over_webrtc() -> World:
    return World(lambda: webrtc(engine=AiortcEngine(addresses=["127.0.0.1"])))


@pytest.fixture(params=[World, over_webrtc], ids=["memory", "webrtc"])
def world(request: pytest.FixtureRequest) -> World:
    return request.param()


# --- events ---


async def test_a_watcher_sees_who_is_there_who_comes_and_who_is_lost(world: World) -> None:
    async with world.node(ALICE) as alice, world.node() as early:
        await early.connect(alice.peer_id)
        async with alice.events() as events:
            first = await anext(events)
            assert isinstance(first, PeerConnected)
            assert first.peer == early.peer_id
            assert first.address.endswith(f"/p2p/{early.peer_id}")
            assert first.path == await alice.connections[early.peer_id].path()
            async with world.node() as late:
                await late.connect(alice.peer_id)
                came = await anext(events)
                assert isinstance(came, PeerConnected)
                assert came.peer == late.peer_id
            lost = await anext(events)
            assert isinstance(lost, PeerLost)
            assert (lost.peer, bool(lost.reason)) == (late.peer_id, True)


async def test_every_watcher_sees_every_event() -> None:
    world = World()
    async with world.node(ALICE) as alice, alice.events() as one, alice.events() as another:
        async with world.node() as bob:
            await bob.connect(alice.peer_id)
        for events in (one, another):
            assert [type(await anext(events)) for _ in range(2)] == [PeerConnected, PeerLost]


async def test_a_watcher_that_falls_behind_is_told_and_holds_nobody_up() -> None:
    world = World()
    async with world.node(ALICE) as alice, alice.events() as events:
        for _ in range(1_025):  # two events each
            async with world.node() as bob:
                await bob.connect(alice.peer_id)
            await trio.testing.wait_all_tasks_blocked()
        for _ in range(2_048):
            await anext(events)
        with pytest.raises(MisuseError, match="2048 events"):
            await anext(events)


# --- holding on ---


async def test_a_peer_that_is_held_is_connected_again_after_each_restart(world: World) -> None:
    async with world.node() as bob, bob.events() as events, bob.hold(ALICE.peer_id):
        for _ in range(3):
            async with world.node(ALICE):
                event = await anext(events)
                assert isinstance(event, PeerConnected)
                assert event.peer == ALICE.peer_id
            assert isinstance(await anext(events), PeerLost)


async def test_a_peer_that_comes_back_is_dialled_at_once_not_after_the_pause(
    autojump_clock: trio.testing.MockClock,
) -> None:
    world = World()
    async with world.node() as bob, bob.hold(ALICE.peer_id), bob.events() as events:
        await trio.sleep(3_600)  # by now the pause between two attempts is a minute
        came_back = trio.current_time()
        async with world.node(ALICE):
            assert isinstance(await anext(events), PeerConnected)
            assert trio.current_time() - came_back < 1


async def test_a_known_address_is_dialled_again_and_again(autojump_clock: trio.testing.MockClock) -> None:
    network = MemoryNetwork()
    address = f"{network.address}/p2p/{ALICE.peer_id}"
    async with open_node(transports=[network.transport]) as bob, bob.hold(address), bob.events() as events:
        await trio.sleep(300)
        came_back = trio.current_time()
        async with open_node(identity=ALICE, transports=[network.transport]):
            assert isinstance(await anext(events), PeerConnected)
            assert trio.current_time() - came_back <= 61


async def test_after_a_connection_that_lasted_the_pauses_start_over(
    autojump_clock: trio.testing.MockClock,
) -> None:
    network = MemoryNetwork()
    address = f"{network.address}/p2p/{ALICE.peer_id}"
    async with open_node(transports=[network.transport]) as bob, bob.hold(address), bob.events() as events:
        await trio.sleep(3_600)  # by now the pause is a minute
        async with open_node(identity=ALICE, transports=[network.transport]):
            await anext(events)
            await trio.sleep(60)
        await anext(events)
        restarted = trio.current_time()
        async with open_node(identity=ALICE, transports=[network.transport]):
            await anext(events)
            assert trio.current_time() - restarted < 3


async def test_the_pauses_between_attempts_grow_to_a_minute(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="handclasp.node.holding")
    async with open_node() as bob, bob.hold(f"/memory/9/p2p/{ALICE.peer_id}"):
        await trio.sleep(3_600)
    assert 55 < len(caplog.records) < 75


async def test_letting_go_ends_the_attempts_and_keeps_the_connection(world: World) -> None:
    async with world.node(ALICE), world.node() as bob, bob.events() as events:
        async with bob.hold(ALICE.peer_id):
            await anext(events)
        assert list(bob.connections) == [ALICE.peer_id]


async def test_both_ends_may_hold_on_to_each_other(autojump_clock: trio.testing.MockClock) -> None:
    world = World()
    async with world.node(ALICE) as alice, world.node() as bob:
        async with alice.hold(bob.peer_id), bob.hold(alice.peer_id):
            await trio.sleep(3_600)
            assert list(alice.connections) == [bob.peer_id]
            assert list(bob.connections) == [alice.peer_id]


async def test_what_is_held_has_to_be_a_peer() -> None:
    async with open_node() as bob:
        with pytest.raises(InvalidAddress, match="p2p"):
            bob.hold("/memory/1")


# --- topics ---


async def test_peers_meet_by_topic() -> None:
    world = World()
    async with world.node() as alice, world.node() as bob, bob.find("tea") as found:
        async with bob.advertise("tea"), alice.advertise("tea"):
            record = await anext(found)  # Alice and not Bob himself
            assert record.peer == alice.peer_id
            assert record.addresses == tuple(alice.addresses)


# --- ping and identify ---


async def test_ping_measures_a_round_trip(world: World) -> None:
    async with world.node(ALICE), world.node() as bob:
        assert 0 < await bob.ping(ALICE.peer_id) < 10


async def test_one_ping_stream_serves_many_pings(world: World) -> None:
    async with world.node(ALICE), world.node() as bob:
        async with await bob.open_stream(ALICE.peer_id, ping.PROTOCOL) as stream:
            for _ in range(20):
                await ping.measure(stream)


@pytest.mark.parametrize(
    ("reply", "error"),
    [(b"", ConnectionLost), (b"x" * 16, ConnectionLost), (b"x" * 32, ProtocolViolation)],
    ids=["nothing", "half", "something else"],
)
async def test_a_wrong_echo_is_the_peers_fault(reply: bytes, error: type[Exception]) -> None:
    ours, theirs = memory_stream_pair()
    async with ours, theirs:
        await theirs.send_all(reply)
        await theirs.send_eof()
        with pytest.raises(error):
            await ping.measure(ours)


async def test_a_peer_that_does_not_echo_is_not_waited_for_forever(
    autojump_clock: trio.testing.MockClock,
) -> None:
    ours, theirs = memory_stream_pair()
    async with ours, theirs:
        with pytest.raises(DeadlineExceeded):
            await ping.measure(ours)


async def test_an_idle_ping_stream_is_given_up(autojump_clock: trio.testing.MockClock) -> None:
    world = World()
    async with world.node(ALICE), world.node() as bob:
        async with await bob.open_stream(ALICE.peer_id, ping.PROTOCOL) as stream:
            await trio.sleep(100)
            await ping.measure(stream)
            await trio.sleep(100)
            await ping.measure(stream)
            assert await stream.receive_some() == b""


async def test_identify_tells_software_protocols_addresses_and_how_we_look(world: World) -> None:
    async with world.node(ALICE, {ECHO: ping.answer}) as alice, world.node() as bob:
        info = await bob.identify(alice.peer_id)
        assert info.peer == alice.peer_id
        assert info.agent.startswith("handclasp/")
        assert set(info.protocols) == {ECHO, ping.PROTOCOL, identify.PROTOCOL}
        assert info.addresses == tuple(alice.addresses)
        assert info.observed_address == (await bob.connections[alice.peer_id].path()).local


async def identified(message: bytes, *, prefix: int | None = None) -> PeerInfo:
    ours, theirs = memory_stream_pair()
    async with ours, theirs:
        await theirs.send_all(encode_uvarint(len(message) if prefix is None else prefix) + message)
        await theirs.send_eof()
        return await identify.ask(ours, ALICE.peer_id)


async def test_an_identify_message_of_another_key_is_refused() -> None:
    eve = Identity.generate().peer_id
    with pytest.raises(ProtocolViolation, match="another key"):
        await identified(encode_field(1, bytes(eve)[2:]))


async def test_an_identify_message_that_is_cut_short_or_too_long_is_refused() -> None:
    with pytest.raises(ConnectionLost, match="in the middle"):
        await identified(b"abc", prefix=10)
    with pytest.raises(ProtocolViolation, match="65536 are the most"):
        await identified(b"abc", prefix=64 * 1024 + 1)


async def test_what_we_do_not_know_in_an_identify_message_is_passed_over() -> None:
    unknown, known = b"\xff\x7f", b"\x04\x7f\x00\x00\x01\x06\x0f\xa1"
    info = await identified(encode_field(2, unknown) + encode_field(2, known) + encode_field(99, b"x"))
    assert info.addresses == ("/ip4/127.0.0.1/tcp/4001",)


async def test_a_long_identify_message_is_cut_to_its_limits() -> None:
    message = b"".join(encode_field(2, b"\x06\x0f\xa1") + encode_field(3, b"/x") for _ in range(500))
    info = await identified(message + encode_field(6, b"a" * 10_000))
    assert (len(info.addresses), len(info.protocols), len(info.agent)) == (64, 500, 256)


# --- the end ---


@pytest.mark.parametrize(("make_world", "size"), [(World, 64 * 1024), (over_webrtc, 1_000_000)])
async def test_what_was_sent_before_a_node_ends_arrives(make_world: Callable[[], World], size: int) -> None:
    world, data = make_world(), bytes(range(256)) * (size // 256)
    received = bytearray()
    gone, complete = trio.Event(), trio.Event()

    async def collect(stream: Stream, peer: PeerId) -> None:
        await gone.wait()  # nothing is read before the other node is gone
        async for chunk in stream:
            received.extend(chunk)
        complete.set()

    async with world.node(ALICE, {ECHO: collect}):
        async with world.node() as bob, await bob.open_stream(ALICE.peer_id, ECHO) as stream:
            await stream.send_all(data)
        gone.set()
        with trio.fail_after(10):
            await complete.wait()
        assert received == data


async def test_a_node_that_ends_does_not_wait_for_a_peer_that_does_not_read() -> None:
    world = over_webrtc()

    async def ignore(stream: Stream, peer: PeerId) -> None:
        await trio.sleep_forever()

    async with world.node(ALICE, {ECHO: ignore}):
        async with world.node() as bob:
            stream = await bob.open_stream(ALICE.peer_id, ECHO)
            with trio.move_on_after(1):
                await stream.send_all(bytes(10_000_000))


async def test_a_handler_may_read_what_had_arrived_when_the_connection_was_lost(world: World) -> None:
    lost, read = trio.Event(), trio.Event()

    async def slow(stream: Stream, peer: PeerId) -> None:
        await lost.wait()
        data = b"".join([chunk async for chunk in stream])
        assert data == b"last words"
        read.set()

    async with world.node(ALICE, {ECHO: slow}) as alice, alice.events() as events:
        async with world.node() as bob, await bob.open_stream(ALICE.peer_id, ECHO) as stream:
            await stream.send_all(b"last words")
            await stream.send_eof()
        assert [type(await anext(events)) for _ in range(2)] == [PeerConnected, PeerLost]
        lost.set()
        with trio.fail_after(5):
            await read.wait()


async def test_a_handler_that_goes_on_after_the_connection_is_lost_is_ended(
    autojump_clock: trio.testing.MockClock,
) -> None:
    world, ended = World(), trio.Event()

    async def forever(stream: Stream, peer: PeerId) -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.set()

    async with world.node(ALICE, {ECHO: forever}):
        async with world.node() as bob:
            await bob.open_stream(ALICE.peer_id, ECHO)
        with trio.fail_after(60):
            await ended.wait()


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 8, 13, 21, 34, 55])
async def test_a_node_that_is_cancelled_anywhere_leaves_nothing_behind(
    steps: int, leftovers: Callable
) -> None:
    world = over_webrtc()
    async with leftovers().none(), trio.open_nursery() as nursery:

        async def live() -> None:
            async with world.node(ALICE, {ECHO: ping.answer}) as alice, world.node() as bob:
                async with bob.hold(alice.peer_id), alice.hold(bob.peer_id):
                    await bob.ping(alice.peer_id)

        nursery.start_soon(live)
        for _ in range(steps):
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
