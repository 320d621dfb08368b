"""From where a request may come: exact origins, compared as text.

SameSite=Strict does not keep sibling subdomains out, and a WebSocket's upgrade carries no Sec-Fetch-Site: the
Origin header is the check, the rest is a second one.
"""

from __future__ import annotations

from collections.abc import Mapping

from handclasp.service.frames import Refused

from .settings import SignInSettings

_HEADERS = Mapping[bytes, bytes | None]


class OriginRule:
    """The allow-list of a website."""

    def __init__(self, settings: SignInSettings) -> None:
        self._own = frozenset(settings.origins)
        self._mailboxes = self._own | frozenset(settings.wallets)

    def own_untrusted(self, headers: _HEADERS) -> str:
        """The origin of a request that changes something by virtue of a cookie; there has to be one.

        Raises:
            Refused: ``forbidden``: it is missing, opaque, there twice, or another one's.
        """
        origin = _text(headers.get(b"origin"))
        if origin is None or origin not in self._own:
            raise _forbidden()
        _check_fetch_site(headers, "same-origin")
        return origin

    def reading_untrusted(self, headers: _HEADERS) -> None:
        """Check a request that reads by virtue of a cookie; browsers send no Origin with these on the same origin.

        Raises:
            Refused: ``forbidden``: another site asks.
        """
        if b"origin" in headers and _text(headers[b"origin"]) not in self._own:
            raise _forbidden()
        _check_fetch_site(headers, "same-origin", "none")

    def mailbox_untrusted(self, headers: _HEADERS) -> str | None:
        """The origin of a request or upgrade that a token authorizes, None for programs that are no browser.

        Raises:
            Refused: ``forbidden``: it is there and not in the list.
        """
        if b"origin" not in headers:  # a browser sends one with every upgrade and every cross-origin request
            return None
        origin = _text(headers[b"origin"])
        if origin not in self._mailboxes:
            raise _forbidden()
        return origin


def _check_fetch_site(headers: _HEADERS, *allowed: str) -> None:
    if b"sec-fetch-site" in headers and _text(headers[b"sec-fetch-site"]) not in allowed:
        raise _forbidden()


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("latin-1")


def _forbidden() -> Refused:
    return Refused("forbidden", "requests from this origin are not allowed here", 403)
