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
    only_untrusted(data, "nonce", "body")
    return LinkBody(
        hex_untrusted(data, "nonce", _ID_DIGITS), base64url_untrusted(data, "body", MESSAGE_LENGTH)
    )


def parse_publish_untrusted(body: bytes) -> str:
    """Parse the body of ``POST /offer`` and ``POST /answer``.

    Raises:
        Refused: ``malformed`` with the field at fault.
    """
    data = flat_object_untrusted(_utf8_untrusted(body), "body of the request")
    only_untrusted(data, "body")
    return base64url_untrusted(data, "body", MESSAGE_LENGTH)


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


def _subscribe_untrusted(data: Object) -> Subscribe:
    only_untrusted(data, "type", "token", "after")
    after = count_untrusted(data, "after")
    return Subscribe(hex_untrusted(data, "token", _TOKEN_DIGITS), after)


def _claim_untrusted(data: Object) -> Claim:
    only_untrusted(data, "type", "mailbox")
    return Claim(hex_untrusted(data, "mailbox", _ID_DIGITS))


def _publish_untrusted(data: Object) -> Publish:
    only_untrusted(data, "type", "topic", "body")
    topic = _TOPICS.get(text_untrusted(data, "topic"))
    if topic is None:
        raise malformed("topic", "must be link, offer or answer")
    return Publish(topic, base64url_untrusted(data, "body", MESSAGE_LENGTH))


def _close_untrusted(data: Object) -> Close:
    only_untrusted(data, "type")
    return Close()


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
