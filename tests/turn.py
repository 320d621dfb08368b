"""A coturn that a test starts, and a client that asks it for what it should refuse."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import socket
import subprocess
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from aioice import stun

from .ports import free_port

SECRET = "5d0c41d27be35a6880d1e2f3a4b5c6d79f0c41d27be35a68"
PAGE = Path(__file__).parents[1] / "docs" / "how-to" / "run-a-turn-server.md"


def documented() -> str:
    """The configuration in the how-to, with a secret of ours; its certificate is not on this machine."""
    (config,) = re.findall(r"```ini\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert "static-auth-secret=PUT-THE-SECRET-HERE\n" in config
    config = config.replace("PUT-THE-SECRET-HERE", SECRET)
    return re.sub(r"^(cert|pkey|listening-port|tls-listening-port)=.*\n", "", config, flags=re.MULTILINE)


@asynccontextmanager
async def coturn(folder: Path, config: str, *options: str) -> AsyncGenerator[tuple[str, int]]:
    """The address of a TURN server with this configuration, on 127.0.0.1."""
    program = shutil.which("turnserver")
    if program is None:
        reason = "no TURN server is installed (Debian: apt-get install coturn)"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    port = free_port()
    file, log = folder / "turnserver.conf", folder / "turnserver.log"
    file.write_text(config)
    arguments = [
        *("-c", file, "--listening-ip=127.0.0.1", "--relay-ip=127.0.0.1", f"--listening-port={port}"),
        *("--no-tls", "--no-dtls", "--log-file=stdout", f"--pidfile={folder}/turnserver.pid"),
        *(f"--userdb={folder}/users.db", *options),
    ]
    with log.open("wb") as output:
        process = await trio.lowlevel.open_process(
            [program, *arguments], stdout=output, stderr=subprocess.STDOUT
        )
    try:
        with trio.fail_after(60):
            while not await _answers(port):
                assert process.poll() is None, log.read_text()
                await trio.sleep(0.05)
        yield "127.0.0.1", port
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


async def _answers(port: int) -> bool:
    try:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
    except OSError:
        return False
    await stream.aclose()
    return True


class Refused(Exception):
    """The server's error code."""


class Relay:
    """A TURN client that does only what it is told (RFC 8656)."""

    def __init__(self, sock: trio.socket.SocketType, username: str, password: str) -> None:
        self._socket = sock
        self._username = username
        self._password = password
        self._challenge: dict[str, object] = {}

    async def allocate(self, family: int = 1) -> None:
        """Ask for a relay; the first answer is always a challenge."""
        attributes: dict[str, object] = {"REQUESTED-TRANSPORT": 0x11000000, "LIFETIME": 60}
        with pytest.raises(Refused, match="401"):
            await self._ask(stun.Method.ALLOCATE, attributes)
        await self._ask(stun.Method.ALLOCATE, attributes)

    async def permit(self, address: str) -> None:
        """Ask to be relayed to an address, as a permission."""
        await self._ask(stun.Method.CREATE_PERMISSION, {"XOR-PEER-ADDRESS": (address, 9)})

    async def bind(self, address: str) -> None:
        """Ask to be relayed to an address, as a channel."""
        attributes = {"CHANNEL-NUMBER": 0x4001, "XOR-PEER-ADDRESS": (address, 9)}
        await self._ask(stun.Method.CHANNEL_BIND, attributes)

    async def _ask(self, method: stun.Method, attributes: dict[str, object]) -> stun.Message:
        request = stun.Message(method, stun.Class.REQUEST, attributes={**attributes, **self._challenge})
        if self._challenge:
            key = f"{self._username}:{self._challenge['REALM']}:{self._password}".encode()
            request.add_message_integrity(hashlib.md5(key, usedforsecurity=False).digest())
        with trio.fail_after(30):
            await self._socket.send(bytes(request))
            while True:
                answer = stun.parse_message(await self._socket.recv(2048))
                if answer.transaction_id == request.transaction_id:
                    break
        if answer.message_class is stun.Class.ERROR:
            code, _ = answer.attributes["ERROR-CODE"]
            if code in (401, 438) and "NONCE" in answer.attributes:
                self._challenge = {
                    "USERNAME": self._username,
                    "REALM": answer.attributes["REALM"],
                    "NONCE": answer.attributes["NONCE"],
                }
            raise Refused(str(code))
        return answer


@asynccontextmanager
async def relay_at(address: tuple[str, int], username: str, password: str) -> AsyncGenerator[Relay]:
    sock = trio.socket.socket(type=socket.SOCK_DGRAM)
    with sock:
        await sock.connect(address)
        yield Relay(sock, username, password)
