"""The worker processes of a benchmark as the driving process sees them: JSON lines in and out."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import trio

ROOT = Path(__file__).parent.parent


class Worker:
    """One process."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process
        self._buffer = b""

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    async def send(self, line: object) -> None:
        assert self._process.stdin is not None
        text = line if isinstance(line, str) else json.dumps(line)
        await self._process.stdin.send_all(text.encode() + b"\n")

    async def until(self, field: str, value: object = None) -> dict[str, Any]:
        """Read what the worker tells until it tells *field* (with *value*)."""
        while True:
            told = await self.told()
            if field in told and value in (None, told[field]):
                return told

    async def told(self) -> dict[str, Any]:
        """The next thing that the worker tells."""
        assert self._process.stdout is not None
        while b"\n" not in self._buffer:
            data = await self._process.stdout.receive_some()
            if not data:
                raise RuntimeError("a worker ended early; see its messages above")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        told: dict[str, Any] = json.loads(line)
        return told


@asynccontextmanager
async def program(*command: str) -> AsyncGenerator[Worker]:
    """Run a program that speaks JSON lines while the block runs."""
    process = await trio.lowlevel.open_process(
        list(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    )
    try:
        one = Worker(process)
        await one.until("ready")
        yield one
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


def worker(module: str, *arguments: str, python: str = sys.executable) -> AbstractAsyncContextManager[Worker]:
    """Run ``python -m benchmarks.MODULE ARGUMENTS`` while the block runs."""
    return program(python, "-m", f"benchmarks.{module}", *arguments)
