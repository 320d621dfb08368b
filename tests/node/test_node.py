"""A node: protocols over any transport, found by any discovery, and gone without a trace at the end."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
import trio
import trio.testing

from handclasp.abc import Connection, Context, DiscoveryFactory, Handler, PeerRecord, Stream, TransportFactory
from handclasp.discovery.memory import MemoryMeeting, memory_channel_pair
from handclasp.errors import ConnectionLost, InvalidAddress, PeerUnreachable, ProtocolRefused
from handclasp.identity import Identity, PeerId
from handclasp.node import Node, open_node
from handclasp.transports.memory import MemoryNetwork
from handclasp.transports.webrtc import webrtc
from handclasp.transports.webrtc.aiortc import AiortcEngine

ECHO, HELLO = "/echo/1.0.0", "/hello/1.0.0"


async def echo(stream: Stream, peer: PeerId) -> None:
    async for data in stream:
        await stream.send_all(data)


async def hello(stream: Stream, peer: PeerId) -> None:
    await stream.send_all(f"hello {peer}".encode())


async def read_all(stream: Stream) -> bytes:
    data = bytearray()
    async for chunk in stream:
        data += chunk
    return bytes(data)


async def ask(node: Node, peer: PeerId, protocol: str, question: bytes) -> bytes:
    async with await node.open_stream(peer, protocol) as stream:
        if question:
            await stream.send_all(question)
            await stream.send_eof()
        return await read_all(stream)


@dataclass
class World:
    """Where nodes of one kind meet."""

    discovery: DiscoveryFactory
    transport: TransportFactory
    prefix: str

    @asynccontextmanager
    async def node(self, protocols: dict[str, Handler] | None = None) -> AsyncGenerator[Node]:
        async with open_node(
            discovery=[self.discovery], transports=[self.transport], protocols=protocols
        ) as node:
            yield node

    def address(self, peer: PeerId) -> str:
        return f"{self.prefix}/p2p/{peer}"


def memory_world() -> World:
    network = MemoryNetwork()
    return World(MemoryMeeting().backend, network.transport, network.address)


def webrtc_world() -> World:
    meeting = MemoryMeeting()
    engine = AiortcEngine(addresses=["127.0.0.1"])
    return World(meeting.backend, webrtc(engine=engine), f"{meeting.address}/webrtc")


@pytest.fixture(params=[memory_world, webrtc_world], ids=["memory", "webrtc"])
def world(request: pytest.FixtureRequest) -> World:
    return request.param()


# --- protocols ---


async def test_a_handler_answers_and_knows_who_asks(world: World) -> None:
    async with world.node({ECHO: echo, HELLO: hello}) as alice, world.node() as bob:
        assert await ask(bob, alice.peer_id, ECHO, b"question") == b"question"
        assert await ask(bob, alice.peer_id, HELLO, b"") == f"hello {bob.peer_id}".encode()


async def test_either_side_of_a_connection_asks(world: World) -> None:
    async with world.node({ECHO: echo}) as alice, world.node({HELLO: hello}) as bob:
        assert await ask(bob, alice.peer_id, ECHO, b"x") == b"x"
        assert await ask(alice, bob.peer_id, HELLO, b"") == f"hello {alice.peer_id}".encode()
        assert len(alice.connections) == len(bob.connections) == 1


async def test_a_protocol_that_nobody_handles_is_refused_and_the_connection_stays(world: World) -> None:
    async with world.node({ECHO: echo}) as alice, world.node() as bob:
        with pytest.raises(ProtocolRefused):
            await bob.open_stream(alice.peer_id, "/nothing/1.0.0")
        assert await ask(bob, alice.peer_id, ECHO, b"x") == b"x"


async def test_a_handler_that_raises_resets_its_stream_is_logged_and_disturbs_nothing_else(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(stream: Stream, peer: PeerId) -> None:
        await stream.receive_some()
        raise ValueError("the handler is broken")

    async with world.node({ECHO: echo, HELLO: broken}) as alice, world.node() as bob:
        async with await bob.open_stream(alice.peer_id, ECHO) as other:
            with caplog.at_level(logging.ERROR):
                async with await bob.open_stream(alice.peer_id, HELLO) as stream:
                    await stream.send_all(b"question")
                    with pytest.raises(trio.BrokenResourceError):
                        await read_all(stream)
            (record,) = [r for r in caplog.records if r.name.startswith("handclasp")]
            assert HELLO in record.getMessage()
            assert record.exc_info is not None
            assert record.exc_info[0] is ValueError
            await other.send_all(b"still here")
            assert await other.receive_some() == b"still here"


async def test_a_handler_that_returns_closes_its_stream(world: World) -> None:
    async def say_nothing(stream: Stream, peer: PeerId) -> None:
        """Return at once."""

    async with world.node({HELLO: say_nothing}) as alice, world.node() as bob:
        async with await bob.open_stream(alice.peer_id, HELLO) as stream:
            assert await stream.receive_some() == b""


async def test_many_streams_run_at_the_same_time(world: World) -> None:
    gathered = trio.Event()
    present = 0

    async def gather(stream: Stream, peer: PeerId) -> None:
        nonlocal present
        present += 1
        if present == 20:
            gathered.set()
        await gathered.wait()
        await stream.send_all(b"all here")

    async def take_part(node: Node, peer: PeerId) -> None:
        assert await ask(node, peer, HELLO, b"") == b"all here"

    async with world.node({HELLO: gather}) as alice, world.node() as bob:
        await bob.connect(alice.peer_id)
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(take_part, bob, alice.peer_id)


async def test_a_dialer_that_proposes_and_goes_away_does_no_harm(world: World) -> None:
    async with world.node({ECHO: echo}) as alice, world.node() as bob:
        connection = await bob.connect(alice.peer_id)
        await (await connection.open_stream()).aclose()
        await (await connection.open_stream()).reset()
        stream = await connection.open_stream()
        await stream.send_all(b"\x13/multistream/9.9.9\n")
        with pytest.raises(trio.BrokenResourceError):
            await read_all(stream)
        assert await ask(bob, alice.peer_id, ECHO, b"x") == b"x"


# --- connecting ---


async def test_a_peer_is_reached_by_its_id(world: World) -> None:
    async with world.node() as alice, world.node() as bob:
        connection = await bob.connect(alice.peer_id)
        assert connection.peer == alice.peer_id
        assert connection.address == world.address(alice.peer_id)


async def test_a_peer_is_reached_by_its_address(world: World) -> None:
    async with world.node() as alice, world.node() as bob:
        assert (await bob.connect(world.address(alice.peer_id))).peer == alice.peer_id


async def test_a_connection_that_is_up_is_used_again(world: World) -> None:
    async with world.node() as alice, world.node() as bob:
        first = await bob.connect(alice.peer_id)
        assert await bob.connect(world.address(alice.peer_id)) is first
        assert bob.connections == {alice.peer_id: first}


async def test_a_connection_that_ended_is_forgotten_and_made_anew(world: World) -> None:
    async with world.node({ECHO: echo}) as alice, world.node() as bob:
        first = await bob.connect(alice.peer_id)
        await first.aclose()
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert not bob.connections
        assert not alice.connections
        assert await ask(bob, alice.peer_id, ECHO, b"x") == b"x"
        assert bob.connections[alice.peer_id] is not first


async def test_a_peer_that_went_away_breaks_what_waits_for_it(world: World) -> None:
    async with world.node() as bob:
        async with world.node({ECHO: echo}) as alice:
            stream = await bob.open_stream(alice.peer_id, ECHO)
        with pytest.raises(trio.BrokenResourceError):
            await read_all(stream)


async def test_an_address_that_is_none_is_the_callers_mistake(world: World) -> None:
    nobody = Identity.generate().peer_id
    async with world.node() as bob:
        for address in (
            "",
            "/memory",
            "/memory/p2p/",
            "/memory/p2p/x",
            f"/p2p/{nobody}",
            f"/ip4/1.2.3.4/p2p/{nobody}",
        ):
            with pytest.raises(InvalidAddress):
                await bob.connect(address)


async def test_a_peer_at_a_known_address_that_is_not_there_is_unreachable(world: World) -> None:
    nobody = Identity.generate().peer_id
    async with world.node() as bob:
        with pytest.raises(PeerUnreachable):
            await bob.connect(world.address(nobody))


async def test_a_peer_that_nobody_knows_is_unreachable_after_a_while(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with memory_world().node() as bob:
        with pytest.raises(PeerUnreachable, match="nowhere"):
            await bob.connect(Identity.generate().peer_id)


async def test_without_discovery_a_peer_id_is_not_enough() -> None:
    async with open_node(transports=[MemoryNetwork().transport]) as bob:
        with pytest.raises(PeerUnreachable):
            await bob.connect(Identity.generate().peer_id)


async def test_every_address_is_tried_and_the_error_tells_of_each(world: World) -> None:
    alice = Identity.generate()
    record = PeerRecord(alice.peer_id, (world.address(alice.peer_id), f"/elsewhere/p2p/{alice.peer_id}"))
    async with world.node() as bob, world.discovery(Context(alice)) as backend:
        async with backend.advertise(str(alice.peer_id), record):
            with pytest.raises(PeerUnreachable) as caught:
                await bob.connect(alice.peer_id)
    assert isinstance(caught.value.__cause__, ExceptionGroup)
    assert [type(exc) for exc in caught.value.__cause__.exceptions] == [PeerUnreachable, InvalidAddress]


async def test_a_record_without_addresses_does_not_hide_one_with_some(world: World) -> None:
    async with (
        world.node() as alice,
        world.node() as bob,
        world.discovery(Context(alice.identity)) as backend,
    ):
        async with backend.advertise(str(bob.peer_id), PeerRecord(alice.peer_id)):
            assert (await bob.connect(alice.peer_id)).peer == alice.peer_id


async def test_a_signaling_channel_becomes_a_connection_of_both_nodes(
    loopback_webrtc: TransportFactory,
) -> None:
    async with (
        open_node(transports=[loopback_webrtc], protocols={ECHO: echo}) as alice,
        open_node(transports=[loopback_webrtc]) as bob,
    ):
        channels = memory_channel_pair(alice.peer_id, bob.peer_id)
        async with channels[0], channels[1], trio.open_nursery() as nursery:
            nursery.start_soon(alice.connect_over, channels[0])
            await bob.connect_over(channels[1])
        assert await ask(bob, alice.peer_id, ECHO, b"x") == b"x"


async def test_a_node_without_a_transport_for_signaling_says_so() -> None:
    async with open_node(transports=[MemoryNetwork().transport]) as node:
        channel, _ = memory_channel_pair(node.peer_id, Identity.generate().peer_id)
        with pytest.raises(InvalidAddress, match="webrtc"):
            await node.connect_over(channel)


# --- the end ---


async def test_everything_is_closed_at_the_end(world: World, leftovers: Callable) -> None:
    connections: list[Connection] = []
    async with leftovers().none():
        async with world.node({ECHO: echo}) as alice, world.node({ECHO: echo}) as bob:
            for one, other in ((alice, bob), (bob, alice)):
                stream = await one.open_stream(other.peer_id, ECHO)
                await stream.send_all(b"never read")
                connections += one.connections.values()
        for connection in connections:
            await connection.wait_closed()
            with pytest.raises((trio.ClosedResourceError, ConnectionLost)):
                await connection.open_stream()


async def test_a_handler_that_still_runs_is_cancelled_at_the_end(world: World) -> None:
    started, ended = trio.Event(), trio.Event()

    async def wait_forever(stream: Stream, peer: PeerId) -> None:
        started.set()
        try:
            await trio.sleep_forever()
        finally:
            ended.set()

    async with world.node() as bob:
        async with world.node({HELLO: wait_forever}) as alice:
            await bob.open_stream(alice.peer_id, HELLO)
            await started.wait()
        assert ended.is_set()


async def test_the_error_of_the_block_comes_out_bare_and_everything_is_closed(
    world: World, leftovers: Callable
) -> None:
    async def use() -> None:
        async with world.node({ECHO: echo}) as alice, world.node() as bob:
            await bob.open_stream(alice.peer_id, ECHO)
            raise ValueError("mine")

    async with leftovers().none():
        with pytest.raises(ValueError, match="mine"):
            await use()


async def test_a_node_that_is_closed_is_found_no_more(world: World) -> None:
    async with world.node() as alice:
        pass
    async with world.node() as bob:
        with pytest.raises(PeerUnreachable):
            await bob.connect(world.address(alice.peer_id))


async def test_an_identity_is_made_unless_one_is_given() -> None:
    identity = Identity.generate()
    async with open_node(identity=identity) as mine, open_node() as one, open_node() as other:
        assert mine.peer_id == identity.peer_id
        assert len({mine.peer_id, one.peer_id, other.peer_id}) == 3
