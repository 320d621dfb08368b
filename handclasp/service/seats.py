"""What a socket is to the hub: a seat at a mailbox, the order of its frames, and what comes back for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from types import MappingProxyType
from typing import TypeAlias

from .frames import Claim, ClientFrame, Close, Publish, Refused, Role, ServerFrame, Subscribe
from .mailbox import Mailbox


@dataclass(slots=True)
class Delivery:
    """A frame to send; *replayed* when it was sent before, to an earlier socket or to none."""

    connection: int
    frame: ServerFrame
    replayed: bool = False


@dataclass(frozen=True)
class Note:
    """Something for the log. The label stands for the mailbox and leads nowhere."""

    label: str
    event: str


Effect: TypeAlias = Delivery | Note


class Stage(Enum):
    """How far a socket is."""

    NEW = auto()
    SEATED = auto()
    OVER = auto()


#: What a socket may say when; any other order is malformed.
ORDER: Mapping[tuple[Stage, type[ClientFrame]], Stage] = MappingProxyType(
    {
        (Stage.NEW, Subscribe): Stage.SEATED,
        (Stage.NEW, Claim): Stage.SEATED,
        (Stage.SEATED, Publish): Stage.SEATED,
        (Stage.SEATED, Close): Stage.OVER,
    }
)


@dataclass(slots=True)
class Seat:
    """A socket: at no mailbox before its first frame and after its last."""

    stage: Stage = Stage.NEW
    mailbox: Mailbox | None = None
    role: Role = Role.WEBSITE
    token: str | None = None
    """Of a wallet whose claim is under way: what its `Ready` will say."""

    nonce: str | None = None
    waiting: int = 0
    """Its frames that have no answer yet."""


class Ticket:
    """A request until it has its answer."""

    def __init__(self) -> None:
        self.is_answered = False
        self.wake: Callable[[], None] = _nobody_waits
        self._refused: Refused | None = None

    def answer(self, refused: Refused | None) -> None:
        """Done, or refused."""
        self.is_answered, self._refused = True, refused
        self.wake()

    def check(self) -> None:
        """Raise the refusal, if that is the answer.

        Raises:
            Refused: as the request.
        """
        if self._refused is not None:
            raise self._refused


def _nobody_waits() -> None:
    """The answer came at once."""
