"""Which connection leads to which peer.

Of several connections with one peer one is *current*; both ends choose the same one, whoever dialled
first and however many dialled at once. The others stay usable until nobody uses them any more.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import trio

from handclasp.abc import Connection, Path
from handclasp.errors import ConnectionLost, LimitReached, PeerNotAllowed
from handclasp.identity import PeerId
from handclasp.scope import Scope

from .events import Event, Events, PathChanged, PeerConnected, PeerLost

__all__ = ["Connections", "Limits", "Rules"]

_log = logging.getLogger(__name__)

#: Seconds that a connection which is not current must go without a stream before it is closed. The
#: other end may be about to open one: it chose the current one a round trip earlier or later.
LINGER = 5.0


@dataclass(frozen=True)
class Limits:
    """What a node takes from others; what is beyond is refused at once."""

    connections: int = 512
    """Connections in all. Each holds about 150 KiB."""
    inbound: int = 384
    """Of those, how many others may have opened: the rest is kept for peers that this node dials."""
    streams: int = 1_024
    """Streams of one peer whose handlers run at the same time."""


@dataclass(frozen=True)
class Rules:
    """Whom a node takes, and how many."""

    limits: Limits
    allow: Callable[[PeerId], bool]
    """Whether this node talks to a peer at all."""


@dataclass
class _Live:
    """A connection that is up."""

    connection: Connection
    dialer: PeerId
    number: int  # counts up: the newer one is higher
    path: Path
    lingers: bool = False


class Connections:
    """The connections of a node.

    Args:
        me: this node.
        rules: what is taken in.
        events: is told of every change.
        scope: where the tasks that close unused connections run.
    """

    def __init__(self, me: PeerId, rules: Rules, events: Events, scope: Scope) -> None:
        self._me = me
        self._limits = rules.limits
        self._allow = rules.allow
        self._events = events
        self._scope = scope
        self._live: dict[PeerId, list[_Live]] = {}
        self._current: dict[PeerId, Connection] = {}
        self._count = 0
        self._changed = trio.Event()

    @property
    def current(self) -> Mapping[PeerId, Connection]:
        """The connection to use, by peer; a live view."""
        return MappingProxyType(self._current)

    def check_allowed(self, peer: PeerId) -> None:
        """Refuse early what `add` would refuse.

        Raises:
            PeerNotAllowed: the node's hook says no.
            LimitReached: there is no room for one more.
        """
        if not self._allow(peer):
            raise PeerNotAllowed(f"this node does not talk to {peer}: its allow hook says no")
        if peer not in self._live and self._total >= self._limits.connections:
            raise LimitReached(
                f"this node already has {self._total} connections: close some, or raise its limits"
            )

    async def add(self, connection: Connection, *, dialed: bool) -> None:
        """Take a new connection in, or close it.

        Raises:
            PeerNotAllowed, LimitReached: it was closed.
            ConnectionLost: it was over already.
        """
        peer = connection.peer
        try:
            self.check_allowed(peer)
            if not dialed and peer not in self._live and self._inbound >= self._limits.inbound:
                raise LimitReached(f"this node already has {self._inbound} inbound connections")  # noqa: TRY301
            path = await connection.path()
        except BaseException as exc:
            await trio.aclose_forcefully(connection)
            if isinstance(exc, trio.ClosedResourceError):
                raise ConnectionLost("the connection was closed at once") from exc
            raise
        self._count += 1
        dialer = self._me if dialed else peer
        known = peer in self._live
        self._live.setdefault(peer, []).append(_Live(connection, dialer, self._count, path))
        if not known:
            self._events.publish(PeerConnected(peer, connection.address, path))
        self._choose(peer)
        self._notify()

    def remove(self, connection: Connection, reason: str) -> None:
        """A connection is over; another one to the same peer takes its place, if there is one. May be repeated."""
        peer = connection.peer
        before = self._live.get(peer, [])
        rest = [live for live in before if live.connection is not connection]
        if len(rest) == len(before):
            return
        if rest:
            self._live[peer] = rest
            self._choose(peer)
        else:
            del self._live[peer], self._current[peer]
            self._events.publish(PeerLost(peer, reason))
        self._notify()

    async def wait_for(self, peer: PeerId) -> Connection:
        """Wait until there is a connection with *peer*."""
        while peer not in self._current:
            await self._changed.wait()
        return self._current[peer]

    def path(self, peer: PeerId) -> Path | None:
        """The way that bytes take to *peer*, if it is connected."""
        live = self._find(self._current[peer]) if peer in self._current else None
        return None if live is None else live.path

    async def wait_removed(self, connection: Connection) -> None:
        """Wait until a connection that is over is out of here."""
        while self._find(connection) is not None:
            await self._changed.wait()

    def snapshot(self) -> list[Event]:
        """One `PeerConnected` for each peer that is connected now."""
        return [
            PeerConnected(peer, live.connection.address, live.path)
            for peer, several in self._live.items()
            for live in several
            if live.connection is self._current[peer]
        ]

    async def watch_path(self, connection: Connection) -> None:
        """Tell of each change of a connection's path, until it is over."""
        try:
            while True:
                await connection.wait_path_changed()
                path = await connection.path()
                live = self._find(connection)
                if live is not None:
                    live.path = path
                    if self._current[connection.peer] is connection:
                        self._events.publish(PathChanged(connection.peer, connection.address, path))
        except (ConnectionLost, trio.ClosedResourceError):
            return

    # --- inside ---

    @property
    def _total(self) -> int:
        return sum(map(len, self._live.values()))

    @property
    def _inbound(self) -> int:
        return sum(live.dialer != self._me for live in self._all())

    def _all(self) -> Iterator[_Live]:
        for several in self._live.values():
            yield from several

    def _find(self, connection: Connection) -> _Live | None:
        several = self._live.get(connection.peer, ())
        return next((live for live in several if live.connection is connection), None)

    def _choose(self, peer: PeerId) -> None:
        """Make the same choice as the other end: what the smaller peer id dialled, and of that the newest.

        The newest, because a peer that dials again may have restarted: its older connection is dead then.
        """
        best = min(self._live[peer], key=lambda live: (live.dialer, -live.number))
        before = self._current.get(peer)
        self._current[peer] = best.connection
        if before not in (None, best.connection):
            self._events.publish(PathChanged(peer, best.connection.address, best.path))
        for live in self._live[peer]:
            if live is not best and not live.lingers:
                live.lingers = True
                self._scope.start_soon(self._linger, live)

    async def _linger(self, live: _Live) -> None:
        """Close a connection that is not current once nobody has used it for a while."""
        connection = live.connection
        used = True
        while self._find(connection) is live and self._current[connection.peer] is not connection:
            if not used and connection.streams == 0:
                _log.debug("a second connection with %s is not needed", connection.peer)
                await connection.aclose()
                return
            used = connection.streams > 0
            await trio.sleep(LINGER)
        live.lingers = False

    def _notify(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
