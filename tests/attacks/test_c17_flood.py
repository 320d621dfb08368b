"""C17: whoever floods the ports of two peers with DTLS can neither prevent their connection nor end it."""

from __future__ import annotations

import re
import socket
from collections.abc import Awaitable, Callable

import pytest
import trio
from OpenSSL import SSL

from handclasp.abc import Connection, Context, SignalingChannel
from handclasp.discovery.memory import memory_channel_pair
from handclasp.identity import Identity
from handclasp.transports.webrtc import webrtc
from handclasp.transports.webrtc.aiortc import AiortcEngine
from handclasp.transports.webrtc.sdp import SignalingMessage

Upgraded = Callable[..., Awaitable[list[Connection]]]

_CANDIDATE = re.compile(r"candidate:\S+ 1 udp \d+ 127\.0\.0\.1 (\d+) ", re.IGNORECASE)


def client_hello() -> bytes:
    """The first message of a DTLS client."""
    client = SSL.Connection(SSL.Context(SSL.DTLS_METHOD))
    client.set_connect_state()
    with pytest.raises(SSL.WantReadError):
        client.do_handshake()
    return client.bio_read(2_000)


class Overheard(SignalingChannel):
    """A channel on which somebody reads the ports and floods them before the message arrives."""

    offers = False
    peer = Identity.generate().peer_id
    binding = None

    def __init__(self, channel: SignalingChannel, flood: Callable[[int], None]) -> None:
        self._channel = channel
        self._flood = flood
        self.peer, self.offers, self.binding = channel.peer, channel.offers, channel.binding

    async def send(self, message: bytes) -> None:
        for port in _CANDIDATE.findall(SignalingMessage.from_bytes_untrusted(message).data):
            self._flood(int(port))
        await self._channel.send(message)

    async def receive(self) -> bytes:
        return await self._channel.receive()

    async def aclose(self) -> None:
        await self._channel.aclose()


async def test_a_flood_of_dtls_prevents_no_connection_and_ends_none(upgraded: Upgraded) -> None:
    attacks = [client_hello(), b"\x16\xfe\xfd" + bytes(60), b"\x17" + bytes(1_000), b"", b"\x80"]
    flooded: list[int] = []
    ports: set[int] = set()

    async def flood(attacker: trio.socket.SocketType) -> None:
        while True:
            for port in tuple(ports):
                for packet in attacks:
                    await attacker.sendto(packet, ("127.0.0.1", port))
                    flooded.append(port)
            await trio.sleep(0.001)

    alice, bob = Identity.generate(), Identity.generate()
    engine = AiortcEngine(addresses=["127.0.0.1"])
    async with webrtc(engine=engine)(Context(alice)) as transport, trio.open_nursery() as nursery:
        with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as attacker:
            nursery.start_soon(flood, attacker)
            for _ in range(4):
                ports.clear()
                channels = memory_channel_pair(alice.peer_id, bob.peer_id)
                ours, theirs = await upgraded(transport, *(Overheard(each, ports.add) for each in channels))
                async with ours, theirs:
                    assert len(ports) == 2
                    before = len(flooded)
                    async with await ours.open_stream() as stream, trio.open_nursery() as talking:
                        talking.start_soon(answer, theirs)
                        while len(flooded) - before < 200:
                            await stream.send_all(b"still there?")
                            assert await stream.receive_some() == b"still there?"
                        await stream.send_eof()
                assert set(flooded) >= ports
            nursery.cancel_scope.cancel()


async def answer(connection: Connection) -> None:
    async with await connection.accept_stream() as stream:
        async for data in stream:
            await stream.send_all(data)
