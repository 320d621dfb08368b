"""The ways that a connection takes: IPv6, a TURN relay (a coturn that each test starts), and one that falls silent."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from handclasp.abc import Connection, Context, SignalingChannel
from handclasp.discovery.memory import memory_channel_pair
from handclasp.errors import ConnectionLost
from handclasp.identity import Identity
from handclasp.transports.webrtc import IceServer, webrtc
from handclasp.transports.webrtc.aiortc import AiortcEngine, internals
from handclasp.transports.webrtc.sdp import Kind, SignalingMessage

from ...turn import coturn  # noqa: TID252 - no installed package
from .test_transport import OTHER_PROCESS, Lines

Upgraded = Callable[..., Awaitable[list[Connection]]]

ALICE, BOB = Identity.generate(), Identity.generate()


class Recording(SignalingChannel):
    """Keeps the candidates that go through a channel."""

    offers = False
    peer = BOB.peer_id
    binding = None

    def __init__(self, channel: SignalingChannel, candidates: list[str]) -> None:
        self._channel = channel
        self._candidates = candidates
        self.peer, self.offers, self.binding = channel.peer, channel.offers, channel.binding

    async def send(self, message: bytes) -> None:
        sent = SignalingMessage.from_bytes_untrusted(message)
        lines = [sent.data] if sent.kind is Kind.ICE_CANDIDATE else sent.data.splitlines()
        self._candidates.extend(line for line in lines if "candidate:" in line)
        await self._channel.send(message)

    async def receive(self) -> bytes:
        return await self._channel.receive()

    async def aclose(self) -> None:
        await self._channel.aclose()


@asynccontextmanager
async def connected(
    upgraded: Upgraded, engine: AiortcEngine, servers: Sequence[IceServer] = ()
) -> AsyncGenerator[tuple[list[Connection], list[str]]]:
    """Both ends of a connection, and the candidates that they told each other."""
    candidates: list[str] = []
    channels = memory_channel_pair(ALICE.peer_id, BOB.peer_id)
    async with webrtc(engine=engine, ice_servers=servers)(Context(ALICE)) as transport:
        ours, theirs = await upgraded(transport, *(Recording(channel, candidates) for channel in channels))
        async with ours, theirs:
            async with await ours.open_stream() as stream:
                await stream.send_all(b"hello")
                async with await theirs.accept_stream() as accepted:
                    assert await accepted.receive_some() == b"hello"
            yield [ours, theirs], candidates


async def test_two_peers_connect_over_ipv6_alone(upgraded: Upgraded) -> None:
    async with connected(upgraded, AiortcEngine(addresses=["::1"])) as (connections, candidates):
        assert candidates
        assert all(" ::1 " in candidate for candidate in candidates)
        for connection in connections:
            path = await connection.path()
            assert path.kind == "direct"
            assert (path.local[:9], path.remote[:9]) == ("/ip6/::1/", "/ip6/::1/")


# --- TURN ---


CONFIG = """
user=me:secret
realm=handclasp.test
lt-cred-mech
no-cli
allow-loopback-peers
"""


@asynccontextmanager
async def turn_server(folder: Path) -> AsyncGenerator[str]:
    """The address of a TURN server that knows the user ``me`` with the password ``secret``."""
    async with coturn(folder, CONFIG) as (host, port):
        yield f"{host}:{port}"


@pytest.mark.parametrize("way", ["udp", "tcp"])
async def test_relays_only_means_that_all_bytes_go_through_the_relay_and_nothing_else_is_told(
    upgraded: Upgraded, leftovers: Callable, tmp_path: Path, way: str
) -> None:
    async with leftovers("thread asyncio_").none(quiet=0.2), turn_server(tmp_path) as address:
        engine = AiortcEngine(addresses=["127.0.0.1"], gather_timeout=10, relay_only=True)
        server = IceServer(f"turn:{address}?transport={way}", "me", "secret")
        async with connected(upgraded, engine, [server]) as (connections, candidates):
            assert len(candidates) >= 2
            for candidate in candidates:
                assert " typ relay" in candidate
                assert " raddr 0.0.0.0 " in candidate, "the related address would tell our own"
            for connection in connections:
                path = await connection.path()
                assert path.kind == "relayed"


async def test_a_relay_that_is_not_needed_is_not_used(upgraded: Upgraded, tmp_path: Path) -> None:
    async with turn_server(tmp_path) as address:
        engine = AiortcEngine(addresses=["127.0.0.1"], gather_timeout=10)
        server = IceServer(f"turn:{address}", "me", "secret")
        async with connected(upgraded, engine, [server]) as (connections, candidates):
            assert {candidate.split(" typ ")[1].split()[0] for candidate in candidates} >= {"host", "relay"}
            for connection in connections:
                assert (await connection.path()).kind == "direct"


async def test_a_password_that_is_wrong_gives_no_relay(upgraded: Upgraded, tmp_path: Path) -> None:
    async with turn_server(tmp_path) as address:
        engine = AiortcEngine(addresses=["127.0.0.1"], gather_timeout=10)
        server = IceServer(f"turn:{address}", "me", "wrong")
        async with connected(upgraded, engine, [server]) as (_, candidates):
            assert candidates
            assert not any(" typ relay" in candidate for candidate in candidates)


# --- silence ---


async def test_a_peer_that_falls_silent_without_closing_anything_is_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Unlike one that is killed: its sockets stay open, so that its machine refuses nothing.
    monkeypatch.setattr(internals, "CONSENT_INTERVAL", 0.1)
    monkeypatch.setattr(internals, "CONSENT_LOST", 0.5)
    script = OTHER_PROCESS.replace("{module}", AiortcEngine.__module__).replace("{engine}", "AiortcEngine")
    command = [sys.executable, "-c", script]
    process = await trio.lowlevel.open_process(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        engine = AiortcEngine(addresses=["127.0.0.1"])
        async with webrtc(engine=engine)(Context(ALICE)) as transport:
            async with await transport.upgrade(Lines(process)) as connection:
                async with await connection.accept_stream() as stream:
                    assert await stream.receive_some() == b"alive"
                    process.send_signal(signal.SIGSTOP)
                    with pytest.raises(trio.BrokenResourceError):
                        await stream.receive_some()
                await connection.wait_closed()
                with pytest.raises(ConnectionLost):
                    await connection.path()
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            await pipe.aclose()
