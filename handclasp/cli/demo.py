"""``handclasp demo``: service, website and wallet as three processes, and the sequence as it happens."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, cast

import trio

from handclasp.errors import ConfigurationError, DeadlineExceeded, PeerLeft
from handclasp.protocols.wallet import Step
from handclasp.scope import open_scope

from .terminal import TextOutput, qr_code

if TYPE_CHECKING:
    from rich.table import Table

#: Seconds for the whole demonstration; it takes about two.
_TIMEOUT = 60.0
_GRACE = 3.0  # seconds that a process may take to end by itself
_MESSAGE = "handclasp: hello, wallet"
_STEPS = {step.key: step for step in Step}


async def run(output: TextOutput, port: int, *, once: bool) -> None:
    """Run the demonstration."""
    async with _process("serve", "--port", str(port), "--json", "--log-level", "warning") as service:
        url = str((await _wait_for(service, "ready"))["service"])
        output.event("service", f"[dim]signaling service on {url}[/dim]\n")
        with _deadline():
            await _pair(output, url)
        if not once:
            output.event(
                "help",
                "\nThe service stays up. To pair by hand, in two more terminals:\n\n"
                f"  [bold]handclasp invite --service {url} --loopback[/bold]\n"
                f"  [bold]handclasp wallet --loopback 'handclasp:1?…'[/bold]   (the URI that the first one prints)\n\n"
                "Drop --loopback when the two are on different machines. Ctrl-C ends the service.",
            )
            await service.process.wait()
            raise PeerLeft("the service ended")


async def _pair(output: TextOutput, url: str) -> None:
    sequence = _Sequence(output)
    async with (
        _process("invite", "--service", url, "--json", "--loopback") as website,
        _process("wallet", "--yes", "--json", "--loopback") as wallet,
        open_scope() as scope,
    ):
        await _wait_for(
            wallet, "account"
        )  # it has loaded all it needs: from here on nobody waits for imports
        uri = str((await _follow(website, sequence, "invitation"))["uri"])
        output.event("invitation", qr_code(uri))
        await _follow(website, sequence, "loaded")  # people take longer to scan than this
        with sequence.shown():
            scope.start_soon(_follow, wallet, sequence, None)
            await wallet.write(uri)
            linked = await _follow(website, sequence, "linked")
            await _follow(website, sequence, "session")
            await website.write(f"personal_sign {_MESSAGE}")
            await _follow(website, sequence, "result")
            while not sequence.complete:
                await sequence.changed()
        address = str(linked["account"]).rpartition(":")[2]
        output.event(
            "done",
            f"\nlinked [bold]{address}[/bold] · DataChannel open · signed in {sequence.duration:.0f} ms",
        )
        await website.write("quit")
        await website.process.wait()
        await wallet.process.wait()


class _Sequence:
    """The steps that were taken, and the table that shows them."""

    def __init__(self, output: TextOutput) -> None:
        self._output = output
        self._taken: dict[Step, float] = {}
        self._changed = trio.Event()

    @property
    def complete(self) -> bool:
        """Whether every step was taken."""
        return len(self._taken) == len(Step)

    @property
    def duration(self) -> float:
        """Milliseconds from the scan to the verified signature."""
        return (self._taken[Step.SIGNED] - self._taken[Step.READ]) * 1000

    async def changed(self) -> None:
        """Wait for the next step."""
        await self._changed.wait()

    def take(self, event: dict[str, object]) -> None:
        """Note a step that one of the processes reported."""
        step = _STEPS.get(str(event.get("step")))
        if step is not None:
            self._taken[step] = float(cast("float", event["at"]))
            self._changed.set()
            self._changed = trio.Event()

    def shown(self) -> AbstractContextManager[object]:
        """Show the table while the block runs; on a terminal it fills in as it happens."""
        from rich.live import Live

        console = self._output.console
        return Live(get_renderable=self.table, console=console, refresh_per_second=20, transient=False)

    def table(self) -> Table:
        """The steps in order; times count from the scan."""
        from rich.table import Table

        table = Table(box=None, padding=(0, 2, 0, 0))
        for title, justify in (("", "right"), ("who", "left"), ("step", "left"), ("ms from scan", "right")):
            table.add_column(title, justify=justify)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
        start = self._taken.get(Step.READ)
        for number, step in enumerate(Step, 1):
            at = self._taken.get(step)
            style = "dim" if at is None else ""
            time = "" if at is None or start is None else f"{(at - start) * 1000:.1f}"
            table.add_row(str(number), step.who, step.what, time, style=style)
        return table


class _Process:
    """One of the three programs, seen through its JSON events."""

    def __init__(self, name: str, process: trio.Process) -> None:
        self.name = name
        self.process = process
        self.events = self._read()

    async def write(self, line: str) -> None:
        """Type a line."""
        assert self.process.stdin is not None  # noqa: S101 - opened with a pipe
        await self.process.stdin.send_all(line.encode() + b"\n")

    async def _read(self) -> AsyncIterator[dict[str, object]]:
        assert self.process.stdout is not None  # noqa: S101 - opened with a pipe
        buffer = b""
        async for data in self.process.stdout:
            *lines, buffer = (buffer + data).split(b"\n")
            for line in lines:
                yield cast("dict[str, object]", json.loads(line))


@asynccontextmanager
async def _process(*arguments: str) -> AsyncGenerator[_Process]:
    """Run ``handclasp …`` while the block runs; its error output goes to ours."""
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "handclasp", *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        yield _Process(arguments[0], process)
    finally:
        with trio.CancelScope(shield=True):
            if process.returncode is None:
                process.terminate()
            with trio.move_on_after(_GRACE):
                await process.wait()
            if process.returncode is None:
                process.kill()
                await process.wait()


async def _wait_for(process: _Process, name: str) -> dict[str, object]:
    return await _follow(process, None, name)


async def _follow(process: _Process, sequence: _Sequence | None, name: str | None) -> dict[str, object]:
    """Read a process's events, noting its steps, until the one called *name*."""
    async for event in process.events:
        if event["event"] == "error":
            raise PeerLeft(f"the {process.name} process failed: {event['detail']}")
        if sequence is not None:
            sequence.take(event)
        if event["event"] == name:
            return event
    if name is None:
        return {}
    raise ConfigurationError(
        f"the {process.name} process ended before its event {name!r}; see its messages above"
    )


@contextmanager
def _deadline() -> Generator[None]:
    try:
        with trio.fail_after(_TIMEOUT):
            yield
    except trio.TooSlowError:
        raise DeadlineExceeded(f"the demonstration took longer than {_TIMEOUT:.0f} s") from None
