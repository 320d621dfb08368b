"""What a signaling service says to a party of a mailbox, as data (docs/protocols/mailbox.md)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from handclasp.errors import ProtocolViolation

from .answers import decode_untrusted, object_untrusted, optional_text_of, short, text_of

__all__ = ["Accepted", "Crowded", "End", "Event", "Frame", "Incoming", "Presence", "Ready", "frame_untrusted"]

#: Codes with which a socket ends and the mailbox does not: subscribe again.
_TEMPORARY = frozenset({"restart", "slow", "full"})


@dataclass(frozen=True)
class Ready:
    """The service let us in."""

    token: str | None
    nonce: str | None


@dataclass(frozen=True)
class Incoming:
    """A message from the other party, still sealed."""

    topic: str
    body: bytes
    n: int = 0
    """Its number; the service counts from 1."""


@dataclass(frozen=True)
class Presence:
    """The other party came or went."""

    here: bool


@dataclass(frozen=True)
class Crowded:
    """A third party tried to claim the mailbox and was refused: somebody else saw the QR code."""


@dataclass(frozen=True)
class Accepted:
    """The service has one more of our messages."""


@dataclass(frozen=True)
class End:
    """The socket is over, and the mailbox too unless it is temporary."""

    code: str
    detail: str

    @property
    def is_temporary(self) -> bool:
        """The mailbox goes on, on another socket."""
        return self.code in _TEMPORARY


Frame: TypeAlias = Ready | Incoming | Presence | Crowded | Accepted | End
Event: TypeAlias = Incoming | Presence | Crowded


def frame_untrusted(text: str | bytes) -> Frame:  # noqa: PLR0911 - one return for each kind of frame
    """Parse one frame of the service.

    Raises:
        ProtocolViolation: not a frame of the mailbox protocol.
    """
    frame = object_untrusted(text)
    match frame.get("type"):
        case "ready":
            return Ready(optional_text_of(frame, "token"), optional_text_of(frame, "nonce"))
        case "message":
            n = frame.get("n")
            if type(n) is not int:
                raise ProtocolViolation("no number in 'n'")
            return Incoming(text_of(frame, "topic"), decode_untrusted(text_of(frame, "body")), n)
        case "joined":
            return Presence(here=True)
        case "left":
            return Presence(here=False)
        case "crowded":
            return Crowded()
        case "accepted":
            return Accepted()
        case "end" | "error":
            return End(short(frame.get("code")), short(frame.get("detail")))
        case other:
            raise ProtocolViolation(f"the unknown frame {short(other)!r}")
