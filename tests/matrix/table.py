"""The matrix as a table, printed when pytest has `--table`."""

from __future__ import annotations

from collections import defaultdict

from rich.console import Console
from rich.table import Table as RichTable


class Table:
    """What was seen: transport, discovery and protocol to seconds, or to None where it failed."""

    def __init__(self) -> None:
        self._cells: dict[str, dict[tuple[str, str], float | None]] = defaultdict(dict)

    def put(self, transport: str, discovery: str, protocol: str, seconds: float | None) -> None:
        self._cells[transport][protocol, discovery] = seconds

    def print(self, console: Console) -> None:
        """One table for each transport: protocols down, discovery across."""
        for transport, cells in self._cells.items():
            columns = list(dict.fromkeys(discovery for _, discovery in cells))
            table = RichTable(title=transport, title_justify="left", title_style="bold")
            table.add_column("protocol")
            for column in columns:
                table.add_column(column, justify="right")
            for protocol in dict.fromkeys(protocol for protocol, _ in cells):
                row = [_shown(cells, protocol, column) for column in columns]
                table.add_row(protocol, *row)
            console.print(table)


def _shown(cells: dict[tuple[str, str], float | None], protocol: str, discovery: str) -> str:
    if (protocol, discovery) not in cells:
        return "[dim]not run[/dim]"
    seconds = cells[protocol, discovery]
    return "[red]FAILED[/red]" if seconds is None else f"[green]ok[/green] {seconds * 1e3:7.1f} ms"
