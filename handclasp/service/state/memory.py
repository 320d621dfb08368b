"""State in memory: for several applications in one process, and for whoever tests something above it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio
import anyio.lowlevel

from . import MOST_ROWS, Created, Follower, Row, State, Sync


@dataclass
class _Log:
    name: str
    rows: list[Row]
    ends_at: float
    followers: set[str] = field(default_factory=set[str])


class MemoryStore:
    """What several `MemoryState` share. Belongs to one event loop."""

    def __init__(self) -> None:
        self.logs: dict[str, _Log] = {}
        self.names: dict[str, str] = {}
        self.instances: dict[str, Follower] = {}

    def tidy(self, now: float) -> None:
        """Erase what is over."""
        for key in [key for key, log in self.logs.items() if log.ends_at <= now]:
            self.erase(key)

    def erase(self, key: str) -> None:
        """Erase one log."""
        log = self.logs.pop(key, None)
        if log is not None:
            del self.names[log.name]


class MemoryState(State):
    """An instance's access to a store; to one of its own unless told otherwise."""

    def __init__(self, store: MemoryStore | None = None) -> None:
        super().__init__()
        self._store = MemoryStore() if store is None else store

    def clock(self) -> float:
        """See `State.clock`."""
        return anyio.current_time()

    @asynccontextmanager
    async def open(self, follower: Follower) -> AsyncGenerator[None]:
        """See `State.open`."""
        self._store.instances[self.instance] = follower
        try:
            yield
        finally:
            del self._store.instances[self.instance]

    async def create(self, log: str, name: str, row: Row, *, life: float, most: int) -> Created:
        """See `State.create`."""
        await anyio.lowlevel.checkpoint()
        store = self._store
        store.tidy(self.clock())
        if name in store.names:
            return Created.TAKEN
        if len(store.logs) >= most:
            return Created.FULL
        store.names[name] = log
        store.logs[log] = _Log(name, [row], self.clock() + life)
        return Created.DONE

    async def find(self, name: str) -> str | None:
        """See `State.find`."""
        await anyio.lowlevel.checkpoint()
        self._store.tidy(self.clock())
        return self._store.names.get(name)

    async def sync(self, batch: Sequence[Sync]) -> Sequence[Sequence[Row] | None]:
        """See `State.sync`."""
        await anyio.lowlevel.checkpoint()
        self._store.tidy(self.clock())
        return [self._sync(sync) for sync in batch]

    async def delete(self, logs: Sequence[tuple[str, str]]) -> None:
        """See `State.delete`."""
        await anyio.lowlevel.checkpoint()
        for key, _ in logs:
            self._store.erase(key)

    async def living(self, instances: Collection[str]) -> set[str]:
        """See `State.living`."""
        await anyio.lowlevel.checkpoint()
        return set(instances) & set(self._store.instances)

    def _sync(self, sync: Sync) -> Sequence[Row] | None:
        log = self._store.logs.get(sync.log)
        if log is None:
            return None
        start = len(log.rows)
        if sync.known > start or start + len(sync.rows) > MOST_ROWS:
            self._store.erase(sync.log)
            return None
        missed = log.rows[sync.known :]
        log.followers.add(self.instance)
        if sync.rows:
            log.rows += sync.rows
            if sync.life is not None:
                log.ends_at = self.clock() + sync.life
            for instance in log.followers - {self.instance}:
                follower = self._store.instances.get(instance)
                if follower is not None:
                    follower.follow(sync.log, start, sync.rows)
        return missed
