"""Signaling straight over TCP."""

from __future__ import annotations

import errno
import itertools
import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import ExitStack, asynccontextmanager
from types import SimpleNamespace

import ifaddr
import pytest
import trio
import trio.testing

from handclasp.abc import Context, SignalingChannel
from handclasp.discovery import direct as direct_module
from handclasp.discovery import secure
from handclasp.discovery.direct import MAX_INBOUND, DirectSignaling, direct, from_url
from handclasp.errors import (
    ConfigurationError,
    HandshakeFailed,
    PeerLeft,
    PeerUnreachable,
    ServiceUnavailable,
    WrongPeer,
)
from handclasp.identity import Identity
from handclasp.multiaddr import Endpoint, at, endpoint
from handclasp.node.plugins import discovery_from_url

ALICE, BOB, EVE = (Identity.generate() for _ in range(3))


@asynccontextmanager
async def signaling(
    identity: Identity, host: str = "127.0.0.1", port: int = 0
) -> AsyncGenerator[DirectSignaling]:
    async with direct(host, port)(Context(identity)) as opened:
        assert isinstance(opened, DirectSignaling)
        yield opened


@asynccontextmanager
async def channels(host: str = "127.0.0.1") -> AsyncGenerator[tuple[SignalingChannel, SignalingChannel]]:
    """Alice's end, who dialed, and Bob's, who offers."""
    async with signaling(ALICE) as alice, signaling(BOB, host) as bob, bob.incoming() as arriving:
        async with (
            await alice.open_channel(bob.address, BOB.peer_id) as ours,
            await anext(arriving) as theirs,
        ):
            yield ours, theirs


async def shake_hands(dialer: SignalingChannel, answerer: SignalingChannel) -> None:
    """Exchange an offer and an answer."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(answerer.send, b"offer")
        assert await dialer.receive() == b"offer"
        await dialer.send(b"answer")
        assert await answerer.receive() == b"answer"


def raw(address: str) -> socket.socket:
    """A TCP connection of somebody who may send anything."""
    place = endpoint(address)
    return socket.create_connection((place.host, place.port))


# --- a channel ---


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_a_channel_leads_to_the_peer_that_listens_and_he_offers(host: str) -> None:
    async with channels(host) as (ours, theirs):
        assert (ours.offers, theirs.offers) == (False, True)
        await shake_hands(ours, theirs)
        assert (ours.peer, theirs.peer) == (BOB.peer_id, ALICE.peer_id)
        assert ours.binding == theirs.binding
        assert len(ours.binding or b"") == 32


async def test_messages_of_every_length_keep_their_order_in_both_directions() -> None:
    messages = [bytes([length % 251]) * length for length in (0, 1, 253, 254, 255, 256, 40_000, 2, 39_999)]

    async def send(channel: SignalingChannel) -> None:
        for message in messages:
            await channel.send(message)

    async with channels() as (ours, theirs):
        await shake_hands(ours, theirs)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, ours)
            nursery.start_soon(send, theirs)
            assert [await ours.receive() for _ in messages] == messages
            assert [await theirs.receive() for _ in messages] == messages


async def test_what_was_sent_before_a_close_still_arrives() -> None:
    async with channels() as (ours, theirs):
        await shake_hands(ours, theirs)
        await ours.send(b"last words")
        await ours.aclose()
        assert await theirs.receive() == b"last words"
        with pytest.raises(trio.EndOfChannel):
            await theirs.receive()
        await theirs.send(b"nobody hears this")
        await theirs.send(b"nor this")
        with pytest.raises(trio.ClosedResourceError):
            await ours.receive()


async def test_a_peer_that_closes_with_something_unread_has_merely_closed() -> None:
    async with channels() as (ours, theirs):
        await shake_hands(ours, theirs)
        for _ in range(3):
            await theirs.send(bytes(40_000))
        await ours.aclose()
        with pytest.raises(trio.EndOfChannel):
            await theirs.receive()


async def test_somebody_else_at_the_address_is_the_wrong_peer() -> None:
    async with signaling(ALICE) as alice, signaling(EVE) as eve, eve.incoming() as arriving:
        async with (
            await alice.open_channel(eve.address, BOB.peer_id) as ours,
            await anext(arriving) as theirs,
        ):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(theirs.send, b"offer")
                with pytest.raises(WrongPeer):
                    await ours.receive()


async def test_a_channel_outlives_the_listening() -> None:
    async with signaling(ALICE) as alice, signaling(BOB) as bob:
        async with bob.incoming() as arriving:
            ours = await alice.open_channel(bob.address, BOB.peer_id)
            theirs = await anext(arriving)
        async with ours, theirs:
            await shake_hands(ours, theirs)


# --- an address ---


async def test_an_address_is_where_it_listens() -> None:
    async with signaling(ALICE) as alice, signaling(BOB, "::1") as bob:
        assert endpoint(alice.address) == Endpoint("127.0.0.1", endpoint(alice.address).port, ())
        assert endpoint(bob.address) == Endpoint("::1", endpoint(bob.address).port, ())
        assert alice.can_reach(bob.address)


@pytest.mark.parametrize(
    ("address", "reachable"),
    [
        ("/dns4/example.com/tcp/1", True),
        ("/ip4/192.0.2.1/udp/1", False),
        ("/ip4/192.0.2.1/tcp/1/ws", False),
        ("/ip4/192.0.2.1", False),
        ("/memory/1", False),
        ("nonsense", False),
    ],
)
async def test_it_reaches_tcp_ports_and_nothing_else(address: str, *, reachable: bool) -> None:
    async with signaling(ALICE) as alice:
        assert alice.can_reach(address) is reachable
        if not reachable:
            with pytest.raises(PeerUnreachable):
                await alice.open_channel(address, BOB.peer_id)


def adapter(*ips: str) -> SimpleNamespace:
    return SimpleNamespace(ips=[SimpleNamespace(ip=(ip, 0, 0) if ":" in ip else ip) for ip in ips])


LO = adapter("127.0.0.1", "::1")
ANY = "0.0.0.0"  # noqa: S104 - nothing is bound


@pytest.mark.parametrize(
    ("host", "adapters", "found"),
    [
        (ANY, [LO, adapter("169.254.1.1", "192.0.2.7"), adapter("192.0.2.8")], "192.0.2.7"),
        ("::", [LO, adapter("192.0.2.7", "fe80::1", "2001:db8::7")], "2001:db8::7"),
        (ANY, [LO], "127.0.0.1"),
        ("::", [LO], "::1"),
    ],
)
async def test_behind_a_wildcard_the_address_is_that_of_the_first_network_interface(
    monkeypatch: pytest.MonkeyPatch, host: str, adapters: list[SimpleNamespace], found: str
) -> None:
    monkeypatch.setattr(ifaddr, "get_adapters", lambda: adapters)
    listening = SimpleNamespace(getsockname=lambda: (host, 4001))  # a test does not listen on the network
    assert DirectSignaling(ALICE, listening).address == at(found, "tcp", 4001)  # type: ignore[arg-type]


async def test_a_url_names_the_address_and_the_port() -> None:
    async with discovery_from_url("tcp://127.0.0.1")(Context(ALICE)) as opened:
        assert isinstance(opened, DirectSignaling)
        free = endpoint(opened.address).port
    async with from_url(f"tcp://127.0.0.1:{free}")(Context(ALICE)) as opened:
        assert isinstance(opened, DirectSignaling)
        assert opened.address == f"/ip4/127.0.0.1/tcp/{free}"
    async with from_url("tcp://[::1]/")(Context(ALICE)) as opened:
        assert isinstance(opened, DirectSignaling)
        assert opened.address.startswith("/ip6/::1/tcp/")


@pytest.mark.parametrize(
    "url",
    [
        "tcp:",
        "tcp://localhost:1",
        "tcp://127.0.0.1:65536",
        "tcp://127.0.0.1:x",
        "tcp://127.0.0.1/x",
        "tcp://127.0.0.1?x",
        "tcp://me@127.0.0.1",
        "tcp://[fe80::1%25lo]:1",
        "tcp://[",
    ],
)
def test_a_url_with_something_else_in_it_is_a_mistake(url: str) -> None:
    with pytest.raises(ConfigurationError):
        from_url(url)


async def test_a_port_that_is_taken_is_a_mistake_that_is_named(leftovers: Callable) -> None:
    async with leftovers().none(), signaling(BOB) as bob, bob.incoming():
        port = endpoint(bob.address).port
        with pytest.raises(ConfigurationError, match=str(port)):
            async with signaling(ALICE, port=port):
                pass


# --- nobody there ---


async def test_whoever_does_not_listen_is_unreachable_at_once() -> None:
    async with signaling(ALICE) as alice, signaling(BOB) as bob:
        address = bob.address
        for _ in range(2):
            with pytest.raises(PeerUnreachable) as caught:
                await alice.open_channel(address, BOB.peer_id)
            assert isinstance(caught.value.__cause__, OSError)
            async with bob.incoming() as arriving:
                async with (
                    await alice.open_channel(address, BOB.peer_id) as ours,
                    await anext(arriving) as theirs,
                ):
                    await shake_hands(ours, theirs)
        assert bob.address == address


async def test_a_host_that_does_not_answer_is_unreachable_after_the_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(direct_module, "DIAL_TIMEOUT", 0.2)
    with ExitStack() as stack:
        full = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):  # the system takes one or two for it; nobody ever accepts them
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        async with signaling(ALICE) as alice:
            with pytest.raises(PeerUnreachable) as caught:
                await alice.open_channel(
                    at(*full.getsockname()[:1], "tcp", full.getsockname()[1]), BOB.peer_id
                )
            assert "within" in str(caught.value.__cause__)


# --- what anybody may send ---


async def test_half_a_message_is_a_broken_way() -> None:
    async with signaling(BOB) as bob, bob.incoming() as arriving:
        for half in (b"\0", b"\0\x20", b"\0\x20e"):
            with raw(bob.address) as dialer:
                dialer.sendall(half)
                async with await anext(arriving) as channel:
                    dialer.close()
                    with pytest.raises(ServiceUnavailable, match="middle"):
                        await channel.receive()


@pytest.mark.parametrize(
    "garbage", [b"\0\0", b"\0\x20" + bytes(32), b"\xff\xff" + bytes(65_535), b"GET / HTTP/1.1\r\n" * 2_000]
)
async def test_garbage_fails_the_handshake_and_disturbs_nobody(garbage: bytes) -> None:
    async with signaling(ALICE) as alice, signaling(BOB) as bob, bob.incoming() as arriving:
        async with (
            await alice.open_channel(bob.address, BOB.peer_id) as ours,
            await anext(arriving) as theirs,
        ):
            with raw(bob.address) as dialer:
                dialer.sendall(garbage)
                async with await anext(arriving) as channel:
                    with pytest.raises(HandshakeFailed):
                        await channel.receive()
            await shake_hands(ours, theirs)


async def test_a_dialer_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secure, "HANDSHAKE_TIMEOUT", 0.2)
    async with signaling(BOB) as bob, bob.incoming() as arriving:
        with raw(bob.address):
            async with await anext(arriving) as channel:
                with pytest.raises(PeerLeft):
                    await channel.receive()


async def test_of_too_many_the_oldest_that_has_proved_nothing_gives_way() -> None:
    async with signaling(ALICE) as alice, signaling(BOB) as bob, bob.incoming() as arriving:
        async with (
            await alice.open_channel(bob.address, BOB.peer_id) as ours,
            await anext(arriving) as theirs,
        ):
            await shake_hands(ours, theirs)
            with ExitStack() as stack:
                silent: list[SignalingChannel] = []
                for _ in range(MAX_INBOUND + 2):
                    stack.enter_context(raw(bob.address))
                    silent.append(await anext(arriving))
                for number in range(3):
                    with pytest.raises(ServiceUnavailable, match="slow"):
                        await silent[number].receive()
                async with (
                    await alice.open_channel(bob.address, BOB.peer_id) as late,
                    await anext(arriving) as far,
                ):
                    await shake_hands(late, far)
                await ours.send(b"undisturbed")
                assert await theirs.receive() == b"undisturbed"
                for channel in silent:
                    await channel.aclose()
            assert bob._inbound == {theirs: None}


async def test_when_all_have_proved_who_they_are_a_newcomer_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(direct_module, "MAX_INBOUND", 1)
    async with signaling(ALICE) as alice, signaling(BOB) as bob, bob.incoming() as arriving:
        async with (
            await alice.open_channel(bob.address, BOB.peer_id) as ours,
            await anext(arriving) as theirs,
        ):
            await shake_hands(ours, theirs)
            async with await alice.open_channel(bob.address, BOB.peer_id) as refused:
                with pytest.raises(trio.EndOfChannel):
                    await refused.receive()
            await ours.send(b"undisturbed")
            assert await theirs.receive() == b"undisturbed"
        async with (
            await alice.open_channel(bob.address, BOB.peer_id) as ours,
            await anext(arriving) as theirs,
        ):
            await shake_hands(ours, theirs)


async def test_a_machine_without_file_descriptors_goes_on_when_it_has_some(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    accept, failures = trio.SocketListener.accept, iter([errno.EMFILE, errno.ENFILE])

    async def accept_or_fail(listener: trio.SocketListener) -> trio.SocketStream:
        for number in failures:
            raise OSError(number, "too many open files")
        return await accept(listener)

    monkeypatch.setattr(trio.SocketListener, "accept", accept_or_fail)
    async with channels() as (ours, theirs):
        await shake_hands(ours, theirs)


# --- nothing is left behind ---


async def test_nothing_is_left_behind(leftovers: Callable) -> None:
    async with leftovers().none():
        async with channels() as (ours, theirs):
            await shake_hands(ours, theirs)


class CancelAtStep(trio.abc.Instrument):
    """Cancels a scope once the program has suspended so many times, in whatever task."""

    def __init__(self, scope: trio.CancelScope, step: int) -> None:
        self._scope = scope
        self._left = step

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self._left -= 1
        if self._left == 0:
            self._scope.cancel()


async def test_dialing_may_be_cancelled_anywhere(leftovers: Callable) -> None:
    async with leftovers().none(), signaling(ALICE) as alice, signaling(BOB) as bob:
        async with bob.incoming():  # whom nobody takes
            for step in itertools.count(1):
                with trio.CancelScope() as scope:
                    trio.lowlevel.add_instrument(watch := CancelAtStep(scope, step))
                    try:
                        await (await alice.open_channel(bob.address, BOB.peer_id)).aclose()
                    finally:
                        trio.lowlevel.remove_instrument(watch)
                await trio.testing.wait_all_tasks_blocked()
                if not scope.cancelled_caught:
                    break
    assert step > 5, "the dial was cancelled at too few points to prove anything"
