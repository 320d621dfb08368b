"""How every benchmark reports: a table for people and a JSON file beside it, figures as ratios of one run."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Figure:
    """One line of a report."""

    name: str
    value: float
    unit: str
    spread: tuple[float, float]
    """The lower and upper quartile of what the median was taken from."""
    against: str | None = None
    """What it is compared with, measured in the same run."""
    ratio: float | None = None
    aim: str | None = None
    holds: bool | None = None


def figure(
    name: str,
    values: Sequence[float],
    unit: str,
    *,
    against: str | None = None,
    ratio: float | None = None,
    at_most: float | None = None,
    at_least: float | None = None,
) -> Figure:
    """A figure from repeated measurements: their median, and the aim it has to meet, if any."""
    quartiles = statistics.quantiles(values, n=4)
    aim = holds = None
    if at_most is not None:
        aim, holds = f"at most {at_most:g}×", ratio is not None and ratio <= at_most
    elif at_least is not None:
        aim, holds = f"at least {at_least:g}×", ratio is not None and ratio >= at_least
    return Figure(
        name=name,
        value=round(statistics.median(values), 3),
        unit=unit,
        spread=(round(quartiles[0], 3), round(quartiles[2], 3)),
        against=against,
        ratio=None if ratio is None else round(ratio, 2),
        aim=aim,
        holds=holds,
    )


def publish(
    target: str,
    figures: Sequence[Figure],
    *,
    notes: Sequence[str] = (),
    picture: Callable[[Path], None] | None = None,
) -> None:
    """Print the table and write ``results/<target>.json``, and with *picture* ``results/<target>.svg``."""
    table = Table(title=target, title_justify="left", box=None, padding=(0, 2, 0, 0))
    for title in ("figure", "median", "quartiles", "ratio", "against", "aim", ""):
        table.add_column(title, justify="right" if title in {"median", "ratio"} else "left")
    for line in figures:
        verdict = {None: "", True: "[green]holds[/green]", False: "[red]missed[/red]"}[line.holds]
        table.add_row(
            line.name,
            f"{line.value:.3g} {line.unit}",
            f"{line.spread[0]:.3g} – {line.spread[1]:.3g}",
            "" if line.ratio is None else f"{line.ratio:.2f}×",
            line.against or "",
            line.aim or "",
            verdict,
        )
    console = Console(width=130)
    console.print(table)
    for note in notes:
        console.print(note)
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{target}.json"
    path.write_text(json.dumps([asdict(line) for line in figures], indent=2) + "\n")
    if picture is not None:
        picture(RESULTS / f"{target}.svg")
