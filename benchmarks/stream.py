"""``make bench``: throughput, round trip and connect time of one stream, beside what else there is in Python.

Each contender has its own pair of processes, and the repetitions are interleaved, so that a slower moment of the
machine meets all of them. ``--repetitions 20`` is what the figure of the longest pause is meant for.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import trio
from rich.progress import Progress

from .processes import ROOT, Worker, worker
from .report import Figure, figure, publish

TRIPS = 200  # requests of 1 KiB and their answers, of which the median counts
DEADLINE = 120.0  # seconds for one repetition of one contender; 30 MB at 1 MB/s take 30
LIBP2P = ROOT / ".venv-libp2p" / "bin" / "python"
BARE, OURS, NATIVE, OTHER = "bare aiortc", "handclasp (aiortc)", "handclasp (native)", "py-libp2p"
#: Said beneath the table.
PACED = (
    "py-libp2p's webrtc-direct loses what is more than 64 messages ahead of the reader, and its writer does not wait. "
    "So its two programs keep at most 512 KiB under way. Without, it was as fast, and whole while its reader kept up."
)


@dataclass(frozen=True)
class Once:
    """One repetition of one contender."""

    connect: float  # milliseconds from the order to the first byte at the other end
    round_trip: float  # milliseconds
    throughput: float  # MB/s
    pause: float  # milliseconds, the longest in which nothing arrived


def contenders() -> dict[str, tuple[str, ...]]:
    """Those that can run here: the name, and what their workers are started with."""
    found: dict[str, tuple[str, ...]] = {BARE: ("link_bare",), OURS: ("link_handclasp", "aiortc")}
    if importlib.util.find_spec("handclasp.transports.webrtc.native") is not None:
        found[NATIVE] = ("link_handclasp", "native")
    if LIBP2P.exists():
        found[OTHER] = ("link_libp2p",)
    return found


async def open_pair(stack: AsyncExitStack, module: str, *arguments: str) -> tuple[Worker, Worker]:
    python = str(LIBP2P) if module == "link_libp2p" else sys.executable
    start = functools.partial(worker, module, python=python)
    dialer = await stack.enter_async_context(start("dial", *arguments))
    listener = await stack.enter_async_context(start("listen", *arguments))
    return dialer, listener


async def once(dialer: Worker, listener: Worker, size: int) -> Once:
    opened: list[float] = []

    async def pass_signals(one: Worker, other: Worker) -> None:
        while "open" not in (told := await one.told()):
            await other.send({"signal": told["signal"]})
        opened.append(told["at"])

    begun = time.monotonic()
    for one in (dialer, listener):
        await one.send({"connect": True})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pass_signals, dialer, listener)
        nursery.start_soon(pass_signals, listener, dialer)
    for one in (listener, dialer):
        await one.send({"trips": TRIPS})
    round_trip = (await dialer.until("round_trip"))["round_trip"]
    await listener.send({"bulk": size})
    await listener.until("draining")
    await dialer.send({"bulk": size})
    poured = (await dialer.until("pouring"))["at"]
    received = await listener.until("received")
    for one in (dialer, listener):
        await one.send({"close": True})
        await one.until("closed")
    return Once(
        connect=(max(opened) - begun) * 1000,
        round_trip=round_trip,
        throughput=size / (received["at"] - poured) / 1e6,
        pause=received["longest_pause"],
    )


async def measure(repetitions: int, size: int) -> tuple[dict[str, list[Once]], list[str]]:
    """What came out for each contender, and why one is missing."""
    results: dict[str, list[Once]] = {}
    notes: list[str] = []
    async with AsyncExitStack() as stack:
        pairs = {name: await open_pair(stack, *start) for name, start in contenders().items()}
        notes.append(PACED if OTHER in pairs else "py-libp2p is not installed here: make libp2p")
        progress = stack.enter_context(Progress())
        task = progress.add_task("a stream, each in turn", total=(repetitions + 1) * len(pairs))
        for repetition in range(repetitions + 1):
            for name, pair in list(pairs.items()):
                progress.advance(task)
                try:
                    with trio.fail_after(DEADLINE):
                        result = await once(*pair, size)
                except (RuntimeError, trio.TooSlowError) as exc:
                    if name in {BARE, OURS}:
                        raise
                    notes.append(f"{name} gave up in repetition {repetition}: {exc or 'nothing arrived'}")
                    del pairs[name]
                    continue
                if repetition:  # the first one warms up
                    results.setdefault(name, []).append(result)
    return results, notes


def figures(results: Mapping[str, Sequence[Once]]) -> list[Figure]:
    def values(name: str, field: str) -> list[float]:
        return [getattr(one, field) for one in results[name]]

    def ratio(field: str, name: str, against: str) -> float:
        return statistics.median(values(name, field)) / statistics.median(values(against, field))

    lines: list[Figure] = []
    for field, unit, title in (
        ("throughput", "MB/s", "throughput"),
        ("round_trip", "ms", "round trip of 1 KiB"),
        ("connect", "ms", "connect"),
    ):
        lines += [figure(f"{title}: {name}", values(name, field), unit) for name in results]
    lines.append(
        figure(
            f"throughput: {OURS}",
            values(OURS, "throughput"),
            "MB/s",
            against=BARE,
            ratio=ratio("throughput", OURS, BARE),
            at_least=1.5,
        )
    )
    if OTHER in results:
        lines.append(
            figure(
                f"throughput: {OURS}",
                values(OURS, "throughput"),
                "MB/s",
                against=OTHER,
                ratio=ratio("throughput", OURS, OTHER),
                at_least=4,
            )
        )
    lines.append(
        figure(
            f"round trip: {OURS}",
            values(OURS, "round_trip"),
            "ms",
            against=BARE,
            ratio=ratio("round_trip", OURS, BARE),
            at_most=1.3,
        )
    )
    if NATIVE in results:
        lines += [
            figure(
                f"throughput: {NATIVE}",
                values(NATIVE, "throughput"),
                "MB/s",
                against=OURS,
                ratio=ratio("throughput", NATIVE, OURS),
                at_least=2.5,
            ),
            figure(
                f"connect: {NATIVE}",
                values(NATIVE, "connect"),
                "ms",
                against=OURS,
                ratio=ratio("connect", NATIVE, OURS),
                at_most=0.333,
            ),
        ]
    for name in results:
        pauses = values(name, "pause")
        longest = max(pauses)
        lines.append(
            Figure(
                name=f"longest pause in {len(pauses)} transfers: {name}",
                value=round(longest, 1),
                unit="ms",
                spread=figure("", pauses, "").spread,
                aim="under 1 s" if name in {OURS, NATIVE} else None,
                holds=longest < 1000 if name in {OURS, NATIVE} else None,
            )
        )
    return lines


def plot(results: Mapping[str, Sequence[Once]], path: Path) -> None:
    """Every throughput that was measured as a dot, and their median as a line: an SVG of a few hundred bytes."""
    width, left, row = 760, 160, 34
    highest = max(one.throughput for runs in results.values() for one in runs)
    scale = (width - left - 70) / highest
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{row * len(results) + 40}">',
        "<style>text { font: 13px sans-serif }</style>",
        f'<text x="{left}" y="18">MB/s over one stream, two processes on 127.0.0.1; each dot is one transfer</text>',
    ]
    for number, (name, runs) in enumerate(results.items()):
        y = 46 + row * number
        middle = statistics.median(one.throughput for one in runs)
        x = left + middle * scale
        parts += [
            f'<text x="{left - 12}" y="{y + 5}" text-anchor="end">{name}</text>',
            *(
                f'<circle cx="{left + one.throughput * scale:.1f}" cy="{y}" r="4" fill="#4477aa" opacity="0.45"/>'
                for one in runs
            ),
            f'<path d="M{x:.1f} {y - 11}v22" stroke="#aa3377" stroke-width="2"/>',
            f'<text x="{left + highest * scale + 14:.1f}" y="{y + 5}">{middle:.1f}</text>',
        ]
    path.write_text("\n".join([*parts, "</svg>"]) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument("--megabytes", type=int, default=30)
    arguments = parser.parse_args()
    results, notes = trio.run(measure, arguments.repetitions, arguments.megabytes * 1_000_000)
    publish("stream", figures(results), notes=notes, picture=functools.partial(plot, results))


if __name__ == "__main__":
    main()
