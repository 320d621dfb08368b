"""``make bench-service``: the service beside socket.io and PeerServer, doing the same job: A sends, B receives.

One program puts the load on all of them, on one processor; the server has the other. The repetitions are interleaved,
so that a slower moment of the machine meets all of them.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import statistics
import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import trio
from rich.progress import Progress

from .processes import ROOT, Worker, program
from .report import Figure, figure, publish

RELAYS = ROOT / "benchmarks" / "relays"
OURS, SOCKETIO, PEERJS = "handclasp", "socket.io", "PeerServer"
PAIRS = 50
WINDOW = 8  # messages of a pair under way
RATE = 2_000  # messages a second, for the latency
DEADLINE = 180.0  # seconds for one order
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Contender:
    """How it is started, given its port, and what the load program calls it."""

    kind: str
    command: tuple[str, ...]


CONTENDERS: Mapping[str, Contender] = {
    OURS: Contender("handclasp", (sys.executable, "-m", "benchmarks.relay_handclasp")),
    SOCKETIO: Contender("socketio", ("node", str(RELAYS / "socketio.mjs"))),
    PEERJS: Contender("peerjs", ("node", str(RELAYS / "peerjs.mjs"))),
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def cpu_seconds(pid: int) -> float:
    """User and system time of a process, all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def resident(pid: int) -> float:
    """KiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return float(next(line for line in lines if line.startswith("VmRSS")).split()[1])


@asynccontextmanager
async def server(contender: Contender, processor: int) -> AsyncGenerator[tuple[Worker, str]]:
    """A server on a processor of its own, and its address."""
    port = str(free_port())
    async with program("taskset", "--cpu-list", str(processor), *contender.command, port) as running:
        yield running, f"127.0.0.1:{port}"


async def order(load: Worker, **what: object) -> dict[str, float]:
    await load.send(what)
    with trio.fail_after(DEADLINE):
        done = await load.until("done")
    if "failed" in done:
        raise RuntimeError(f"{what.get('relay')}, {what.get('job')}: {done['failed']}")
    return done


async def measure(repetitions: int, messages: int, connections: int) -> dict[str, dict[str, list[float]]]:
    """For each contender and figure the values of all repetitions."""
    results: dict[str, dict[str, list[float]]] = {name: {} for name in CONTENDERS}

    def note(name: str, field: str, value: float) -> None:
        results[name].setdefault(field, []).append(value)

    async with AsyncExitStack() as stack:
        progress = stack.enter_context(Progress())
        task = progress.add_task("each in turn", total=repetitions * len(CONTENDERS))
        for _ in range(repetitions):
            for name, contender in CONTENDERS.items():
                async with (
                    program("taskset", "--cpu-list", "0", "node", str(RELAYS / "load.mjs")) as load,
                    server(contender, 1) as (running, host),
                ):
                    job = {"relay": contender.kind, "hosts": [host], "count": PAIRS}
                    await order(
                        load, job="throughput", window=WINDOW, messages=messages // 10, **job
                    )  # warms up
                    before = cpu_seconds(running.pid)
                    done = await order(load, job="throughput", window=WINDOW, messages=messages, **job)
                    note(name, "per CPU-second", done["messages"] / (cpu_seconds(running.pid) - before))
                    note(name, "throughput", done["messages"] / done["seconds"])
                    await order(load, forget=True)
                    done = await order(load, job="latency", rate=RATE, messages=5 * RATE, **job)
                    note(name, "p50", done["p50"])
                    note(name, "p99", done["p99"])
                async with (
                    program("taskset", "--cpu-list", "0", "node", str(RELAYS / "load.mjs")) as load,
                    server(contender, 1) as (running, host),
                ):
                    job = {"relay": contender.kind, "hosts": [host]}
                    await order(
                        load, job="idle", count=100, abreast=20, **job
                    )  # what is loaded when it is used
                    before, spent = resident(running.pid), cpu_seconds(running.pid)
                    done = await order(load, job="idle", count=connections, abreast=50, **job)
                    note(name, "memory", (resident(running.pid) - before) / connections)
                    note(name, "accepts", connections / done["seconds"])
                    note(name, "accepts per CPU-second", connections / (cpu_seconds(running.pid) - spent))
                progress.advance(task)
    return results


_TITLES = {
    "per CPU-second": ("messages per CPU-second of the server", "/s"),
    "throughput": ("messages a second", "/s"),
    "p50": (f"time from A to B at {RATE} a second, half of them", "ms"),
    "p99": (f"time from A to B at {RATE} a second, 99 % of them", "ms"),
    "memory": ("resident memory of an idle connection", "KiB"),
    "accepts": ("connections accepted a second", "/s"),
    "accepts per CPU-second": ("connections accepted per CPU-second", "/s"),
}


def figures(results: Mapping[str, Mapping[str, Sequence[float]]]) -> list[Figure]:
    lines = [
        figure(f"{title}: {name}", fields[field], unit)
        for field, (title, unit) in _TITLES.items()
        for name, fields in results.items()
    ]

    def ratio(field: str, against: str) -> float:
        return statistics.median(results[OURS][field]) / statistics.median(results[against][field])

    values = results[OURS]["per CPU-second"]
    lines.append(
        figure(
            f"messages per CPU-second: {OURS}",
            values,
            "/s",
            against=SOCKETIO,
            ratio=ratio("per CPU-second", SOCKETIO),
            at_least=1.4,
        )
    )
    memory = results[OURS]["memory"]
    lines.append(
        Figure(
            f"memory of an idle connection: {OURS}",
            round(statistics.median(memory), 1),
            "KiB",
            figure("", memory, "").spread,
            aim="at most 22 kB",
            holds=statistics.median(memory) * 1024 <= 22_000,
        )
    )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--connections", type=int, default=5_000)
    arguments = parser.parse_args()
    if not (RELAYS / "node_modules").is_dir() or shutil.which("taskset") is None:
        raise SystemExit("make bench-service needs npm (for what it compares with) and taskset of util-linux")
    results = trio.run(measure, arguments.repetitions, arguments.messages, arguments.connections)
    publish("service", figures(results))


if __name__ == "__main__":
    main()
