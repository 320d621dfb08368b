"""The rows of the matrix: what peers do with each other, over whatever connects them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import pytest
import trio

from handclasp.abc import Handler, Stream
from handclasp.accounts import LocalAccount
from handclasp.errors import ProtocolRefused
from handclasp.identity import PeerId
from handclasp.node import Node
from handclasp.protocols import file, wallet
from handclasp.protocols.jsonrpc import open_jsonrpc
from handclasp.protocols.wallet.wallet import _Website

ECHO, SIZE, BROKEN, RPC = "/echo/1.0.0", "/size/1.0.0", "/broken/1.0.0", "/rpc/1.0.0"
MIB = 1024 * 1024


async def echo(stream: Stream, peer: PeerId) -> None:
    async for data in stream:
        await stream.send_all(data)


async def size(stream: Stream, peer: PeerId) -> None:
    """Answers only after the end of file."""
    total = 0
    async for data in stream:
        total += len(data)
    await stream.send_all(str(total).encode())


async def broken(stream: Stream, peer: PeerId) -> None:
    await stream.receive_some()
    raise ValueError("this handler is broken")


async def rpc(stream: Stream, peer: PeerId) -> None:
    async def answer(method: str, params: object) -> object:
        return [method, params, str(peer)]

    async with open_jsonrpc(stream, answer) as peer_:
        await peer_.wait_closed()


class Consent(wallet.Approver):
    async def approve_link(self, request: wallet.LinkRequest) -> bool:
        return True

    async def approve_session(self, proposal: wallet.Proposal) -> bool:
        return True

    async def approve_signature(self, request: wallet.SigningRequest) -> bool:
        return True


class Server:
    """The side that answers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.wallet = wallet.Wallet(LocalAccount.generate(), Consent())

        async def accept(offer: file.FileOffer) -> bool:
            return True

        self.handlers: Mapping[str, Handler] = {
            ECHO: echo,
            SIZE: size,
            BROKEN: broken,
            RPC: rpc,
            file.PROTOCOL: file.receive_into(folder, accept=accept),
            wallet.PROTOCOL: self.wallet.serve,
        }

    def link(self, website: PeerId) -> None:
        """As if the website had paired before: that takes a mailbox, and is tested elsewhere."""
        self.wallet._websites[website] = linked = _Website("https://shop.example")
        linked.decided.set()


@dataclass(frozen=True)
class Meeting:
    """A client that has found its server."""

    client: Node
    peer: PeerId
    """The server's node."""
    server: Server
    folder: Path
    """The client's files."""


async def read_all(stream: Stream) -> bytes:
    data = bytearray()
    async for chunk in stream:
        data += chunk
    return bytes(data)


async def exchange(m: Meeting, data: bytes) -> bytes:
    """Echo *data* while sending it."""
    async with await m.client.open_stream(m.peer, ECHO) as stream, trio.open_nursery() as nursery:

        async def send() -> None:
            await stream.send_all(data)
            await stream.send_eof()

        nursery.start_soon(send)
        return await read_all(stream)


async def echo_once(m: Meeting) -> None:
    assert await exchange(m, b"hello") == b"hello"


async def ping(m: Meeting) -> None:
    for _ in range(3):
        assert await m.client.ping(m.peer) > 0


async def identify(m: Meeting) -> None:
    info = await m.client.identify(m.peer)
    assert info.peer == m.peer
    assert {ECHO, file.PROTOCOL, wallet.PROTOCOL} <= set(info.protocols)


async def answer_after_end_of_file(m: Meeting) -> None:
    async with await m.client.open_stream(m.peer, SIZE) as stream:
        await stream.send_all(b"x" * 100_000)
        await stream.send_eof()
        assert await read_all(stream) == b"100000"


async def streams_in_sequence(m: Meeting) -> None:
    for number in range(300):
        assert await exchange(m, b"%d" % number) == b"%d" % number


async def streams_at_once(m: Meeting) -> None:
    answers: dict[int, bytes] = {}

    async def one(number: int) -> None:
        answers[number] = await exchange(m, bytes([number]) * 10_000)

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(one, number)
    assert answers == {number: bytes([number]) * 10_000 for number in range(20)}


async def slow_reader(m: Meeting) -> None:
    """A reader that does not read until its writer is stuck misses nothing."""
    data, stuck = os.urandom(8 * MIB), False
    async with await m.client.open_stream(m.peer, ECHO) as stream, trio.open_nursery() as nursery:
        sent = trio.Event()

        async def send() -> None:
            await stream.send_all(data)
            sent.set()
            await stream.send_eof()

        nursery.start_soon(send)
        with trio.move_on_after(0.5):
            await sent.wait()
        stuck = not sent.is_set()
        assert await read_all(stream) == data
    assert stuck, "8 MiB went out although nobody read the answer: there is no backpressure"


async def handler_that_raises(m: Meeting) -> None:
    async with await m.client.open_stream(m.peer, ECHO) as other:
        async with await m.client.open_stream(m.peer, BROKEN) as stream:
            await stream.send_all(b"x")
            with pytest.raises(trio.BrokenResourceError):
                await read_all(stream)
        await other.send_all(b"still here")
        assert await other.receive_some() == b"still here"


async def protocol_refused(m: Meeting) -> None:
    with pytest.raises(ProtocolRefused):
        await m.client.open_stream(m.peer, "/nobody/speaks/this")
    await echo_once(m)


async def json_rpc(m: Meeting) -> None:
    async with await m.client.open_stream(m.peer, RPC) as stream, open_jsonrpc(stream) as client:
        for number in range(10):
            assert await client.call("sum", {"n": number}) == ["sum", {"n": number}, str(m.client.peer_id)]


async def file_of_5_mb(m: Meeting) -> None:
    path = m.folder / "to-send"
    path.write_bytes(os.urandom(5_000_000))
    async with await m.client.open_stream(m.peer, file.PROTOCOL) as stream:
        digest = await file.send_file(stream, path)
    received = (m.server.folder / "to-send").read_bytes()
    assert hashlib.sha256(received).hexdigest() == digest


async def ask_wallet(m: Meeting) -> None:
    m.server.link(m.client.peer_id)
    linked = wallet.LinkedWallet(m.server.wallet.account, await m.client.connect(m.peer))
    async with wallet.open_wallet(m.client, linked) as remote:
        await remote.create_session()
        signature = await remote.personal_sign("hello")
        assert signature.startswith("0x")
        assert len(bytes.fromhex(signature[2:])) == 65


Row: TypeAlias = Callable[[Meeting], Awaitable[None]]
ROWS: dict[str, Row] = {
    "echo": echo_once,
    "ping": ping,
    "identify": identify,
    "answer after the end of file": answer_after_end_of_file,
    "300 streams in sequence": streams_in_sequence,
    "20 streams at once": streams_at_once,
    "slow reader, 8 MiB": slow_reader,
    "a handler that raises": handler_that_raises,
    "a protocol that is refused": protocol_refused,
    "JSON-RPC": json_rpc,
    "a file of 5 MB": file_of_5_mb,
    "wallet: session and signature": ask_wallet,
}
