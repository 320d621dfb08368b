"""``make bench``: what an import and a help page cost, in fresh processes, in turn."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from rich.progress import track

from .report import Figure, figure, publish

REPETITIONS = 15


def run(*arguments: str) -> float:
    """Milliseconds of a fresh interpreter."""
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True)
    return (time.perf_counter() - start) * 1000


def main() -> None:
    commands = {
        "python": ("-c", "pass"),
        "import trio": ("-c", "import trio"),
        "import trio, handclasp": ("-c", "import trio, handclasp"),
        "handclasp --help": ("-m", "handclasp", "--help"),
    }
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in track(range(REPETITIONS), "startup, each in turn"):
        for name, command in commands.items():
            times[name].append(run(*command))
    added = [
        both - trio for both, trio in zip(times["import trio, handclasp"], times["import trio"], strict=True)
    ]
    extra = statistics.median(added)
    help_page = statistics.median(times["handclasp --help"])
    figures = [
        *(figure(name, values, "ms") for name, values in times.items() if name != "handclasp --help"),
        Figure(
            "import handclasp, beside trio",
            round(extra, 1),
            "ms",
            figure("", added, "ms").spread,
            against="import trio",
            ratio=round(extra / statistics.median(times["import trio"]), 2),
            aim="at most 30 ms",
            holds=extra <= 30,
        ),
        Figure(
            "handclasp --help",
            round(help_page, 1),
            "ms",
            figure("", times["handclasp --help"], "ms").spread,
            against="python",
            ratio=round(help_page / statistics.median(times["python"]), 2),
            aim="at most 300 ms",
            holds=help_page <= 300,
        ),
    ]
    publish("startup", figures)


if __name__ == "__main__":
    main()
