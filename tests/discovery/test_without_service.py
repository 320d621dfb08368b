"""Two processes find each other by mDNS, signal over TCP, connect by WebRTC: no service is involved."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys

from ..namespaces import CABLE, ON_OTHER, command  # noqa: TID252 - tests are no installed package

# sys.argv: how to run Python for the other peer, the topic, this script itself, and our addresses or nothing.
SCRIPT = """
import json, subprocess, sys, trio
from contextlib import asynccontextmanager
from handclasp import open_node, webrtc
from handclasp.discovery.direct import direct
from handclasp.discovery.mdns import mdns
from handclasp.transports.webrtc.aiortc import AiortcEngine

python, topic, script, *addresses = sys.argv[1:]
python = json.loads(python)
network = {}

@asynccontextmanager
async def local_network(context):
    async with mdns(interfaces=addresses or None)(context) as network["mdns"]:
        yield network["mdns"]

async def echo(stream, peer):
    async for data in stream:
        await stream.send_all(data)
    await stream.send_eof()

def run_node():
    engine = AiortcEngine(addresses=addresses or None)
    return open_node(
        discovery=[local_network, direct(addresses[0] if addresses else "0.0.0.0")],
        transports=[webrtc(engine=engine)],
        protocols={"/echo/1.0.0": echo},
    )

async def answer():
    async with run_node() as node, network["mdns"].find(str(node.peer_id)) as found:
        me = await anext(found)  # a node hears itself
        async with network["mdns"].advertise(topic, me):
            print(node.peer_id, flush=True)
            await trio.to_thread.run_sync(sys.stdin.read)

async def ask(node, peer):
    async with await node.open_stream(peer, "/echo/1.0.0") as stream:
        await stream.send_all(b"hello")
        await stream.send_eof()
        return b"".join([data async for data in stream]).decode()

async def dial():
    other = [*python, "-c", script, "[]", topic, script, *addresses]
    process = await trio.lowlevel.open_process(other, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    async with process.stdin, process.stdout:
        async with run_node() as by_topic, network["mdns"].find(topic) as found:
            record = await anext(found)
            connection = await by_topic.connect(record.addresses[0])
            said = await ask(by_topic, connection.peer)
            path = await connection.path()
        async with run_node() as by_id:
            again = await ask(by_id, record.peer)
        theirs = (await process.stdout.receive_some()).decode().strip()
    await process.wait()
    json.dump([theirs, record.addresses, [said, again], path.kind, path.remote, process.returncode], sys.stdout)

trio.run(dial if python else answer)
"""


def meet(
    start: list[str], other: list[str], *addresses: str
) -> tuple[str, list[str], list[str], str, str, int]:
    topic = secrets.token_hex(8)
    arguments = [SCRIPT, json.dumps([*other, sys.executable]), topic, SCRIPT, *addresses]
    done = subprocess.run([*start, *arguments], check=True, stdout=subprocess.PIPE, timeout=150)
    peer, *rest = json.loads(done.stdout)
    return peer, *rest


def test_two_processes_on_one_machine_find_each_other_by_topic_and_by_id() -> None:
    peer, addresses, said, kind, remote, code = meet([sys.executable, "-c"], [], "127.0.0.1")
    assert [address.split("/")[2] for address in addresses] == ["127.0.0.1"]
    assert addresses[0].endswith(f"/webrtc/p2p/{peer}")
    assert said == ["hello", "hello"]
    assert (kind, remote.split("/")[2]) == ("direct", "127.0.0.1")
    assert code == 0


def test_two_machines_on_one_cable_find_each_other_by_topic_and_by_id() -> None:
    peer, addresses, said, kind, remote, code = meet(command(CABLE, "-c"), ON_OTHER)
    assert [address.split("/")[2] for address in addresses] == ["10.0.0.2"]
    assert addresses[0].endswith(f"/webrtc/p2p/{peer}")
    assert said == ["hello", "hello"]
    assert (kind, remote.split("/")[2]) == ("direct", "10.0.0.2")
    assert code == 0
