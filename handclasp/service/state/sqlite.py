"""State in an SQLite file: for what has to outlast a restart on one machine, in one process or several.

The file is in WAL mode and each transaction is on the disk when it is answered, so nothing that was acknowledged is
lost to a ``kill -9`` or a power cut. A thread does the waiting. What others have added is found by looking often
whether the file has changed, which costs microseconds while it has not.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import AsyncGenerator, Callable, Collection, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import TypeVar, cast

import anyio
import anyio.to_thread

from handclasp.errors import ConfigurationError

from . import LEASE, MOST_ROWS, WITHIN, Created, Follower, Row, State, StateUnavailable, Sync

T = TypeVar("T")

_BEAT_EVERY = LEASE / 3
_LOOK_EVERY = 0.01  # seconds: what one process says is heard in another within so much
_VERSION = 1  # of the tables below
_TABLES = """
CREATE TABLE IF NOT EXISTS logs (
    log TEXT PRIMARY KEY, name TEXT UNIQUE NOT NULL, length INTEGER NOT NULL, ends_at REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS logs_by_end ON logs (ends_at);
CREATE TABLE IF NOT EXISTS rows (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    log TEXT NOT NULL, position INTEGER NOT NULL, instance TEXT NOT NULL, row TEXT NOT NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS rows_of_log ON rows (log, position);
CREATE TABLE IF NOT EXISTS instances (instance TEXT PRIMARY KEY, until REAL NOT NULL) WITHOUT ROWID;
"""


class SqliteState(State):
    """An instance's access to a file, which is made if there is none."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path
        self._database: sqlite3.Connection | None = None
        self._turn = anyio.Lock()
        self._followed: dict[str, int] = {}  # and how many rows of each were known at the last sync
        self._last_row = 0
        self._version = -1
        self._latest = 0.0

    def clock(self) -> float:
        """See `State.clock`: the machine's."""
        self._latest = max(self._latest, time.time())
        return self._latest

    @asynccontextmanager
    async def open(self, follower: Follower) -> AsyncGenerator[None]:
        """See `State.open`."""
        try:
            self._database = await anyio.to_thread.run_sync(self._connect)
        except sqlite3.Error as exc:
            raise ConfigurationError(f"the state cannot be kept in {self._path}: {exc}") from exc
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._look_for_more, follower)
                tasks.start_soon(self._keep_beating)
                yield
                tasks.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                database, self._database = self._database, None
                async with self._turn:  # a thread may be at work still
                    await anyio.to_thread.run_sync(self._farewell, database)

    async def create(self, log: str, name: str, row: Row, *, life: float, most: int) -> Created:
        """See `State.create`."""

        def work(database: sqlite3.Connection) -> Created:
            now = time.time()
            _tidy(database, now)
            if database.execute("SELECT 1 FROM logs WHERE name = ?", (name,)).fetchone():
                return Created.TAKEN
            (count,) = database.execute("SELECT count(*) FROM logs").fetchone()
            if count >= most:
                return Created.FULL
            database.execute("INSERT INTO logs VALUES (?, ?, 1, ?)", (log, name, now + life))
            _insert(database, self.instance, log, 0, [row])
            return Created.DONE

        return await self._ask(work)

    async def find(self, name: str) -> str | None:
        """See `State.find`."""

        def work(database: sqlite3.Connection) -> str | None:
            query = "SELECT log FROM logs WHERE name = ? AND ends_at > ?"
            found = database.execute(query, (name, time.time())).fetchone()
            return None if found is None else cast("str", found[0])

        return await self._ask(work)

    async def sync(self, batch: Sequence[Sync]) -> Sequence[Sequence[Row] | None]:
        """See `State.sync`."""
        return await self._ask(lambda database: [self._sync(database, sync) for sync in batch])

    async def delete(self, logs: Sequence[tuple[str, str]]) -> None:
        """See `State.delete`."""
        for log, _ in logs:
            self._followed.pop(log, None)
        await self._ask(lambda database: _erase(database, [log for log, _ in logs]))

    async def living(self, instances: Collection[str]) -> set[str]:
        """See `State.living`."""

        def work(database: sqlite3.Connection) -> set[str]:
            alive = database.execute("SELECT instance FROM instances WHERE until > ?", (time.time(),))
            return {instance for (instance,) in alive} & set(instances)

        return await self._ask(work)

    # What it is made of

    def _connect(self) -> sqlite3.Connection:
        database = sqlite3.connect(
            self._path, timeout=WITHIN / 2, isolation_level=None, check_same_thread=False
        )
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if version not in {0, _VERSION}:
            database.close()
            raise ConfigurationError(
                f"{self._path} was written by another version of handclasp: use another file"
            )
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        database.executescript(_TABLES)
        database.execute(f"PRAGMA user_version = {_VERSION}")
        with _transaction(database):
            self._beat(database)
        (self._last_row,) = database.execute("SELECT coalesce(max(number), 0) FROM rows").fetchone()
        return database

    async def _ask(self, work: Callable[[sqlite3.Connection], T]) -> T:
        async with self._turn:
            database = self._database
            if database is None:
                raise StateUnavailable("the file that keeps the mailboxes is not open")

            def in_thread() -> T:
                with _transaction(database):
                    return work(database)

            try:
                return await anyio.to_thread.run_sync(in_thread)  # SQLite's own timeout bounds it
            except sqlite3.Error as exc:
                raise StateUnavailable(f"the file that keeps the mailboxes cannot be used: {exc}") from exc

    async def _keep_beating(self) -> None:
        while True:
            await anyio.sleep(_BEAT_EVERY)
            try:
                await self._ask(self._beat)
            except StateUnavailable:
                continue  # a full disk, for example; the next beat may do

    def _beat(self, database: sqlite3.Connection) -> None:
        now = time.time()
        database.execute("INSERT OR REPLACE INTO instances VALUES (?, ?)", (self.instance, now + LEASE))
        database.execute("DELETE FROM instances WHERE until < ?", (now - LEASE,))
        _tidy(database, now)
        for log in list(self._followed):  # others erase, too
            if database.execute("SELECT 1 FROM logs WHERE log = ?", (log,)).fetchone() is None:
                del self._followed[log]

    async def _look_for_more(self, follower: Follower) -> None:
        while True:
            await anyio.sleep(_LOOK_EVERY)
            try:
                for log, start, rows in await self._look():
                    if start >= self._followed.get(log, MOST_ROWS):
                        follower.follow(log, start, rows)
            except StateUnavailable:
                continue

    async def _look(self) -> list[tuple[str, int, list[Row]]]:
        async with self._turn:
            database = self._database
            if database is None:
                return []
            (version,) = database.execute("PRAGMA data_version").fetchone()
        if version == self._version:
            return []
        self._version = version

        def work(database: sqlite3.Connection) -> list[tuple[str, int, str, int, str]]:
            query = "SELECT log, position, row, number, instance FROM rows WHERE number > ? ORDER BY number"
            return database.execute(query, (self._last_row,)).fetchall()

        new = await self._ask(work)
        if new:
            self._last_row = new[-1][3]
        return [
            (log, position, [cast("Row", json.loads(row))])
            for log, position, row, _, instance in new
            if instance != self.instance
        ]

    def _sync(self, database: sqlite3.Connection, sync: Sync) -> Sequence[Row] | None:
        now = time.time()
        found = database.execute(
            "SELECT length FROM logs WHERE log = ? AND ends_at > ?", (sync.log, now)
        ).fetchone()
        if found is None:
            self._followed.pop(sync.log, None)
            return None
        (length,) = found
        self._followed[sync.log] = length + len(sync.rows)
        if sync.known > length or length + len(sync.rows) > MOST_ROWS:
            del self._followed[sync.log]
            _erase(database, [sync.log])
            return None
        missed = database.execute(
            "SELECT row FROM rows WHERE log = ? AND position >= ? ORDER BY position", (sync.log, sync.known)
        ).fetchall()
        if sync.rows:
            _insert(database, self.instance, sync.log, length, sync.rows)
            database.execute(
                "UPDATE logs SET length = ?, ends_at = coalesce(?, ends_at) WHERE log = ?",
                (length + len(sync.rows), None if sync.life is None else now + sync.life, sync.log),
            )
        return [cast("Row", json.loads(row)) for (row,) in missed]

    def _farewell(self, database: sqlite3.Connection) -> None:
        try:
            with _transaction(database):
                database.execute("DELETE FROM instances WHERE instance = ?", (self.instance,))
        except sqlite3.Error:
            pass  # its time ends by itself
        finally:
            database.close()


@contextmanager
def _transaction(database: sqlite3.Connection) -> Generator[None]:
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        database.execute("ROLLBACK")
        raise
    database.execute("COMMIT")


def _insert(database: sqlite3.Connection, instance: str, log: str, start: int, rows: Sequence[Row]) -> None:
    database.executemany(
        "INSERT INTO rows (log, position, instance, row) VALUES (?, ?, ?, ?)",
        [(log, position, instance, _text(row)) for position, row in enumerate(rows, start)],
    )


def _erase(database: sqlite3.Connection, logs: Sequence[str]) -> None:
    for log in logs:
        database.execute("DELETE FROM rows WHERE log = ?", (log,))
        database.execute("DELETE FROM logs WHERE log = ?", (log,))


def _tidy(database: sqlite3.Connection, now: float) -> None:
    over = database.execute("SELECT log FROM logs WHERE ends_at <= ? LIMIT 1000", (now,)).fetchall()
    _erase(database, [log for (log,) in over])


def _text(row: Row) -> str:
    return json.dumps(row, separators=(",", ":"))
