"""SQLite: one file beside the program, or memory."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import anyio
import anyio.to_thread

from handclasp.errors import ConfigurationError, RecordsUnavailable

from .database import Cursor, Database, Row, Value
from .migrations import migrate, migrations
from .queries import SqlRecords

__all__ = ["SqliteRecords"]

T = TypeVar("T")

_LOCKED_FOR = 5.0  # seconds that another process may write; a transaction here takes a few milliseconds
_LOCK_PAUSE = 0.01  # seconds
_OLDEST = (3, 37, 0)  # STRICT tables; Debian 12 has 3.40


class SqliteRecords(SqlRecords):
    """Records in a SQLite file, which other processes of this machine may use, too; with None in memory.

    The file is made when it is first used, readable for its owner only.
    """

    def __init__(self, path: Path | str | None) -> None:
        super().__init__(SqliteDatabase(None if path is None else Path(path)))


class SqliteDatabase(Database):
    """One connection in write-ahead mode; its transactions run one after the other, in a worker thread."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._turn = anyio.Lock()
        self._threads = anyio.CapacityLimiter(1)

    async def open(self) -> None:
        """See `Database.open`."""
        await self.transact(lambda _: None)

    async def transact(self, work: Callable[[Cursor], T]) -> T:
        """See `Database.transact`."""
        # IMMEDIATE: a lock that is taken later could fail in the middle, after something was read.
        return await self._run("BEGIN IMMEDIATE", work)

    async def read(self, work: Callable[[Cursor], T]) -> T:
        """See `Database.read`. It sees what was there when it began, and no writer holds it up."""
        return await self._run("BEGIN", work)

    async def aclose(self) -> None:
        """See `Database.aclose`."""
        async with self._turn:
            connection, self._connection = self._connection, None
            if connection is not None:
                await anyio.to_thread.run_sync(connection.close, limiter=self._threads)

    async def _run(self, begin: str, work: Callable[[Cursor], T]) -> T:
        async with self._turn:  # not only the limiter: connections are closed under it
            return await anyio.to_thread.run_sync(partial(self._transact, begin, work), limiter=self._threads)

    def _transact(self, begin: str, work: Callable[[Cursor], T]) -> T:
        try:
            if self._connection is None:
                self._connection = self._connect()
            return _in_transaction(self._connection, begin, work)
        except sqlite3.OperationalError as exc:
            raise RecordsUnavailable(f"the database did not answer: {exc}") from exc
        except sqlite3.DatabaseError as exc:
            if isinstance(exc, sqlite3.IntegrityError | sqlite3.ProgrammingError):
                raise
            raise ConfigurationError(f"{self._path}: is not a database that can be used: {exc}") from exc

    def _connect(self) -> sqlite3.Connection:
        if sqlite3.sqlite_version_info < _OLDEST:
            raise ConfigurationError(f"SQLite {sqlite3.sqlite_version} is too old: 3.37 is needed")
        if self._path is not None:
            try:
                self._path.touch(mode=0o600)  # before SQLite makes it readable for everybody
            except OSError as exc:
                raise ConfigurationError(f"{self._path}: cannot be made: {exc.strerror}") from exc
        connection = sqlite3.connect(
            ":memory:" if self._path is None else self._path,
            timeout=_LOCKED_FOR,
            isolation_level=None,
            check_same_thread=False,  # one thread at a time: see `transact`
        )
        try:
            _wait_for_wal(connection)
            connection.execute("PRAGMA synchronous = FULL")  # what was acknowledged survives a power cut, too
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("PRAGMA trusted_schema = OFF")
            _in_transaction(
                connection, "BEGIN IMMEDIATE", lambda cursor: migrate(cursor, migrations("sqlite"))
            )
        except BaseException:
            connection.close()
            raise
        return connection


def _wait_for_wal(connection: sqlite3.Connection) -> None:
    """Turn on write-ahead mode. SQLite does not wait for its lock there when several open a new file at once."""
    deadline = time.monotonic() + _LOCKED_FOR
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(_LOCK_PAUSE)  # in a worker thread
        else:
            return


class _SqliteCursor:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def run(self, sql: str, /, **values: Value) -> Sequence[Row]:
        return self._connection.execute(sql, values).fetchall()


def _in_transaction(connection: sqlite3.Connection, begin: str, work: Callable[[Cursor], T]) -> T:
    connection.execute(begin)
    try:
        result = work(_SqliteCursor(connection))
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return result
