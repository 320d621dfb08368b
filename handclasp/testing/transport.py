"""The contract suite for `handclasp.abc.Transport`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeAlias

import trio
import trio.testing

from handclasp.abc import (
    Connection,
    Context,
    DiscoveryFactory,
    Listener,
    Signaling,
    SignalingChannel,
    TransportFactory,
)
from handclasp.discovery.memory import MemoryChannel, memory_channel_pair
from handclasp.errors import HandclaspError, InvalidAddress, PeerUnreachable, WrongPeer
from handclasp.identity import Identity, PeerId

from .cancellation import cancel_everywhere, check_nothing_lost
from .claims import PATIENCE, claim, raises
from .leftovers import Leftovers
from .peers import Peer, connect, open_peer

#: Opens a place where somebody answers and then says nothing; yields its address, ending in ``/p2p/<peer id>``.
Hanging: TypeAlias = Callable[[], AbstractAsyncContextManager[str]]


async def check_transport(
    factory: TransportFactory,
    signaling: DiscoveryFactory | None = None,
    *,
    hanging: Hanging | None = None,
    dial_deadline: float = PATIENCE,
    quiet: float = 0.02,
) -> None:
    """Check that a transport keeps what `handclasp.abc.Transport` and `Listener` promise.

    - the listener's addresses end in its peer id, and `can_dial` and `dial` understand them;
    - whatever is no address of this transport is refused: `can_dial` says no, `dial` raises `InvalidAddress`;
    - a dial reaches the listener, each end names the other, and several peers dial at the same time;
    - a peer that does not listen, or does no more, is `PeerUnreachable`; another peer's id is refused;
    - a dial that hangs ends at its deadline with `PeerUnreachable` and leaves nothing behind;
    - a cancelled `accept` loses no connection, and what nobody accepted is closed with the listener;
    - a block's own error comes out as it is;
    - cancelling `dial`, `accept`, `listen` and `upgrade` at each of their awaits leaves no task, thread,
      socket or file behind;
    - where signaling channels can be upgraded: both ends get the connection, and somebody in between,
      who holds a channel to each, gets none.

    The connections themselves are for `check_connection`, and their streams for `check_stream`.

    Args:
        factory: what an application passes to `handclasp.open_node`.
        signaling: what the transport needs to reach others, if anything; each peer opens it once.
        hanging: for a transport without signaling; with signaling the suite hangs up by itself.
        dial_deadline: seconds after which `dial` gives up at the latest.
        quiet: see `Leftovers.settled`; raise it where other processes or threads take part in cleaning up.

    Raises:
        AssertionError: a claim does not hold; which one is in the error's notes.
    """
    await _check_addresses(factory, signaling)
    await _check_dial(factory, signaling)
    await _check_nobody(factory, signaling)
    await _check_several(factory, signaling)
    await _check_accept(factory, signaling)
    await _check_bare_error(factory, signaling)
    if signaling is not None:
        await _check_deadline(factory, signaling, lambda: _silent(signaling), dial_deadline, quiet)
    if hanging is not None:
        await _check_deadline(factory, signaling, hanging, dial_deadline, quiet)
    await _check_cancelled_dial(factory, signaling, quiet)
    await _check_cancelled_accept(factory, signaling, quiet)
    await _check_cancelled_listen(factory, signaling, quiet)
    await _check_upgrade(factory, signaling, quiet)


@asynccontextmanager
async def _two(
    factory: TransportFactory, signaling: DiscoveryFactory | None
) -> AsyncGenerator[tuple[Peer, Peer]]:
    async with open_peer(factory, signaling) as alice, open_peer(factory, signaling) as bob:
        yield alice, bob


@asynccontextmanager
async def _listening(
    factory: TransportFactory, signaling: DiscoveryFactory | None
) -> AsyncGenerator[tuple[Peer, Listener]]:
    async with open_peer(factory, signaling) as bob, bob.transport.listen() as listener:
        yield bob, listener


# --- addresses and dials ---


async def _check_addresses(factory: TransportFactory, signaling: DiscoveryFactory | None) -> None:
    async with _two(factory, signaling) as (alice, bob), bob.transport.listen() as listener:
        with claim("a listener has addresses, which end in its peer id and can be dialled"):
            assert listener.addresses
            for address in listener.addresses:
                assert address.startswith("/"), f"{address!r} is not a multiaddr"
                assert address.endswith(f"/p2p/{bob.id}"), f"{address!r} does not name {bob.id}"
                assert alice.transport.can_dial(address), f"can_dial({address!r}) says no"
        for garbage in _garbage(listener.addresses[0], bob.id):
            with claim(f"{garbage!r} is no address: can_dial says no and dial raises InvalidAddress"):
                assert not alice.transport.can_dial(garbage)
                with raises(InvalidAddress):
                    await alice.transport.dial(garbage, bob.id)


def _garbage(address: str, peer: PeerId) -> list[str]:
    nameless = address.removesuffix(f"/p2p/{peer}")
    return [
        "",
        "/",
        "hello",
        nameless,
        f"{nameless}/p2p/",
        f"{nameless}/p2p/{str(peer)[:-1]}",
        f"{address}/",
        f"{address}\n",
        address.removeprefix("/"),
        f"/nonsense/1{address}",
    ]


async def _check_dial(factory: TransportFactory, signaling: DiscoveryFactory | None) -> None:
    async with _two(factory, signaling) as (alice, bob), bob.transport.listen() as listener:
        with claim("a dial reaches the listener, and each end names the other"):
            ours, theirs = await connect(alice, listener, bob.id)
            async with ours, theirs:
                assert (ours.peer, theirs.peer) == (bob.id, alice.id)
                async with await ours.open_stream() as outgoing, await theirs.accept_stream() as incoming:
                    await outgoing.send_all(b"hello")
                    assert await incoming.receive_some() == b"hello"
        with claim("whoever is asked for by another peer id is refused with WrongPeer or PeerUnreachable"):
            eve = Identity.generate().peer_id
            elsewhere = listener.addresses[0].replace(str(bob.id), str(eve))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_Others().accept_all, listener)
                for address in (elsewhere, listener.addresses[0]):
                    with raises(WrongPeer, PeerUnreachable):
                        await alice.transport.dial(address, eve)
                nursery.cancel_scope.cancel()


async def _check_nobody(factory: TransportFactory, signaling: DiscoveryFactory | None) -> None:
    async with _two(factory, signaling) as (alice, bob):
        async with bob.transport.listen() as listener:
            address = listener.addresses[0]
        with claim("a peer that does not listen any more is unreachable", within=PATIENCE + 30):
            with raises(PeerUnreachable):
                await alice.transport.dial(address, bob.id)
        with claim("a peer that listens again can be reached again"):
            async with bob.transport.listen() as listener:
                for end in await connect(alice, listener, bob.id):
                    await trio.aclose_forcefully(end)


async def _check_several(factory: TransportFactory, signaling: DiscoveryFactory | None) -> None:
    reached: list[PeerId] = []

    async def visit(listener: Listener, peer: PeerId) -> None:
        async with open_peer(factory, signaling) as visitor:
            for _ in range(2):
                async with await visitor.transport.dial(listener.addresses[0], peer) as connection:
                    async with await connection.open_stream() as stream:
                        assert await stream.receive_some() == b"welcome"
                        reached.append(visitor.id)

    with claim("several peers dial at the same time, and more than once"):
        async with _listening(factory, signaling) as (bob, listener), trio.open_nursery() as nursery:
            nursery.start_soon(_Others().accept_all, listener, b"welcome")
            async with trio.open_nursery() as visiting:
                for _ in range(4):
                    visiting.start_soon(visit, listener, bob.id)
            nursery.cancel_scope.cancel()
    assert sorted(reached.count(peer) for peer in set(reached)) == [2, 2, 2, 2]


class _Others:
    """The connections of the other side, which notices when one of them is not closed by ours."""

    def __init__(self) -> None:
        self._open: set[Connection] = set()
        self._over = trio.Event()

    async def accept_all(self, listener: Listener, greeting: bytes = b"") -> None:
        """Accept connections, and greet on each of their streams."""
        async with trio.open_nursery() as nursery:
            while True:
                nursery.start_soon(self.hold, await listener.accept(), greeting)

    async def hold(self, connection: Connection, greeting: bytes = b"") -> None:
        """Keep a connection until it is over."""
        async with connection:
            self._open.add(connection)
            try:
                while True:
                    async with await connection.accept_stream() as stream:
                        await stream.send_all(greeting)
            except (HandclaspError, trio.BrokenResourceError):
                await connection.wait_closed()
            self._open.remove(connection)
            self._over.set()
            self._over = trio.Event()

    async def wait_over(self) -> None:
        """Wait until our side has closed every connection that it had."""
        await trio.testing.wait_all_tasks_blocked()  # until one that is just being made is there
        with claim("what was cancelled after it had connected closes its connection"):
            while self._open:
                await self._over.wait()


async def _check_accept(factory: TransportFactory, signaling: DiscoveryFactory | None) -> None:
    async with _two(factory, signaling) as (alice, bob):
        connections: list[Connection] = []

        async def dial() -> None:
            connections.append(await alice.transport.dial(listener.addresses[0], bob.id))

        async def accept() -> None:
            connections.append(await listener.accept())

        with claim("a cancelled accept loses no connection", within=5 * PATIENCE):
            async with bob.transport.listen() as listener:
                await check_nothing_lost(dial, accept)
                for connection in connections:
                    await trio.aclose_forcefully(connection)
        with claim("a connection that nobody accepted is closed with its listener"):
            async with bob.transport.listen() as listener:
                connection = await alice.transport.dial(listener.addresses[0], bob.id)
            async with connection:
                await connection.wait_closed()


async def _check_bare_error(factory: TransportFactory, signaling: DiscoveryFactory | None) -> None:
    async def use() -> None:
        async with open_peer(factory, signaling) as peer, peer.transport.listen():
            raise _Mine

    with claim("an error of the block comes out of the transport and its listener as it is"), raises(_Mine):
        await use()


class _Mine(Exception):
    pass


@asynccontextmanager
async def _silent(signaling: DiscoveryFactory) -> AsyncGenerator[str]:
    """A peer that takes signaling channels and says nothing."""
    identity = Identity.generate()
    async with signaling(Context(identity)) as backend:
        assert isinstance(backend, Signaling)
        async with backend.incoming():
            yield f"{backend.address}/webrtc/p2p/{identity.peer_id}"


async def _check_deadline(
    factory: TransportFactory,
    signaling: DiscoveryFactory | None,
    hanging: Hanging,
    limit: float,
    quiet: float,
) -> None:
    async with open_peer(factory, signaling) as alice, Leftovers().none(quiet=quiet), hanging() as address:
        peer = PeerId.from_text_untrusted(address.rpartition("/")[2])
        with claim(f"a dial that hangs ends by itself within {limit:.0f} s", within=limit):
            with raises(PeerUnreachable):
                await alice.transport.dial(address, peer)


# --- cancelled anywhere ---


async def _check_cancelled_dial(
    factory: TransportFactory, signaling: DiscoveryFactory | None, quiet: float
) -> None:
    async with open_peer(factory, signaling) as alice:

        @asynccontextmanager
        async def listening() -> AsyncGenerator[tuple[str, PeerId]]:
            async with _listening(factory, signaling) as (bob, listener), trio.open_nursery() as nursery:
                others = _Others()
                nursery.start_soon(others.accept_all, listener)
                yield listener.addresses[0], bob.id
                await others.wait_over()
                nursery.cancel_scope.cancel()

        async def dial(target: tuple[str, PeerId]) -> None:
            async with await alice.transport.dial(*target):
                pass

        with claim("a dial that is cancelled anywhere leaves nothing behind", within=10 * PATIENCE):
            assert await cancel_everywhere(dial, around=listening, quiet=quiet), "it has no await"


async def _check_cancelled_accept(
    factory: TransportFactory, signaling: DiscoveryFactory | None, quiet: float
) -> None:
    async with open_peer(factory, signaling) as bob:

        @asynccontextmanager
        async def dialled() -> AsyncGenerator[Listener]:
            others = _Others()

            async def dial(address: str) -> None:
                try:
                    connection = await alice.transport.dial(address, bob.id)
                except PeerUnreachable:
                    return  # the listener is closed
                await others.hold(connection)

            async with open_peer(factory, signaling) as alice, trio.open_nursery() as nursery:
                async with bob.transport.listen() as listener:
                    nursery.start_soon(dial, listener.addresses[0])
                    yield listener
                await others.wait_over()
                nursery.cancel_scope.cancel()

        async def accept(listener: Listener) -> None:
            async with await listener.accept():
                pass

        with claim("an accept that is cancelled anywhere leaves nothing behind", within=10 * PATIENCE):
            assert await cancel_everywhere(accept, around=dialled, quiet=quiet), "it has no await"


async def _check_cancelled_listen(
    factory: TransportFactory, signaling: DiscoveryFactory | None, quiet: float
) -> None:
    async with open_peer(factory, signaling) as bob:

        async def listen() -> None:
            async with bob.transport.listen():
                await trio.lowlevel.checkpoint()

        with claim("a listen that is cancelled anywhere leaves nothing behind", within=5 * PATIENCE):
            await cancel_everywhere(listen, quiet=quiet)
        with claim("after all that it can listen"):
            async with bob.transport.listen() as listener:
                assert listener.addresses

    async def open_and_close() -> None:
        async with open_peer(factory, signaling):
            await trio.lowlevel.checkpoint()

    with claim(
        "a transport that is cancelled while it opens or closes leaves nothing behind", within=5 * PATIENCE
    ):
        await cancel_everywhere(open_and_close, quiet=quiet)


# --- upgrades ---


async def _check_upgrade(factory: TransportFactory, signaling: DiscoveryFactory | None, quiet: float) -> None:
    async with _two(factory, signaling) as (alice, bob):
        channels = memory_channel_pair(alice.id, bob.id)
        if not all(peer.transport.can_upgrade(end) for peer, end in zip((alice, bob), channels, strict=True)):
            return

        async def upgrade(peer: Peer, channel: SignalingChannel) -> None:
            async with channel, await peer.transport.upgrade(channel) as connection:
                assert connection.peer == channel.peer
                connected.append(connection.peer)
                if len(connected) == len(channels):
                    everybody.set()
                await everybody.wait()

        connected: list[PeerId] = []
        everybody = trio.Event()
        with claim("both ends of an upgraded signaling channel get a connection to the other"):
            async with trio.open_nursery() as nursery:
                for peer, end in zip((alice, bob), channels, strict=True):
                    nursery.start_soon(upgrade, peer, end)
        with claim("somebody between two signaling channels gets no connection"):
            await _check_go_between(alice, bob)

        async def upgrade_here(channel: SignalingChannel) -> None:
            async with await alice.transport.upgrade(channel):
                pass

        for offers in (True, False):

            @asynccontextmanager
            async def answering(*, offers: bool = offers) -> AsyncGenerator[SignalingChannel]:
                others = _Others()

                async def answer() -> None:
                    try:
                        connection = await bob.transport.upgrade(there)
                    except HandclaspError:
                        return  # ours was cancelled
                    await others.hold(connection)

                ends = (
                    memory_channel_pair(alice.id, bob.id) if offers else memory_channel_pair(bob.id, alice.id)
                )
                here, there = ends if offers else reversed(ends)
                async with here, there, trio.open_nursery() as nursery:
                    nursery.start_soon(answer)
                    yield here
                    await others.wait_over()
                    nursery.cancel_scope.cancel()

            who = "offers" if offers else "answers"
            with claim(
                f"an upgrade that {who}, cancelled anywhere, leaves nothing behind", within=10 * PATIENCE
            ):
                assert await cancel_everywhere(upgrade_here, around=answering, quiet=quiet), "it has no await"


async def _check_go_between(alice: Peer, bob: Peer) -> None:
    """Both ends use channels that end at somebody who passes every message on, so their bindings differ."""
    ours, its = memory_channel_pair(alice.id, bob.id)
    other, theirs = memory_channel_pair(alice.id, bob.id)
    refused = 0

    async def pass_on(source: MemoryChannel, target: MemoryChannel) -> None:
        async for message in _messages(source):
            await target.send(message)

    async def upgrade(peer: Peer, channel: SignalingChannel) -> None:
        nonlocal refused
        with raises(HandclaspError):
            await peer.transport.upgrade(channel)
        refused += 1
        if refused == 2:  # noqa: PLR2004 - both
            nursery.cancel_scope.cancel()

    async with ours, its, other, theirs, trio.open_nursery() as nursery:
        nursery.start_soon(pass_on, its, other)
        nursery.start_soon(pass_on, other, its)
        nursery.start_soon(upgrade, alice, ours)
        nursery.start_soon(upgrade, bob, theirs)


async def _messages(channel: SignalingChannel) -> AsyncGenerator[bytes]:
    while True:
        try:
            yield await channel.receive()
        except trio.EndOfChannel:
            return
