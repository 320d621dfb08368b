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
    ServerFrame,
    Subscribe,
    Topic,
)
from .strict import (
    MESSAGE_LENGTH,
    Object,
    base64url_untrusted,
    count_untrusted,
    flat_object_untrusted,
    hex_untrusted,
    malformed,
    only_untrusted,
    text_untrusted,
)

URL_LENGTH = 2 * 1024
"""Bytes of path and query: ours have 50. Long URLs only serve to fill logs and tables."""

_ID_DIGITS = 32
_TOKEN_DIGITS = 64
_TOKEN = re.compile(r"[0-9a-f]{64}")


class LinkBody(NamedTuple):
    """The body of ``POST /link``."""

    nonce: str
    body: str
    n: int


class PublishBody(NamedTuple):
    """The body of ``POST /offer`` and ``POST /answer``."""

    body: str
    n: int


def parse_frame_untrusted(text: str) -> ClientFrame:
    """Parse one text frame of a client.

    Raises:
        Refused: ``malformed`` with the field at fault.
    """
    data = flat_object_untrusted(text, "frame")
    kind = text_untrusted(data, "type")
    parser = _FRAMES.get(kind)
    if parser is None:
        raise malformed("type", "must be subscribe, claim, publish or close")
    return parser(data)


def parse_link_untrusted(body: bytes) -> LinkBody:
    """Parse the body of ``POST /link``.

    Raises:
        Refused: ``malformed`` with the field at fault.
    """
    data = flat_object_untrusted(_utf8_untrusted(body), "body of the request")
    only_untrusted(data, "nonce", "body", perhaps=_NUMBER)
    return LinkBody(
        hex_untrusted(data, "nonce", _ID_DIGITS),
        base64url_untrusted(data, "body", MESSAGE_LENGTH),
        _number_untrusted(data),
    )


def parse_publish_untrusted(body: bytes) -> PublishBody:
    """Parse the body of ``POST /offer`` and ``POST /answer``.

    Raises:
        Refused: ``malformed`` with the field at fault.
    """
    data = flat_object_untrusted(_utf8_untrusted(body), "body of the request")
    only_untrusted(data, "body", perhaps=_NUMBER)
    return PublishBody(base64url_untrusted(data, "body", MESSAGE_LENGTH), _number_untrusted(data))


def parse_challenge_untrusted(query: bytes) -> str:
    """Parse the query of ``GET /challenge``: the mailbox id.

    Raises:
        Refused: ``malformed`` with the field at fault.
    """
    # Not percent-decoded: an id has one spelling, and it needs no escapes.
    name, _, value = query.decode("latin-1").partition("=")
    if name != "mailbox":
        raise malformed("query", "must be mailbox=<id> and nothing else")
    return hex_untrusted({"mailbox": value}, "mailbox", _ID_DIGITS)


def parse_bearer_untrusted(value: bytes | None) -> str | None:
    """The token of an ``Authorization`` header, or None when there is none in it that could be valid."""
    scheme, _, token = (value or b"").decode("latin-1").partition(" ")
    if scheme.lower() != "bearer" or not _TOKEN.fullmatch(token):
        return None
    return token


def encode_frame(frame: ServerFrame) -> str:
    """The text of a frame."""
    if isinstance(frame, Message):  # nearly all of them, and nothing in them needs an escape
        return f'{{"type":"message","topic":"{frame.topic.value}","n":{frame.n},"body":"{frame.body}"}}'
    return _ACCEPTED if isinstance(frame, Accepted) else json.dumps(_fields_of(frame), separators=(",", ":"))


def _fields_of(frame: Ready | Accepted | Joined | Left | Crowded | End | Error) -> dict[str, object]:
    match frame:
        case Ready(role, expires_in, token, nonce):
            fields: dict[str, object] = {"type": "ready", "role": role, "expires_in": expires_in}
            secrets = {"token": token, "nonce": nonce}
            return fields | {name: value for name, value in secrets.items() if value is not None}
        case End(code):
            return {"type": "end", "code": code, "detail": frame.detail}
        case Error(code, detail):
            return {"type": "error", "code": code, "detail": detail}
        case Accepted() | Joined() | Left() | Crowded():
            return {"type": _BARE[type(frame)]}


_BARE: Mapping[type[ServerFrame], str] = MappingProxyType(
    {Accepted: "accepted", Joined: "joined", Left: "left", Crowded: "crowded"}
)
_ACCEPTED = '{"type":"accepted"}'


def _subscribe_untrusted(data: Object) -> Subscribe:
    only_untrusted(data, "type", "token", "after", perhaps=_AWAY)
    after = count_untrusted(data, "after")
    return Subscribe(hex_untrusted(data, "token", _TOKEN_DIGITS), after, _away_untrusted(data))


def _claim_untrusted(data: Object) -> Claim:
    only_untrusted(data, "type", "mailbox", perhaps=_CLAIM)
    mailbox = hex_untrusted(data, "mailbox", _ID_DIGITS)
    by = hex_untrusted(data, "by", _TOKEN_DIGITS) if "by" in data else None
    return Claim(mailbox, by, _away_untrusted(data))


def _publish_untrusted(data: Object) -> Publish:
    only_untrusted(data, "type", "topic", "body", perhaps=_NUMBER)
    topic = _TOPICS.get(text_untrusted(data, "topic"))
    if topic is None:
        raise malformed("topic", "must be link, offer or answer")
    return Publish(topic, base64url_untrusted(data, "body", MESSAGE_LENGTH), _number_untrusted(data))


def _number_untrusted(data: Object) -> int:
    if "n" not in data:
        return 0
    n = count_untrusted(data, "n")
    if n == 0:
        raise malformed("n", "counts from 1")
    return n


def _away_untrusted(data: Object) -> int | None:
    if "away" not in data:
        return None
    away = count_untrusted(data, "away")
    if away == 0:
        raise malformed("away", "must be at least a second")
    return away


def _close_untrusted(data: Object) -> Close:
    only_untrusted(data, "type")
    return Close()


_NUMBER = ("n",)
_AWAY = ("away",)
_CLAIM = ("by", "away")
_TOPICS: Mapping[str, Topic] = MappingProxyType({str(topic): topic for topic in Topic})
_FRAMES: Mapping[str, Callable[[Object], ClientFrame]] = MappingProxyType(
    {
        "subscribe": _subscribe_untrusted,
        "claim": _claim_untrusted,
        "publish": _publish_untrusted,
        "close": _close_untrusted,
    }
)


def _utf8_untrusted(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise malformed("body of the request", "is not UTF-8") from None
