"""What several tests need: WebRTC on the loopback interface, and a look at what was left behind."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from handclasp.abc import Connection, Context, SignalingChannel, Transport, TransportFactory
from handclasp.discovery.memory import memory_channel_pair
from handclasp.identity import Identity
from handclasp.transports.webrtc import webrtc
from handclasp.transports.webrtc.aiortc import AiortcEngine

_FILES = Path("/proc/self/fd")


@pytest.fixture
def loopback_webrtc() -> TransportFactory:
    """The WebRTC transport, bound to 127.0.0.1."""
    return webrtc(engine=AiortcEngine(addresses=["127.0.0.1"]))


async def upgrade_both(transport: Transport, *channels: SignalingChannel) -> list[Connection]:
    """Upgrade both ends of a signaling channel; the connections in their order."""
    made: dict[SignalingChannel, Connection] = {}

    async def upgrade(channel: SignalingChannel) -> None:
        made[channel] = await transport.upgrade(channel)

    async with trio.open_nursery() as nursery:
        for channel in channels:
            nursery.start_soon(upgrade, channel)
    return [made[channel] for channel in channels]


@pytest.fixture
def upgraded() -> Callable[..., Awaitable[list[Connection]]]:
    """``await upgraded(transport, *channels)`` connects both ends of a signaling channel."""
    return upgrade_both


@pytest.fixture
async def webrtc_pair(loopback_webrtc: TransportFactory) -> AsyncGenerator[list[Connection]]:
    """Both ends of one WebRTC connection in this process; the first one offered."""
    alice, bob = Identity.generate(), Identity.generate()
    channels = memory_channel_pair(alice.peer_id, bob.peer_id)
    async with loopback_webrtc(Context(alice)) as transport:
        ours, theirs = await upgrade_both(transport, *channels)
        async with ours, theirs:
            yield [ours, theirs]


class Leftovers:
    """What there is now that was not there when this object was made."""

    def __init__(self) -> None:
        self._before = _holdings()

    def __call__(self) -> set[str]:
        """The names of the new threads, files, sockets and asyncio tasks."""
        return _holdings() - self._before

    @asynccontextmanager
    async def none(self, *, but: str = "nothing") -> AsyncGenerator[None]:
        """Fails when something is left after the block, once nothing moves any more."""
        yield
        for _ in range(3):  # whatever waits for a timer now was forgotten
            await trio.testing.wait_all_tasks_blocked(0.02)
        with trio.move_on_after(2):  # libwebrtc closes its sockets in a thread of its own
            while any(name.startswith("file socket") for name in self()):  # noqa: ASYNC110 - nobody tells us
                await trio.sleep(0.01)
        left = [name for name in self() if not name.startswith(but)]
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
    for file in _FILES.iterdir():
        try:
            found.add(f"file {file.readlink()}")
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
