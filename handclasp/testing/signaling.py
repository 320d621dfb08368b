"""The contract suite for `handclasp.abc.Signaling` and its channels."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio
import trio.testing

from handclasp.abc import Context, DiscoveryFactory, Signaling, SignalingChannel
from handclasp.errors import (
    HandshakeFailed,
    InvalidAddress,
    MisuseError,
    PeerLeft,
    PeerUnreachable,
    ServiceUnavailable,
)
from handclasp.identity import Identity, PeerId

from .cancellation import cancel_everywhere, check_nothing_lost
from .claims import PATIENCE, claim, raises
from .leftovers import Leftovers

_BINDING_LENGTH = 32
#: How a channel may end whose other end was cancelled in the middle of opening it.
_BROKEN = (PeerLeft, HandshakeFailed, ServiceUnavailable)


async def check_signaling(factory: DiscoveryFactory, *, quiet: float = 0.02) -> None:
    """Check that signaling keeps what `handclasp.abc.Signaling` and `SignalingChannel` promise.

    - `address` is a multiaddr without a peer, `can_reach` knows it and nothing that is none;
    - a channel carries messages both ways in order, the longest included; a longer one is a `MisuseError`;
    - one end offers; each end knows the other after its first message; `binding` is the same at both ends,
      32 bytes, and different for each channel, or None at both;
    - several channels between the same two peers, and between others, do not mix; either peer opens them;
    - a peer that does not listen, or does no more, is `PeerUnreachable`;
    - a close is heard after everything that was sent before it; then the methods raise what the contract says;
    - a channel that nobody has received is closed when its peer stops listening;
    - a block's own error comes out as it is;
    - cancelling `open_channel`, `receive` and `incoming` at each of their awaits loses no message and leaves no
      task, thread, socket or file behind.

    Args:
        factory: what an application passes to `handclasp.open_node`; it is opened once for each peer.
        quiet: see `Leftovers.settled`; raise it where other processes or threads take part in cleaning up.

    Raises:
        AssertionError: a claim does not hold; which one is in the error's notes.
    """
    await _check_addresses(factory)
    await _check_messages(factory)
    await _check_several(factory)
    await _check_unreachable(factory)
    await _check_close(factory)
    await _check_unreceived(factory)
    await _check_bare_error(factory)
    await _check_cancelled_receive(factory)
    await _check_cancelled_open(factory, quiet)
    await _check_cancelled_incoming(factory, quiet)


@dataclass(frozen=True)
class _Peer:
    id: PeerId
    signaling: Signaling


@asynccontextmanager
async def _peer(factory: DiscoveryFactory) -> AsyncGenerator[_Peer]:
    identity = Identity.generate()
    async with factory(Context(identity)) as backend:
        assert isinstance(backend, Signaling), f"{type(backend).__qualname__} is no Signaling"
        yield _Peer(identity.peer_id, backend)


@asynccontextmanager
async def _two(factory: DiscoveryFactory) -> AsyncGenerator[tuple[_Peer, _Peer]]:
    async with _peer(factory) as alice, _peer(factory) as bob:
        yield alice, bob


@asynccontextmanager
async def _channel(factory: DiscoveryFactory) -> AsyncGenerator[tuple[SignalingChannel, SignalingChannel]]:
    """Both ends of a channel: whose peer opened it, and the other; each has heard the other once."""
    async with _two(factory) as (alice, bob), bob.signaling.incoming() as channels:
        ours, theirs = await _open(alice, bob, channels)
        async with ours, theirs:
            yield ours, theirs


async def _open(
    opener: _Peer, other: _Peer, channels: AsyncIterator[SignalingChannel]
) -> tuple[SignalingChannel, SignalingChannel]:
    """Open a channel and greet on it, in the order in which WebRTC does: the end that offers speaks first."""
    received: list[SignalingChannel] = []

    async def receive() -> None:
        received.append(await anext(channels))
        await _greet(received[0])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        ours = await opener.signaling.open_channel(other.signaling.address, other.id)
        await _greet(ours)
    theirs = received[0]
    assert (ours.peer, theirs.peer) == (other.id, opener.id), "an end names somebody else as its peer"
    assert ours.offers is not theirs.offers, "exactly one end makes the offer"
    assert ours.binding == theirs.binding, "the two ends know different bindings"
    if ours.binding is not None:
        assert len(ours.binding) == _BINDING_LENGTH, f"a binding has {_BINDING_LENGTH} bytes"
    return ours, theirs


async def _greet(channel: SignalingChannel) -> None:
    if channel.offers:
        await channel.send(b"offer")
        assert await channel.receive() == b"answer"
    else:
        assert await channel.receive() == b"offer"
        await channel.send(b"answer")


async def _check_addresses(factory: DiscoveryFactory) -> None:
    async with _two(factory) as (alice, bob):
        with claim("a node's signaling has an address without a peer, which others can reach"):
            address = bob.signaling.address
            assert address.startswith("/"), f"{address!r} is not a multiaddr"
            assert "/p2p/" not in address, f"{address!r} names a peer"
            assert alice.signaling.can_reach(address), f"can_reach({address!r}) says no"
        for garbage in ("", "/", "hello", "/nonsense/1", f"{address}/nonsense", address.removeprefix("/")):
            with claim(f"{garbage!r} is no address: can_reach says no and open_channel refuses"):
                assert not alice.signaling.can_reach(garbage)
                with raises(InvalidAddress, PeerUnreachable):
                    await alice.signaling.open_channel(garbage, bob.id)


async def _check_messages(factory: DiscoveryFactory) -> None:
    with claim("a channel opens, each end knows the other after its first message", within=10 * PATIENCE):
        async with _channel(factory) as (ours, theirs):
            for sender, receiver in ((ours, theirs), (theirs, ours)):
                with claim("messages keep their order"):
                    for number in range(10):
                        await sender.send(b"message %d" % number)
                    for number in range(10):
                        assert await receiver.receive() == b"message %d" % number
                with claim(f"a message of {sender.MAX_MESSAGE} bytes arrives, a longer one is refused"):
                    longest = bytes(range(256)) * (sender.MAX_MESSAGE // 256 + 1)
                    await sender.send(longest[: sender.MAX_MESSAGE])
                    assert await receiver.receive() == longest[: sender.MAX_MESSAGE]
                    with raises(MisuseError):
                        await sender.send(longest[: sender.MAX_MESSAGE + 1])
                with claim("a message may be empty"):
                    await sender.send(b"")
                    assert await receiver.receive() == b""


async def _check_several(factory: DiscoveryFactory) -> None:
    with claim("several channels of the same and of other peers do not mix, and have bindings of their own"):
        async with _two(factory) as (alice, bob), _peer(factory) as carol:
            async with alice.signaling.incoming() as to_alice, bob.signaling.incoming() as to_bob:
                pairs = [
                    await _open(alice, bob, to_bob),
                    await _open(alice, bob, to_bob),
                    await _open(carol, bob, to_bob),
                    await _open(bob, alice, to_alice),
                ]
                bindings = {ours.binding for ours, _ in pairs if ours.binding is not None}
                assert len(bindings) in {0, len(pairs)}, "two channels have the same binding"
                for number, (ours, theirs) in enumerate(pairs):
                    await ours.send(b"there %d" % number)
                    await theirs.send(b"back %d" % number)
                for number, (ours, theirs) in enumerate(pairs):
                    async with ours, theirs:
                        assert await theirs.receive() == b"there %d" % number
                        assert await ours.receive() == b"back %d" % number


async def _check_unreachable(factory: DiscoveryFactory) -> None:
    async with _two(factory) as (alice, bob):
        nobody = Identity.generate().peer_id
        with claim("a peer that nobody knows is unreachable"), raises(PeerUnreachable):
            await alice.signaling.open_channel(bob.signaling.address, nobody)
        with claim("a peer that does not listen any more is unreachable"):
            async with bob.signaling.incoming():
                pass
            with raises(PeerUnreachable):
                await alice.signaling.open_channel(bob.signaling.address, bob.id)
        with claim("a peer that listens again can be reached again"):
            async with bob.signaling.incoming() as channels:
                for end in await _open(alice, bob, channels):
                    await end.aclose()


async def _check_close(factory: DiscoveryFactory) -> None:
    for swap in (False, True):
        async with _channel(factory) as ends:
            leaver, other = reversed(ends) if swap else ends
            with claim("a close is heard, after everything that was sent before it"):
                for number in range(3):
                    await leaver.send(b"last words %d" % number)
                await leaver.aclose()
                for number in range(3):
                    assert await other.receive() == b"last words %d" % number
                with raises(trio.EndOfChannel, PeerLeft):
                    await other.receive()
            with claim("after our own close: trio.ClosedResourceError"):
                await leaver.aclose()
                with raises(trio.ClosedResourceError):
                    await leaver.send(b"x")
                with raises(trio.ClosedResourceError):
                    await leaver.receive()
    with claim("a close wakes an end that waits"):
        async with _channel(factory) as (ours, theirs), trio.open_nursery() as nursery:
            nursery.start_soon(_expect_end, theirs)
            await trio.testing.wait_all_tasks_blocked(0.01)
            await ours.aclose()


async def _expect_end(channel: SignalingChannel) -> None:
    with raises(trio.EndOfChannel, PeerLeft):
        await channel.receive()


async def _check_unreceived(factory: DiscoveryFactory) -> None:
    with claim("a channel that nobody has received is closed, or not there, when its peer stops listening"):
        async with _two(factory) as (alice, bob), trio.open_nursery() as nursery:
            opening = trio.Event()

            async def open_one() -> None:
                opening.set()
                try:
                    async with await alice.signaling.open_channel(bob.signaling.address, bob.id) as channel:
                        await _expect_end(channel)
                except PeerUnreachable:
                    return

            async with bob.signaling.incoming():
                nursery.start_soon(open_one)
                await opening.wait()
                await trio.testing.wait_all_tasks_blocked(0.05)


async def _check_bare_error(factory: DiscoveryFactory) -> None:
    async def use() -> None:
        async with _peer(factory) as peer, peer.signaling.incoming():
            raise _Mine

    with claim("an error of the block comes out of the backend and its incoming() as it is"), raises(_Mine):
        await use()


class _Mine(Exception):
    pass


# --- cancelled anywhere ---


async def _check_cancelled_receive(factory: DiscoveryFactory) -> None:
    with claim("a cancelled receive loses no message"):
        async with _channel(factory) as (ours, theirs):
            await check_nothing_lost(lambda: ours.send(b"x"), theirs.receive)


async def _check_cancelled_open(factory: DiscoveryFactory, quiet: float) -> None:
    async with _peer(factory) as alice:

        @asynccontextmanager
        async def listening() -> AsyncGenerator[_Peer]:
            async def receive(channels: AsyncIterator[SignalingChannel]) -> None:
                async for channel in channels:
                    nursery.start_soon(hear_out, channel)

            async def hear_out(channel: SignalingChannel) -> None:
                async with channel:
                    with (
                        claim("a channel is closed by the end of a task that was cancelled"),
                        raises(trio.EndOfChannel, *_BROKEN),
                    ):
                        if channel.offers:
                            await channel.send(b"x")
                        await channel.receive()

            async with _peer(factory) as bob, trio.open_nursery() as nursery:
                async with bob.signaling.incoming() as channels:
                    async with trio.open_nursery() as receiving:
                        receiving.start_soon(receive, channels)
                        yield bob
                        await trio.testing.wait_all_tasks_blocked(quiet)
                        receiving.cancel_scope.cancel()

        async def open_one(bob: _Peer) -> None:
            async with await alice.signaling.open_channel(bob.signaling.address, bob.id):
                pass

        with claim("an open_channel that is cancelled anywhere leaves nothing behind", within=5 * PATIENCE):
            assert await cancel_everywhere(open_one, around=listening, quiet=quiet), "it has no await"


async def _check_cancelled_incoming(factory: DiscoveryFactory, quiet: float) -> None:
    async with _two(factory) as (alice, bob):

        async def listen() -> None:
            async with bob.signaling.incoming():
                await trio.lowlevel.checkpoint()

        with claim("an incoming() that is cancelled anywhere leaves nothing behind", within=5 * PATIENCE):
            await cancel_everywhere(listen, quiet=quiet)
        with claim("after all that it can be reached"):
            async with bob.signaling.incoming() as channels:
                for end in await _open(alice, bob, channels):
                    await end.aclose()

    async def open_and_close() -> None:
        async with _peer(factory):
            await trio.lowlevel.checkpoint()

    with claim(
        "a backend that is cancelled while it opens or closes leaves nothing behind", within=5 * PATIENCE
    ):
        async with Leftovers().none(quiet=quiet):
            await cancel_everywhere(open_and_close, quiet=quiet)
