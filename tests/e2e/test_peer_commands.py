"""`handclasp peer`, `ping`, `send` and `receive` as a person runs them: real processes on 127.0.0.1."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from handclasp.identity import Identity
from handclasp.testing import open_service

HANDCLASP = [sys.executable, "-m", "handclasp"]
NOBODY = str(Identity.generate().peer_id)
LOOPBACK = ["--transport", "webrtc:?address=127.0.0.1"]


class Command:
    """A running command and the JSON events that it prints."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self._buffer = b""

    async def event(self, name: str) -> dict[str, Any]:
        """The next event of this name."""
        while True:
            assert self.process.stdout is not None
            while b"\n" not in self._buffer:
                data = await self.process.stdout.receive_some()
                assert data, f"the command ended without {name!r}"
                self._buffer += data
            line, _, self._buffer = self._buffer.partition(b"\n")
            event: dict[str, Any] = json.loads(line)
            if event["event"] == name:
                return event


@asynccontextmanager
async def run(*arguments: str | Path) -> AsyncGenerator[Command]:
    process = await trio.lowlevel.open_process(
        [*HANDCLASP, *map(str, arguments), *LOOPBACK], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    )
    try:
        yield Command(process)
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
        assert process.stdout is not None
        await process.stdout.aclose()


async def output(*arguments: str | Path, status: int = 0) -> str:
    """What a command prints that ends by itself."""
    done = await trio.run_process(
        [*HANDCLASP, *map(str, arguments), *LOOPBACK], capture_stdout=True, stdin=b"", check=False
    )
    text = done.stdout.decode()
    assert done.returncode == status, text
    return text


async def test_a_file_goes_to_an_address_and_both_sides_know(tmp_path: Path) -> None:
    data, folder = os.urandom(3_000_000), tmp_path / "here"
    folder.mkdir()
    (tmp_path / "cat.jpg").write_bytes(data)
    async with run("receive", "--into", folder, "--yes", "--once", "--json") as receiver:
        (address,) = (await receiver.event("listening"))["addresses"]
        told = await output("send", tmp_path / "cat.jpg", address, "--json")
        received = await receiver.event("received")
        assert await receiver.process.wait() == 0
    assert (folder / "cat.jpg").read_bytes() == data
    assert received["path"] == str(folder / "cat.jpg")
    events = [json.loads(line) for line in told.splitlines()]
    assert events[-1]["event"] == "sent"
    assert events[-2] == events[-2] | {"event": "progress", "done": len(data), "total": len(data)}


async def test_a_file_of_somebody_else_is_not_taken(tmp_path: Path) -> None:
    friend = Identity.generate()
    (tmp_path / "a").write_text("x")
    (tmp_path / "friend.key").write_bytes(friend.seed)
    async with run(
        "receive", "--into", tmp_path, "--yes", "--json", "--from", str(friend.peer_id)
    ) as receiver:
        (address,) = (await receiver.event("listening"))["addresses"]
        assert "error:" in await output("send", tmp_path / "a", address, status=1)
        await output("send", tmp_path / "a", address, "--identity", tmp_path / "friend.key")
        assert (await receiver.event("received"))["peer"] == str(friend.peer_id)


async def test_nobody_at_the_terminal_means_no(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    async with run("receive", "--into", tmp_path, "--json") as receiver:
        (address,) = (await receiver.event("listening"))["addresses"]
        assert "declined" in await output("send", tmp_path / "a", address, status=1)


async def test_a_receiver_that_is_killed_is_reported(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(bytes(50_000_000))
    folder = tmp_path / "here"
    folder.mkdir()
    async with run("receive", "--into", folder, "--yes", "--json") as receiver:
        (address,) = (await receiver.event("listening"))["addresses"]
        async with run("send", tmp_path / "big", address, "--json") as sender:
            await sender.event("progress")
            receiver.process.kill()
            error = await sender.event("error")
            assert error["error"] in {"ConnectionLost", "DeadlineExceeded"}
            assert await sender.process.wait() == 1


async def test_a_peer_tells_who_comes_and_goes_and_keeps_its_identity(tmp_path: Path) -> None:
    key = tmp_path / "identity"
    names = []
    for _ in range(2):
        async with run("peer", "--identity", key) as peer:
            listening = await peer.event("listening")
            names.append(listening["peer"])
            text = await output("ping", listening["addresses"][0], "-c", "2", "--interval", "0")
            assert "2 pings" in text
            connected = await peer.event("connected")
            assert connected["path"]["kind"] == "direct"
            assert connected["path"]["remote"].startswith("/ip4/127.0.0.1/udp/")
            assert (await peer.event("lost"))["peer"] == connected["peer"]
            peer.process.send_signal(signal.SIGINT)
            assert await peer.process.wait() == 130
    assert names == [str(Identity.load_or_create(key).peer_id)] * 2


async def test_peers_on_a_service_find_each_other_by_topic_and_meet_again_after_a_restart() -> None:
    async with open_service() as service:
        async with run("peer", "--discovery", service, "--find", "tea") as seeker:
            for _ in range(2):
                async with run("peer", "--discovery", service, "--advertise", "tea") as guest:
                    name = (await guest.event("listening"))["peer"]
                    assert (await seeker.event("found"))["peer"] == name
                    assert (await seeker.event("connected"))["peer"] == name
                    assert (await guest.event("connected"))["peer"]
                assert (await seeker.event("lost"))["peer"] == name


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["ping", "nonsense"], "neither a peer id"),
        (["ping", f"/ip4/1.2.3/tcp/1/p2p/{NOBODY}"], "1.2.3"),
        (["ping", NOBODY], "nowhere to be found: this node has no discovery"),
        (["ping", NOBODY, "--discovery", "foo:"], "no installed package handles foo:"),
        (["ping", NOBODY, "--discovery", "tcp://127.0.0.1:99999"], "99999"),
        (["ping", NOBODY, "--transport", "webrtc:?engine=fast"], "'fast'"),
        (["ping", NOBODY, "--transport", "webrtc:?speed=high"], "'speed'"),
        (["peer", "--text", "--identity", "/dev/null"], "not an identity file"),
    ],
)
async def test_a_mistake_gets_one_sentence(arguments: list[str], told: str) -> None:
    text = await output(*arguments, status=1)
    assert told in text.replace("\n", " ")
    assert text.count("\n") == 1
