"""What the service tells a peer, as data. Source: docs/protocols/presence.md."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias

from handclasp.errors import ProtocolViolation
from handclasp.identity import PeerId

from .answers import decode_untrusted, object_untrusted, optional_text_of, short, text_of

__all__ = [
    "Accepted",
    "Challenge",
    "Closed",
    "End",
    "Event",
    "Found",
    "Gone",
    "Incoming",
    "Listed",
    "Message",
    "Opened",
    "Ready",
    "Refused",
    "Told",
    "told_untrusted",
]

_Frame: TypeAlias = dict[str, object]
_NONCE = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Challenge:
    """What the proof has to sign."""

    nonce: str


@dataclass(frozen=True)
class Ready:
    """The proof is good."""


@dataclass(frozen=True)
class Accepted:
    """What was asked for is done."""

    what: str
    topic: str | None


@dataclass(frozen=True)
class Refused:
    """What was asked for had no effect."""

    what: str
    topic: str
    code: str


@dataclass(frozen=True)
class Found:
    """A record under a topic, yet to be verified."""

    topic: str
    peer: PeerId
    record: bytes


@dataclass(frozen=True)
class Gone:
    """A peer is under a topic no more."""

    topic: str
    peer: PeerId


@dataclass(frozen=True)
class Listed:
    """Who was under a topic has been told."""

    topic: str


@dataclass(frozen=True)
class Opened:
    """A channel leads somewhere."""

    channel: int


@dataclass(frozen=True)
class Incoming:
    """Somebody opens a channel."""

    channel: int


@dataclass(frozen=True)
class Message:
    """One message on a channel, still sealed."""

    channel: int
    body: bytes


@dataclass(frozen=True)
class Closed:
    """A channel is over."""

    channel: int
    code: str


@dataclass(frozen=True)
class End:
    """The connection is over."""

    code: str
    detail: str


#: What concerns topics.
Event: TypeAlias = Found | Gone | Listed | Refused
Told: TypeAlias = Challenge | Ready | Accepted | Event | Opened | Incoming | Message | Closed | End


def told_untrusted(data: str | bytes) -> Told:
    """Parse one frame of the service.

    Raises:
        ProtocolViolation: not a frame of the presence protocol.
    """
    frame = object_untrusted(data)
    kind = text_of(frame, "type")
    if kind not in _PARSERS:
        raise ProtocolViolation(f"the unknown frame {short(kind)!r}")
    return _PARSERS[kind](frame)


def _challenge_untrusted(frame: _Frame) -> Challenge:
    # Exactly what a nonce looks like: the identity key signs it.
    nonce = text_of(frame, "nonce")
    if not _NONCE.fullmatch(nonce):
        raise ProtocolViolation("a nonce that is none")
    return Challenge(nonce)


def _accepted_untrusted(frame: _Frame) -> Accepted:
    return Accepted(text_of(frame, "what"), optional_text_of(frame, "topic"))


def _refused_untrusted(frame: _Frame) -> Refused:
    return Refused(text_of(frame, "what"), text_of(frame, "topic"), short(frame.get("code")))


def _found_untrusted(frame: _Frame) -> Found:
    record = decode_untrusted(text_of(frame, "record"))
    return Found(text_of(frame, "topic"), _peer_untrusted(frame), record)


def _message_untrusted(frame: _Frame) -> Message:
    return Message(_channel_untrusted(frame), decode_untrusted(text_of(frame, "body")))


def _peer_untrusted(frame: _Frame) -> PeerId:
    return PeerId.from_text_untrusted(text_of(frame, "peer"))


def _channel_untrusted(frame: _Frame) -> int:
    number = frame.get("channel")
    if type(number) is not int:
        raise ProtocolViolation("no number in 'channel'")
    return number


def _end_untrusted(frame: _Frame) -> End:
    return End(short(frame.get("code")), short(frame.get("detail")))


_PARSERS: Mapping[str, Callable[[_Frame], Told]] = MappingProxyType(
    {
        "challenge": _challenge_untrusted,
        "ready": lambda _: Ready(),
        "accepted": _accepted_untrusted,
        "refused": _refused_untrusted,
        "found": _found_untrusted,
        "gone": lambda frame: Gone(text_of(frame, "topic"), _peer_untrusted(frame)),
        "listed": lambda frame: Listed(text_of(frame, "topic")),
        "opened": lambda frame: Opened(_channel_untrusted(frame)),
        "incoming": lambda frame: Incoming(_channel_untrusted(frame)),
        "message": _message_untrusted,
        "closed": lambda frame: Closed(_channel_untrusted(frame), short(frame.get("code"))),
        "end": _end_untrusted,
        "error": _end_untrusted,
    }
)
