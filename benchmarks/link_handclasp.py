"""A contender: handclasp, with the engine that is named."""

from __future__ import annotations

import sys

import trio

from handclasp.abc import Connection, Context, SignalingChannel, Stream, Transport
from handclasp.identity import Identity, PeerId
from handclasp.transports.webrtc.transport import from_url

from .link import LOOPBACK, Link, Orders, serve, tell, trio_orders


class Signals(SignalingChannel):
    def __init__(self, orders: Orders, *, dials: bool) -> None:
        self._orders, self._dials = orders, dials

    @property
    def offers(self) -> bool:
        return self._dials

    @property
    def peer(self) -> PeerId:
        return Identity.generate().peer_id

    binding = None

    async def send(self, message: bytes) -> None:
        tell(signal=message.hex())
        await trio.lowlevel.checkpoint()

    async def receive(self) -> bytes:
        return bytes.fromhex((await self._orders.next())["signal"])

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


class Ours(Link):
    connection: Connection
    stream: Stream

    def __init__(self, transport: Transport) -> None:
        self.transport = transport

    async def connect(self, orders: Orders, *, dials: bool) -> None:
        self.connection = await self.transport.upgrade(Signals(orders, dials=dials))
        self.stream = await (self.connection.open_stream() if dials else self.connection.accept_stream())

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def receive(self) -> bytes:
        return await self.stream.receive_some()

    async def close(self) -> None:
        await self.connection.aclose()


async def main(role: str, engine: str) -> None:
    factory = from_url(f"webrtc:?engine={engine}&address={LOOPBACK}")
    async with factory(Context(Identity.generate())) as transport:
        await serve(lambda: Ours(transport), trio_orders(), dials=role == "dial")


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
