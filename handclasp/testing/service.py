"""A signaling service for the length of a test."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import IO

import trio

_START_TIMEOUT = 60.0  # seconds; it takes less than one on an idle machine
_STOP_TIMEOUT = 10.0


@asynccontextmanager
async def open_service(
    *, port: int = 0, log_level: str = "warning", log: IO[bytes] | None = None
) -> AsyncGenerator[str]:
    """Run a signaling service on 127.0.0.1 while the block runs; yields its WebSocket URL.

    Args:
        port: 0 takes a free one.
        log_level: ``debug``, ``info``, ``warning`` or ``error``.
        log: where its log goes; default this process's error output.

    Raises:
        trio.TooSlowError: it did not start.
    """
    command = [
        sys.executable,
        "-m",
        "handclasp",
        "serve",
        "--port",
        str(port),
        "--json",
        "--log-level",
        log_level,
    ]
    process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE, stderr=log)
    try:
        yield await _ready(process)
    finally:
        with trio.CancelScope(shield=True):
            process.terminate()
            with trio.move_on_after(_STOP_TIMEOUT):
                await process.wait()
            process.kill()
            await process.wait()
            if process.stdout is not None:
                await process.stdout.aclose()


async def _ready(process: trio.Process) -> str:
    assert process.stdout is not None
    line = b""
    with trio.fail_after(_START_TIMEOUT):
        while not line.endswith(b"\n"):
            data = await process.stdout.receive_some()
            if not data:
                raise RuntimeError("the signaling service ended before it was ready; see its log")
            line += data
    return str(json.loads(line)["service"])
