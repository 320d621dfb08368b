"""What PostgreSQL promises beyond the contract: connections that break, and a server that says nothing."""

from __future__ import annotations

import sys

import psycopg
import pytest
import trio

from handclasp.errors import ConfigurationError, RecordsUnavailable
from handclasp.service.records import PostgresRecords, postgres

NOBODY = b"a" * 32


def end_connections(url: str) -> None:
    with psycopg.connect(url.replace("dbname=test", "dbname=postgres"), autocommit=True) as connection:
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'test'")


async def test_a_connection_that_broke_in_the_meantime_is_replaced(postgres_url: str) -> None:
    records = PostgresRecords(postgres_url)
    assert await records.session(NOBODY, now=1) is None
    end_connections(postgres_url)
    assert await records.session(NOBODY, now=1) is None
    await records.aclose()


async def test_a_transaction_that_breaks_in_the_middle_is_told_and_the_next_one_works(
    postgres_url: str,
) -> None:
    records = PostgresRecords(postgres_url)
    await records.open()
    with pytest.raises(RecordsUnavailable):
        await records._database.transact(
            lambda cursor: (end_connections(postgres_url), cursor.run("SELECT 1"))
        )
    assert await records.session(NOBODY, now=1) is None
    await records.aclose()


async def test_a_server_that_says_nothing_is_given_up_in_time(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "_ANSWER_WITHIN", 0.2)
    records = PostgresRecords(postgres_url)
    await records.open()
    with trio.fail_after(4):
        with pytest.raises(RecordsUnavailable):
            await records._database.transact(lambda cursor: cursor.run("SELECT pg_sleep(4)"))
    monkeypatch.undo()
    assert await records.session(NOBODY, now=1) is None
    await records.aclose()


async def test_a_server_that_is_not_there_is_named_and_its_password_is_not() -> None:
    with pytest.raises(RecordsUnavailable) as caught:
        await PostgresRecords("postgresql://me:hunter2@127.0.0.1:1/records").open()
    assert "127.0.0.1" in str(caught.value)
    assert "hunter2" not in str(caught.value)
    with pytest.raises(ConfigurationError) as malformed:
        await PostgresRecords("postgresql://me:hunter2@[nonsense").open()
    assert "hunter2" not in f"{malformed.value!r} {malformed.value.__cause__!r}"


async def test_without_the_extra_it_says_what_to_install(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ConfigurationError, match=r"handclasp\[postgres\]"):
        await PostgresRecords(postgres_url).open()


async def test_no_more_connections_are_made_than_there_may_be(postgres_url: str) -> None:
    records = PostgresRecords(postgres_url)
    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(lambda: records.session(NOBODY, now=1))
    assert 1 <= len(records._database._idle) <= postgres._CONNECTIONS
    await records.aclose()
    assert records._database._idle == []
