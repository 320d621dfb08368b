"""What SQLite promises beyond the contract: the file, several processes, and a kill."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from handclasp.errors import ConfigurationError, RecordsUnavailable
from handclasp.service.records import Outcome, SignIn, SqliteRecords, sqlite

WRITER = """
import hashlib, sys, trio
from handclasp.service.records import SignIn, SqliteRecords

async def main():
    records = SqliteRecords(sys.argv[1])
    for number in range(1_000_000):
        digest = hashlib.sha256(str(number).encode()).digest()
        await records.add_sign_in(SignIn(str(number), digest, "p", "o", None, 1, 300), now=1, most=10**9)
        print(number, flush=True)

trio.run(main)
"""


async def test_a_kill_loses_no_acknowledged_write(tmp_path: Path) -> None:
    path = tmp_path / "records.db"
    process = subprocess.Popen(  # noqa: ASYNC220 - this thread reads its lines
        [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with process:
        for _ in range(50):
            process.stdout.readline()
        process.kill()
        rest = process.stdout.read().splitlines()
    acknowledged = int(rest[-1]) if rest else 49
    records = SqliteRecords(path)
    for number in range(acknowledged + 1):
        digest = hashlib.sha256(str(number).encode()).digest()
        assert await records.take_sign_in(str(number), digest, now=1, keep_until=2) is not None, number
    await records.aclose()


async def test_two_processes_share_a_file(tmp_path: Path) -> None:
    first, second = SqliteRecords(tmp_path / "records.db"), SqliteRecords(tmp_path / "records.db")
    sign_in = SignIn("m", b"a" * 32, "p", "o", None, 1, 300)
    assert await first.add_sign_in(sign_in, now=1, most=9) is Outcome.ADDED
    assert await second.take_sign_in("m", b"a" * 32, now=1, keep_until=9) == sign_in
    assert await first.take_sign_in("m", b"a" * 32, now=1, keep_until=9) is None
    await first.aclose()
    await second.aclose()


async def test_the_files_are_for_their_owner_only(tmp_path: Path) -> None:
    records = SqliteRecords(tmp_path / "records.db")
    await records.open()
    modes = {entry.name: stat.S_IMODE(entry.stat().st_mode) for entry in os.scandir(tmp_path)}
    assert "records.db-wal" in modes
    assert set(modes.values()) == {0o600}, modes
    await records.aclose()


async def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    path = tmp_path / "letter.txt"
    path.write_text("Dear database, " * 100)
    with pytest.raises(ConfigurationError, match=r"letter\.txt"):
        await SqliteRecords(path).open()
    with pytest.raises(ConfigurationError, match="nowhere"):
        await SqliteRecords(tmp_path / "nowhere" / "records.db").open()


async def test_a_writer_that_holds_the_lock_is_waited_for_and_not_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "_LOCKED_FOR", 0.05)
    records, other = SqliteRecords(tmp_path / "records.db"), SqliteRecords(tmp_path / "records.db")
    await records.open()
    await other.open()
    connection = other._database._connection
    connection.execute("BEGIN IMMEDIATE")
    with pytest.raises(RecordsUnavailable, match="locked"):
        await records.end_session(b"a" * 32)
    assert await records.session(b"a" * 32, now=1) is None  # who only reads does not wait
    connection.execute("ROLLBACK")
    await records.end_session(b"a" * 32)
    await records.aclose()
    await other.aclose()
