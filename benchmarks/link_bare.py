"""A contender: aiortc and nothing else, on plain asyncio, used the ordinary way."""

from __future__ import annotations

import asyncio
import sys

import aiortc

from .link import Link, Orders, gather_on_loopback, serve, tell

MESSAGE = 16_000  # bytes, as libp2p's messages


class Bare(Link):
    HIGH, LOW = 256 * 1024, 64 * 1024

    async def connect(self, orders: Orders, *, dials: bool) -> None:
        self.peer = aiortc.RTCPeerConnection(aiortc.RTCConfiguration(iceServers=[]))
        self.messages: asyncio.Queue[bytes] = asyncio.Queue()
        opened = asyncio.Event()
        if dials:
            self.use(self.peer.createDataChannel("bench"))
            self.channel.on("open", opened.set)
            await self.peer.setLocalDescription(await self.peer.createOffer())
            tell(signal=self.peer.localDescription.sdp)
            answer = (await orders.next())["signal"]
            await self.peer.setRemoteDescription(aiortc.RTCSessionDescription(answer, "answer"))
        else:

            def accept(channel: aiortc.RTCDataChannel) -> None:
                self.use(channel)
                opened.set()

            self.peer.on("datachannel", accept)
            offer = (await orders.next())["signal"]
            await self.peer.setRemoteDescription(aiortc.RTCSessionDescription(offer, "offer"))
            await self.peer.setLocalDescription(await self.peer.createAnswer())
            tell(signal=self.peer.localDescription.sdp)
        await opened.wait()

    def use(self, channel: aiortc.RTCDataChannel) -> None:
        self.channel = channel
        self.drained = asyncio.Event()
        channel.bufferedAmountLowThreshold = self.LOW
        channel.on("bufferedamountlow", self.drained.set)
        channel.on("message", self.messages.put_nowait)

    async def send(self, data: bytes) -> None:
        for start in range(0, len(data), MESSAGE):
            if self.channel.bufferedAmount > self.HIGH:
                self.drained.clear()
                await self.drained.wait()
            self.channel.send(data[start : start + MESSAGE])

    async def receive(self) -> bytes:
        return await self.messages.get()

    async def close(self) -> None:
        await self.peer.close()


class Lines(Orders):
    def __init__(self, reader: asyncio.StreamReader) -> None:
        super().__init__()
        self._reader = reader

    async def read(self) -> bytes:
        return await self._reader.read(65_536)


async def main(role: str) -> None:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    await serve(Bare, Lines(reader), dials=role == "dial")


if __name__ == "__main__":
    gather_on_loopback()
    asyncio.run(main(sys.argv[1]))
