"""Schema versions, on both databases: from every older one, all or nothing, one process at a time."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import pytest
import trio

from handclasp.errors import ConfigurationError
from handclasp.service.records import PostgresRecords, Records, SqliteRecords
from handclasp.service.records.database import Row, Value
from handclasp.service.records.migrations import Migration, migrate, migrations

NOW = 1_000_000
DIALECTS = ["sqlite", "postgres"]
SAMPLE = {
    1: (
        "INSERT INTO accounts VALUES ('eip155:1:0xA', 1, 2)",
        "INSERT INTO devices VALUES ('eip155:1:0xA', 'phone', 1, 2)",
        "INSERT INTO sessions VALUES ({digest}, 'label', 'eip155:1:0xA', 'phone', 'ab', 1, 2, 2000000, 2000000)",
    ),
}
DIGEST = hashlib.sha256(b"session").digest()


class Raw(Protocol):
    """A connection of the test's own."""

    def run(self, sql: str, /, **values: Value) -> list[Row]: ...
    def begin(self) -> None: ...
    def end(self, how: str) -> None: ...


class RawSqlite:
    literal = f"x'{DIGEST.hex()}'"

    def __init__(self, path: Path) -> None:
        self.connection = sqlite3.connect(path, isolation_level=None)

    def run(self, sql: str, /, **values: Value) -> list[Row]:
        return self.connection.execute(sql, values).fetchall()

    def begin(self) -> None:
        self.connection.execute("BEGIN IMMEDIATE")

    def end(self, how: str) -> None:
        self.connection.execute(how)

    def close(self) -> None:
        self.connection.close()


class RawPostgres:
    literal = rf"'\x{DIGEST.hex()}'"

    def __init__(self, url: str) -> None:
        import psycopg

        self.connection = psycopg.connect(url, autocommit=True)

    def run(self, sql: str, /, **values: Value) -> list[Row]:
        cursor = self.connection.execute(sql.replace(":version", "%(version)s"), values)
        return cursor.fetchall() if cursor.description else []

    def begin(self) -> None:
        self.connection.execute("BEGIN")

    def end(self, how: str) -> None:
        self.connection.execute(how)

    def close(self) -> None:
        self.connection.close()


@pytest.fixture(params=DIALECTS)
def dialect(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def target(dialect: str, request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    return tmp_path / "records.db" if dialect == "sqlite" else request.getfixturevalue("postgres_url")


@pytest.fixture
def make(dialect: str, target: Path | str) -> Callable[[], Records]:
    return lambda: SqliteRecords(target) if dialect == "sqlite" else PostgresRecords(str(target))


@pytest.fixture
def raw(dialect: str, target: Path | str):  # noqa: ANN201
    connection = RawSqlite(Path(target)) if dialect == "sqlite" else RawPostgres(str(target))
    yield connection
    connection.close()


def in_transaction(raw: Raw, steps: tuple[Migration, ...]) -> None:
    raw.begin()
    try:
        migrate(raw, steps)
    except BaseException:
        raw.end("ROLLBACK")
        raise
    raw.end("COMMIT")


@pytest.mark.parametrize("version", range(3))
async def test_every_older_version_is_brought_up_to_date_and_keeps_its_rows(
    dialect: str, raw: RawSqlite | RawPostgres, make: Callable[[], Records], version: int
) -> None:
    steps = migrations(dialect)
    assert len(steps) == 2, "add the new version to this test, and rows of it to SAMPLE"
    if version:
        in_transaction(raw, steps[:version])
        for statement in SAMPLE[1]:
            raw.run(statement.format(digest=raw.literal))
    records = make()
    await records.open()
    found = await records.session(DIGEST, now=NOW)
    assert (found is not None) == (version > 0)
    assert await records.origin_of("nobody", now=NOW) is None
    await records.aclose()
    assert raw.run("SELECT version FROM schema_version") == [(2,)]


def test_a_migration_that_fails_leaves_the_older_version_whole(
    dialect: str, raw: RawSqlite | RawPostgres
) -> None:
    steps = migrations(dialect)
    in_transaction(raw, steps[:1])
    broken = Migration(2, (*steps[1].statements, "CREATE TABLE broken (nonsense"))
    with pytest.raises(Exception, match=r"syntax|incomplete"):
        in_transaction(raw, (steps[0], broken))
    assert raw.run("SELECT version FROM schema_version") == [(1,)]
    in_transaction(raw, steps)
    assert raw.run("SELECT version FROM schema_version") == [(2,)]
    assert raw.run("SELECT * FROM sign_ins") == []


async def test_a_database_of_a_newer_program_is_left_alone(
    raw: RawSqlite | RawPostgres, make: Callable[[], Records]
) -> None:
    records = make()
    await records.open()
    await records.aclose()
    raw.run("UPDATE schema_version SET version = 99")
    with pytest.raises(ConfigurationError, match="version 99"):
        await make().open()
    assert raw.run("SELECT version FROM schema_version") == [(99,)]


async def test_many_that_start_at_once_migrate_once(
    raw: RawSqlite | RawPostgres, make: Callable[[], Records]
) -> None:
    several = [make() for _ in range(8)]
    async with trio.open_nursery() as nursery:
        for records in several:
            nursery.start_soon(records.open)
    for records in several:
        await records.aclose()
    assert raw.run("SELECT version FROM schema_version") == [(2,)]


def test_both_dialects_have_the_same_versions_tables_and_columns() -> None:
    def shape(dialect: str) -> list[tuple[int, list[str]]]:
        return [
            (step.version, [line.split()[0] for text in step.statements for line in text.splitlines()])
            for step in migrations(dialect)
        ]

    assert shape("sqlite") == shape("postgres")
