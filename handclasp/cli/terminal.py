"""What the commands print: text for a person, or one JSON event a line for a program."""

from __future__ import annotations

import io
import json
import math
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

import trio

from handclasp.errors import HandclaspError
from handclasp.protocols.wallet import LinkRequest, OriginLevel, Proposal, SigningRequest, Step

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

_PROGRESS_INTERVAL = 0.5

__all__ = ["Output", "ask", "open_output", "qr_code", "read_line"]


class Output(ABC):
    """Where a command tells what happens."""

    @abstractmethod
    def event(self, name: str, text: str, **fields: object) -> None:
        """Something happened: *text* for a person, *name* and *fields* for a program."""

    @abstractmethod
    def step(self, step: Step) -> None:
        """A step of the pairing was taken."""

    @abstractmethod
    def progress(self, what: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
        """Show how *total* bytes of *what* come along: call what it gives with the bytes so far."""

    def error(self, exc: HandclaspError) -> None:
        """The command failed."""
        self.event("error", f"[red]error:[/red] {shown(str(exc))}", error=type(exc).__name__, detail=str(exc))


class TextOutput(Output):
    """For a person."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._bars: Progress | None = None  # while something is under way

    def event(self, name: str, text: str, **fields: object) -> None:  # noqa: ARG002 - a program's part
        """Print the text."""
        if text:
            self.console.print(text, highlight=False, soft_wrap=True)

    @contextmanager
    def progress(self, what: str, total: int) -> Generator[Callable[[int], None]]:
        """A bar, below those of other transfers."""
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

        if self._bars is None:
            columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
            self._bars = Progress(*columns, console=self.console)
            self._bars.start()
        bars = self._bars
        bar = bars.add_task(what, total=total)
        try:
            yield lambda done: bars.update(bar, completed=done)
        finally:
            bars.stop_task(bar)
            if all(task.stop_time is not None for task in bars.tasks):
                bars.stop()
                self._bars = None

    def step(self, step: Step) -> None:
        """Print the step, dimmed."""
        self.console.print(f"  [dim]{step.who:<18} {step.what}[/dim]", highlight=False)


class JsonOutput(Output):
    """For a program: ``{"event", "at", …}``, where *at* is Unix time in seconds."""

    def event(self, name: str, text: str, **fields: object) -> None:  # noqa: ARG002 - a person's part
        """Print one line."""
        print(json.dumps({"event": name, "at": time.time(), **fields}), flush=True)  # noqa: T201

    @contextmanager
    def progress(self, what: str, total: int) -> Generator[Callable[[int], None]]:
        """A line every `_PROGRESS_INTERVAL` seconds."""
        last = -math.inf

        def report(done: int) -> None:
            nonlocal last
            if time.monotonic() - last >= _PROGRESS_INTERVAL or done == total:
                last = time.monotonic()
                self.event("progress", "", what=what, done=done, total=total)

        yield report

    def step(self, step: Step) -> None:
        """Print one line with the step's key."""
        self.event("step", "", step=step.key)


def open_output(*, as_json: bool) -> Output:
    """The output that the person asked for."""
    return JsonOutput() if as_json else TextOutput(open_console())


def open_console() -> Console:
    """The terminal, or whatever standard output is."""
    from rich.console import Console

    return Console(emoji=False)  # ':link:' is a topic here, no chain symbol


def qr_code(text: str) -> str:
    """A QR code as rich markup: half blocks, white and black whatever the terminal's own colours."""
    import segno

    drawn = io.StringIO()
    segno.make(text, error="l", micro=False, boost_error=False).terminal(out=drawn, compact=True)
    lines = drawn.getvalue().rstrip("\n").split("\n")
    return "\n".join(f"[#ffffff on #000000]{line}[/]" for line in lines)


async def read_line(prompt: str = "") -> str | None:
    """Read one line from standard input, or None at its end.

    Reading cannot be interrupted: the thread that waits is left behind when this is cancelled,
    and the process ends without it.
    """

    def read() -> str:
        if prompt and sys.stdin.isatty():
            sys.stdout.write(prompt)
            sys.stdout.flush()
        return sys.stdin.readline()

    line = await trio.to_thread.run_sync(read, abandon_on_cancel=True)
    return line.strip() if line else None


async def ask(question: str) -> bool:
    """Ask a yes-or-no question; anything but y or yes, and the end of the input, is no."""
    answer = await read_line(f"{question} [y/N] ")
    return answer is not None and answer.lower() in {"y", "yes"}


_BELIEVED = {
    OriginLevel.CLAIMED: "[yellow](claimed by the invitation, not verified)[/yellow]",
    OriginLevel.ATTESTED: "[yellow](so says the service, too; not verified)[/yellow]",
    OriginLevel.PROVED: "[green](verified: the website itself confirms it)[/green]",
}


def describe_link(request: LinkRequest) -> str:
    """What the person has to know before linking."""
    return (
        f"\n[bold]{shown(request.origin)}[/bold] {_BELIEVED[request.level]} wants to know that you own\n"
        f"  account   {request.account}\n  website   {request.website}\n  service   {shown(request.service)}"
    )


def describe_session(proposal: Proposal) -> str:
    """What the person has to know before granting a session."""
    lines = [f"\n[bold]{shown(proposal.origin)}[/bold] may then ask for"]
    lines += [f"  {', '.join(scope.methods)} on {', '.join(scope.chains)}" for scope in proposal.scopes]
    return "\n".join(lines)


def describe_signature(request: SigningRequest) -> str:
    """What the person has to see before signing."""
    return (
        f"\n[bold]{shown(request.origin)}[/bold] asks for {request.method} on {request.chain} "
        f"by {request.address}:\n\n{shown(request.shown)}\n"
    )


def shown(text: str) -> str:
    """A text from elsewhere as it may stand in ours: nothing in it moves the cursor, hides parts or is markup."""
    from rich.markup import escape

    return escape("".join(c if c.isprintable() or c == "\n" else f"\\u{ord(c):04x}" for c in text))
