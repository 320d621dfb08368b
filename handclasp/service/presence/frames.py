"""What travels between the service and a peer, as data: docs/protocols/presence.md in types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum, auto
from types import MappingProxyType
from typing import TypeAlias

# From a peer


@dataclass(frozen=True)
class Prove:
    """The first frame: who it is, and that it is."""

    peer: str
    host: str
    signature: bytes


@dataclass(frozen=True)
class Advertise:
    """Be found under a topic, or replace the record there."""

    topic: str
    record: str


@dataclass(frozen=True)
class Withdraw:
    """Be found there no more."""

    topic: str


@dataclass(frozen=True)
class Find:
    """Be told who is under a topic, and every change."""

    topic: str


@dataclass(frozen=True)
class Unfind:
    """Be told no more."""

    topic: str


@dataclass(frozen=True)
class Listen:
    """Take channels from now on."""


@dataclass(frozen=True)
class Unlisten:
    """Take no more channels."""


@dataclass(frozen=True)
class Open:
    """A channel to a peer; the number is the client's choice."""

    channel: int
    peer: str


@dataclass(frozen=True)
class SendOn:
    """One message on a channel."""

    channel: int
    body: str


@dataclass(frozen=True)
class Close:
    """The end of a channel, for both."""

    channel: int


ClientFrame: TypeAlias = (
    Prove | Advertise | Withdraw | Find | Unfind | Listen | Unlisten | Open | SendOn | Close
)


class Stage(Enum):
    """How far a socket is."""

    NEW = auto()
    PRESENT = auto()
    OVER = auto()


#: What a socket may say when; any other order is malformed.
ORDER: Mapping[tuple[Stage, type[ClientFrame]], Stage] = MappingProxyType(
    {
        (Stage.NEW, Prove): Stage.PRESENT,
        (Stage.PRESENT, Advertise): Stage.PRESENT,
        (Stage.PRESENT, Withdraw): Stage.PRESENT,
        (Stage.PRESENT, Find): Stage.PRESENT,
        (Stage.PRESENT, Unfind): Stage.PRESENT,
        (Stage.PRESENT, Listen): Stage.PRESENT,
        (Stage.PRESENT, Unlisten): Stage.PRESENT,
        (Stage.PRESENT, Open): Stage.PRESENT,
        (Stage.PRESENT, SendOn): Stage.PRESENT,
        (Stage.PRESENT, Close): Stage.PRESENT,
    }
)

#: What makes work for others than the two ends of a channel, and is therefore limited in its rate.
COSTLY: tuple[type[ClientFrame], ...] = (Advertise, Withdraw, Find, Open)


# From the service


@dataclass(frozen=True)
class Challenge:
    """The first frame of all: what the proof has to sign."""

    nonce: str


@dataclass(frozen=True)
class Ready:
    """The proof is good."""


class What(StrEnum):
    """What was asked for, in an answer to it."""

    ADVERTISE = "advertise"
    WITHDRAW = "withdraw"
    FIND = "find"
    LISTEN = "listen"
    UNLISTEN = "unlisten"


@dataclass(frozen=True)
class Accepted:
    """What was asked for is done."""

    what: What
    topic: str | None = None


class RefusalCode(StrEnum):
    """Why a request had no effect."""

    LIMIT = "limit"
    FULL = "full"


@dataclass(frozen=True)
class Refusal:
    """An `Advertise` or a `Find` had no effect; the socket goes on."""

    what: What
    topic: str
    code: RefusalCode


@dataclass(frozen=True)
class Found:
    """A peer that is there, or has a new record."""

    topic: str
    peer: str
    record: str


@dataclass(frozen=True)
class Gone:
    """A peer that is there no more."""

    topic: str
    peer: str


@dataclass(frozen=True)
class Listed:
    """Who was there at `Find` has been told."""

    topic: str


@dataclass(frozen=True)
class Opened:
    """The other end exists."""

    channel: int


@dataclass(frozen=True)
class Incoming:
    """Somebody opens a channel."""

    channel: int


@dataclass(frozen=True)
class Message:
    """One message on a channel."""

    channel: int
    body: str


class CloseCode(StrEnum):
    """Why a channel is over."""

    CLOSED = "closed"
    UNREACHABLE = "unreachable"
    LEFT = "left"
    EXPIRED = "expired"
    LIMIT = "limit"


@dataclass(frozen=True)
class Closed:
    """A channel is over."""

    channel: int
    code: CloseCode


class EndCode(StrEnum):
    """Why a socket is over by nobody's fault."""

    REPLACED = "replaced"
    SHUTDOWN = "shutdown"


@dataclass(frozen=True)
class End:
    """The last frame of a socket that a newer one replaced, or whose service stops."""

    code: EndCode

    @property
    def detail(self) -> str:
        """The sentence for a person."""
        return _END_DETAILS[self.code]

    @property
    def close_status(self) -> int:
        """The WebSocket status that follows (RFC 6455 §7.4.1)."""
        return 1001 if self.code is EndCode.SHUTDOWN else 1000


_END_DETAILS: Mapping[EndCode, str] = MappingProxyType(
    {
        EndCode.REPLACED: "the same peer has connected again, from here or from elsewhere",
        EndCode.SHUTDOWN: "the service stops: come back in a moment",
    }
)


@dataclass(frozen=True)
class Error:
    """The last frame of a socket whose client is at fault."""

    code: str
    detail: str

    @property
    def close_status(self) -> int:
        """The WebSocket status that follows: 1013, try again later, when nobody broke a rule."""
        return 1013 if self.code in {"slow", "full"} else 1008


ChannelFrame: TypeAlias = Incoming | Message | Closed
ServerFrame: TypeAlias = (
    Challenge
    | Ready
    | Accepted
    | Refusal
    | Found
    | Gone
    | Listed
    | Opened
    | Incoming
    | Message
    | Closed
    | End
    | Error
)
