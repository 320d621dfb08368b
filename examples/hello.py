"""Your first two peers: one greets whoever comes, the other one goes there.

`python examples/hello.py` waits and prints its address; `python examples/hello.py ADDRESS` in another terminal
connects to it. No service is involved. docs/tutorials/first-two-peers.md goes through it line by line.
"""

import sys

import trio

from handclasp import PeerId, open_node, webrtc
from handclasp.abc import Stream
from handclasp.discovery.direct import direct

HELLO = "/hello/1.0.0"


async def hello(stream: Stream, peer: PeerId) -> None:
    name = await stream.receive_some(100)
    await stream.send_all(b"hello, " + name)


async def wait() -> None:
    async with open_node(discovery=[direct()], transports=[webrtc()], protocols={HELLO: hello}) as node:
        print(node.addresses[0], flush=True)
        await trio.sleep_forever()


async def visit(address: str) -> None:
    async with open_node(discovery=[direct()], transports=[webrtc()]) as node:
        connection = await node.connect(address)
        async with await node.open_stream(connection.peer, HELLO) as stream:
            await stream.send_all(b"Ada")
            print((await stream.receive_some()).decode())


if __name__ == "__main__":
    trio.run(visit, sys.argv[1]) if len(sys.argv) > 1 else trio.run(wait)
