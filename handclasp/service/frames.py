"""What travels between the service and its two parties, as data: docs/protocols/mailbox.md in types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import TypeAlias

from handclasp.errors import PeerFault


class Role(StrEnum):
    """One of the two parties of a mailbox."""

    WEBSITE = "website"
    WALLET = "wallet"

    @property
    def other(self) -> Role:
        """The party at the other end."""
        return Role.WALLET if self is Role.WEBSITE else Role.WEBSITE


class Topic(StrEnum):
    """What a message is about; each topic has one publisher."""

    LINK = "link"
    OFFER = "offer"
    ANSWER = "answer"


#: Who may publish; the other party receives.
PUBLISHER: Mapping[Topic, Role] = MappingProxyType(
    {Topic.LINK: Role.WALLET, Topic.OFFER: Role.WEBSITE, Topic.ANSWER: Role.WALLET}
)


class Refused(PeerFault):
    """The service declines a request or a frame; the code and the sentence are for the client.

    Never holds what the client sent beyond the name of a field, so it may be shown and logged.

    Attributes:
        code: one of the codes of docs/protocols/mailbox.md.
        detail: a sentence that says what to do differently.
        status: the HTTP status of the answer; on a WebSocket, `Error.close_status` counts.
        retry_after: seconds after which asking again has a chance, where that is known.
    """

    def __init__(self, code: str, detail: str, status: int, *, retry_after: float | None = None) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail
        self.status = status
        self.retry_after = retry_after


# From a client


@dataclass(frozen=True)
class Subscribe:
    """The first frame of a party that has its token."""

    token: str
    after: int
    away: int | None = None
    """Seconds that it may be gone after this socket; None for what the service thinks right."""


@dataclass(frozen=True)
class Claim:
    """The first frame of the wallet, once; again only with the same *by*, a secret of its own."""

    mailbox: str
    by: str | None = None
    away: int | None = None


@dataclass(frozen=True)
class Publish:
    """One message for the other party; the sender's number for it, if it counts them."""

    topic: Topic
    body: str
    n: int = 0


@dataclass(frozen=True)
class Close:
    """The end of the mailbox, for both."""


ClientFrame: TypeAlias = Subscribe | Claim | Publish | Close


# From the service


@dataclass(frozen=True)
class Ready:
    """The answer to the first frame; token and nonce only when it was a claim."""

    role: Role
    expires_in: int
    token: str | None = None
    nonce: str | None = None


@dataclass(frozen=True)
class Message:
    """One message; *n* counts from 1 for each receiving party, without gaps."""

    topic: Topic
    n: int
    body: str


@dataclass(frozen=True)
class Accepted:
    """The service has one more message of this socket; in the order in which they came."""


@dataclass(frozen=True)
class Joined:
    """The other party is connected."""


@dataclass(frozen=True)
class Left:
    """The other party's socket broke; it has the grace period to come back."""


@dataclass(frozen=True)
class Crowded:
    """A third party tried to claim this mailbox and was refused: somebody else saw the QR code."""


class EndCode(StrEnum):
    """Why it is over."""

    CLOSED = "closed"
    LEFT = "left"
    EXPIRED = "expired"
    REPLACED = "replaced"
    SHUTDOWN = "shutdown"
    RESTART = "restart"
    LOST = "lost"


@dataclass(frozen=True)
class End:
    """The last frame of a socket whose mailbox is over, or that a newer socket replaced."""

    code: EndCode

    @property
    def detail(self) -> str:
        """The sentence for a person."""
        return _END_DETAILS[self.code]

    @property
    def close_status(self) -> int:
        """The WebSocket status that follows (RFC 6455 §7.4.1 and its registry: 1012 is "service restart")."""
        return _END_STATUS.get(self.code, 1000)


_END_DETAILS: Mapping[EndCode, str] = MappingProxyType(
    {
        EndCode.CLOSED: "one of the two said that they are done",
        EndCode.LEFT: "the other side disconnected and did not come back: start again with a new invitation",
        EndCode.EXPIRED: "the time is over: start again with a new invitation",
        EndCode.REPLACED: "the same token subscribed from a newer socket: go on there",
        EndCode.SHUTDOWN: "the service stops: start again with a new invitation",
        EndCode.RESTART: "this part of the service stops, your mailbox does not: subscribe again",
        EndCode.LOST: "the service has lost this mailbox: start again with a new invitation",
    }
)
_END_STATUS: Mapping[EndCode, int] = MappingProxyType({EndCode.SHUTDOWN: 1001, EndCode.RESTART: 1012})


@dataclass(frozen=True)
class Error:
    """The last frame of a socket whose client is at fault."""

    code: str
    detail: str

    @property
    def close_status(self) -> int:
        """The WebSocket status that follows: 1013, try again later, when nobody broke a rule."""
        return 1013 if self.code in {"slow", "full"} else 1008


ServerFrame: TypeAlias = Ready | Message | Accepted | Joined | Left | Crowded | End | Error
