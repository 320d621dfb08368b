"""Frames of the presence protocol to and from their JSON, strictly."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType

from handclasp.errors import ProtocolViolation
from handclasp.identity import PeerId
from handclasp.service.strict import (
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

from .frames import (
    Accepted,
    Advertise,
    Challenge,
    ClientFrame,
    Close,
    Closed,
    End,
    Error,
    Find,
    Found,
    Gone,
    Incoming,
    Listed,
    Listen,
    Message,
    Open,
    Opened,
    Prove,
    Ready,
    Refusal,
    SendOn,
    ServerFrame,
    Unfind,
    Unlisten,
    Withdraw,
)

RECORD_LENGTH = 4_096
"""Bytes of a record: 16 addresses of usual length and a signature."""

_TOPIC_DIGITS = 64
_SIGNATURE_LENGTH = 64
_HOST = re.compile(r"[A-Za-z0-9._:\[\]-]{1,261}")  # a DNS name of 253 characters, a colon and a port


def parse_frame_untrusted(text: str) -> ClientFrame:
    """Parse one text frame of a peer.

    Raises:
        Refused: ``malformed`` with the field at fault.
    """
    data = flat_object_untrusted(text, "frame")
    parser = _FRAMES.get(text_untrusted(data, "type"))
    if parser is None:
        raise malformed("type", f"must be one of {', '.join(_FRAMES)}")
    return parser(data)


def encode_frame(frame: ServerFrame) -> str:
    """The text of a frame."""
    fields: dict[str, object] = {"type": _TYPES[type(frame)], **vars(frame)}
    if isinstance(frame, End):
        fields["detail"] = frame.detail
    if isinstance(frame, Accepted) and frame.topic is None:
        del fields["topic"]
    return json.dumps(fields, separators=(",", ":"))


_TYPES: Mapping[type[ServerFrame], str] = MappingProxyType(
    {
        Challenge: "challenge",
        Ready: "ready",
        Accepted: "accepted",
        Refusal: "refused",
        Found: "found",
        Gone: "gone",
        Listed: "listed",
        Opened: "opened",
        Incoming: "incoming",
        Message: "message",
        Closed: "closed",
        End: "end",
        Error: "error",
    }
)


def _prove_untrusted(data: Object) -> Prove:
    only_untrusted(data, "type", "peer", "host", "signature")
    host = text_untrusted(data, "host")
    if not _HOST.fullmatch(host):
        raise malformed("host", "must be a host and, if need be, a port, as in the Host header")
    signature = _bytes_untrusted(data, "signature", _SIGNATURE_LENGTH)
    return Prove(_peer_untrusted(data), host, base64.urlsafe_b64decode(signature + "=="))


def _advertise_untrusted(data: Object) -> Advertise:
    only_untrusted(data, "type", "topic", "record")
    return Advertise(_topic_untrusted(data), _bytes_untrusted(data, "record", RECORD_LENGTH))


def _about_topic(kind: Callable[[str], ClientFrame]) -> Callable[[Object], ClientFrame]:
    def parse_untrusted(data: Object) -> ClientFrame:
        only_untrusted(data, "type", "topic")
        return kind(_topic_untrusted(data))

    return parse_untrusted


def _bare(kind: Callable[[], ClientFrame]) -> Callable[[Object], ClientFrame]:
    def parse_untrusted(data: Object) -> ClientFrame:
        only_untrusted(data, "type")
        return kind()

    return parse_untrusted


def _open_untrusted(data: Object) -> Open:
    only_untrusted(data, "type", "channel", "peer")
    return Open(count_untrusted(data, "channel"), _peer_untrusted(data))


def _send_untrusted(data: Object) -> SendOn:
    only_untrusted(data, "type", "channel", "body")
    return SendOn(count_untrusted(data, "channel"), _bytes_untrusted(data, "body", MESSAGE_LENGTH))


def _close_untrusted(data: Object) -> Close:
    only_untrusted(data, "type", "channel")
    return Close(count_untrusted(data, "channel"))


_FRAMES: Mapping[str, Callable[[Object], ClientFrame]] = MappingProxyType(
    {
        "prove": _prove_untrusted,
        "advertise": _advertise_untrusted,
        "withdraw": _about_topic(Withdraw),
        "find": _about_topic(Find),
        "unfind": _about_topic(Unfind),
        "listen": _bare(Listen),
        "unlisten": _bare(Unlisten),
        "open": _open_untrusted,
        "send": _send_untrusted,
        "close": _close_untrusted,
    }
)


def _bytes_untrusted(data: Object, name: str, longest: int) -> str:
    value = base64url_untrusted(data, name, longest)
    if not value:
        raise malformed(name, "is empty")
    return value


def _topic_untrusted(data: Object) -> str:
    return hex_untrusted(data, "topic", _TOPIC_DIGITS)


def _peer_untrusted(data: Object) -> str:
    peer = text_untrusted(data, "peer")
    try:
        PeerId.from_text_untrusted(peer)
    except ProtocolViolation:
        raise malformed("peer", "must be the base58 text of an Ed25519 peer id") from None
    return peer
