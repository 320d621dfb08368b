"""JSON on the wire to frames and back, strictly: one spelling for every meaning, everything bounded.

Every refusal names the field at fault and repeats nothing of its value.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from .frames import (
    Accepted,
    Claim,
    ClientFrame,
    Close,
    Crowded,
    End,
    Error,
    Joined,
    Left,
    Message,
    Publish,
    Ready,
    Refused,
    ServerFrame,
    Subscribe,
    Topic,
)

MESSAGE_LENGTH = 65_535
"""Bytes of a message: the longest Noise message (Noise specification §3)."""

BODY_LENGTH = (MESSAGE_LENGTH * 4 + 2) // 3
"""Characters of such a message in base64url without padding."""

FRAME_LENGTH = 96 * 1024
"""Bytes of a frame or of a request's body: the longest message in base64url and the JSON around it."""

URL_LENGTH = 2 * 1024
"""Bytes of path and query: ours have 50. Long URLs only serve to fill logs and tables."""

_MOST_MESSAGES = 1_000_000_000  # bounds the digits that are turned into a number
_HEX_ID = re.compile(r"[0-9a-f]{32}")
_HEX_TOKEN = re.compile(r"[0-9a-f]{64}")
_BASE64URL = re.compile(r"[A-Za-z0-9_-]*")
_CLEAN_TAILS = {
    2: frozenset("AQgw"),
    3: frozenset("AEIMQUYcgkosw048"),
}  # last characters whose spare bits are zero
_SHOWN_LENGTH = 32  # of an unknown field's name

_Object = Mapping[str, object]
_NOT_A_COUNT = object()  # what a number that cannot be a count is read as, so that its field is named


class LinkBody(NamedTuple):
    """The body of ``POST /link``."""

    nonce: str
    body: str


def malformed(field: str, reason: str) -> Refused:
    """The refusal for input that is not what the protocol says."""
    return Refused("malformed", f"{field}: {reason}", 400)


def parse_frame_untrusted(text: str) -> ClientFrame:
    """Parse one text frame of a client.

    Raises:
        Refused: ``malformed`` with the field at fault.
    """
    data = _flat_object_untrusted(text, "frame")
    kind = _text_untrusted(data, "type")
    parser = _FRAMES.get(kind)
    if parser is None:
        raise malformed("type", "must be subscribe, claim, publish or close")
    return parser(data)


def parse_link_untrusted(body: bytes) -> LinkBody:
    """Parse the body of ``POST /link``.

    Raises:
        Refused: ``malformed`` with the field at fault.
    """
    data = _flat_object_untrusted(_utf8_untrusted(body), "body of the request")
    _only_untrusted(data, "nonce", "body")
    return LinkBody(_hex_untrusted(data, "nonce", _HEX_ID), _body_untrusted(data))


def parse_publish_untrusted(body: bytes) -> str:
    """Parse the body of ``POST /offer`` and ``POST /answer``.

    Raises:
        Refused: ``malformed`` with the field at fault.
    """
    data = _flat_object_untrusted(_utf8_untrusted(body), "body of the request")
    _only_untrusted(data, "body")
    return _body_untrusted(data)


def parse_challenge_untrusted(query: bytes) -> str:
    """Parse the query of ``GET /challenge``: the mailbox id.

    Raises:
        Refused: ``malformed`` with the field at fault.
    """
    # Not percent-decoded: an id has one spelling, and it needs no escapes.
    name, _, value = query.decode("latin-1").partition("=")
    if name != "mailbox":
        raise malformed("query", "must be mailbox=<id> and nothing else")
    return _hex_untrusted({"mailbox": value}, "mailbox", _HEX_ID)


def parse_bearer_untrusted(value: bytes | None) -> str | None:
    """The token of an ``Authorization`` header, or None when there is none in it that could be valid."""
    scheme, _, token = (value or b"").decode("latin-1").partition(" ")
    if scheme.lower() != "bearer" or not _HEX_TOKEN.fullmatch(token):
        return None
    return token


def encode_frame(frame: ServerFrame) -> str:
    """The text of a frame."""
    return json.dumps(_fields_of(frame), separators=(",", ":"))


def _fields_of(frame: ServerFrame) -> dict[str, object]:
    match frame:
        case Message(topic, n, body):
            return {"type": "message", "topic": topic, "n": n, "body": body}
        case Ready(role, expires_in, token, nonce):
            fields: dict[str, object] = {"type": "ready", "role": role, "expires_in": expires_in}
            return fields if token is None else {**fields, "token": token, "nonce": nonce}
        case End(code):
            return {"type": "end", "code": code, "detail": frame.detail}
        case Error(code, detail):
            return {"type": "error", "code": code, "detail": detail}
        case Accepted() | Joined() | Left() | Crowded():
            return {"type": _BARE[type(frame)]}


_BARE: Mapping[type[ServerFrame], str] = MappingProxyType(
    {Accepted: "accepted", Joined: "joined", Left: "left", Crowded: "crowded"}
)


def _subscribe_untrusted(data: _Object) -> Subscribe:
    _only_untrusted(data, "type", "token", "after")
    after = data["after"]
    if type(after) is not int:  # bool is an int to isinstance, and no count
        raise malformed("after", f"must be a whole number from 0 to {_MOST_MESSAGES - 1}")
    return Subscribe(_hex_untrusted(data, "token", _HEX_TOKEN), after)


def _claim_untrusted(data: _Object) -> Claim:
    _only_untrusted(data, "type", "mailbox")
    return Claim(_hex_untrusted(data, "mailbox", _HEX_ID))


def _publish_untrusted(data: _Object) -> Publish:
    _only_untrusted(data, "type", "topic", "body")
    topic = _TOPICS.get(_text_untrusted(data, "topic"))
    if topic is None:
        raise malformed("topic", "must be link, offer or answer")
    return Publish(topic, _body_untrusted(data))


def _close_untrusted(data: _Object) -> Close:
    _only_untrusted(data, "type")
    return Close()


_TOPICS: Mapping[str, Topic] = MappingProxyType({str(topic): topic for topic in Topic})
_FRAMES: Mapping[str, Callable[[_Object], ClientFrame]] = MappingProxyType(
    {
        "subscribe": _subscribe_untrusted,
        "claim": _claim_untrusted,
        "publish": _publish_untrusted,
        "close": _close_untrusted,
    }
)


def _flat_object_untrusted(text: str, what: str) -> _Object:
    if len(text) > FRAME_LENGTH:
        raise Refused("limit", f"{what}: is longer than {FRAME_LENGTH} bytes", 413)
    # No valid value holds a bracket: counting them bounds the depth before a recursive parser sees the text.
    if text.count("{") > 1 or "[" in text:
        raise malformed(what, "must be one flat JSON object")
    try:
        data: object = json.loads(
            text,
            object_pairs_hook=_unique_untrusted,
            parse_int=_count_untrusted,
            parse_float=_no_count,
            parse_constant=_no_count,
        )
    except ValueError:
        # Without its cause: the decoder's error holds the whole document.
        raise malformed(what, "is not JSON") from None
    if not isinstance(data, _Flat):
        raise malformed(what, "must be one flat JSON object")
    return data.fields


class _Flat(NamedTuple):
    """A parsed object, told apart from every other value that the parser can return."""

    fields: _Object


def _unique_untrusted(pairs: list[tuple[str, object]]) -> _Flat:
    fields: dict[str, object] = {}
    for name, value in pairs:
        if name in fields:
            raise malformed(_shown(name), "is there twice")
        fields[name] = value
    return _Flat(fields)


def _count_untrusted(digits: str) -> object:
    if digits.startswith("-") or len(digits) >= len(str(_MOST_MESSAGES)):
        return _NOT_A_COUNT
    return int(digits)


def _no_count(_text: str) -> object:
    return _NOT_A_COUNT


def _only_untrusted(data: _Object, *names: str) -> None:
    for name in names:
        if name not in data:
            raise malformed(name, "is missing")
    for name in data:
        if name not in names:
            raise malformed(_shown(name), "is unknown here")


def _shown(name: str) -> str:
    return ascii(name[:_SHOWN_LENGTH])


def _text_untrusted(data: _Object, name: str) -> str:
    value = data.get(name)
    if type(value) is not str:
        raise malformed(name, "is missing" if name not in data else "must be a text")
    return value


def _hex_untrusted(data: _Object, name: str, form: re.Pattern[str]) -> str:
    value = _text_untrusted(data, name)
    if not form.fullmatch(value):
        raise malformed(name, f"must be {64 if form is _HEX_TOKEN else 32} lower-case hexadecimal digits")
    return value


def _body_untrusted(data: _Object) -> str:
    value = _text_untrusted(data, "body")
    if len(value) > BODY_LENGTH:
        raise malformed("body", f"is longer than {MESSAGE_LENGTH} bytes")
    rest = len(value) % 4
    if not _BASE64URL.fullmatch(value) or (rest and value[-1] not in _CLEAN_TAILS.get(rest, ())):
        raise malformed("body", "must be base64url without padding, in its canonical form")
    return value


def _utf8_untrusted(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise malformed("body of the request", "is not UTF-8") from None
