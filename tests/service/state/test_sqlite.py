"""What only a file has to promise: it outlasts the process that wrote it, whenever that dies."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from handclasp.errors import ConfigurationError
from handclasp.service.state import Sync, from_url

from .test_contract import Watching

WRITER = """
import sys, trio
from handclasp.service.state import Sync, from_url
class Nobody:
    def follow(self, *told): pass
    def lost_track(self): pass
async def main():
    state = from_url(sys.argv[1])
    async with state.open(Nobody()):
        await state.create("log", "name", [0], life=600, most=10)
        for number in range(1, 4000):
            await state.sync([Sync("log", number, [[number]], 600)])
            print(number, flush=True)
trio.run(main)
"""


def acknowledged_before_a_kill(url: str, least: int) -> int:
    """The last row that a process said was written before it was killed."""
    with subprocess.Popen([sys.executable, "-c", WRITER, url], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = 0
        while said < least:
            said = int(process.stdout.readline())
        process.kill()
        return max([said, *map(int, process.stdout.read().split())])


@pytest.mark.parametrize("least", [10, 57, 120])
async def test_what_was_acknowledged_before_a_kill_is_there_and_in_order(tmp_path: Path, least: int) -> None:
    url = f"sqlite:{tmp_path / 'state'}"
    acknowledged = acknowledged_before_a_kill(url, least)
    state = from_url(url)
    async with state.open(Watching()):
        assert await state.find("name") == "log"
        (rows,) = await state.sync([Sync("log", 0)])
    assert rows is not None
    assert rows[: acknowledged + 1] == [[number] for number in range(acknowledged + 1)]


async def test_a_file_of_another_version_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "state"
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 99")
    database.close()
    before = path.read_bytes()
    with pytest.raises(ConfigurationError, match="another version"):
        async with from_url(f"sqlite:{path}").open(Watching()):
            pass
    assert path.read_bytes() == before


async def test_a_file_that_is_no_database_is_a_configuration_error(tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.write_text("this is no database, whatever it is" * 100)
    with pytest.raises(ConfigurationError, match="cannot be kept in"):
        async with from_url(f"sqlite:{path}").open(Watching()):
            pass
