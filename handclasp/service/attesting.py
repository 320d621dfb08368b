"""The service's word that a browser page of an origin opened a mailbox: ``GET /origin?mailbox=<id>``.

Browsers say truthfully which origin a page has; programs say what they like. So this is worth something only against
pages, and only as much as the service is: a wallet shows it as *attested*, never as verified.
Source: docs/protocols/origin-proof.md.
"""

from __future__ import annotations

import re
from collections import OrderedDict

import anyio

from .asgi import Request
from .frames import Refused
from .routes import Answer, finished, refusal
from .settings import Settings
from .wire import parse_challenge_untrusted

_ORIGIN = re.compile(rb"https?://[a-z0-9.:\[\]-]{1,270}")
_OK = 200


class Attestations:
    """Which origin opened which mailbox, for as long as a mailbox can live. In this process only."""

    def __init__(self, settings: Settings) -> None:
        self._most = settings.mailboxes
        self._life = settings.challenge_life + settings.pairing_life
        self._origins: OrderedDict[str, tuple[str, float]] = OrderedDict()

    def note_untrusted(self, request: Request, status: int) -> None:
        """Take note of a ``GET /challenge`` that was answered."""
        origin = request.headers.get(b"origin")
        if request.path != "/challenge" or status != _OK or origin is None or not _ORIGIN.fullmatch(origin):
            return
        now = anyio.current_time()
        while self._origins and (len(self._origins) >= self._most or self._first_until() <= now):
            self._origins.popitem(last=False)
        mailbox = parse_challenge_untrusted(request.query)
        self._origins.pop(mailbox, None)  # to the end, with its new time
        self._origins[mailbox] = origin.decode(), now + self._life

    def answer_untrusted(self, request: Request) -> Answer | None:
        """The answer to ``GET /origin``; None for everything else. A mailbox's id is known to its two parties only."""
        if request.path != "/origin" or request.method != "GET":
            return None
        try:
            origin, until = self._origins.get(parse_challenge_untrusted(request.query), ("", 0.0))
        except Refused as refused:
            return finished(refusal(refused))
        if until <= anyio.current_time():
            return finished(
                refusal(Refused("not_found", "no page of a browser opened this mailbox here", 404))
            )
        return finished(Answer(_OK, {"origin": origin}, []))

    def _first_until(self) -> float:
        return next(iter(self._origins.values()))[1]
