"""Many connections, one after the other and all at once: what they leave, and that they do not disturb each other."""

from __future__ import annotations

import gc
import sys
from collections import Counter
from collections.abc import Awaitable, Callable

import trio
import trio.testing

from handclasp import open_node
from handclasp.abc import Connection, Context, Stream, TransportFactory
from handclasp.discovery.memory import MemoryMeeting, memory_channel_pair
from handclasp.identity import Identity, PeerId
from handclasp.node import Node
from handclasp.transports.webrtc import webrtc
from handclasp.transports.webrtc.aiortc import AiortcEngine

ALICE, BOB = Identity.generate(), Identity.generate()
ECHO = "/echo/1.0.0"
Upgraded = Callable[..., Awaitable[list[Connection]]]


async def objects() -> Counter[str]:
    """How many objects of each class there are once nothing moves any more."""
    for _ in range(3):
        await trio.testing.wait_all_tasks_blocked(0.02)
        # trio keeps up to a thousand cancel scopes that are over until it sorts their deadlines out.
        trio._core._run.GLOBAL_RUN_CONTEXT.runner.deadlines._prune()  # type: ignore[attr-defined]
        gc.collect()
    return Counter(type(thing).__qualname__ for thing in gc.get_objects())


async def test_200_connects_and_disconnects_leave_nothing_behind(
    loopback_webrtc: TransportFactory, upgraded: Upgraded, leftovers: Callable
) -> None:
    async with loopback_webrtc(Context(ALICE)) as transport:

        async def connect_and_disconnect(times: int) -> None:
            for _ in range(times):
                ours, theirs = await upgraded(transport, *memory_channel_pair(ALICE.peer_id, BOB.peer_id))
                async with theirs, ours:
                    async with await ours.open_stream() as stream:
                        await stream.send_all(b"x")
                        async with await theirs.accept_stream() as accepted:
                            assert await accepted.receive_some() == b"x"

        await connect_and_disconnect(20)  # what is made once is there now
        before, left = await objects(), leftovers()
        blocks = sys.getallocatedblocks()
        async with left.none():
            await connect_and_disconnect(200)
        grown = await objects() - before
        blocks = sys.getallocatedblocks() - blocks
    # One object kept of each connection would be 200. What grows a little are caches.
    assert grown.total() < 150, grown.most_common(10)
    assert blocks < 1_000, "something is kept that the collector does not count: bytes, numbers"


async def test_100_peers_are_connected_to_one_node_at_the_same_time() -> None:
    meeting = MemoryMeeting()
    transport = webrtc(engine=AiortcEngine(addresses=["127.0.0.1"]))
    all_here = trio.Event()
    answered = 0

    async def echo(stream: Stream, peer: PeerId) -> None:
        async with stream:
            async for data in stream:
                await stream.send_all(bytes(peer) + data)
            await stream.send_eof()

    async def ask(node: Node, server: Node, question: bytes) -> None:
        async with await node.open_stream(server.peer_id, ECHO) as stream:
            await stream.send_all(question)
            await stream.send_eof()
            answer = bytearray()
            async for data in stream:
                answer += data
        assert answer == bytes(node.peer_id) + question

    async def visit(server: Node, at_a_time: trio.CapacityLimiter, number: int) -> None:
        nonlocal answered
        async with open_node(discovery=[meeting.backend], transports=[transport]) as node:
            async with at_a_time:  # connecting has deadlines, which 100 at once on a slow machine would miss
                await node.connect(f"{meeting.address}/webrtc/p2p/{server.peer_id}")
                await ask(node, server, b"%d" % number)
            answered += 1
            if answered == 100:
                assert len(server.connections) == 100
                all_here.set()
            await all_here.wait()
            await ask(node, server, b"again, %d" % number)

    async with (
        open_node(discovery=[meeting.backend], transports=[transport], protocols={ECHO: echo}) as server,
        trio.open_nursery() as nursery,
    ):
        at_a_time = trio.CapacityLimiter(5)
        for number in range(100):
            nursery.start_soon(visit, server, at_a_time, number)
