"""`handclasp serve` as an operator runs it, and raw sockets to attack it with."""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import trio

HANG = 30


@dataclass(frozen=True)
class Service:
    process: trio.Process
    url: str
    """``ws://127.0.0.1:port``"""

    log: Path = field(default=Path(os.devnull))

    @property
    def address(self) -> tuple[str, int]:
        parts = urlsplit(self.url)
        return parts.hostname or "", parts.port or 0

    async def wait(self) -> int:
        with trio.fail_after(HANG):
            return await self.process.wait()

    def resident(self) -> int:
        """Bytes of memory."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")


@asynccontextmanager
async def serving(
    folder: Path, *flags: str, environment: Mapping[str, str] | None = None
) -> AsyncGenerator[Service]:
    """A service in a process of its own, with the flags of ``handclasp serve``."""
    log = folder / "service.log"
    with log.open("ab") as stderr:
        process = await trio.lowlevel.open_process(
            [sys.executable, "-m", "handclasp", "serve", "--port", "0", "--json", *flags],
            stdout=subprocess.PIPE,
            stderr=stderr,
            env={**os.environ, **(environment or {})},
        )
    assert process.stdout is not None
    try:
        async with process.stdout:
            line = b""
            with trio.fail_after(HANG):
                while not line.endswith(b"\n"):
                    data = await process.stdout.receive_some()
                    assert data, log.read_text()
                    line += data
            event = json.loads(line)
            assert event["event"] == "ready", event
            yield Service(process, event["service"], log)
    finally:
        with trio.CancelScope(shield=True):
            if process.returncode is None:
                process.terminate()
                with trio.move_on_after(HANG):
                    await process.wait()
            if process.returncode is None:
                process.kill()
                await process.wait()


class Raw:
    """A client that may say anything: HTTP and WebSocket by hand."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._buffer = b""

    async def _more(self) -> None:
        data = await self.stream.receive_some()
        if not data:
            raise EOFError
        self._buffer += data

    async def _exactly(self, count: int) -> bytes:
        while len(self._buffer) < count:
            await self._more()
        taken, self._buffer = self._buffer[:count], self._buffer[count:]
        return taken

    async def request(
        self, method: str, target: str, body: bytes = b"", **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        """One request and its whole answer."""
        lines = [f"{method} {target} HTTP/1.1", "Host: x"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        if body or method == "POST":
            lines.append(f"Content-Length: {len(body)}")
        await self.stream.send_all("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
        return await self.answer()

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        with trio.fail_after(HANG):
            while b"\r\n\r\n" not in self._buffer:
                await self._more()
            head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
            status, *rest = head.decode("latin-1").split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in rest)}
            content = await self._exactly(int(headers.get("content-length", "0")))
        return int(status.split()[1]), headers, content

    async def upgrade(self, path: str = "/ws", **headers: str) -> tuple[int, dict[str, str], bytes]:
        """Ask for a WebSocket; 101 is yes."""
        return await self.request(
            "GET",
            path,
            Upgrade="websocket",
            Connection="Upgrade",
            Sec_WebSocket_Version="13",
            Sec_WebSocket_Key="dGhlIHNhbXBsZSBub25jZQ==",
            **headers,
        )

    async def send(self, **fields: object) -> None:
        await self.send_frame(json.dumps(fields).encode())

    async def send_frame(self, payload: bytes, opcode: int = 1) -> None:
        await self.stream.send_all(client_frame(payload, opcode))

    async def receive(self) -> tuple[int, bytes]:
        """The next frame: its opcode and payload."""
        with trio.fail_after(HANG):
            first, second = await self._exactly(2)
            length = second
            if length == 126:
                (length,) = struct.unpack("!H", await self._exactly(2))
            elif length == 127:
                (length,) = struct.unpack("!Q", await self._exactly(8))
            return first & 0x0F, await self._exactly(length)

    async def get(self) -> dict:
        """The next text frame."""
        while True:
            opcode, payload = await self.receive()
            if opcode == 1:
                return json.loads(payload)
            assert opcode == 9, (opcode, payload)
            await self.send_frame(payload, opcode=10)  # a ping wants its pong

    async def expect(self, kind: str) -> dict:
        """The next text frame of a kind; acknowledgements in between are not looked at."""
        frame = await self.get()
        while kind != "accepted" and frame == {"type": "accepted"}:
            frame = await self.get()
        assert frame["type"] == kind, frame
        return frame

    async def end(self) -> int | None:
        """The status with which the service closes, None for without any."""
        try:
            while True:
                opcode, payload = await self.receive()
                if opcode == 8:
                    return int.from_bytes(payload[:2])
        except (EOFError, trio.BrokenResourceError):
            return None


def client_frame(payload: bytes, opcode: int = 1) -> bytes:
    """A WebSocket frame of a client, masked with zeros (RFC 6455 §5.2)."""
    length = len(payload)
    if length < 126:
        size = struct.pack("!B", 0x80 | length)
    elif length < 65_536:
        size = struct.pack("!BH", 0x80 | 126, length)
    else:
        size = struct.pack("!BQ", 0x80 | 127, length)
    return bytes([0x80 | opcode]) + size + bytes(4) + payload


@asynccontextmanager
async def connected(service: Service, source: str = "127.0.0.1") -> AsyncGenerator[Raw]:
    """A connection from an address of this machine: all of 127.0.0.0/8 is."""
    sock = trio.socket.socket()
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with sock:
        await sock.bind((source, 0))
        await sock.connect(service.address)
        yield Raw(trio.SocketStream(sock))


@dataclass(frozen=True)
class Pair:
    mailbox: str
    website: Raw
    wallet: Raw
    website_token: str
    wallet_token: str
    nonce: str


@asynccontextmanager
async def paired(service: Service, source: str = "127.0.0.1") -> AsyncGenerator[Pair]:
    """A claimed mailbox and both its sockets, all greetings read."""
    mailbox = os.urandom(16).hex()
    async with (
        connected(service, source) as http,
        connected(service, source) as website,
        connected(service, source) as wallet,
    ):
        status, _, body = await http.request("GET", f"/challenge?mailbox={mailbox}")
        assert status == 200, body
        token = json.loads(body)["token"]
        assert (await website.upgrade())[0] == 101
        await website.send(type="subscribe", token=token, after=0)
        await website.expect("ready")
        assert (await wallet.upgrade())[0] == 101
        await wallet.send(type="claim", mailbox=mailbox)
        ready = await wallet.expect("ready")
        await wallet.expect("joined")
        await website.expect("joined")
        yield Pair(mailbox, website, wallet, token, ready["token"], ready["nonce"])


async def talk(pair: Pair, body: str = "AA") -> None:
    """The wallet says something, and the website hears it."""
    await pair.wallet.send(type="publish", topic="answer", body=body)
    await pair.wallet.expect("accepted")
    frame = await pair.website.expect("message")
    assert frame["body"] == body
