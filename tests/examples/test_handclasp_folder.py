"""The example distribution, installed: its URL is found, its contract suite passes, and two nodes meet in a folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples/handclasp-folder"

MEET = """
import sys, trio
from handclasp.node import open_node
from handclasp.node.plugins import discovery_from_url
from handclasp.transports.memory import MemoryNetwork

async def hello(stream, peer):
    await stream.send_all(b"hello")

async def main():
    discovery, network = discovery_from_url(sys.argv[1]), MemoryNetwork()
    async with (
        open_node(discovery=[discovery], transports=[network.transport], protocols={"/hello": hello}) as alice,
        open_node(discovery=[discovery], transports=[network.transport]) as bob,
        await bob.open_stream(alice.peer_id, "/hello") as stream,
    ):
        print((await stream.receive_some()).decode())

trio.run(main)
"""


def run(*command: str | Path, path: Path | None = None, cwd: Path | None = None) -> str:
    """What a program prints that can import what is installed in *path*, and handclasp from here."""
    places = [str(ROOT)] if path is None else [str(path), str(ROOT)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(places)}
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the distribution in it; nothing is fetched for that."""
    target = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install"]
    run(*pip, "--no-index", "--no-deps", "--no-build-isolation", "--target", target, EXAMPLE)
    return target


def test_two_nodes_meet_in_the_folder_that_a_url_names(installed: Path, tmp_path: Path) -> None:
    assert run(sys.executable, "-c", MEET, f"folder://{tmp_path}", path=installed) == "hello\n"


def test_its_own_tests_pass_where_it_is_installed(installed: Path) -> None:
    printed = run(
        sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", ".", path=installed, cwd=EXAMPLE
    )
    assert "passed" in printed
    assert "failed" not in printed


def test_without_it_nobody_knows_the_scheme() -> None:
    code = """
from handclasp.errors import ConfigurationError
from handclasp.node.plugins import discovery_from_url
try:
    discovery_from_url("folder:///srv/peers")
except ConfigurationError as exc:
    print(exc)
"""
    assert "no installed package handles folder:" in run(sys.executable, "-c", code)
