"""``make bench``: what an idle connection and an idle stream weigh, at one node.

``python -m benchmarks.memory node`` is one measurement in a fresh process, with its peers in another one. Resident
memory is what a machine pays; the Python part of it is traced in processes of its own, because that takes memory, too.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import trio
from rich.progress import track

from handclasp.abc import Connection, Context, SignalingChannel, Stream
from handclasp.identity import Identity
from handclasp.transports.webrtc.transport import from_url

from .link import LOOPBACK, Orders, tell, trio_orders
from .link_handclasp import Signals
from .processes import Worker, worker
from .report import Figure, figure, publish

CONNECTIONS, STREAMS, WARM_UP, ROUNDS = 50, 500, 5, 3
WEBRTC = f"webrtc:?engine=aiortc&address={LOOPBACK}"


# --- the process at the other end ---


async def peer() -> None:
    """Accept connections, and streams on the last one, and keep them all."""
    orders: Orders = trio_orders()
    kept: list[Connection | Stream] = []
    async with from_url(WEBRTC)(Context(Identity.generate())) as transport:
        tell(ready=True)
        while True:
            order = await orders.next()
            if "connect" in order:
                connection = await transport.upgrade(Signals(orders, dials=False))
                kept.append(connection)
                tell(connected=True)
            else:
                for _ in range(order["streams"]):
                    stream = await connection.accept_stream()
                    await stream.receive_some()
                    kept.append(stream)
                tell(accepted=True)


# --- the process that is measured ---


class Signaling(SignalingChannel):
    """Signaling to the other process."""

    offers = True
    binding = None
    peer = Identity.generate().peer_id

    def __init__(self, other: Worker) -> None:
        self._other = other
        self._answered = False

    async def send(self, message: bytes) -> None:
        await self._other.send({"signal": message.hex()})

    async def receive(self) -> bytes:
        if self._answered:  # what comes next is not signaling
            await trio.sleep_forever()
        self._answered = True
        return bytes.fromhex((await self._other.until("signal"))["signal"])

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


def resident() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def traced() -> int:
    """Bytes that Python has allocated since tracing began."""
    return tracemalloc.get_traced_memory()[0]


async def node(how: str) -> None:
    """Tell the bytes of a connection and of a stream."""
    if how == "traced":
        tracemalloc.start()
    used = traced if how == "traced" else resident
    async with (
        worker("memory", "peer") as other,
        from_url(WEBRTC)(Context(Identity.generate())) as transport,
    ):

        async def connect(count: int) -> list[Connection]:
            made = []
            for _ in range(count):
                await other.send({"connect": True})
                made.append(await transport.upgrade(Signaling(other)))
                await other.until("connected")
            return made

        async def settled() -> int:
            await trio.sleep(0.3)  # delayed acknowledgements and timers have run
            gc.collect()
            return used()

        connections = await connect(WARM_UP)
        before = await settled()
        connections += await connect(CONNECTIONS)
        connected = await settled()
        streams = []
        await other.send({"streams": STREAMS})
        for _ in range(STREAMS):
            streams.append(await connections[-1].open_stream())
            await streams[-1].send_all(b"!")
        await other.until("accepted")
        opened = await settled()
        tell(
            connection=(connected - before) / CONNECTIONS,
            stream=(opened - connected) / STREAMS,
        )
        os._exit(0)  # closing is not what is measured


# --- the driver ---


def once(how: str) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.memory", "node", how], stdout=subprocess.PIPE, check=True
    )
    told: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return told


def measure() -> list[Figure]:
    results: dict[str, list[dict[str, float]]] = {"resident": [], "traced": []}
    for _ in track(range(ROUNDS), "memory, in fresh processes"):
        for how, runs in results.items():
            runs.append(once(how))
    return [
        figure(f"{title}, {part}", [run[field] / 1024 for run in results[how]], "KiB")
        for field, title in (("connection", "idle connection"), ("stream", "idle stream"))
        for how, part in (("resident", "resident"), ("traced", "of that in Python"))
    ]


def main(role: str = "", *arguments: str) -> None:
    if role:
        trio.run({"peer": peer, "node": node}[role], *arguments)
    elif Path("/proc/self/statm").exists():
        publish("memory", measure())
    else:
        print("memory: measuring resident memory takes /proc")


if __name__ == "__main__":
    main(*sys.argv[1:])
