"""What a socket is to the hub: a seat at a mailbox, the order of its frames, and what comes back for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from types import MappingProxyType
from typing import TypeAlias

from .frames import Claim, ClientFrame, Close, Publish, Role, ServerFrame, Subscribe
from .mailbox import Mailbox


@dataclass(frozen=True)
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


@dataclass
class Seat:
    """A socket: at no mailbox before its first frame and after its last."""

    stage: Stage = Stage.NEW
    mailbox: Mailbox | None = None
    role: Role = Role.WEBSITE
