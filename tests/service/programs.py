"""Instances of the service as processes, to be killed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import trio

_PROGRAM = """
import sys
from handclasp.service.configuration import Configuration
from handclasp.service.server import serve_as
state, port = sys.argv[1:]
serve_as(Configuration(port=int(port), state=state), ready=lambda url: print(url, flush=True))
"""


class Instance:
    """One process that serves; made by `open_instance`."""

    def __init__(self, state: str) -> None:
        self._state = state
        self._process: subprocess.Popen[str] | None = None
        self.url = ""

    async def start(self) -> None:
        """Again at the same port, after the first time."""
        port = self.url.rpartition(":")[2] or "0"
        self._process = process = subprocess.Popen(  # noqa: ASYNC220 - takes a millisecond
            [sys.executable, "-c", _PROGRAM, self._state, port], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        self.url = (await trio.to_thread.run_sync(process.stdout.readline)).strip()
        assert self.url, "it did not start"

    def kill(self) -> None:
        """With SIGKILL: nobody gets to say goodbye."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def stop(self) -> None:
        """In good order."""
        assert self._process is not None
        self._process.terminate()


@asynccontextmanager
async def open_instance(state: str) -> AsyncGenerator[Instance]:
    instance = Instance(state)
    await instance.start()
    try:
        yield instance
    finally:
        instance.kill()
