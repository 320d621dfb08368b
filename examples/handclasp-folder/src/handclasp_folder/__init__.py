"""Discovery through a shared folder: one small JSON file for each peer and topic."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import trio

from handclasp.abc import Context, Discovery, DiscoveryFactory, PeerRecord
from handclasp.errors import ConfigurationError, ProtocolViolation, WorldFault
from handclasp.identity import PeerId

__all__ = ["folder", "from_url"]

#: Seconds between two looks into the folder. Network shares tell of changes late or never, so looking is the only way.
INTERVAL = 0.5
#: Bytes of a record that are read: 32 addresses of 1,024 characters, and what stands around them.
LARGEST_RECORD = 40_000
#: Records of one topic that are read; whoever may write to the folder could leave any number there.
MOST_RECORDS = 1_000


def folder(path: str | os.PathLike[str], *, interval: float = INTERVAL) -> DiscoveryFactory:
    """Discovery for `handclasp.open_node`: peers that share the folder *path* find each other.

    Args:
        path: the folder, which exists and may be written to.
        interval: seconds between two looks.
    """

    @asynccontextmanager
    async def open_folder(context: Context) -> AsyncGenerator[Discovery]:
        root = trio.Path(path)
        if not await root.is_dir():
            raise ConfigurationError(f"{root} is not a folder")
        yield _FolderDiscovery(root, interval)

    return open_folder


def from_url(url: str) -> DiscoveryFactory:
    """The backend of ``folder:///srv/peers``: what the entry point of this distribution names."""
    parts = urlsplit(url)
    if parts.netloc or not parts.path.startswith("/"):
        raise ConfigurationError(f"{url}: a folder is named by its whole path, as in folder:///srv/peers")
    return folder(unquote(parts.path))


class _FolderDiscovery(Discovery):
    def __init__(self, root: trio.Path, interval: float) -> None:
        self._root = root
        self._interval = interval

    def advertise(self, topic: str, me: PeerRecord) -> AbstractAsyncContextManager[None]:
        self.check_topic(topic)
        return self._advertise(self._topic_folder(topic), me)

    def find(self, topic: str) -> AbstractAsyncContextManager[AsyncIterator[PeerRecord]]:
        self.check_topic(topic)
        return self._find(self._topic_folder(topic))

    def _topic_folder(self, topic: str) -> trio.Path:
        # A topic may be any text, also "../x", and file systems differ about letters: so its digest names the folder.
        digest = hashlib.sha256(topic.encode()).digest()
        return self._root / base64.b32encode(digest).decode().rstrip("=").lower()

    @asynccontextmanager
    async def _advertise(self, where: trio.Path, me: PeerRecord) -> AsyncGenerator[None]:
        file = where / f"{secrets.token_hex(16)}.json"
        try:
            await _write(file, json.dumps({"peer": str(me.peer), "addresses": me.addresses}))
            yield
        finally:
            with trio.CancelScope(shield=True), suppress(OSError):  # a record must not outlive its peer
                await file.with_suffix(".new").unlink(missing_ok=True)
                await file.unlink(missing_ok=True)

    @asynccontextmanager
    async def _find(self, where: trio.Path) -> AsyncGenerator[AsyncIterator[PeerRecord]]:
        yield _Finder(Path(where), self._interval)


async def _write(file: trio.Path, record: str) -> None:
    """Write beside it and rename: nobody reads half a record."""
    try:
        await file.parent.mkdir(exist_ok=True)
        await file.with_suffix(".new").write_text(record)
        await file.with_suffix(".new").rename(file)
    except OSError as exc:
        raise WorldFault(f"the shared folder cannot be written to: {exc}") from exc


class _Finder(AsyncIterator[PeerRecord]):
    """Looks into a topic's folder whenever it is asked for more."""

    def __init__(self, where: Path, interval: float) -> None:
        self._where = where
        self._interval = interval
        self._known: dict[str, PeerRecord] = {}
        self._found: list[PeerRecord] = []

    async def __anext__(self) -> PeerRecord:
        while True:
            if self._found:
                await trio.lowlevel.checkpoint()
                return self._found.pop(0)
            known = await trio.to_thread.run_sync(_read, self._where, self._known)
            self._found = [record for file, record in known.items() if file not in self._known]
            self._known = known
            if not self._found:
                await trio.sleep(self._interval)


def _read(where: Path, known: dict[str, PeerRecord]) -> dict[str, PeerRecord]:
    """The records that lie in a folder, by file; those that are known are not read again."""
    found: dict[str, PeerRecord] = {}
    for file in islice(where.glob("*.json"), MOST_RECORDS):
        record = known.get(file.name) or _read_record(file)
        if record is not None:
            found[file.name] = record
    return found


def _read_record(file: Path) -> PeerRecord | None:
    """The record in a file, or None where there is none: others write to this folder, too."""
    try:
        if not file.is_file():  # opening a pipe would wait for whoever writes to it
            return None
        with file.open("rb") as source:
            data: Any = json.loads(source.read(LARGEST_RECORD))
        peer, addresses = data["peer"], data["addresses"]
        if not all(isinstance(text, str) for text in [peer, *addresses]):
            return None
        return PeerRecord(PeerId.from_text_untrusted(peer), tuple(addresses))
    except (OSError, ValueError, TypeError, KeyError, RecursionError, ProtocolViolation):
        return None
