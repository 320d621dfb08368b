"""JSON from strangers, strictly: one flat object, one spelling for every value, everything bounded.

Every refusal names the field at fault and repeats nothing of its value.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from typing import NamedTuple, TypeAlias

from .frames import Refused

FRAME_LENGTH = 96 * 1024
"""Bytes of a frame or of a request's body: the longest message in base64url and the JSON around it."""

MESSAGE_LENGTH = 65_535
"""Bytes of a message: the longest Noise message (Noise specification §3)."""

BODY_LENGTH = (MESSAGE_LENGTH * 4 + 2) // 3
"""Characters of such a message in base64url without padding."""

HIGHEST_COUNT = 999_999_999
"""Of any number in a frame: bounds the digits that are turned into a number."""

Object: TypeAlias = Mapping[str, object]

_HEX = re.compile(r"[0-9a-f]*")
_BASE64URL = re.compile(r"[A-Za-z0-9_-]*")
_CLEAN_TAILS = {
    2: frozenset("AQgw"),
    3: frozenset("AEIMQUYcgkosw048"),
}  # last characters whose spare bits are zero
_SHOWN_LENGTH = 32  # of an unknown field's name
_NOT_A_COUNT = object()  # what a number that cannot be a count is read as, so that its field is named


def malformed(field: str, reason: str) -> Refused:
    """The refusal for input that is not what the protocol says."""
    return Refused("malformed", f"{field}: {reason}", 400)


def flat_object_untrusted(text: str, what: str, *, brackets: int = 1) -> Object:
    """The one JSON object in *text*, with neither objects nor lists in it; its values hold so many brackets."""
    if len(text) > FRAME_LENGTH:
        raise Refused("limit", f"{what}: is longer than {FRAME_LENGTH} bytes", 413)
    # No valid value holds a brace, and only a host that is an IPv6 address holds a bracket: counting them bounds
    # the depth before a recursive parser sees the text.
    if text.count("{") > 1 or text.count("[") > brackets:
        raise malformed(what, "must be one flat JSON object")
    try:
        data: object = json.loads(
            text,
            object_pairs_hook=_unique_untrusted,
            parse_int=_whole_untrusted,
            parse_float=_no_count,
            parse_constant=_no_count,
        )
    except ValueError:
        # Without its cause: the decoder's error holds the whole document.
        raise malformed(what, "is not JSON") from None
    if not isinstance(data, _Flat) or any(isinstance(value, list) for value in data.fields.values()):
        raise malformed(what, "must be one flat JSON object")
    return data.fields


class _Flat(NamedTuple):
    """A parsed object, told apart from every other value that the parser can return."""

    fields: Object


def _unique_untrusted(pairs: list[tuple[str, object]]) -> _Flat:
    fields: dict[str, object] = {}
    for name, value in pairs:
        if name in fields:
            raise malformed(_shown(name), "is there twice")
        fields[name] = value
    return _Flat(fields)


def _whole_untrusted(digits: str) -> object:
    if digits.startswith("-") or len(digits) > len(str(HIGHEST_COUNT)):
        return _NOT_A_COUNT
    return int(digits)


def _no_count(_text: str) -> object:
    return _NOT_A_COUNT


def only_untrusted(data: Object, *names: str, perhaps: Collection[str] = ()) -> None:
    """Exactly the fields *names*; those in *perhaps* may be there."""
    for name in names:
        if name not in data:
            raise malformed(name, "is missing")
    for name in data:
        if name not in names and name not in perhaps:
            raise malformed(_shown(name), "is unknown here")


def _shown(name: str) -> str:
    return ascii(name[:_SHOWN_LENGTH])


def text_untrusted(data: Object, name: str) -> str:
    """A text."""
    value = data.get(name)
    if type(value) is not str:
        raise malformed(name, "is missing" if name not in data else "must be a text")
    return value


def count_untrusted(data: Object, name: str) -> int:
    """A whole number from 0 to `HIGHEST_COUNT`."""
    value = data[name]
    if type(value) is not int:  # bool is an int to isinstance, and no count
        raise malformed(name, f"must be a whole number from 0 to {HIGHEST_COUNT}")
    return value


def hex_untrusted(data: Object, name: str, digits: int) -> str:
    """Exactly *digits* lower-case hexadecimal digits."""
    value = text_untrusted(data, name)
    if len(value) != digits or not _HEX.fullmatch(value):
        raise malformed(name, f"must be {digits} lower-case hexadecimal digits")
    return value


def base64url_untrusted(data: Object, name: str, longest: int) -> str:
    """At most *longest* bytes as base64url without padding, in its canonical form; not decoded."""
    value = text_untrusted(data, name)
    if len(value) > (longest * 4 + 2) // 3:
        raise malformed(name, f"is longer than {longest} bytes")
    rest = len(value) % 4
    if not _BASE64URL.fullmatch(value) or (rest and value[-1] not in _CLEAN_TAILS.get(rest, ())):
        raise malformed(name, "must be base64url without padding, in its canonical form")
    return value
