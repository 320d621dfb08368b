"""Who is under which topic, and who wants to know. No sockets, no queues."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from handclasp.service.settings import PresenceSettings


@dataclass
class _Topic:
    records: dict[str, str] = field(default_factory=dict[str, str])
    """Peer to record."""

    finders: dict[int, None] = field(default_factory=dict[int, None])
    """The connections that find it, in their order."""


class Topics:
    """Every topic that somebody advertises under or finds; the others take no room."""

    def __init__(self, settings: PresenceSettings) -> None:
        self._settings = settings
        self._topics: dict[str, _Topic] = {}
        self._length = 0

    def __len__(self) -> int:
        return len(self._topics)

    def records(self, topic: str) -> Mapping[str, str]:
        """Peer to record."""
        entry = self._topics.get(topic)
        return {} if entry is None else entry.records

    def finders(self, topic: str) -> Collection[int]:
        """The connections to tell of a change."""
        entry = self._topics.get(topic)
        return () if entry is None else entry.finders

    def put(self, topic: str, peer: str, record: str) -> bool:
        """Add a record, or replace it; False when there is no room."""
        records = self.records(topic)
        before = records.get(peer)
        grown = self._length + len(record) - len(before or "")
        if grown > self._settings.records_length or (
            before is None and len(records) >= self._settings.records
        ):
            return False
        self._length = grown
        self._topics.setdefault(topic, _Topic()).records[peer] = record
        return True

    def remove(self, topic: str, peer: str) -> bool:
        """Remove a record; False when there is none."""
        entry = self._topics.get(topic)
        record = None if entry is None else entry.records.pop(peer, None)
        if entry is None or record is None:
            return False
        self._length -= len(record)
        self._tidy(topic, entry)
        return True

    def find(self, topic: str, connection: int) -> None:
        """Add a finder."""
        self._topics.setdefault(topic, _Topic()).finders[connection] = None

    def unfind(self, topic: str, connection: int) -> None:
        """Remove a finder."""
        entry = self._topics.get(topic)
        if entry is not None:
            entry.finders.pop(connection, None)
            self._tidy(topic, entry)

    def _tidy(self, topic: str, entry: _Topic) -> None:
        if not entry.records and not entry.finders:
            del self._topics[topic]
