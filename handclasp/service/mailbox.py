"""One mailbox: its two parties, its messages, and the table of its life. No clock, no sockets, no chance.

It is a state machine that takes the entries of its log one after the other. Two that take the same entries are the
same, so an instance of the service that was not there yet reads the log and knows what the others know.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from hashlib import sha256
from types import MappingProxyType
from typing import TypeAlias

from .entries import (
    Claiming,
    Closing,
    Entry,
    Leaving,
    Linking,
    Looking,
    Opening,
    Origin,
    Publishing,
    Sitting,
)
from .frames import (
    PUBLISHER,
    Crowded,
    End,
    EndCode,
    Joined,
    Left,
    Message,
    Ready,
    Refused,
    Role,
    ServerFrame,
    Topic,
)

Post: TypeAlias = Callable[[Origin, ServerFrame, bool], None]
"""Takes a frame for a seat; True for one that was sent before, to an earlier socket or to none."""


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


def digest(secret: str) -> str:
    """What is kept of a token or nonce: a copy of memory opens no mailbox, comparing leaks nothing."""
    return sha256(secret.encode()).hexdigest()


def seal_nonce(nonce: str, mailbox_id: str) -> str:
    """Hide a nonce from whoever does not know the mailbox id; the same again shows it."""
    pad = sha256(b"nonce of " + mailbox_id.encode()).digest()
    return bytes(a ^ b for a, b in zip(bytes.fromhex(nonce), pad, strict=False)).hex()


def unauthorized() -> Refused:
    """One sentence for unknown, used up, expired and foreign: whoever guesses learns nothing."""
    return Refused("unauthorized", "this mailbox or token is unknown, or its time is over", 401)


@dataclass(slots=True)
class Party:
    """What the service knows of one of the two."""

    token: str = ""
    """SHA-256 of its token."""

    seat: Origin | None = None
    """Its socket, while it has one."""

    away: float = 0.0
    """Seconds that it may be gone."""

    gone_at: float | None = None
    """When it has been gone for too long."""

    inbox: list[Message] = field(default_factory=list[Message])
    """Every message for it, kept for a later subscribe: the message *n* is ``inbox[n - 1]``."""

    length: int = 0
    """Characters in the inbox."""


@dataclass(eq=False, slots=True)
class Mailbox:
    """A room for two. *post* takes what its parties are to be told."""

    key: str
    """Where its log is; the first half of each of its tokens."""

    opening: Opening
    post: Post
    state: State = State.OPEN
    crowded: bool = False
    """Somebody else tried to claim it."""

    length: int = 1
    """Entries taken."""

    users: int = 0
    """Requests and entries of this instance that are under way."""

    ends_at: float = 0.0
    parties: Mapping[Role, Party] = field(default_factory=lambda: {role: Party() for role in Role})
    sealed_nonce: str = ""
    ended: EndCode | None = None
    label: str = ""
    """What the journal calls it: says nothing about the id."""

    _nonce: str = ""
    _serials: dict[str, int] = field(default_factory=dict[str, int])

    def __post_init__(self) -> None:
        self.label = sha256(b"label of " + self.key.encode()).hexdigest()[:8]
        self.ends_at = self.opening.ends_at
        self.sealed_nonce, self._nonce = self.opening.sealed_nonce, self.opening.nonce
        self.parties[Role.WEBSITE].token = self.opening.token

    @property
    def is_claimed(self) -> bool:
        """A wallet has come."""
        return self.state is State.CLAIMED

    @property
    def stored(self) -> int:
        """Characters of message bodies in it."""
        website, wallet = self.parties.values()
        return website.length + wallet.length

    @property
    def due(self) -> tuple[float, EndCode]:
        """When it ends by itself, and as what."""
        gone = [party.gone_at for party in self.parties.values() if party.gone_at is not None]
        first = min(gone, default=self.ends_at)
        return (first, EndCode.LEFT) if gone and first <= self.ends_at else (self.ends_at, EndCode.EXPIRED)

    def role_of(self, token: str) -> Role | None:
        """Whose token it is, if it is one of this mailbox."""
        hashed = digest(token)
        for role, party in self.parties.items():
            if hmac.compare_digest(hashed, party.token):
                return role
        return None

    # Entries

    def take(self, entry: Entry) -> None:
        """Go on by one entry; that a request is refused leaves the mailbox as it was.

        Raises:
            Refused: the answer to whoever asked.
        """
        self.length += 1
        if entry.serial:
            instance = entry.origin.instance
            if entry.serial <= self._serials.get(instance, 0):
                return  # it was sent again, for want of an answer
            self._serials[instance] = entry.serial
        self._check_time(entry.at)
        asked = entry.asked
        match asked:
            case Publishing():
                self._publish(entry.origin, asked)
            case Sitting():
                self._check_after(asked)
                self._sit_down(entry, asked.role, asked.after, asked.away)
            case Claiming():
                self._claim(entry, asked)
            case Linking():
                self._link(entry.at, asked)
            case Leaving():
                self._leave(entry.at, asked)
            case Closing():
                self._end(EndCode.CLOSED)
            case Looking() | Opening():
                pass

    def check(self, entry: Entry) -> None:
        """Refuse what `take` would refuse, before it takes up room in the log. Whatever is refused here stays so.

        Raises:
            Refused: as `take`.
        """
        if self.state is State.FORGOTTEN or self.due[0] <= entry.at:
            raise unauthorized()
        match entry.asked:
            case Publishing(topic, n, body):
                if not self._has_already(PUBLISHER[topic].other, topic, n, body):
                    self._check_room(self.parties[PUBLISHER[topic].other], body)
            case Sitting() as sitting:
                self._check_after(sitting)
            case Claiming(token) if (
                self.is_claimed and self.crowded and token != self.parties[Role.WALLET].token
            ):
                raise _crowded()
            case Linking(nonce, n, body):
                if not self._has_already(Role.WEBSITE, Topic.LINK, n, body):
                    self._check_nonce(nonce, entry.at)
            case _:
                pass

    def forget(self, code: EndCode) -> None:
        """End it at once, whatever is in the log."""
        if self.state is not State.FORGOTTEN:
            self._end(code)

    # What they are made of

    def _check_time(self, now: float) -> None:
        if self.state is State.FORGOTTEN:
            raise unauthorized()
        time, code = self.due
        if time <= now:
            self._end(code)
            raise unauthorized()

    def _check_after(self, sitting: Sitting) -> None:
        if sitting.after > len(self.parties[sitting.role].inbox):
            raise Refused("malformed", "after: there were not that many messages", 400)

    def _claim(self, entry: Entry, asked: Claiming) -> None:
        wallet = self.parties[Role.WALLET]
        state = LIFE.get((self.state, Happening.CLAIM))
        if state is not None:
            self.state = state
            wallet.token = asked.token
            self.ends_at = entry.at + self.opening.pairing_life
        elif not hmac.compare_digest(
            asked.token, wallet.token
        ):  # else it is the same wallet: the answer was lost
            self._warn_of_third()
            raise _crowded()
        self._sit_down(entry, Role.WALLET, 0, asked.away)

    def _sit_down(self, entry: Entry, role: Role, after: int, away: float) -> None:
        party, other = self.parties[role], self.parties[role.other]
        replaced, seat = party.seat, entry.origin
        party.seat, party.gone_at, party.away = seat, None, away
        self.post(seat, Ready(role, round(self.ends_at - entry.at)), False)
        if replaced is not None:
            self.post(replaced, End(EndCode.REPLACED), False)
        if other.seat is not None:
            self.post(seat, Joined(), False)
            if replaced is None:  # else the other never saw it leave
                self.post(other.seat, Joined(), False)
        if self.crowded:
            self.post(seat, Crowded(), False)
        for message in party.inbox[after:]:
            self.post(seat, message, True)

    def _warn_of_third(self) -> None:
        # Each socket hears it once: a third party must not be able to fill an outbox of the two.
        if not self.crowded:
            self.crowded = True
            self._tell_all(Crowded())

    def _publish(self, origin: Origin, asked: Publishing) -> None:
        sender = PUBLISHER[asked.topic]
        if asked.from_seat and self.parties[sender].seat != origin:
            raise unauthorized()  # a newer socket has its seat, and was told what had come by then
        self._deliver(sender.other, asked.topic, asked.n, asked.body)

    def _link(self, now: float, asked: Linking) -> None:
        if self._has_already(Role.WEBSITE, Topic.LINK, asked.n, asked.body):
            return
        self._check_nonce(asked.nonce, now)
        self._nonce = self.sealed_nonce = ""
        self._deliver(Role.WEBSITE, Topic.LINK, asked.n, asked.body)

    def _check_nonce(self, nonce: str, now: float) -> None:
        if not hmac.compare_digest(nonce, self._nonce) or now >= self.opening.nonce_ends_at:
            raise Refused("nonce", "this nonce cannot be used: start again with a new invitation", 403)

    def _has_already(self, receiver: Role, topic: Topic, n: int, body: str) -> bool:
        """Whether this very message is here: its sender did not hear so and sent it again."""
        inbox = self.parties[receiver].inbox
        if n == 0 or n == len(inbox) + 1:
            return False
        if n > len(inbox) or (inbox[n - 1].topic, inbox[n - 1].body) != (topic, body):
            raise Refused(
                "number", "n is not the number of the next message, or of one that says the same", 409
            )
        return True

    def _check_room(self, receiver: Party, body: str) -> None:
        limits = self.opening
        if len(receiver.inbox) >= limits.messages:
            raise Refused("limit", f"a mailbox takes {limits.messages} messages for each side", 429)
        if receiver.length + len(body) > limits.direction_length:
            raise Refused("limit", "the messages of this mailbox are too long in all", 429)

    def _deliver(self, role: Role, topic: Topic, n: int, body: str) -> None:
        if n and self._has_already(role, topic, n, body):
            return
        receiver = self.parties[role]
        self._check_room(receiver, body)
        message = Message(topic, len(receiver.inbox) + 1, body)
        receiver.inbox.append(message)
        receiver.length += len(body)
        if receiver.seat is not None:
            self.post(receiver.seat, message, False)

    def _leave(self, now: float, asked: Leaving) -> None:
        party = self.parties[asked.role]
        if party.seat == asked.seat:
            party.seat = None
            party.gone_at = now + party.away
            other = self.parties[asked.role.other].seat
            if other is not None:
                self.post(other, Left(), False)

    def _end(self, code: EndCode) -> None:
        """Tell both, and erase everything that somebody could still want to know."""
        self.state, self.ended = LIFE[self.state, Happening.END], code
        self._tell_all(End(code))
        self.key = self.sealed_nonce = self._nonce = ""
        self._serials.clear()
        self.opening = self.opening._replace(name="", token="", sealed_nonce="", nonce="")
        for party in self.parties.values():
            party.token, party.seat = "", None
            party.inbox.clear()
            party.length = 0

    def _tell_all(self, frame: ServerFrame) -> None:
        for party in self.parties.values():
            if party.seat is not None:
                self.post(party.seat, frame, False)


def _crowded() -> Refused:
    return Refused("crowded", "another wallet has claimed this mailbox: make a new invitation", 409)
