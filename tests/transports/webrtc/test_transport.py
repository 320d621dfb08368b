"""Connecting over WebRTC: what comes out, what is refused, and that nothing is left behind."""

from __future__ import annotations

import importlib
import itertools
import json
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from types import SimpleNamespace

import ifaddr
import pytest
import trio
import trio.testing
from aiortc.rtcsctptransport import StreamResetResponseParam

from handclasp.abc import Connection, Context, SignalingChannel, Stream, Transport, TransportFactory
from handclasp.discovery.memory import MemoryBackend, MemoryChannel, MemoryMeeting, memory_channel_pair
from handclasp.errors import (
    ConfigurationError,
    ConnectionLost,
    InvalidAddress,
    PeerUnreachable,
    ProtocolViolation,
    WrongPeer,
)
from handclasp.identity import Identity, PeerId
from handclasp.scope import open_scope
from handclasp.transports.webrtc import Engine, IceServer, webrtc
from handclasp.transports.webrtc import transport as transport_module
from handclasp.transports.webrtc.aiortc import AiortcEngine, internals, local_addresses, sctp
from handclasp.transports.webrtc.connection import MAX_UNACCEPTED, WebRTCConnection
from handclasp.transports.webrtc.sdp import MAX_CANDIDATES, Kind, SignalingMessage

Upgraded = Callable[..., Awaitable[list[Connection]]]
EngineFactory = Callable[..., Engine]

ALICE, BOB = Identity.generate(), Identity.generate()

#: What an engine that is over keeps until the last object of its connections is garbage: libwebrtc woke it by this.
WAKE_UP = "file pipe"


def a_channel() -> tuple[MemoryChannel, MemoryChannel]:
    return memory_channel_pair(ALICE.peer_id, BOB.peer_id)


@pytest.fixture
async def transport(loopback_webrtc: TransportFactory) -> AsyncGenerator[Transport]:
    async with loopback_webrtc(Context(ALICE)) as opened:
        yield opened


async def echo(connection: Connection) -> None:
    """Send back what comes on any stream, until the connection is over."""

    async def answer(stream: Stream) -> None:
        async with stream:
            async for data in stream:
                await stream.send_all(data)
            await stream.send_eof()

    try:
        async with trio.open_nursery() as nursery:
            while True:
                nursery.start_soon(answer, await connection.accept_stream())
    except* (ConnectionLost, trio.ClosedResourceError, trio.BrokenResourceError):
        pass


async def ask(connection: Connection, question: bytes) -> bytes:
    answer = bytearray()
    async with await connection.open_stream() as stream:
        await stream.send_all(question)
        await stream.send_eof()
        async for data in stream:
            answer += data
    return bytes(answer)


# --- a connection ---


async def test_each_end_knows_the_other_and_the_path_between_them(webrtc_pair: list[Connection]) -> None:
    ours, theirs = webrtc_pair
    assert isinstance(ours, WebRTCConnection)
    assert isinstance(theirs, WebRTCConnection)
    assert theirs.address == f"/webrtc/p2p/{theirs.peer}"
    assert ours.peer != theirs.peer
    local, remote = await ours.selected_pair()
    mirrored = await theirs.selected_pair()
    assert (local.port, remote.port) == (mirrored[1].port, mirrored[0].port)
    assert mirrored[1].host in {local.host, ""}  # libwebrtc does not tell all
    assert remote.host in {mirrored[0].host, ""}
    for connection, (here, there) in ((ours, (local, remote)), (theirs, mirrored)):
        path = await connection.path()
        assert path.kind == "direct"
        assert path.local == f"/ip4/{here.host}/udp/{here.port}"
        assert path.remote == (f"/ip4/{there.host}/udp/{there.port}" if there.host else "")


async def test_aiortc_binds_to_the_chosen_addresses_only(aiortc: EngineFactory, upgraded: Upgraded) -> None:
    async with webrtc(engine=aiortc(addresses=["127.0.0.2"]))(Context(ALICE)) as transport:
        ours, theirs = await upgraded(transport, *a_channel())
        async with ours, theirs:
            assert isinstance(ours, WebRTCConnection)
            assert [end.host for end in await ours.selected_pair()] == ["127.0.0.2", "127.0.0.2"]


async def test_200_streams_one_after_the_other_each_carry_a_reply(webrtc_pair: list[Connection]) -> None:
    ours, theirs = webrtc_pair
    async with trio.open_nursery() as nursery:
        nursery.start_soon(echo, theirs)
        for number in range(200):
            assert await ask(ours, b"question %d" % number) == b"question %d" % number
        await ours.aclose()


async def test_50_streams_at_once_from_both_ends_do_not_mix(webrtc_pair: list[Connection]) -> None:
    async def check(connection: Connection, number: int) -> None:
        question = bytes([number]) * 5_000
        assert await ask(connection, question) == question

    ours, theirs = webrtc_pair
    async with trio.open_nursery() as answering:
        answering.start_soon(echo, ours)
        answering.start_soon(echo, theirs)
        async with trio.open_nursery() as asking:
            for number in range(50):
                asking.start_soon(check, ours, number)
                asking.start_soon(check, theirs, number)
        await ours.aclose()


async def test_finished_streams_are_forgotten(webrtc_pair: list[Connection]) -> None:
    ours, theirs = webrtc_pair
    assert isinstance(ours, WebRTCConnection)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(echo, theirs)
        for _ in range(20):
            await ask(ours, b"x")
        while ours._streams:
            await ask(ours, b"x")
            await trio.testing.wait_all_tasks_blocked(0.05)
        await ours.aclose()


async def test_the_peers_close_ends_everything_that_waits(webrtc_pair: list[Connection]) -> None:
    ours, theirs = webrtc_pair
    stream = await ours.open_stream()

    async def wait_for_a_stream() -> None:
        with pytest.raises(ConnectionLost):
            await ours.accept_stream()

    async def wait_for_data() -> None:
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait_for_a_stream)
        nursery.start_soon(wait_for_data)
        nursery.start_soon(ours.wait_closed)
        await trio.testing.wait_all_tasks_blocked()
        await theirs.aclose()
    with pytest.raises(ConnectionLost):
        await ours.open_stream()
    with pytest.raises(trio.BrokenResourceError):
        await stream.send_all(b"x")
    with pytest.raises(ConnectionLost):
        await ours.selected_pair()


async def test_a_closed_connection_is_of_no_more_use(webrtc_pair: list[Connection]) -> None:
    ours, _ = webrtc_pair
    await ours.aclose()
    await ours.aclose()
    await ours.wait_closed()
    with pytest.raises(trio.ClosedResourceError):
        await ours.open_stream()
    with pytest.raises(trio.ClosedResourceError):
        await ours.accept_stream()


async def test_streams_that_nobody_accepts_are_reset_beyond_a_bound(webrtc_pair: list[Connection]) -> None:
    ours, theirs = webrtc_pair
    streams = [await ours.open_stream() for _ in range(MAX_UNACCEPTED + 44)]
    for stream in streams[MAX_UNACCEPTED:]:
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()
    async with await theirs.accept_stream() as accepted:
        await accepted.send_all(b"hello")
        assert await streams[0].receive_some() == b"hello"


# --- nothing is left behind ---


class CancelAtStep(trio.abc.Instrument):
    """Cancels a scope once the program has suspended so many times, in whatever task."""

    def __init__(self, scope: trio.CancelScope, step: int) -> None:
        self._scope = scope
        self._left = step

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self._left -= 1
        if self._left == 0:
            self._scope.cancel()


@contextmanager
def cancelled_at(step: int) -> Iterator[trio.CancelScope]:
    with trio.CancelScope() as scope:
        trio.lowlevel.add_instrument(watch := CancelAtStep(scope, step))
        try:
            yield scope
        finally:
            trio.lowlevel.remove_instrument(watch)


@pytest.mark.parametrize("offers", [True, False])
async def test_an_upgrade_that_is_cancelled_anywhere_leaves_nothing_behind(
    transport: Transport, leftovers: Callable, *, offers: bool
) -> None:
    async def cancel_at(step: int) -> bool:
        one, other = a_channel()
        impatient, patient = (one, other) if offers else (other, one)

        async def be_patient() -> None:
            try:
                async with await transport.upgrade(patient) as connection:
                    await connection.wait_closed()
            except ConnectionLost:
                return

        async with trio.open_nursery() as nursery, impatient, patient:
            nursery.start_soon(be_patient)
            with cancelled_at(step) as scope:
                async with await transport.upgrade(impatient):
                    pass
            nursery.cancel_scope.cancel()
        return scope.cancelled_caught

    async with leftovers().none():
        step = 1
        while await cancel_at(step):
            step += 1
    assert step > 20, "the upgrade was cancelled at too few points to prove anything"


async def test_closing_a_node_full_of_connections_leaves_nothing_behind(
    loopback_webrtc: TransportFactory, upgraded: Upgraded, leftovers: Callable
) -> None:
    async with leftovers(WAKE_UP).none(quiet=0.2), loopback_webrtc(Context(ALICE)) as transport:
        for _ in range(3):
            ours, theirs = await upgraded(transport, *a_channel())
            await (await ours.open_stream()).send_all(b"x")
            await theirs.accept_stream()


# --- what a peer may send ---


async def genuine_offer(transport: Transport) -> bytes:
    """The offer of an honest peer, who is gone again."""
    offerer, us = a_channel()
    async with offerer, us, trio.open_nursery() as nursery:
        nursery.start_soon(transport.upgrade, offerer)
        offer = await us.receive()
        nursery.cancel_scope.cancel()
    return offer


async def genuine_answer(transport: Transport, offer: bytes) -> bytes:
    us, answerer = a_channel()
    async with us, answerer, trio.open_nursery() as nursery:
        nursery.start_soon(transport.upgrade, answerer)
        await us.send(offer)
        answer = await us.receive()
        nursery.cancel_scope.cancel()
    return answer


async def offer_to(transport: Transport, *messages: bytes) -> None:
    """Send these messages to a peer that answers; raises what it makes of them."""
    us, victim = a_channel()
    async with victim:
        async with us:
            for message in messages:
                await us.send(message)
        await (await transport.upgrade(victim)).aclose()


async def answer_to(transport: Transport, *rewrites: Callable[[bytes], bytes]) -> None:
    """Answer a peer that offers with what *rewrites* make of a good answer; raises what it makes of it."""
    victim, us = a_channel()

    async def answer() -> None:
        good = await genuine_answer(transport, await us.receive())
        for rewrite in rewrites:
            await us.send(rewrite(good))
        await us.aclose()

    async with victim, us, open_scope() as scope:
        scope.start_soon(answer)
        await (await transport.upgrade(victim)).aclose()


def changed(change: Callable[[str], str]) -> Callable[[bytes], bytes]:
    """Change the SDP in a message."""

    def rewrite(message: bytes) -> bytes:
        sent = SignalingMessage.from_bytes_untrusted(message)
        return bytes(SignalingMessage(sent.kind, change(sent.data)))

    return rewrite


GARBAGE = {
    "not protobuf": lambda _: b"\xff\xff",
    "no data": lambda message: message[:2],
    "no SDP": changed(lambda _: "hello"),
    "half an SDP": changed(lambda sdp: sdp[: sdp.index("m=") + 30]),
    "only a section": changed(lambda _: "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n"),
    "audio": changed(lambda sdp: sdp.replace("m=application", "m=audio")),
    "a second section": changed(lambda sdp: sdp + "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\n"),
    "no DTLS role": changed(lambda sdp: sdp.replace("a=setup:", "a=nothing:")),
    "no ICE name": changed(lambda sdp: sdp.replace("a=ice-ufrag:", "a=nothing:")),
    "no ICE password": changed(lambda sdp: sdp.replace("a=ice-pwd:", "a=nothing:")),
    "no fingerprint": changed(lambda sdp: sdp.replace("a=fingerprint:", "a=nothing:")),
    "no strong fingerprint": changed(lambda sdp: sdp.replace("a=fingerprint:sha-", "a=fingerprint:md")),
    "a port that is none": changed(lambda sdp: sdp.replace("a=sctp-port:5000", "a=sctp-port:x")),
    "a candidate that is none": changed(lambda sdp: sdp.replace("a=candidate:", "a=candidate:x ")),
    "NUL": changed(lambda sdp: sdp.replace("UDP/DTLS/SCTP", "\0")),
    "the other kind": lambda message: bytes([*message[:1], message[1] ^ 1, *message[2:]]),
}


@pytest.mark.parametrize("rewrite", GARBAGE.values(), ids=GARBAGE)
async def test_a_description_that_is_garbage_is_a_violation_at_once(
    transport: Transport, leftovers: Callable, rewrite: Callable[[bytes], bytes]
) -> None:
    async with leftovers().none():
        offer = await genuine_offer(transport)
        with pytest.raises(ProtocolViolation):
            await offer_to(transport, rewrite(offer))
        with pytest.raises(ProtocolViolation):
            await answer_to(transport, rewrite)


def candidate(text: str) -> bytes:
    return bytes(SignalingMessage(Kind.ICE_CANDIDATE, json.dumps({"candidate": text, "sdpMid": "0"})))


END_OF_CANDIDATES = bytes(SignalingMessage(Kind.ICE_CANDIDATE, "null"))


@pytest.mark.parametrize(
    "text",
    [
        "candidate:1",
        "candidate:1 1 udp x 192.0.2.1 9 typ host",
        "candidate:1 x udp 1 192.0.2.1 9 typ host",
        "candidate:1 1 udp 1 192.0.2.1 x typ host",
        "\n",
    ],
)
async def test_a_candidate_that_is_garbage_is_a_violation(
    transport: Transport, leftovers: Callable, text: str
) -> None:
    async with leftovers().none():
        offer = await genuine_offer(transport)
        for messages in ((offer, candidate(text)), (candidate(text), offer)):
            with pytest.raises(ProtocolViolation):
                await offer_to(transport, *messages)


@pytest.mark.parametrize(
    "host",
    ["999.1.1.1", "example.com", "0.0.0.0", "::", "255.255.255.255"],  # noqa: S104 - nothing is bound
)
async def test_a_candidate_that_leads_nowhere_does_no_harm(
    transport: Transport, upgraded: Upgraded, host: str
) -> None:
    one, other = a_channel()
    for port in (0, 9, 65_535):
        await one.send(candidate(f"candidate:1 1 udp 1 {host} {port} typ host"))
    ours, theirs = await upgraded(transport, one, other)
    async with ours, theirs:
        await (await ours.open_stream()).send_all(b"x")
        await theirs.accept_stream()


async def test_more_candidates_than_allowed_before_the_description_are_a_violation(
    transport: Transport,
) -> None:
    with pytest.raises(ProtocolViolation, match=str(MAX_CANDIDATES)):
        await offer_to(transport, *[END_OF_CANDIDATES] * (MAX_CANDIDATES + 1))


class Trickling(SignalingChannel):
    """Sends the candidates by themselves: one before the description that they belong to, the others after it."""

    def __init__(self, channel: SignalingChannel) -> None:
        self._channel = channel
        self.peer = channel.peer
        self.offers = channel.offers
        self.binding = channel.binding

    offers = False
    peer = BOB.peer_id
    binding = None

    async def send(self, message: bytes) -> None:
        sent = SignalingMessage.from_bytes_untrusted(message)
        lines = sent.data.splitlines(keepends=True)
        first, *others = [
            line.strip().removeprefix("a=") for line in lines if line.startswith("a=candidate:")
        ]
        description = "".join(line for line in lines if "candidate" not in line)
        await self._channel.send(candidate(first))
        await self._channel.send(bytes(SignalingMessage(sent.kind, description)))
        for text in others:
            await self._channel.send(candidate(text))
        await self._channel.send(END_OF_CANDIDATES)

    async def receive(self) -> bytes:
        return await self._channel.receive()

    async def aclose(self) -> None:
        await self._channel.aclose()


async def test_candidates_may_trickle_before_and_after_the_description(
    engine: EngineFactory, upgraded: Upgraded
) -> None:
    addresses = ["127.0.0.1", "127.0.0.2", "::1"]  # libwebrtc does not find the second
    async with webrtc(engine=engine(addresses=addresses))(Context(ALICE)) as transport:
        ours, theirs = await upgraded(transport, *map(Trickling, a_channel()))
        async with ours, theirs:
            await (await ours.open_stream()).send_all(b"x")
            await theirs.accept_stream()


async def test_a_peer_that_hangs_up_before_its_description_is_lost(transport: Transport) -> None:
    with pytest.raises(ConnectionLost):
        await offer_to(transport)
    with pytest.raises(ConnectionLost):
        await answer_to(transport)


async def test_a_peer_that_never_connects_is_lost_after_the_deadline(
    transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport_module, "CONNECT_TIMEOUT", 0.2)
    offer = await genuine_offer(transport)
    with pytest.raises(ConnectionLost, match="TURN"):
        await offer_to(transport, offer)


# --- gathering ---


@contextmanager
def silent_server() -> Iterator[str]:
    """The address of a server that never answers."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))
        host, port = udp.getsockname()
        yield f"{host}:{port}"


@pytest.mark.parametrize("kind", ["stun:{}", "turn:{}?transport=udp"])
async def test_a_server_that_does_not_answer_holds_up_nobody(
    engine: EngineFactory, upgraded: Upgraded, leftovers: Callable, kind: str
) -> None:
    async with leftovers(WAKE_UP).none(quiet=0.2):
        with silent_server() as address:
            impatient = engine(addresses=["127.0.0.1"], gather_timeout=0.2)
            servers = [IceServer(kind.format(address), "user", "password")]
            async with webrtc(engine=impatient, ice_servers=servers)(Context(ALICE)) as transport:
                began = trio.current_time()
                for connection in await upgraded(transport, *a_channel()):
                    await connection.aclose()
                assert trio.current_time() - began < 4, (
                    "by itself aioice waits 5 s on each side, libwebrtc 10"
                )


async def test_cancelling_while_servers_are_asked_leaves_nothing_behind(
    engine: EngineFactory, leftovers: Callable
) -> None:
    with silent_server() as address:
        impatient = engine(addresses=["127.0.0.1", "127.0.0.2"], gather_timeout=0.2)
        servers = [IceServer(f"stun:{address}"), IceServer(f"turn:{address}", "user", "password")]
        async with webrtc(engine=impatient, ice_servers=servers)(Context(ALICE)) as transport:
            async with leftovers("thread asyncio_").none():  # the loop's own, for looking up names
                for step in itertools.count(1):
                    with cancelled_at(step) as scope:
                        await genuine_offer(transport)
                    if not scope.cancelled_caught:
                        break


async def test_only_hosts_are_gathered_unless_servers_are_named(transport: Transport) -> None:
    offer = SignalingMessage.from_bytes_untrusted(await genuine_offer(transport)).data
    candidates = [line for line in offer.splitlines() if line.startswith("a=candidate:")]
    assert candidates
    assert all(" 127.0.0.1 " in line and " typ host" in line for line in candidates)


async def test_relays_only_means_that_no_address_of_this_machine_is_told(engine: EngineFactory) -> None:
    shy = engine(addresses=["127.0.0.1"], relay_only=True)
    async with webrtc(engine=shy)(Context(ALICE)) as transport:
        offer = SignalingMessage.from_bytes_untrusted(await genuine_offer(transport)).data
    assert "a=candidate:" not in offer
    told = [
        line for line in offer.splitlines() if not line.startswith("o=")
    ]  # libwebrtc: 127.0.0.1, everywhere
    assert not any(address in line for line in told for address in ["127.0.0.1", *local_addresses()])


def interface(*addresses: str) -> SimpleNamespace:
    ips = [
        SimpleNamespace(ip=(text, 0, 0) if ":" in text else text, is_IPv4=":" not in text)
        for text in addresses
    ]
    return SimpleNamespace(ips=ips)


async def test_a_machine_with_nothing_but_loopback_still_connects(
    upgraded: Upgraded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ifaddr, "get_adapters", lambda: [interface("127.0.0.1")])
    async with webrtc(engine=AiortcEngine())(Context(ALICE)) as transport:
        ours, theirs = await upgraded(transport, *a_channel())
        async with ours, theirs:
            assert isinstance(ours, WebRTCConnection)
            assert (await ours.selected_pair())[0].host == "127.0.0.1"


def test_loopback_is_left_out_where_there_is_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    lo, net = interface("127.0.0.1", "::1"), interface("192.0.2.1", "2001:db8::1")
    monkeypatch.setattr(ifaddr, "get_adapters", lambda: [lo, net])
    assert local_addresses() == ["192.0.2.1", "2001:db8::1"]
    monkeypatch.setattr(ifaddr, "get_adapters", lambda: [lo])
    assert local_addresses() == ["127.0.0.1", "::1"]


@pytest.mark.parametrize("url", ["stun", "http://example.com", "turn:", "stun:host:port"])
async def test_a_server_that_cannot_be_one_is_a_mistake_of_the_caller(
    engine: EngineFactory, url: str
) -> None:
    async with webrtc(engine=engine(), ice_servers=[IceServer(url)])(Context(ALICE)) as transport:
        with pytest.raises(ConfigurationError):
            await transport.upgrade(a_channel()[0])


# --- dialling and listening through signaling ---


@asynccontextmanager
async def two_nodes(meeting: MemoryMeeting) -> AsyncGenerator[tuple[Transport, Transport]]:
    """Alice's and Bob's transports with a meeting as their signaling."""
    factory = webrtc(engine=AiortcEngine(addresses=["127.0.0.1"]))
    async with (
        meeting.backend(Context(ALICE)) as alice,
        meeting.backend(Context(BOB)) as bob,
        factory(Context(ALICE, (alice,))) as ours,
        factory(Context(BOB, (bob,))) as theirs,
    ):
        yield ours, theirs


def address_of(peer: PeerId, meeting: MemoryMeeting) -> str:
    return f"{meeting.address}/webrtc/p2p/{peer}"


async def test_a_peer_is_dialled_through_signaling() -> None:
    meeting = MemoryMeeting()
    async with two_nodes(meeting) as (ours, theirs), theirs.listen() as listener:
        address = address_of(BOB.peer_id, meeting)
        assert ours.can_dial(address)
        assert listener.addresses == [address]
        async with await ours.dial(address, BOB.peer_id) as dialled:
            async with await listener.accept() as accepted:
                assert (dialled.peer, accepted.peer) == (BOB.peer_id, ALICE.peer_id)


async def test_a_connection_that_nobody_accepts_is_closed_with_the_listener(leftovers: Callable) -> None:
    meeting = MemoryMeeting()
    async with leftovers().none(), two_nodes(meeting) as (ours, theirs):
        async with theirs.listen():
            dialled = await ours.dial(address_of(BOB.peer_id, meeting), BOB.peer_id)
            await trio.testing.wait_all_tasks_blocked(0.05)  # Bob's end is offered to whoever accepts
        async with dialled:
            with pytest.raises(ConnectionLost):
                await dialled.accept_stream()


async def test_a_peer_that_is_not_there_is_unreachable() -> None:
    meeting = MemoryMeeting()
    async with two_nodes(meeting) as (ours, _):
        with pytest.raises(PeerUnreachable):
            await ours.dial(address_of(BOB.peer_id, meeting), BOB.peer_id)


async def test_a_transport_without_signaling_dials_nobody(transport: Transport) -> None:
    address = address_of(BOB.peer_id, MemoryMeeting())
    assert not transport.can_dial(address)
    with pytest.raises(InvalidAddress):
        await transport.dial(address, BOB.peer_id)


async def test_a_peer_that_never_answers_is_unreachable_after_the_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(transport_module, "DIAL_TIMEOUT", 0.2)
    meeting = MemoryMeeting()
    async with two_nodes(meeting) as (ours, _), meeting.backend(Context(BOB)) as silent, silent.incoming():
        with pytest.raises(PeerUnreachable):
            await ours.dial(address_of(BOB.peer_id, meeting), BOB.peer_id)


async def test_an_inbound_peer_that_never_offers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport_module, "DIAL_TIMEOUT", 0.2)
    meeting = MemoryMeeting()
    async with two_nodes(meeting) as (_, theirs), meeting.backend(Context(ALICE)) as silent, theirs.listen():
        async with await silent.open_channel(meeting.address, BOB.peer_id) as channel:
            with pytest.raises(trio.EndOfChannel):
                await channel.receive()


class Misleading(MemoryBackend):
    """Signaling that leads to Bob, whoever was asked for."""

    async def open_channel(self, address: str, peer: PeerId) -> SignalingChannel:
        del peer
        return await super().open_channel(address, BOB.peer_id)


async def test_somebody_else_at_the_other_end_is_the_wrong_peer() -> None:
    meeting, eve = MemoryMeeting(), Identity.generate().peer_id
    misleading = Misleading(
        meeting._records, meeting._watchers, meeting._listening, meeting.address, ALICE.peer_id
    )
    factory = webrtc(engine=AiortcEngine(addresses=["127.0.0.1"]))
    async with two_nodes(meeting) as (_, theirs), theirs.listen() as listener:
        async with factory(Context(ALICE, (misleading,))) as ours, trio.open_nursery() as nursery:
            nursery.start_soon(listener.accept)
            with pytest.raises(WrongPeer):
                await ours.dial(address_of(eve, meeting), eve)
            nursery.cancel_scope.cancel()


# --- a bad network, a dead peer ---


class Lines(SignalingChannel):
    """Messages as hexadecimal lines of another process."""

    offers = False
    peer = BOB.peer_id
    binding = None

    def __init__(self, process: trio.Process) -> None:
        self._process = process
        self._buffer = b""

    async def send(self, message: bytes) -> None:
        assert self._process.stdin is not None
        await self._process.stdin.send_all(message.hex().encode() + b"\n")

    async def receive(self) -> bytes:
        assert self._process.stdout is not None
        while b"\n" not in self._buffer:
            data = await self._process.stdout.receive_some()
            if not data:
                raise trio.EndOfChannel
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return bytes.fromhex(line.decode())

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


OTHER_PROCESS = """
import sys, trio
from handclasp.abc import Context, SignalingChannel
from handclasp.identity import Identity
from handclasp.transports.webrtc import webrtc
from {module} import {engine}

class Lines(SignalingChannel):
    offers = True
    peer = Identity.generate().peer_id
    binding = None
    async def send(self, message):
        print(message.hex(), flush=True)
    async def receive(self):
        return bytes.fromhex(await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True))
    async def aclose(self):
        pass

async def main():
    async with webrtc(engine={engine}(addresses=["127.0.0.1"]))(Context(Identity.generate())) as transport:
        connection = await transport.upgrade(Lines())
        await (await connection.open_stream()).send_all(b"alive")
        await trio.sleep_forever()

trio.run(main)
"""


async def test_a_peer_that_is_killed_is_noticed(
    engine: EngineFactory, transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(internals, "CONSENT_INTERVAL", 0.1)
    monkeypatch.setattr(internals, "CONSENT_LOST", 0.5)
    module = importlib.import_module(engine.__module__)  # type: ignore[attr-defined]
    if engine is not AiortcEngine:
        monkeypatch.setattr(module, "LOST_AFTER", 0.1)
    script = OTHER_PROCESS.replace("{module}", module.__name__)
    process = await trio.lowlevel.open_process(
        [sys.executable, "-c", script.replace("{engine}", engine.__name__)],  # type: ignore[attr-defined]
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    async with await transport.upgrade(Lines(process)) as connection:
        async with await connection.accept_stream() as stream:
            assert await stream.receive_some() == b"alive"
            process.kill()
            await process.wait()
            with pytest.raises(trio.BrokenResourceError):
                await stream.receive_some()
        await connection.wait_closed()
        noticed = (
            "silent" if hasattr(module, "LOST_AFTER") else "closed"
        )  # libwebrtc by itself says so after 15 s
        with pytest.raises(ConnectionLost, match=noticed):
            await connection.accept_stream()
    for pipe in (process.stdin, process.stdout):
        assert pipe is not None
        await pipe.aclose()


@pytest.fixture
async def aiortc_transport(aiortc: EngineFactory) -> AsyncGenerator[Transport]:
    async with webrtc(engine=aiortc(addresses=["127.0.0.1"]))(Context(ALICE)) as opened:
        yield opened


@pytest.mark.parametrize("reuse", [False, True], ids=["ids in turn", "a peer that uses an id at once again"])
async def test_a_lost_answer_to_the_end_of_a_stream_does_not_end_the_connection(
    aiortc_transport: Transport, upgraded: Upgraded, monkeypatch: pytest.MonkeyPatch, *, reuse: bool
) -> None:
    lost = 0
    if reuse:
        monkeypatch.delattr(sctp.SctpTransport, "_data_channel_id")
    ours, theirs = await upgraded(aiortc_transport, *a_channel())
    association = ours._peer_connection._sctp  # type: ignore[attr-defined]
    send = association._send_reconfig_param

    async def send_or_lose(param: object) -> None:
        nonlocal lost
        if isinstance(param, StreamResetResponseParam) and not lost:
            lost += 1
            return
        await send(param)

    monkeypatch.setattr(association, "_send_reconfig_param", send_or_lose)
    async with ours, theirs, trio.open_nursery() as nursery:
        nursery.start_soon(echo, theirs)
        for number in range(10):
            assert await ask(ours, b"%d" % number) == b"%d" % number
        assert lost
        await ours.aclose()


async def test_a_connection_can_have_more_streams_than_there_are_ids(
    aiortc_transport: Transport, upgraded: Upgraded
) -> None:
    ours, theirs = await upgraded(aiortc_transport, *a_channel())
    assert isinstance(ours, WebRTCConnection)
    association = ours._peer_connection._sctp  # type: ignore[attr-defined]
    async with ours, theirs, trio.open_nursery() as nursery:
        nursery.start_soon(echo, theirs)
        association._next_id = 65_530 + association._next_id % 2  # as after 32,765 streams
        for number in range(5):
            assert await ask(ours, b"%d" % number) == b"%d" % number
        assert association._next_id < 10
        await ours.aclose()
