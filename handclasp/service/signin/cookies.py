"""The two cookies: read strictly, written in one way.

A sibling subdomain can put cookies beside ours ("tossing"); the ``__Host-`` prefix keeps a browser from taking
one with our name, and what gets past it (old browsers, names that other parsers trim or decode) is refused here: a
name counts only byte by byte, and a name that is there twice counts as not there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import cast

from handclasp.service.asgi import Scope

_SECRET = re.compile(r"[0-9a-f]{64}")
_LONGEST = 16 * 1024  # bytes of all cookies of a request; servers allow less or little more


def read_cookie_untrusted(scope: Scope, name: str) -> str | None:
    """The value of the cookie *name*: 64 hexadecimal digits, or None for anything else.

    Cookies may come in several headers (RFC 9113 §8.2.3).
    """
    headers = cast("Iterable[tuple[bytes, bytes]]", scope["headers"])
    lines = [value for key, value in headers if key == b"cookie"]
    if sum(map(len, lines)) > _LONGEST:
        return None
    values = [
        value
        for line in lines
        for pair in line.decode("latin-1").split(";")
        for key, separator, value in [pair.removeprefix(" ").partition("=")]
        if separator and key == name
    ]
    if len(values) != 1 or not _SECRET.fullmatch(values[0]):
        return None
    return values[0]


def set_cookie(name: str, value: str, life: int) -> tuple[bytes, bytes]:
    """The header that sets a cookie for *life* seconds; 0 deletes it (RFC 6265bis §4.1.3.2)."""
    text = f"{name}={value}; Path=/; Max-Age={life}; Secure; HttpOnly; SameSite=Strict"
    return b"set-cookie", text.encode()
