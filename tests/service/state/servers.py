"""A Redis of a test's own: on a free port, in a temporary folder, killed and started again as the test likes."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ...ports import free_port  # noqa: TID252 - no installed package


class RedisServer:
    """Keeps what it has acknowledged when *durable*, and nothing at all otherwise."""

    def __init__(self, folder: Path, *, durable: bool = False) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}"
        self._folder = folder
        self._durable = durable
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when it answers."""
        durable = (
            ["--appendonly", "yes", "--appendfsync", "always"] if self._durable else ["--appendonly", "no"]
        )
        program = shutil.which("redis-server") or shutil.which("valkey-server")
        assert program is not None
        self._process = subprocess.Popen(
            [
                program,
                "--port",
                str(self.port),
                "--bind",
                "127.0.0.1",
                "--dir",
                self._folder,
                "--save",
                "",
                *durable,
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while self.command("PING") != b"+PONG\r\n":
            assert self._process.poll() is None, "the Redis did not start"

    def kill(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def pause(self) -> None:
        """It takes connections and answers nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def command(self, *words: str) -> bytes:
        """The first of the answer, as it comes; nothing when it does not listen."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
                connection.sendall((" ".join(words) + "\r\n").encode())
                return connection.recv(65536)
        except OSError:
            return b""


@contextmanager
def redis_server(folder: Path, *, durable: bool = False) -> Iterator[RedisServer]:
    if shutil.which("redis-server") is None and shutil.which("valkey-server") is None:
        if os.environ.get("CI"):
            pytest.fail("no redis-server here, and this is CI")
        pytest.skip("needs redis-server (Debian: redis-server) or valkey-server")
    server = RedisServer(folder, durable=durable)
    server.start()
    try:
        yield server
    finally:
        server.go_on()
        server.kill()
