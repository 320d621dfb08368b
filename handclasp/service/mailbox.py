"""One mailbox: its two parties, its messages, and the table of its life. No clock, no sockets."""

from __future__ import annotations

import hmac
import secrets
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from hashlib import sha256
from types import MappingProxyType

from .frames import Message, Role


class State(Enum):
    """Where a mailbox is in its life."""

    OPEN = auto()
    CLAIMED = auto()
    FORGOTTEN = auto()


class Happening(Enum):
    """What moves a mailbox on."""

    CLAIM = auto()
    END = auto()


#: The life of a mailbox; what is not in the table cannot happen: a second claim, or a life after the end.
LIFE: Mapping[tuple[State, Happening], State] = MappingProxyType(
    {
        (State.OPEN, Happening.CLAIM): State.CLAIMED,
        (State.OPEN, Happening.END): State.FORGOTTEN,
        (State.CLAIMED, Happening.END): State.FORGOTTEN,
    }
)


class Due(Enum):
    """What falls due for a mailbox; each kind is always the same time away."""

    CHALLENGE = auto()
    PAIRING = auto()
    WEBSITE_GONE = auto()
    WALLET_GONE = auto()


#: The grace period of each party.
GONE: Mapping[Role, Due] = MappingProxyType({Role.WEBSITE: Due.WEBSITE_GONE, Role.WALLET: Due.WALLET_GONE})


def digest(secret: str) -> bytes:
    """What is kept of a token or nonce: a copy of memory opens no mailbox, comparing leaks nothing."""
    return sha256(secret.encode()).digest()


@dataclass(slots=True)
class Party:
    """What the service knows of one of the two."""

    token: bytes | None = None
    """SHA-256 of its token."""

    connection: int | None = None
    """Its socket, while it has one."""

    inbox: list[Message] = field(default_factory=list[Message])
    """Every message for it, kept for a later subscribe: the message *n* is ``inbox[n - 1]``."""

    length: int = 0
    """Characters in the inbox."""


@dataclass(eq=False, slots=True)
class Mailbox:
    """A room for two."""

    id: str
    ends_at: float
    nonce: str
    """Kept until the wallet has it; then empty."""

    nonce_ends_at: float
    state: State = State.OPEN
    crowded: bool = False
    """Somebody else tried to claim it."""

    label: str = field(default_factory=lambda: secrets.token_hex(4))
    """What the log calls it: says nothing about the id."""

    parties: Mapping[Role, Party] = field(default_factory=lambda: {role: Party() for role in Role})
    _nonce: bytes = b""

    def __post_init__(self) -> None:
        self._nonce = digest(self.nonce)

    def move(self, happening: Happening) -> bool:
        """Go on in `LIFE`; False when the table has no such step."""
        state = LIFE.get((self.state, happening))
        if state is None:
            return False
        self.state = state
        return True

    def hand_out_nonce(self) -> str:
        """Give the nonce to the wallet; from then on only its hash is here."""
        nonce, self.nonce = self.nonce, ""
        return nonce

    def take_nonce(self, nonce: str, now: float) -> bool:
        """Use the nonce up. Once at most, and not after its time."""
        taken = hmac.compare_digest(digest(nonce), self._nonce) and now < self.nonce_ends_at
        if taken:
            self._nonce = b""
        return taken

    def forget(self) -> None:
        """Erase everything that somebody could still want to know."""
        self.id = self.nonce = ""
        self._nonce = b""
        for party in self.parties.values():
            party.token = party.connection = None
            party.inbox.clear()
            party.length = 0


class Timetable:
    """What falls due when.

    Each kind is always the same time away, so what was added first is due first, and a queue
    per kind does: constant time, and nothing stays behind as it would in a heap.
    """

    def __init__(self) -> None:
        self._queues: Mapping[Due, OrderedDict[Mailbox, float]] = {kind: OrderedDict() for kind in Due}

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    def add(self, kind: Due, mailbox: Mailbox, time: float) -> None:
        """Put *mailbox* at the end of the queue of *kind*."""
        self._queues[kind][mailbox] = time

    def drop(self, mailbox: Mailbox, *kinds: Due) -> None:
        """Take *mailbox* out of the queues of *kinds*, wherever it is in one."""
        for kind in kinds:
            self._queues[kind].pop(mailbox, None)

    def first(self) -> tuple[float, Due, Mailbox] | None:
        """What falls due next."""
        heads = [(*next(iter(queue.items())), kind) for kind, queue in self._queues.items() if queue]
        if not heads:
            return None
        mailbox, time, kind = min(heads, key=_time)
        return time, kind, mailbox


def _time(head: tuple[Mailbox, float, Due]) -> float:
    return head[1]
