"""PostgreSQL by psycopg 3, in worker threads, so that it serves asyncio and trio alike.

psycopg loads when the first connection is made; it comes with the extra ``postgres``.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import lru_cache, partial
from typing import TYPE_CHECKING, LiteralString, TypeVar, cast

import anyio
import anyio.to_thread

from handclasp.errors import ConfigurationError, RecordsUnavailable

from .database import Cursor, Database, Row, Value
from .migrations import migrate, migrations
from .queries import SqlRecords

if TYPE_CHECKING:
    import psycopg

__all__ = ["PostgresRecords"]

T = TypeVar("T")

_CONNECTIONS = 4  # a transaction takes about a millisecond, so four carry thousands a second
_STATEMENT_WITHIN = 5_000  # milliseconds; the server gives up by itself
_ANSWER_WITHIN = 8.0  # seconds for a whole transaction, also from a server that says nothing any more
_CONNECT_WITHIN = 5  # seconds
_MIGRATE_WITHIN = 60.0  # seconds, waiting for another process that migrates included
_MIGRATION_LOCK = 0x68616E64636C6173  # "handclas": a number that other programs in the database do not lock
_PLACEHOLDER = re.compile(r":([a-z_]+)")


class PostgresRecords(SqlRecords):
    """Records in a PostgreSQL database (14 or newer), for any number of processes and machines.

    *url* is a libpq connection string: ``postgresql://user@host/database``. It never shows in a message or a log.
    """

    def __init__(self, url: str) -> None:
        super().__init__(PostgresDatabase(url))


class PostgresDatabase(Database):
    """A few connections, made when they are needed; each serves one transaction at a time."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._idle: list[psycopg.Connection[Row]] = []
        self._room = anyio.Semaphore(_CONNECTIONS)
        self._threads = anyio.CapacityLimiter(_CONNECTIONS)
        self._opening = anyio.Lock()
        self._is_open = False

    async def open(self) -> None:
        """See `Database.open`."""
        async with self._opening:
            if not self._is_open:
                try:
                    async with self._connection(fresh=True) as connection:
                        await self._run(connection, _MIGRATE_WITHIN, partial(_migrate, connection))
                except BaseException:
                    with anyio.CancelScope(shield=True):
                        await self.aclose()
                    raise
                self._is_open = True

    async def transact(self, work: Callable[[Cursor], T]) -> T:
        """See `Database.transact`."""
        if not self._is_open:
            await self.open()
        try:
            async with self._connection() as connection:
                return await self._run(connection, _ANSWER_WITHIN, partial(_transact, connection, work))
        except _NotBegun:  # the connection had broken while nobody used it
            async with self._connection(fresh=True) as connection:
                return await self._run(connection, _ANSWER_WITHIN, partial(_transact, connection, work))

    async def read(self, work: Callable[[Cursor], T]) -> T:
        """See `Database.read`. Readers wait for nobody in PostgreSQL."""
        return await self.transact(work)

    async def aclose(self) -> None:
        """See `Database.aclose`."""
        idle, self._idle = self._idle, []
        for connection in idle:
            await anyio.to_thread.run_sync(connection.close, limiter=self._threads)

    @asynccontextmanager
    async def _connection(self, *, fresh: bool = False) -> AsyncGenerator[psycopg.Connection[Row]]:
        async with self._room:
            connection = await self._make() if fresh or not self._idle else self._idle.pop()
            try:
                yield connection
            finally:
                if connection.closed or connection.broken:
                    connection.close()
                else:
                    self._idle.append(connection)

    async def _make(self) -> psycopg.Connection[Row]:
        made: list[psycopg.Connection[Row]] = []
        with anyio.CancelScope(shield=True):  # else a connection could be made and lost; it has a deadline
            made.append(await anyio.to_thread.run_sync(self._connect, limiter=self._threads))
        return made[0]

    async def _run(self, connection: psycopg.Connection[Row], within: float, call: Callable[[], T]) -> T:
        """Run *call* in a thread; past its time the socket below is shut, which ends the thread's wait."""
        results: list[T] = []
        errors: list[Exception] = []

        async def run() -> None:
            try:
                results.append(await anyio.to_thread.run_sync(call, limiter=self._threads))
            except Exception as exc:  # noqa: BLE001 - carried out of the task group, bare
                errors.append(exc)
            tasks.cancel_scope.cancel()

        with anyio.CancelScope(shield=True):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(run)
                await anyio.sleep(within)
                _hang_up(connection)
                await anyio.sleep_forever()
        if errors:
            raise errors[0]
        return results[0]

    def _connect(self) -> psycopg.Connection[Row]:
        try:
            import psycopg
        except ImportError as exc:
            raise ConfigurationError(
                "PostgreSQL needs the extra 'postgres': pip install 'handclasp[postgres]'"
            ) from exc
        limits = (
            f"-c statement_timeout={_STATEMENT_WITHIN}"
            f" -c idle_in_transaction_session_timeout={_STATEMENT_WITHIN}"
        )
        try:
            return psycopg.connect(
                self._url,
                autocommit=True,
                connect_timeout=_CONNECT_WITHIN,
                options=limits,
                application_name="handclasp",
            )
        except psycopg.ProgrammingError:
            raise ConfigurationError("the PostgreSQL URL is malformed") from None
        except psycopg.OperationalError as exc:
            # Its message names host, port and user; not the password.
            raise RecordsUnavailable(f"PostgreSQL cannot be reached: {exc}") from None


class _NotBegun(Exception):
    """The connection was dead before the transaction began."""


class _PostgresCursor:
    def __init__(self, cursor: psycopg.Cursor[Row]) -> None:
        self._cursor = cursor

    def run(self, sql: str, /, **values: Value) -> Sequence[Row]:
        self._cursor.execute(_translated(sql), values)
        return self._cursor.fetchall() if self._cursor.description is not None else []


@lru_cache(maxsize=64)
def _translated(sql: str) -> LiteralString:
    """The statement with psycopg's placeholders; every statement is a constant of ours."""
    return cast("LiteralString", _PLACEHOLDER.sub(r"%(\1)s", sql))  # type: ignore[redundant-cast]


def _transact(connection: psycopg.Connection[Row], work: Callable[[Cursor], T]) -> T:
    import psycopg

    try:
        with connection.cursor() as cursor:
            try:
                cursor.execute("BEGIN")
            except psycopg.OperationalError as exc:
                connection.close()
                raise _NotBegun from exc
            try:
                result = work(_PostgresCursor(cursor))
                cursor.execute("COMMIT")
            except BaseException:
                with suppress(psycopg.Error):
                    cursor.execute("ROLLBACK")
                raise
            return result
    except psycopg.OperationalError as exc:
        connection.close()
        raise RecordsUnavailable(f"PostgreSQL did not answer: {type(exc).__name__}") from None


def _migrate(connection: psycopg.Connection[Row]) -> None:
    def work(cursor: Cursor) -> None:
        cursor.run(
            "SET LOCAL statement_timeout = 0"
        )  # another process may take its time: see _MIGRATE_WITHIN
        cursor.run("SELECT pg_advisory_xact_lock(:key)", key=_MIGRATION_LOCK)
        migrate(cursor, migrations("postgres"))

    _transact(connection, work)


def _hang_up(connection: psycopg.Connection[Row]) -> None:
    """Shut the socket below; the thread that waits for it gets an error and closes the connection."""
    import psycopg

    # Raised when it has just closed by itself.
    with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.fileno())) as below:
        below.shutdown(socket.SHUT_RDWR)
