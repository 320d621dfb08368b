"""What this node knows of a topic that it finds, and who looks at it. The service is not believed."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import AsyncIterator

import trio

from handclasp.abc import PeerRecord
from handclasp.discovery.records import SignedRecord
from handclasp.errors import HandclaspError, ProtocolViolation
from handclasp.identity import PeerId

from .told import Found, Gone, Listed

__all__ = ["Finder", "Search"]

_log = logging.getLogger(__name__)

#: Peers under a topic of which this node keeps a record: twice what an honest service tells at once.
MAX_KNOWN = 2_048
#: Peers under a topic whose latest sequence number is remembered, also of those who have gone.
MAX_REMEMBERED = 4_096


class Finder(AsyncIterator[PeerRecord]):
    """Records that somebody has not looked at yet: of each peer the latest. A slow one holds up nobody."""

    def __init__(self) -> None:
        self._records: dict[PeerId, PeerRecord] = {}
        self._news = trio.Event()
        self._over: HandclaspError | None = None
        self._closed = False

    def put(self, record: PeerRecord) -> None:
        """There is something to look at."""
        self._records.pop(record.peer, None)
        self._records[record.peer] = record
        self._news.set()

    def end(self, why: HandclaspError | None) -> None:
        """There will be nothing more; None when nobody wants to look."""
        self._over, self._closed = why, True
        self._news.set()

    async def __anext__(self) -> PeerRecord:
        """Wait for the next record. Cancelling loses none.

        Raises:
            ServiceRefused: the service will tell no more of this topic.
        """
        await trio.lowlevel.checkpoint()
        while not self._records:
            if self._over is not None:
                raise self._over
            if self._closed:
                raise StopAsyncIteration
            self._news = trio.Event()
            await self._news.wait()
        return self._records.pop(next(iter(self._records)))


class Search:
    """A topic that is being found, by one finder or several."""

    def __init__(self, topic: bytes) -> None:
        self._topic = topic
        self._known: dict[PeerId, PeerRecord] = {}
        self._sequences: OrderedDict[PeerId, int] = OrderedDict()
        self._unlisted: set[PeerId] = set()  # known from before, and not told again on this connection
        self.finders: dict[Finder, None] = {}

    def add_finder(self) -> Finder:
        """One more looks; it begins with who is known already."""
        finder = Finder()
        for record in self._known.values():
            finder.put(record)
        self.finders[finder] = None
        return finder

    def begin(self) -> None:
        """The service is going to tell who is there from the beginning."""
        self._unlisted = set(self._known)

    def end(self, why: HandclaspError) -> None:
        """There will be nothing more."""
        for finder in self.finders:
            finder.end(why)

    def hear_untrusted(self, event: Found | Gone | Listed) -> None:
        """Take what the service says."""
        match event:
            case Found(_, peer, record):
                try:
                    self._take_untrusted(peer, record)
                except ProtocolViolation as exc:
                    _log.warning("a record that the signaling service told was dropped: %s", exc)
            case Gone(_, peer):
                self._known.pop(peer, None)
            case Listed():
                for peer in self._unlisted:
                    self._known.pop(peer, None)
                self._unlisted.clear()

    def _take_untrusted(self, peer: PeerId, data: bytes) -> None:
        signed = SignedRecord.from_bytes_untrusted(data, self._topic, now=time.time())
        if signed.record.peer != peer:
            raise ProtocolViolation("a record was told as another peer's")
        if signed.sequence < self._sequences.get(peer, 0):
            raise ProtocolViolation("a record was told again that its peer has replaced")
        if peer not in self._known and len(self._known) >= MAX_KNOWN:
            raise ProtocolViolation(f"more than {MAX_KNOWN} peers were told under one topic")
        self._sequences[peer] = signed.sequence
        self._sequences.move_to_end(peer)
        if len(self._sequences) > MAX_REMEMBERED:
            self._sequences.popitem(last=False)
        self._unlisted.discard(peer)
        if self._known.get(peer) != signed.record:
            self._known[peer] = signed.record
            for finder in self.finders:
                finder.put(signed.record)
