"""The native engine: with aiortc at the other end, what only it has to prove, and what it does not do."""

from __future__ import annotations

import gc
import hashlib
import os
import random
import re
import subprocess
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType

import pytest
import trio
import trio.testing

from handclasp.abc import Connection, Context, SignalingChannel, Stream, Transport
from handclasp.discovery.memory import MemoryChannel, memory_channel_pair
from handclasp.errors import ConfigurationError, ConnectionLost, ProtocolViolation
from handclasp.identity import Identity
from handclasp.testing import check_stream
from handclasp.testing.stream import MIB
from handclasp.transports.webrtc import (
    DataChannel,
    Engine,
    EngineSession,
    PeerConnection,
    webrtc,
)
from handclasp.transports.webrtc import connection as connection_module
from handclasp.transports.webrtc import transport as transport_module
from handclasp.transports.webrtc.aiortc import internals
from handclasp.transports.webrtc.credit import WINDOW
from handclasp.transports.webrtc.sdp import SignalingMessage
from handclasp.transports.webrtc.stream import SEND_WINDOW
from handclasp.transports.webrtc.transport import from_url

EngineFactory = Callable[..., Engine]
Upgraded = Callable[..., Awaitable[list[Connection]]]

ALICE, BOB = Identity.generate(), Identity.generate()
LOOPBACK = ["127.0.0.1"]


def a_channel() -> tuple[MemoryChannel, MemoryChannel]:
    return memory_channel_pair(ALICE.peer_id, BOB.peer_id)


@pytest.fixture
def module(native: EngineFactory) -> ModuleType:
    """The module of the native engine, where it is installed."""
    return sys.modules[native.__module__]


@asynccontextmanager
async def two_transports(one: Engine, other: Engine) -> AsyncGenerator[tuple[Transport, Transport]]:
    async with webrtc(engine=one)(Context(ALICE)) as ours, webrtc(engine=other)(Context(BOB)) as theirs:
        yield ours, theirs


async def connect(
    ours: Transport, theirs: Transport, channels: tuple[SignalingChannel, SignalingChannel]
) -> tuple[Connection, Connection]:
    made: dict[Transport, Connection] = {}

    async def upgrade(transport: Transport, channel: SignalingChannel) -> None:
        made[transport] = await transport.upgrade(channel)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(upgrade, ours, channels[0])
        nursery.start_soon(upgrade, theirs, channels[1])
    return made[ours], made[theirs]


# --- with aiortc ---


@pytest.fixture(params=["native offers", "aiortc offers"])
async def mixed(
    request: pytest.FixtureRequest, native: EngineFactory, aiortc: EngineFactory
) -> AsyncGenerator[tuple[Connection, Connection]]:
    """Connections of the native engine and of aiortc with each other, in this order."""
    channels = a_channel()  # the first one offers
    ordered = channels if request.param == "native offers" else (channels[1], channels[0])
    async with two_transports(native(addresses=LOOPBACK), aiortc(addresses=LOOPBACK)) as transports:
        ours, theirs = await connect(*transports, ordered)
        async with ours, theirs:
            yield ours, theirs


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
    async with await connection.open_stream() as stream, trio.open_nursery() as nursery:

        async def send() -> None:
            await stream.send_all(question)
            await stream.send_eof()

        nursery.start_soon(send)
        async for data in stream:
            answer += data
    return bytes(answer)


async def send_for_ever(stream: Stream) -> None:
    while True:
        await stream.send_all(bytes(100_000))


async def read_until_broken(stream: Stream) -> int:
    """How many bytes still came."""
    got = 0
    try:
        while data := await stream.receive_some():
            got += len(data)
    except trio.BrokenResourceError:
        return got
    raise AssertionError("the stream ended in good order")


async def test_streams_from_both_ends_carry_replies(mixed: tuple[Connection, Connection]) -> None:
    async with trio.open_nursery() as answering:
        for connection in mixed:
            answering.start_soon(echo, connection)
        async with trio.open_nursery() as asking:
            for number in range(60):

                async def check(connection: Connection, question: bytes) -> None:
                    assert await ask(connection, question) == question

                for connection in mixed:
                    asking.start_soon(check, connection, bytes([number]) * (number * 1_000 + 1))
        answering.cancel_scope.cancel()


async def test_200_streams_one_after_the_other(mixed: tuple[Connection, Connection]) -> None:
    async with trio.open_nursery() as nursery:
        for connection in mixed:
            nursery.start_soon(echo, connection)
        for number in range(100):
            for connection in mixed:
                assert await ask(connection, b"%d" % number) == b"%d" % number
        nursery.cancel_scope.cancel()


async def test_a_reply_after_the_end_of_the_question_arrives(mixed: tuple[Connection, Connection]) -> None:
    for asking, answering in (mixed, reversed(mixed)):
        async with await asking.open_stream() as ours:
            await ours.send_all(b"question")
            await ours.send_eof()
            async with await answering.accept_stream() as theirs:
                assert [data async for data in theirs] == [b"question"]
                await theirs.send_all(b"answer")
                await theirs.send_eof()
                assert [data async for data in ours] == [b"answer"]


async def test_a_reset_is_seen(mixed: tuple[Connection, Connection]) -> None:
    for resetting, noticing in (mixed, reversed(mixed)):
        ours = await resetting.open_stream()
        await ours.send_all(b"x")
        theirs = await noticing.accept_stream()
        assert await theirs.receive_some() == b"x"
        await ours.reset()
        with pytest.raises(trio.BrokenResourceError):
            await theirs.receive_some()


async def test_a_stream_between_the_engines_keeps_the_contract(
    mixed: tuple[Connection, Connection], request: pytest.FixtureRequest
) -> None:
    opening, accepting = mixed if "native offers" in request.node.name else reversed(mixed)

    async def make_pair() -> tuple[Stream, Stream]:
        return await opening.open_stream(), await accepting.accept_stream()

    await check_stream(make_pair, most_buffered=SEND_WINDOW + WINDOW + MIB // 4)


async def test_what_was_sent_arrives_before_the_close_even_if_datagrams_are_lost(
    native: EngineFactory, aiortc: EngineFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(1)  # noqa: S311 - the same losses each time
    receive = internals.StunProtocol.datagram_received
    lossy = False

    def receive_or_not(protocol: internals.StunProtocol, data: bytes, address: tuple[str, int]) -> None:
        if not lossy or chance.random() > 0.05:
            receive(protocol, data, address)

    monkeypatch.setattr(internals.StunProtocol, "datagram_received", receive_or_not)
    monkeypatch.setattr(connection_module, "FLUSH_TIMEOUT", 100)
    async with two_transports(native(addresses=LOOPBACK), aiortc(addresses=LOOPBACK)) as transports:
        for _ in range(5):
            lossy = False
            ours, theirs = await connect(*transports, a_channel())
            lossy = True
            async with theirs, trio.open_nursery() as nursery:

                async def send(connection: Connection = ours) -> None:
                    await (await connection.open_stream()).send_all(bytes(50_000))
                    await connection.aclose()

                nursery.start_soon(send)
                stream = await theirs.accept_stream()
                assert await read_until_broken(stream) == 50_000


async def test_waiting_for_what_was_sent_opens_no_stream_at_the_peer(
    mixed: tuple[Connection, Connection],
) -> None:
    native, aiortc = mixed
    await native._peer_connection.flush()  # type: ignore[attr-defined]
    await (await native.open_stream()).send_all(b"the first")
    async with await aiortc.accept_stream() as stream:
        assert await stream.receive_some() == b"the first"


# --- certificates ---


@asynccontextmanager
async def two_peers(session: EngineSession) -> AsyncGenerator[tuple[PeerConnection, PeerConnection]]:
    offerer, answerer = await session.create_peer(()), await session.create_peer(())
    try:
        yield offerer, answerer
    finally:
        await offerer.close()
        await answerer.close()


async def open_between(offerer: PeerConnection, answerer: PeerConnection) -> tuple[DataChannel, DataChannel]:
    """Connect two peers; the two ends of a first channel."""
    opened = trio.Event()
    accepted: list[DataChannel] = []

    def accept(channel: DataChannel) -> None:
        accepted.append(channel)
        channel.on_open = opened.set

    answerer.on_channel = accept
    channel = offerer.open_channel("first")
    await offerer.accept_answer(await answerer.create_answer(await offerer.create_offer()))
    await opened.wait()
    return channel, accepted[0]


async def test_both_ends_see_the_same_two_certificates_and_each_connection_has_its_own(
    engine: EngineFactory,
) -> None:
    seen: set[bytes] = set()
    async with engine(addresses=LOOPBACK).open() as session:
        for _ in range(3):
            async with two_peers(session) as (offerer, answerer):
                await open_between(offerer, answerer)
                ours, theirs = await offerer.fingerprints(), await answerer.fingerprints()
                assert (ours.local, ours.remote) == (theirs.remote, theirs.local)
                seen |= {ours.local, ours.remote}
    assert len(seen) == 6


class Swapped(SignalingChannel):
    """Delivers descriptions with another fingerprint than was sent."""

    def __init__(self, channel: MemoryChannel) -> None:
        self._channel = channel
        self.peer, self.offers, self.binding = channel.peer, channel.offers, None

    offers = False
    peer = BOB.peer_id
    binding = None

    async def send(self, message: bytes) -> None:
        await self._channel.send(message)

    async def receive(self) -> bytes:
        sent = SignalingMessage.from_bytes_untrusted(await self._channel.receive())
        digest = hashlib.sha256(b"of somebody else").hexdigest().upper()
        other = ":".join(digest[at : at + 2] for at in range(0, 64, 2))
        changed = re.sub(r"a=fingerprint:sha-256 \S+", f"a=fingerprint:sha-256 {other}", sent.data)
        assert changed != sent.data
        return bytes(SignalingMessage(sent.kind, changed))

    async def aclose(self) -> None:
        await self._channel.aclose()


@pytest.mark.parametrize("misled", [0, 1], ids=["the offerer", "the answerer"])
async def test_nobody_connects_to_another_certificate_than_the_description_names(
    native: EngineFactory, misled: int
) -> None:
    channels: list[SignalingChannel] = list(a_channel())
    channels[misled] = Swapped(channels[misled])  # type: ignore[arg-type]

    async def fail(transport: Transport, channel: SignalingChannel) -> None:
        with pytest.raises(ConnectionLost):
            await (await transport.upgrade(channel)).aclose()

    async with two_transports(native(addresses=LOOPBACK), native(addresses=LOOPBACK)) as transports:
        async with trio.open_nursery() as nursery:
            for transport, channel in zip(transports, channels, strict=True):
                nursery.start_soon(fail, transport, channel)


# --- candidates ---


async def test_candidates_that_come_before_the_description_wait_for_it(native: EngineFactory) -> None:
    async with native(addresses=LOOPBACK).open() as session, two_peers(session) as (offerer, answerer):
        opened = trio.Event()
        offerer.open_channel("first").on_open = opened.set
        offer = (await offerer.create_offer()).splitlines(keepends=True)
        candidates = [line for line in offer if line.startswith("a=candidate:")]
        assert candidates
        for line in candidates:
            await answerer.add_candidate(line.strip().removeprefix("a="))
        await answerer.add_candidate(None)
        bare = "".join(line for line in offer if "candidate" not in line)
        answer = (await answerer.create_answer(bare)).splitlines(keepends=True)
        await offerer.accept_answer("".join(line for line in answer if "candidate" not in line))
        await opened.wait()


async def test_no_candidate_that_is_a_name_gets_to_libwebrtc(native: EngineFactory) -> None:
    named = "candidate:1 1 udp 9 example.com 9 typ host"
    async with native(addresses=LOOPBACK).open() as session, two_peers(session) as (offerer, answerer):
        offerer.open_channel("first")
        offer = await offerer.create_offer()
        await answerer.create_answer(f"{offer}a={named}\r\n")
        await answerer.add_candidate(named)
        taken = answerer._peer.remote_description.sdp  # type: ignore[attr-defined]
        assert "127.0.0.1" in taken
        assert "example.com" not in taken


# --- what a peer may do ---


async def test_unread_bytes_of_a_peer_without_our_flow_control_are_bounded(
    native: EngineFactory, aiortc: EngineFactory, module: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_UNREAD", 1_000_000)
    monkeypatch.setattr(transport_module, "window_untrusted", lambda _: None)
    async with two_transports(native(addresses=LOOPBACK), aiortc(addresses=LOOPBACK)) as transports:
        ours, theirs = await connect(*transports, a_channel())
        async with ours, theirs, trio.open_nursery() as nursery:
            sending, receiving = await theirs.open_stream(), await ours.accept_stream()
            nursery.start_soon(echo, ours)
            with pytest.raises(trio.BrokenResourceError):
                await send_for_ever(sending)
            assert 500_000 < await read_until_broken(receiving) < 1_100_000
            assert await ask(theirs, b"and the others?") == b"and the others?"
            nursery.cancel_scope.cancel()


async def test_a_text_message_is_a_message(native: EngineFactory) -> None:
    async with native(addresses=LOOPBACK).open() as session, two_peers(session) as (offerer, answerer):
        ours, theirs = await open_between(offerer, answerer)
        got: list[bytes] = []
        arrived = trio.Event()

        def receive(message: bytes) -> None:
            got.append(message)
            arrived.set()

        ours.on_message = receive
        theirs._channel.send("text")  # type: ignore[attr-defined]
        await arrived.wait()
        assert got == [b"text"]


async def test_a_peer_that_takes_only_small_messages_is_refused(native: EngineFactory) -> None:
    async with native(addresses=LOOPBACK).open() as session, two_peers(session) as (offerer, answerer):
        offerer.open_channel("first")
        offer = await offerer.create_offer()
        small = re.sub(r"a=max-message-size:\d+", "a=max-message-size:1000", offer)
        assert small != offer
        with pytest.raises(ProtocolViolation, match="16384"):
            await answerer.create_answer(small)


# --- what is left ---


def native_threads() -> list[str]:
    names = [(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
    return sorted(name for name in names if name.startswith(("wrtc", "rtc")))


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="listing native threads takes /proc")
async def test_connections_add_no_threads_and_the_engine_takes_its_own_with_it(
    native: EngineFactory, upgraded: Upgraded
) -> None:
    async def use_it() -> None:
        async with webrtc(engine=native(addresses=LOOPBACK))(Context(ALICE)) as transport:
            for connection in await upgraded(transport, *a_channel()):
                await connection.aclose()
            idle = native_threads()
            assert "wrtc-network" in idle
            made = [await upgraded(transport, *a_channel()) for _ in range(4)]
            assert native_threads() == idle
            for pair in made:
                for connection in pair:
                    await connection.aclose()

    await use_it()
    with trio.fail_after(20):
        while "wrtc-network" in native_threads():
            gc.collect()  # it ends with the last object of a connection
            await trio.testing.wait_all_tasks_blocked(0.01)


# --- where it is missing ---


WITHOUT = "import sys; sys.modules['webrtc'] = None"


def test_without_the_extra_the_import_says_what_to_install() -> None:
    run = subprocess.run(
        [sys.executable, "-c", f"{WITHOUT}; import handclasp.transports.webrtc.native"],
        check=False,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert "ImportError" in run.stderr
    assert "pip install 'handclasp[native]'" in run.stderr


def test_a_url_that_names_what_is_not_installed_is_a_configuration_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("native", "native.engine", "native.channel"):
        monkeypatch.delitem(sys.modules, f"handclasp.transports.webrtc.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "webrtc", None)
    with pytest.raises(ConfigurationError, match="pip install"):
        from_url("webrtc:?engine=native")


async def test_a_url_chooses_the_engine(module: ModuleType, upgraded: Upgraded) -> None:
    async with from_url("webrtc:?engine=native&address=127.0.0.1")(Context(ALICE)) as transport:
        ours, theirs = await upgraded(transport, *a_channel())
        async with ours, theirs:
            assert type(ours._peer_connection).__module__ == module.__name__  # type: ignore[attr-defined]
