"""The heart of the service: who may say what to whom, without a clock, a socket or a log.

Time goes in as *now* (seconds, never backwards), frames go in through `receive`, and what is to be
sent comes out of `drain`. An adapter needs one timer: `next_deadline` says when to call `tick`.

Source: docs/protocols/mailbox.md.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from .buckets import Buckets
from .frames import (
    PUBLISHER,
    Accepted,
    Claim,
    ClientFrame,
    Close,
    Crowded,
    End,
    EndCode,
    Error,
    Joined,
    Left,
    Message,
    Publish,
    Ready,
    Refused,
    Role,
    ServerFrame,
    Subscribe,
    Topic,
)
from .mailbox import GONE, Due, Happening, Mailbox, Party, State, Timetable, digest
from .seats import ORDER, Delivery, Effect, Note, Seat, Stage
from .settings import Settings


@dataclass(frozen=True)
class Challenge:
    """What the website gets when it opens a mailbox."""

    token: str
    nonce: str
    expires_in: int


def _unauthorized() -> Refused:
    # One sentence for unknown, used up, expired and foreign: whoever guesses learns nothing.
    return Refused("unauthorized", "this mailbox or token is unknown, or its time is over", 401)


class Hub:
    """Every mailbox of a service."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._mailboxes: dict[str, Mailbox] = {}
        self._tokens: dict[bytes, tuple[Mailbox, Role]] = {}
        self._seats: dict[int, Seat] = {}
        self._timetable = Timetable()
        self._messages = Buckets(settings.mailbox_burst, settings.mailbox_rate, settings.mailboxes)
        self._effects: list[Effect] = []
        self._connections = 0
        self._stored = 0
        self._stopped = False

    # Time

    def next_deadline(self) -> float | None:
        """When `tick` has something to do next, or None."""
        first = self._timetable.first()
        return None if first is None else first[0]

    def tick(self, now: float) -> None:
        """End what is over at *now*. Everything else does this first: a late timer changes no answer."""
        while (first := self._timetable.first()) is not None and first[0] <= now:
            _, kind, mailbox = first
            self._end(mailbox, EndCode.LEFT if kind in GONE.values() else EndCode.EXPIRED)

    def drain(self) -> list[Effect]:
        """What is to be sent and noted since the last call, in order."""
        effects, self._effects = self._effects, []
        return effects

    def population(self) -> tuple[int, int]:
        """How many mailboxes there are, and how many characters are kept in them."""
        return len(self._mailboxes), self._stored

    # Requests

    def open(self, mailbox_id: str, now: float) -> Challenge:
        """Open a mailbox.

        Raises:
            Refused: ``crowded`` when it exists, ``full`` when there is no room or the service stops.
        """
        self.tick(now)
        if self._stopped or len(self._mailboxes) >= self._settings.mailboxes:
            raise Refused("full", "the service has no room at the moment: try again in a minute", 503)
        if mailbox_id in self._mailboxes:
            raise Refused("crowded", "this mailbox exists: make a new invitation", 409)
        mailbox = Mailbox(
            id=mailbox_id,
            ends_at=now + self._settings.challenge_life,
            nonce=secrets.token_hex(16),
            nonce_ends_at=now + self._settings.nonce_life,
        )
        self._mailboxes[mailbox_id] = mailbox
        self._timetable.add(Due.CHALLENGE, mailbox, mailbox.ends_at)
        self._note(mailbox, f"opened, {len(self._mailboxes)} now")
        return Challenge(self._issue_token(mailbox, Role.WEBSITE), mailbox.nonce, _seconds(mailbox, now))

    def authorize(self, token: str | None, topic: Topic, now: float) -> tuple[Mailbox, Role]:
        """Check a token before anything costly is done for its holder.

        Raises:
            Refused: ``unauthorized``, or ``forbidden`` for a topic of the other party.
        """
        entry = self._identify(token, now)
        if entry[1] is not PUBLISHER[topic]:
            raise _forbidden()
        return entry

    def ask_as_party(self, token: str | None, now: float) -> tuple[bool, bytes]:
        """Whether the mailbox of a token is claimed, and 32 bytes that stand for the party whose token it is.

        Raises:
            Refused: ``unauthorized``; ``limit`` when it asks too often.
        """
        mailbox, role = self._identify(token, now)
        self._spend(mailbox, now)
        return mailbox.state is State.CLAIMED, mailbox.parties[role].token or b""

    def _identify(self, token: str | None, now: float) -> tuple[Mailbox, Role]:
        self.tick(now)
        entry = None if token is None else self._tokens.get(digest(token))
        if entry is None:
            raise _unauthorized()
        return entry

    def publish(self, token: str | None, topic: Topic, body: str, now: float) -> None:
        """Deliver one message.

        Raises:
            Refused: as `authorize`; ``limit`` or ``full`` when there is no room for it.
        """
        mailbox, role = self.authorize(token, topic, now)
        self._spend(mailbox, now)
        self._deliver(mailbox, role, topic, body)

    def link(self, token: str | None, nonce: str, body: str, now: float) -> None:
        """Take the nonce, then deliver the sign-in message.

        Raises:
            Refused: as `publish`; ``nonce`` alike for one that is wrong, used, expired or of another mailbox.
        """
        mailbox, role = self.authorize(token, Topic.LINK, now)
        self._spend(mailbox, now)
        if not mailbox.take_nonce(nonce, now):
            raise Refused("nonce", "this nonce cannot be used: start again with a new invitation", 403)
        self._deliver(mailbox, role, Topic.LINK, body)

    # Sockets

    def connect(self) -> int:
        """Take in a socket and give it a number for the other calls. End it with `disconnect`, always."""
        self._connections += 1
        connection = self._connections
        self._seats[connection] = seat = Seat()
        if self._stopped:
            self._dismiss(connection, seat, End(EndCode.SHUTDOWN))
        return connection

    def receive(self, connection: int, frame: ClientFrame, now: float) -> None:
        """Take in one frame. A client at fault gets an `Error` and loses its socket; nothing is raised."""
        self.tick(now)
        seat = self._seats[connection]
        try:
            self._obey(connection, seat, frame, now)
        except Refused as refused:
            self.refuse(connection, refused, now)

    def refuse(self, connection: int, refused: Refused, now: float) -> None:
        """End a socket by the fault of its client: nothing else than this socket."""
        self.tick(now)
        seat = self._seats[connection]
        if seat.stage is not Stage.OVER:  # else it was told so, and what was still under way is void
            self._leave(seat, now)
            self._dismiss(connection, seat, Error(refused.code, refused.detail))

    def disconnect(self, connection: int, now: float) -> None:
        """Take note that a socket is gone; its party has the grace period to come back."""
        self.tick(now)
        seat = self._seats.pop(connection)
        self._leave(seat, now)

    def shutdown(self) -> None:
        """End every mailbox and every socket; nothing can be opened afterwards."""
        self._stopped = True
        for mailbox in list(self._mailboxes.values()):
            self._end(mailbox, EndCode.SHUTDOWN)
        for connection, seat in self._seats.items():
            if seat.stage is not Stage.OVER:
                self._dismiss(connection, seat, End(EndCode.SHUTDOWN))

    # What they are made of

    def _obey(self, connection: int, seat: Seat, frame: ClientFrame, now: float) -> None:
        stage = ORDER.get((seat.stage, type(frame)))
        if stage is None:
            wanted = (
                "subscribe or claim first" if seat.stage is Stage.NEW else "publish or close from here on"
            )
            raise Refused("malformed", f"type: {wanted}", 400)
        match frame:
            case Subscribe(token, after):
                self._subscribe(connection, token, after, now)
            case Claim(mailbox_id):
                self._claim(connection, mailbox_id, now)
            case Publish(topic, body):
                mailbox = _mailbox_of(seat)
                if seat.role is not PUBLISHER[topic]:
                    raise _forbidden()
                self._spend(mailbox, now)
                self._deliver(mailbox, seat.role, topic, body)
                self._effects.append(Delivery(connection, Accepted()))
            case Close():
                self._end(_mailbox_of(seat), EndCode.CLOSED)
        seat.stage = stage

    def _subscribe(self, connection: int, token: str, after: int, now: float) -> None:
        entry = self._tokens.get(digest(token))
        if entry is None:
            raise _unauthorized()
        mailbox, role = entry
        if after > len(mailbox.parties[role].inbox):
            raise Refused("malformed", "after: there were not that many messages", 400)
        self._sit_down(connection, mailbox, role, Ready(role, _seconds(mailbox, now)), after)

    def _claim(self, connection: int, mailbox_id: str, now: float) -> None:
        mailbox = self._mailboxes.get(mailbox_id)
        if mailbox is None:
            raise _unauthorized()
        if not mailbox.move(Happening.CLAIM):
            self._warn_of_third(mailbox)
            raise Refused("crowded", "another wallet has claimed this mailbox: make a new invitation", 409)
        mailbox.ends_at = now + self._settings.pairing_life
        self._timetable.drop(mailbox, Due.CHALLENGE)
        self._timetable.add(Due.PAIRING, mailbox, mailbox.ends_at)
        self._note(mailbox, "claimed")
        token = self._issue_token(mailbox, Role.WALLET)
        ready = Ready(Role.WALLET, _seconds(mailbox, now), token, mailbox.hand_out_nonce())
        self._sit_down(connection, mailbox, Role.WALLET, ready, 0)

    def _sit_down(self, connection: int, mailbox: Mailbox, role: Role, ready: Ready, after: int) -> None:
        party, other = mailbox.parties[role], mailbox.parties[role.other]
        replaced, party.connection = party.connection, connection
        seat = self._seats[connection]
        seat.mailbox, seat.role = mailbox, role
        self._timetable.drop(mailbox, GONE[role])
        self._send(party, ready)
        if replaced is not None:
            self._dismiss(replaced, self._seats[replaced], End(EndCode.REPLACED))
        if other.connection is not None:
            self._send(party, Joined())
            if replaced is None:  # else the other never saw it leave
                self._send(other, Joined())
        if mailbox.crowded:
            self._send(party, Crowded())
        for message in party.inbox[after:]:
            self._effects.append(Delivery(connection, message, replayed=True))

    def _warn_of_third(self, mailbox: Mailbox) -> None:
        # Each socket hears it once: a third party must not be able to fill an outbox of the two.
        if not mailbox.crowded:
            mailbox.crowded = True
            self._note(mailbox, "crowded")
            for party in mailbox.parties.values():
                self._send(party, Crowded())

    def _spend(self, mailbox: Mailbox, now: float) -> None:
        wait = self._messages.spend(mailbox.label, now)
        if wait:
            raise Refused("limit", "too many messages for this mailbox: wait a moment", 429, retry_after=wait)

    def _deliver(self, mailbox: Mailbox, sender: Role, topic: Topic, body: str) -> None:
        receiver = mailbox.parties[sender.other]
        if len(receiver.inbox) >= self._settings.messages:
            raise Refused("limit", f"a mailbox takes {self._settings.messages} messages for each side", 429)
        if receiver.length + len(body) > self._settings.direction_length:
            raise Refused("limit", "the messages of this mailbox are too long in all", 429)
        if self._stored + len(body) > self._settings.stored_length:
            raise Refused("full", "the service has no room at the moment: try again in a minute", 503)
        message = Message(topic, len(receiver.inbox) + 1, body)
        receiver.inbox.append(message)
        receiver.length += len(body)
        self._stored += len(body)
        self._send(receiver, message)

    def _leave(self, seat: Seat, now: float) -> None:
        mailbox = seat.mailbox
        if mailbox is not None:
            mailbox.parties[seat.role].connection = None
            self._timetable.add(GONE[seat.role], mailbox, now + self._settings.grace)
            self._send(mailbox.parties[seat.role.other], Left())

    def _end(self, mailbox: Mailbox, code: EndCode) -> None:
        mailbox.move(Happening.END)
        for party in mailbox.parties.values():
            if party.connection is not None:
                self._dismiss(party.connection, self._seats[party.connection], End(code))
            if party.token is not None:
                del self._tokens[party.token]
            self._stored -= party.length
        self._timetable.drop(mailbox, *Due)
        del self._mailboxes[mailbox.id]
        self._note(mailbox, f"ended: {code}, {len(self._mailboxes)} now")
        mailbox.forget()

    def _dismiss(self, connection: int, seat: Seat, last: End | Error) -> None:
        seat.stage, seat.mailbox = Stage.OVER, None
        self._effects.append(Delivery(connection, last))

    def _send(self, party: Party, frame: ServerFrame) -> None:
        if party.connection is not None:
            self._effects.append(Delivery(party.connection, frame))

    def _issue_token(self, mailbox: Mailbox, role: Role) -> str:
        token = secrets.token_hex(32)
        mailbox.parties[role].token = hashed = digest(token)
        self._tokens[hashed] = mailbox, role
        return token

    def _note(self, mailbox: Mailbox, event: str) -> None:
        self._effects.append(Note(mailbox.label, event))


def _mailbox_of(seat: Seat) -> Mailbox:
    if seat.mailbox is None:
        raise _unauthorized()  # its mailbox ended before this frame came
    return seat.mailbox


def _forbidden() -> Refused:
    return Refused("forbidden", "this topic belongs to the other party", 403)


def _seconds(mailbox: Mailbox, now: float) -> int:
    return round(mailbox.ends_at - now)
