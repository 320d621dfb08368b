"""Two nodes in two processes that know nothing of each other but a peer id and a service."""

from __future__ import annotations

import subprocess
import sys

import trio

from handclasp import PeerId, open_node, signaling, webrtc
from handclasp.testing import open_service
from handclasp.transports.webrtc.aiortc import AiortcEngine

ECHO = """
import sys, trio
from handclasp import open_node, signaling, webrtc
from handclasp.transports.webrtc.aiortc import AiortcEngine

async def echo(stream, peer):
    async for chunk in stream:
        await stream.send_all(chunk)

async def main():
    async with open_node(
        discovery=[signaling(sys.argv[1])],
        transports=[webrtc(engine=AiortcEngine(addresses=["127.0.0.1"]))],
        protocols={"/echo/1.0.0": echo},
    ) as node:
        print(node.peer_id, flush=True)
        await trio.sleep_forever()

trio.run(main)
"""


async def test_two_processes_find_each_other_by_peer_id_and_echo() -> None:
    async with open_service() as url:
        process = await trio.lowlevel.open_process(
            [sys.executable, "-c", ECHO, url], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
        )
        try:
            assert process.stdout is not None
            line = b""
            while not line.endswith(b"\n"):
                data = await process.stdout.receive_some()
                assert data, "the other process ended before it was ready"
                line += data
            other = PeerId.from_text_untrusted(line.decode().strip())
            transport = webrtc(engine=AiortcEngine(addresses=["127.0.0.1"]))
            async with open_node(discovery=[signaling(url)], transports=[transport]) as node:
                async with await node.open_stream(other, "/echo/1.0.0") as stream:
                    await stream.send_all(b"hello from afar")
                    assert await stream.receive_some() == b"hello from afar"
                assert node.connections[other].peer == other
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()
            assert process.stdout is not None
            await process.stdout.aclose()
