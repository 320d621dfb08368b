"""Sending a file: one stream, one file, and a receipt.

Source: docs/protocols/file.md. The connection encrypts and authenticates; the hash in the receipt tells
the sender that the file stands complete on the other side's disk.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import unicodedata
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, cast

import trio

from handclasp.abc import Handler, Stream
from handclasp.errors import ConfigurationError, ConnectionLost, ProtocolViolation, RequestFailed
from handclasp.identity import PeerId
from handclasp.jsontext import parse_json_untrusted
from handclasp.messages import encode_message, receive_message_untrusted
from handclasp.scope import deadline

__all__ = ["PROTOCOL", "FileOffer", "Progress", "receive_into", "send_file"]

_log = logging.getLogger(__name__)

PROTOCOL = "/handclasp/file/1.0.0"
#: Bytes of the offer and of an answer; a file name has at most 255.
MAX_MESSAGE = 4_096
#: Bytes of a file's name in UTF-8: what common file systems take.
MAX_NAME = 255
#: Seconds without any byte after which a transfer is given up.
IDLE_TIMEOUT = 60.0
#: Seconds that a person at the other end has to accept the file.
ACCEPT_TIMEOUT = 300.0
_CHUNK = 256 * 1024  # bytes read or written at once: a thread hop for each costs nothing beside it

#: Is called with the number of bytes that went through so far.
Progress: TypeAlias = Callable[[int], None]


@dataclass(frozen=True)
class FileOffer:
    """A file that a peer wants to send."""

    peer: PeerId
    name: str
    """Its name without any folder, safe to show and to create."""
    size: int
    """Bytes."""


async def send_file(stream: Stream, path: Path, *, progress: Progress = lambda _: None) -> str:
    """Send the file at *path* on a stream that speaks `PROTOCOL`; returns its SHA-256 once the peer has it.

    Raises:
        ConfigurationError: the file cannot be read, or shrank meanwhile.
        RequestFailed: the peer did not want it or could not keep it.
        DeadlineExceeded, ConnectionLost, ProtocolViolation: the transfer did not get through.
    """
    try:
        async with await trio.open_file(path, "rb") as file:
            size = os.fstat(file.wrapped.fileno()).st_size
            offer = json.dumps({"name": path.name, "size": size}).encode()
            await stream.send_all(encode_message(offer))
            with deadline(ACCEPT_TIMEOUT, "the peer did not accept the file"):
                await _receive_verdict(stream)
            digest = await _send_content(stream, file.read, size, progress)
        with deadline(IDLE_TIMEOUT, "the peer did not confirm the file"):
            receipt = await _receive_verdict(stream)
    except OSError as exc:
        raise ConfigurationError(f"{path} cannot be read: {exc.strerror or exc}") from exc
    except trio.BrokenResourceError as exc:
        raise ConnectionLost(f"the transfer broke: {exc}") from exc
    if receipt.get("sha256") != digest:
        raise ProtocolViolation("the peer confirmed another content than was sent")
    return digest


async def _send_content(
    stream: Stream, read: Callable[[int], Awaitable[bytes]], size: int, progress: Progress
) -> str:
    digest, sent = hashlib.sha256(), 0
    while sent < size:
        chunk = await read(min(_CHUNK, size - sent))
        if not chunk:
            raise ConfigurationError("the file became shorter while it was sent")
        with deadline(IDLE_TIMEOUT, "the peer took no more bytes"):
            await stream.send_all(chunk)
        digest.update(chunk)
        sent += len(chunk)
        progress(sent)
    await stream.send_eof()
    return digest.hexdigest()


async def _receive_verdict(stream: Stream) -> dict[str, object]:
    answer = _object_untrusted(await receive_message_untrusted(stream, MAX_MESSAGE))
    if answer.get("ok") is not True:
        raise RequestFailed(0, f"the peer refused the file: {str(answer.get('reason'))[:200]}")
    return answer


def _no_progress(_: FileOffer) -> AbstractContextManager[Progress]:
    return nullcontext(lambda _: None)


def receive_into(
    folder: Path,
    *,
    accept: Callable[[FileOffer], Awaitable[bool]],
    progress: Callable[[FileOffer], AbstractContextManager[Progress]] = _no_progress,
    received: Callable[[FileOffer, Path], None] = lambda _offer, _path: None,
) -> Handler:
    """The handler that puts files into *folder*, each under its own name, never over another file.

    A file that does not arrive completely leaves nothing behind.

    Args:
        folder: has to exist.
        accept: is asked for each file before any of it is taken.
        progress: is entered for the length of each transfer; what it gives is called as bytes arrive.
        received: is called with where each complete file stands.
    """

    async def handle(stream: Stream, peer: PeerId) -> None:
        offer = _offer_untrusted(await receive_message_untrusted(stream, MAX_MESSAGE), peer)
        if not await accept(offer):
            await _answer(stream, ok=False, reason="declined")
            return
        try:
            with progress(offer) as report:
                path, digest = await _receive_content(stream, offer, folder, report)
        except OSError as exc:
            _log.warning("a file of %s could not be kept: %s", peer, exc)
            await _answer(stream, ok=False, reason=exc.strerror or "the file could not be written")
            return
        await _answer(stream, ok=True, sha256=digest)
        received(offer, path)

    return handle


async def _receive_content(
    stream: Stream, offer: FileOffer, folder: Path, progress: Progress
) -> tuple[Path, str]:
    part = folder / f".{os.urandom(8).hex()}.part"
    digest, size = hashlib.sha256(), 0
    try:
        async with await trio.open_file(part, "xb") as file:
            await _answer(stream, ok=True)
            while True:
                with deadline(IDLE_TIMEOUT, "the peer sent no more bytes"):
                    chunk = await stream.receive_some(_CHUNK)
                if not chunk:
                    break
                size += len(chunk)
                if size > offer.size:
                    raise ProtocolViolation("the peer sent more than it had announced")
                await file.write(chunk)
                digest.update(chunk)
                progress(size)
            if size < offer.size:
                raise ProtocolViolation("the peer sent less than it had announced")
            await file.flush()
            await trio.to_thread.run_sync(os.fsync, file.wrapped.fileno())
        return _name(part, folder, offer.name), digest.hexdigest()
    finally:
        part.unlink(missing_ok=True)


def _name(part: Path, folder: Path, name: str) -> Path:
    """Give the complete file its name; the next free one where that is taken."""
    stem, dot, suffix = name.partition(".")
    for number in range(1, 1_000):
        path = folder / (name if number == 1 else f"{stem} ({number}){dot}{suffix}")
        try:
            path.hardlink_to(part)  # fails where there is a file already, unlike a rename
        except FileExistsError:
            continue
        return path
    raise OSError("there are 1,000 files of this name already")


async def _answer(stream: Stream, **fields: object) -> None:
    await stream.send_all(encode_message(json.dumps(fields).encode()))


def _offer_untrusted(message: bytes, peer: PeerId) -> FileOffer:
    fields = _object_untrusted(message)
    name, size = fields.get("name"), fields.get("size")
    if not isinstance(name, str) or not _is_safe(name):
        raise ProtocolViolation("'name' is not the plain name of a file")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < 2**63:
        raise ProtocolViolation("'size' is not a number of bytes")
    return FileOffer(peer, name, size)


def _is_safe(name: str) -> bool:
    """No folder, nothing hidden, nothing that a terminal or a file system takes for something else."""
    return (
        0 < len(name.encode(errors="replace")) <= MAX_NAME
        and not name.startswith((".", "-"))
        and not set(name) & set('/\\:*?"<>|')
        and name == unicodedata.normalize("NFC", name).strip()
        and name.isprintable()
    )


def _object_untrusted(message: bytes) -> dict[str, object]:
    try:
        value = parse_json_untrusted(message)
    except ValueError:
        raise ProtocolViolation("a message is not JSON") from None
    if not isinstance(value, dict):
        raise ProtocolViolation("a message is not a JSON object")
    return cast("dict[str, object]", value)
