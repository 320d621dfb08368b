"""Sending a file: it arrives whole or not at all, and under no name but a harmless one."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from handclasp.abc import Stream
from handclasp.errors import (
    ConfigurationError,
    ConnectionLost,
    DeadlineExceeded,
    HandclaspError,
    ProtocolViolation,
    RequestFailed,
)
from handclasp.identity import Identity
from handclasp.messages import encode_message, receive_message_untrusted
from handclasp.protocols.file import FileOffer, receive_into, send_file
from handclasp.scope import open_scope
from handclasp.transports.memory import memory_stream_pair

PEER = Identity.generate().peer_id
DATA = os.urandom(700_001)


async def take_it(offer: FileOffer) -> bool:
    return True


@asynccontextmanager
async def receiver(folder: Path, **options: object) -> AsyncGenerator[tuple[Stream, list[Exception]]]:
    """The stream of a sender whose peer receives into *folder*, and what its handler raised."""
    ours, theirs = memory_stream_pair()
    failures: list[Exception] = []
    handler = receive_into(folder, **{"accept": take_it, **options})  # type: ignore[arg-type]

    async def run() -> None:
        try:
            await handler(theirs, PEER)
            await theirs.aclose()
        except (HandclaspError, OSError, trio.BrokenResourceError) as exc:
            failures.append(exc)
            await theirs.reset()

    async with trio.open_nursery() as nursery, ours:
        nursery.start_soon(run)
        yield ours, failures


def source(folder: Path, name: str = "cat.jpg", data: bytes = DATA) -> Path:
    path = folder / "from" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    return path


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize("size", [0, 1, 700_001])
async def test_a_file_arrives_whole_and_the_sender_knows(tmp_path: Path, size: int) -> None:
    seen: list[int] = []
    async with receiver(tmp_path) as (stream, failures):
        digest = await send_file(stream, source(tmp_path, data=DATA[:size]), progress=seen.append)
    assert digest == hashlib.sha256(DATA[:size]).hexdigest()
    assert files(tmp_path) == {"cat.jpg": DATA[:size]}
    assert seen == sorted(seen)
    assert not size or seen[-1] == size
    assert not failures


async def test_the_receiver_watches_the_transfer_and_learns_where_the_file_stands(tmp_path: Path) -> None:
    told: list[object] = []

    @contextmanager
    def progress(offer: FileOffer):  # noqa: ANN202
        told.append(offer)
        yield told.append
        told.append("over")

    def received(offer: FileOffer, path: Path) -> None:
        told.append(path)

    async with receiver(tmp_path, progress=progress, received=received) as (stream, _):
        await send_file(stream, source(tmp_path, data=b"abc"))
    assert told == [FileOffer(PEER, "cat.jpg", 3), 3, "over", tmp_path / "cat.jpg"]


async def test_no_file_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "cat.tar.gz").write_bytes(b"mine")
    for content in (b"one", b"two"):
        async with receiver(tmp_path) as (stream, _):
            await send_file(stream, source(tmp_path, "cat.tar.gz", content))
    assert files(tmp_path) == {"cat.tar.gz": b"mine", "cat (2).tar.gz": b"one", "cat (3).tar.gz": b"two"}


async def test_a_file_that_nobody_wants_is_not_sent(tmp_path: Path) -> None:
    async def decline(offer: FileOffer) -> bool:
        return False

    async with receiver(tmp_path, accept=decline) as (stream, _):
        with pytest.raises(RequestFailed, match="declined"):
            await send_file(stream, source(tmp_path))
    assert files(tmp_path) == {}


@pytest.mark.parametrize(
    "name",
    [
        "", ".", "..", ".bashrc", "-rf", "a/b", "../a", "/etc/passwd", "a\\b", "a\0b", "a\nb", "a\x1b[2J", "C:x",
        "a ", " a", "e\u0301", "\u202egpj.exe", "x" * 256, "\u00e9" * 128, 7, None, ["a"],
    ],
)  # fmt: skip
async def test_a_dangerous_name_is_refused(tmp_path: Path, name: object) -> None:
    async with receiver(tmp_path) as (stream, failures):
        await stream.send_all(encode_message(json.dumps({"name": name, "size": 1}).encode()))
        with pytest.raises(trio.BrokenResourceError):
            await receive_message_untrusted(stream, 4096)
    assert isinstance(failures[0], ProtocolViolation)
    assert "'name'" in str(failures[0])
    assert files(tmp_path) == {}


@pytest.mark.parametrize("size", [-1, 1.5, True, "1", None, 2**63])
async def test_a_size_that_is_none_is_refused(tmp_path: Path, size: object) -> None:
    async with receiver(tmp_path) as (stream, failures):
        await stream.send_all(encode_message(json.dumps({"name": "a", "size": size}).encode()))
        with pytest.raises(trio.BrokenResourceError):
            await receive_message_untrusted(stream, 4096)
    assert "'size'" in str(failures[0])


@pytest.mark.parametrize("message", [b"", b"[]", b"{", b"\xff", b"[" * 4_000])
async def test_an_offer_that_is_no_json_object_is_refused(tmp_path: Path, message: bytes) -> None:
    async with receiver(tmp_path) as (stream, failures):
        await stream.send_all(encode_message(message))
        with pytest.raises(trio.BrokenResourceError):
            await receive_message_untrusted(stream, 4096)
    assert isinstance(failures[0], ProtocolViolation)


@pytest.mark.parametrize(("sent", "why"), [(b"12345", "more"), (b"123", "less")])
async def test_another_size_than_announced_leaves_no_file(tmp_path: Path, sent: bytes, why: str) -> None:
    async with receiver(tmp_path) as (stream, failures):
        await stream.send_all(encode_message(b'{"name": "a", "size": 4}') + sent)
        await stream.send_eof()
        await trio.testing.wait_all_tasks_blocked(0.05)
    assert why in str(failures[0])
    assert files(tmp_path) == {}


async def test_a_transfer_that_breaks_off_leaves_no_file(tmp_path: Path) -> None:
    async with receiver(tmp_path) as (stream, failures):
        await stream.send_all(encode_message(b'{"name": "a", "size": 4}') + b"12")
        await receive_message_untrusted(stream, 4096)
        await stream.reset()
    assert isinstance(failures[0], trio.BrokenResourceError)
    assert files(tmp_path) == {}


async def test_a_folder_that_cannot_be_written_is_told_to_the_sender(tmp_path: Path) -> None:
    async with receiver(tmp_path / "gone") as (stream, failures):
        with pytest.raises(RequestFailed, match="No such file"):
            await send_file(stream, source(tmp_path))
    assert not failures


async def against(script: Callable, path: Path) -> None:
    """Send a file to a peer that does what *script* says."""
    ours, theirs = memory_stream_pair()
    async with ours, theirs, open_scope() as scope:
        scope.start_soon(script, theirs)
        await send_file(ours, path)


async def answer(stream: Stream, **fields: object) -> None:
    await stream.send_all(encode_message(json.dumps(fields).encode()))


async def test_a_receipt_for_another_content_is_not_believed(tmp_path: Path) -> None:
    async def lie(stream: Stream) -> None:
        await answer(stream, ok=True)
        async for _ in stream:
            pass
        await answer(stream, ok=True, sha256="0" * 64)

    with pytest.raises(ProtocolViolation, match="another content"):
        await against(lie, source(tmp_path))


async def test_a_peer_that_breaks_off_is_told_apart_from_one_that_says_no(tmp_path: Path) -> None:
    async def vanish(stream: Stream) -> None:
        await answer(stream, ok=True)
        await stream.reset()

    with pytest.raises(ConnectionLost):
        await against(vanish, source(tmp_path))


async def test_a_peer_that_does_not_read_is_not_waited_for_forever(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async def stall(stream: Stream) -> None:
        await answer(stream, ok=True)
        await trio.sleep_forever()

    path = source(tmp_path)
    autojump_clock.autojump_threshold = 0.1  # the file is read in a thread meanwhile
    with pytest.raises(DeadlineExceeded, match="took no more bytes"):
        await against(stall, path)


async def test_a_file_that_cannot_be_read_is_the_callers_mistake(tmp_path: Path) -> None:
    ours, _ = memory_stream_pair()
    with pytest.raises(ConfigurationError, match="cannot be read"):
        await send_file(ours, tmp_path / "nothing")
