"""What several tests need: WebRTC on the loopback interface, and a look at what was left behind."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from handclasp.abc import TransportFactory
from handclasp.accounts import LocalAccount
from handclasp.transports.webrtc import webrtc
from handclasp.transports.webrtc.aiortc import AiortcEngine

# eth-account by itself raises the recursion limit of the whole test run; through handclasp it does not.
LocalAccount.generate()

_FILES = Path("/proc/self/fd")
#: Seconds for threads and sockets to end once everything was told to: only ever reached by a leak.
_PATIENCE = 30.0


@pytest.fixture
def loopback_webrtc() -> TransportFactory:
    """The WebRTC transport, bound to 127.0.0.1."""
    return webrtc(engine=AiortcEngine(addresses=["127.0.0.1"]))


class Leftovers:
    """What there is now that was not there when this object was made."""

    def __init__(self) -> None:
        self._before = _holdings()

    def __call__(self) -> set[str]:
        """The names of the new threads, files, sockets and asyncio tasks."""
        return _holdings() - self._before

    @asynccontextmanager
    async def none(self) -> AsyncGenerator[None]:
        """After the block, wait until nothing is left; fails with what stays."""
        yield
        with trio.move_on_after(_PATIENCE):
            while self():
                await trio.sleep(0.01)
        left = self()
        assert not left, f"left behind: {sorted(left)}"


def _holdings() -> set[str]:
    gc.collect()
    threads = {
        f"thread {thread.name} {thread.ident}"
        for thread in threading.enumerate()
        if not thread.name.startswith("Trio thread")  # trio keeps idle workers for a while
    }
    return threads | _open_files() | _pending_tasks()


def _open_files() -> set[str]:
    found: set[str] = set()
    for number in os.listdir(_FILES):
        try:
            found.add(f"file {(_FILES / number).readlink()}")
        except FileNotFoundError:  # the listing itself
            continue
    return found


def _pending_tasks() -> set[str]:
    return {
        f"task {id(thing)} {thing}"
        for thing in gc.get_objects()
        if isinstance(thing, asyncio.Task) and not thing.done()
    }


@pytest.fixture
def leftovers() -> type[Leftovers]:
    """For ``async with leftovers().none():`` around what has to clean up after itself."""
    if not _FILES.exists():
        pytest.skip("counting open files takes /proc")
    return Leftovers
