"""A PostgreSQL of the tests' own: made in a temporary folder, reached by a Unix socket, gone afterwards."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

OLDEST = 14


def _binaries() -> Path | None:
    """The folder of the newest PostgreSQL of this machine."""
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).parent
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return installed[-1].parent if installed else None


def _other_user() -> dict[str, int]:
    """PostgreSQL does not run as root."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return {"user": entry.pw_uid, "group": entry.pw_gid}
    pytest.skip("running as root, and there is no user to run PostgreSQL as")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The connection string of a server, without a database."""
    binaries = _binaries()
    if binaries is None:
        reason = "PostgreSQL is not installed (Debian: postgresql)"
        assert not os.environ.get("CI"), reason
        pytest.skip(reason)
    user = _other_user()
    with tempfile.TemporaryDirectory(prefix="handclasp-") as made:
        folder = Path(made)
        if user:
            os.chown(folder, user["user"], user["group"])
        data = folder / "data"

        def run(program: str, *arguments: str) -> None:
            command = [str(binaries / program), *arguments]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=folder, timeout=120, **user)

        run("initdb", "-D", str(data), "-A", "trust", "-U", "handclasp", "-E", "UTF8", "--no-sync")
        options = f"-k {folder} -c listen_addresses='' -c max_connections=50"
        run("pg_ctl", "start", "-D", str(data), "-w", "-l", str(folder / "log"), "-o", options)
        try:
            yield f"host={folder} user=handclasp"
        finally:
            run("pg_ctl", "stop", "-D", str(data), "-w", "-m", "immediate")


@pytest.fixture
def postgres_url(postgres_server: str) -> str:
    """An empty database for one test."""
    import psycopg

    with psycopg.connect(f"{postgres_server} dbname=postgres", autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS test WITH (FORCE)")
        connection.execute("CREATE DATABASE test")
    return f"{postgres_server} dbname=test"
