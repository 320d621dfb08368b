"""A contender: py-libp2p's webrtc-direct, in the environment that ``make libp2p`` makes.

Its reader drops what comes after 64 unread messages, and its writer does not wait for the reader. So the two ends
keep at most `Libp2p.window` bytes under way, which the receiving program acknowledges by a byte now and then.
"""

from __future__ import annotations

import sys

import trio
from libp2p.abc import IMuxedStream, IRawConnection
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.transport.webrtc.connection import WebRTCConnection
from libp2p.transport.webrtc.transport import WebRTCDirectTransport
from multiaddr import Multiaddr

from .link import LOOPBACK, Link, Orders, gather_on_loopback, serve, tell, trio_orders


class Libp2p(Link):
    window = 512 * 1024
    connection: WebRTCConnection
    stream: IMuxedStream

    def __init__(
        self,
        transport: WebRTCDirectTransport,
        addresses: tuple[Multiaddr, ...],
        accepted: trio.MemoryReceiveChannel[WebRTCConnection],
    ) -> None:
        self.transport, self.addresses, self.accepted = transport, addresses, accepted

    async def connect(self, orders: Orders, *, dials: bool) -> None:
        if dials:
            self.connection = await self.transport.dial(Multiaddr((await orders.next())["signal"]))
            self.stream = await self.connection.open_stream()
        else:
            tell(signal=str(self.addresses[0]))
            self.connection = await self.accepted.receive()
            self.stream = await self.connection.accept_stream()

    async def send(self, data: bytes) -> None:
        await self.stream.write(data)

    async def receive(self) -> bytes:
        return await self.stream.read()

    async def close(self) -> None:
        await self.connection.close()


async def main(role: str) -> None:
    transport = WebRTCDirectTransport(create_new_key_pair().private_key)
    accepted_in, accepted = trio.open_memory_channel[WebRTCConnection](8)

    async def accept(connection: IRawConnection) -> None:
        assert isinstance(connection, WebRTCConnection)
        await accepted_in.send(connection)
        await trio.sleep_forever()  # the connection lives as long as its handler

    listener = transport.create_listener(accept)
    if role == "listen":
        await listener.listen(Multiaddr(f"/ip4/{LOOPBACK}/udp/0/webrtc-direct"))
    await serve(
        lambda: Libp2p(transport, listener.get_addrs(), accepted), trio_orders(), dials=role == "dial"
    )


if __name__ == "__main__":
    gather_on_loopback()
    trio.run(main, sys.argv[1])
