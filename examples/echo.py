"""The peer layer without wallets: two peers find each other, connect over WebRTC and speak a protocol.

`python examples/echo.py` runs both in one process. What they share is the meeting place only;
everything else goes over a real DataChannel.
"""

import trio

from handclasp import PeerId, open_node, webrtc
from handclasp.abc import Stream
from handclasp.discovery.memory import MemoryMeeting

ECHO = "/echo/1.0.0"


async def echo(stream: Stream, peer: PeerId) -> None:
    """A protocol is a function: it gets the stream and who is at the other end."""
    async for data in stream:
        await stream.send_all(data)


async def main() -> None:
    meeting = MemoryMeeting()
    async with (
        open_node(discovery=[meeting.backend], transports=[webrtc()], protocols={ECHO: echo}) as alice,
        open_node(discovery=[meeting.backend], transports=[webrtc()]) as bob,
        await bob.open_stream(alice.peer_id, ECHO) as stream,
    ):
        await stream.send_all(b"hello, alice")
        print((await stream.receive_some()).decode())


if __name__ == "__main__":
    trio.run(main)
