"""What happens to a node's connections, for whoever wants to watch."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeAlias

import trio

from handclasp.abc import Path
from handclasp.errors import MisuseError
from handclasp.identity import PeerId

__all__ = ["Event", "PathChanged", "PeerConnected", "PeerLost"]

#: Events that wait for a slow watcher. A node with 500 peers that all come back at once stays below it.
MAX_WAITING = 2_048


@dataclass(frozen=True)
class PeerConnected:
    """There is a connection with this peer, where there was none."""

    peer: PeerId
    address: str
    """Its multiaddr, ending in ``/p2p/<peer id>``."""
    path: Path


@dataclass(frozen=True)
class PathChanged:
    """The bytes take another way now, or another connection took over; nothing was interrupted."""

    peer: PeerId
    address: str
    path: Path


@dataclass(frozen=True)
class PeerLost:
    """The last connection with this peer is over."""

    peer: PeerId
    reason: str


Event: TypeAlias = PeerConnected | PathChanged | PeerLost


class Events:
    """Hands each event to every watcher, and never waits for one."""

    def __init__(self) -> None:
        self._watchers: set[_Watcher] = set()

    def publish(self, event: Event) -> None:
        """Give *event* to everybody who watches."""
        for watcher in self._watchers:
            watcher.take(event)

    @asynccontextmanager
    async def watch(self, before: Iterable[Event]) -> AsyncGenerator[AsyncIterator[Event]]:
        """The events in *before*, then what happens while the block runs."""
        watcher = _Watcher()
        for event in before:
            watcher.take(event)
        self._watchers.add(watcher)
        try:
            yield watcher
        finally:
            self._watchers.discard(watcher)
            watcher.close()


class _Watcher(AsyncIterator[Event]):
    def __init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[Event](MAX_WAITING)
        self._fell_behind = False

    def take(self, event: Event) -> None:
        if self._fell_behind:
            return
        try:
            self._send.send_nowait(event)
        except trio.WouldBlock:
            self._fell_behind = True
            self._send.close()

    def close(self) -> None:
        self._send.close()
        self._receive.close()

    async def __anext__(self) -> Event:
        try:
            return await self._receive.receive()
        except trio.EndOfChannel:
            raise MisuseError(
                f"more than {MAX_WAITING} events waited to be read: read them in a task of their own"
            ) from None
