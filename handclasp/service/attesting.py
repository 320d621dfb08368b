"""The service's word that a browser page of an origin opened a mailbox: ``GET /origin?mailbox=<id>``.

Browsers say truthfully which origin a page has; programs say what they like. So this is worth something only against
pages, and only as much as the service is: a wallet shows it as *attested*, never as verified.
Source: docs/protocols/origin-proof.md.
"""

from __future__ import annotations

import re
from collections import OrderedDict

import anyio

from .settings import Settings

_ORIGIN = re.compile(rb"https?://[a-z0-9.:\[\]-]{1,270}")


class Attestations:
    """Which origin opened which mailbox, for as long as a mailbox can live. In this process only."""

    def __init__(self, settings: Settings) -> None:
        self._most = settings.mailboxes
        self._life = settings.challenge_life + settings.pairing_life
        self._origins: OrderedDict[str, tuple[str, float]] = OrderedDict()

    def note_untrusted(self, mailbox: str, origin: bytes | None) -> None:
        """Take note of who opened a mailbox: the Origin header of the request."""
        if origin is None or not _ORIGIN.fullmatch(origin):
            return
        now = anyio.current_time()
        while self._origins and (len(self._origins) >= self._most or self._first_until() <= now):
            self._origins.popitem(last=False)
        self._origins.pop(mailbox, None)  # to the end, with its new time
        self._origins[mailbox] = origin.decode(), now + self._life

    def origin_of(self, mailbox: str) -> str | None:
        """The origin whose page opened this mailbox; its id is known to its two parties only."""
        origin, until = self._origins.get(mailbox, (None, 0.0))
        return origin if until > anyio.current_time() else None

    def _first_until(self) -> float:
        return next(iter(self._origins.values()))[1]
