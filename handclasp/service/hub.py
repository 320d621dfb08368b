"""The heart of the service: who may say what to whom, without a clock, a socket or a log.

Time goes in as *now* (seconds, never backwards), frames go in through `receive`, and what is to be
sent comes out of `drain`. An adapter needs one timer: `next_deadline` says when to call `tick`.

What is asked becomes an entry of the mailbox's log, and is answered when that is committed. A hub by itself commits at
once; one of several hands its entries to a `Journal`, which calls `commit` when all of them will see the same.

Source: docs/protocols/mailbox.md.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from hashlib import sha256

from .buckets import Buckets
from .entries import (
    Asked,
    Claiming,
    Closing,
    Entry,
    Journal,
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
    Accepted,
    Claim,
    ClientFrame,
    Close,
    End,
    EndCode,
    Error,
    Publish,
    Ready,
    Refused,
    Role,
    ServerFrame,
    Subscribe,
    Topic,
)
from .mailbox import Mailbox, State, digest, seal_nonce, unauthorized
from .opening import KEY_DIGITS, Challenge, Plan, crowded, full, name_of, plan_mailbox
from .seats import ORDER, Delivery, Effect, Note, Seat, Stage, Ticket
from .settings import Settings
from .timetable import Timetable

_UNDER_WAY = 32  # frames of a socket: a pipeline that keeps everybody busy, and nobody can fill a queue


class Hub:
    """The mailboxes of a service, or those of them that this instance has to do with."""

    def __init__(self, settings: Settings, journal: Journal | None = None) -> None:
        self._settings = settings
        self._journal = journal
        self._instance = "" if journal is None else journal.instance
        self._mailboxes: dict[str, Mailbox] = {}
        self._names: dict[str, Mailbox] = {}
        self._seats: dict[int, Seat] = {}
        self._tickets: dict[int, Ticket] = {}
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
            mailbox = first[1]
            self._timetable.drop(mailbox)  # it comes back with its next entry, should it live
            self._submit(mailbox, self._new_number(), Looking(), now)

    def drain(self) -> list[Effect]:
        """What is to be sent and noted since the last call, in order."""
        effects, self._effects = self._effects, []
        return effects

    def population(self) -> tuple[int, int]:
        """How many mailboxes there are, and how many characters are kept in them."""
        return len(self._mailboxes), self._stored

    # Requests

    def plan(self, mailbox_id: str, now: float) -> Plan:
        """Prepare to open a mailbox.

        Raises:
            Refused: ``full`` when there is no room here or the service stops.
        """
        self.tick(now)
        if self._stopped or len(self._mailboxes) >= self._settings.mailboxes:
            raise full()
        return plan_mailbox(self._settings, Origin(self._instance, self._new_number()), mailbox_id, now)

    def open(self, mailbox_id: str, now: float) -> Challenge:
        """Open a mailbox that only this hub knows.

        Raises:
            Refused: as `plan`; ``crowded`` when it exists.
        """
        plan = self.plan(mailbox_id, now)
        if plan.opening.name in self._names:
            raise crowded()
        mailbox = self._take_in(plan.key, plan.opening)
        self.note_opened(mailbox)
        return plan.challenge

    def note_opened(self, mailbox: Mailbox) -> None:
        """Put into the journal that there is one more."""
        self._note(mailbox, f"opened, {len(self._mailboxes)} now")

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
        return mailbox.state is State.CLAIMED, bytes.fromhex(mailbox.parties[role].token)

    def _identify(self, token: str | None, now: float) -> tuple[Mailbox, Role]:
        self.tick(now)
        return self._find(token)

    def publish(self, token: str | None, topic: Topic, body: str, now: float, *, n: int = 0) -> Ticket:
        """Deliver one message.

        Raises:
            Refused: as `authorize`; ``limit`` or ``full`` when there is no room for it.
        """
        mailbox, _ = self.authorize(token, topic, now)
        self._spend(mailbox, now)
        return self._request(mailbox, Publishing(topic, n, body, from_seat=False), now)

    def link(self, token: str | None, nonce: str, body: str, now: float, *, n: int = 0) -> Ticket:
        """Take the nonce, then deliver the sign-in message.

        Raises:
            Refused: as `publish`; ``nonce`` alike for one that is wrong, used, expired or of another mailbox.
        """
        mailbox, _ = self.authorize(token, Topic.LINK, now)
        self._spend(mailbox, now)
        return self._request(mailbox, Linking(digest(nonce), n, body), now)

    # Sockets

    def connect(self) -> int:
        """Take in a socket and give it a number for the other calls. End it with `disconnect`, always."""
        connection = self._new_number()
        self._seats[connection] = seat = Seat()
        if self._stopped:
            self._dismiss(connection, seat, End(self._stop_code))
        return connection

    def receive(self, connection: int, frame: ClientFrame, now: float) -> None:
        """Take in one frame. A client at fault gets an `Error` and loses its socket; nothing is raised."""
        self.tick(now)
        seat = self._seats.get(connection)
        if seat is None:
            return  # it is gone, and this was on its way for a while
        try:
            self._obey(connection, seat, frame, now)
        except Refused as refused:
            self.refuse(connection, refused, now)

    def refuse(self, connection: int, refused: Refused, now: float) -> None:
        """End a socket by the fault of its client: nothing else than this socket."""
        self.tick(now)
        seat = self._seats.get(connection)
        if seat is not None and seat.stage is not Stage.OVER:  # else what was still under way is void
            self._leave(connection, seat, now)
            self._dismiss(connection, seat, Error(refused.code, refused.detail))

    def disconnect(self, connection: int, now: float) -> None:
        """Take note that a socket is gone; its party has some time to come back."""
        self.tick(now)
        self._leave(connection, self._seats.pop(connection), now)

    def is_busy(self, connection: int) -> bool:
        """Whether a socket has said so much that has no answer yet that its next frame has to wait."""
        seat = self._seats.get(connection)
        if seat is None or seat.stage is Stage.OVER:
            return False
        return seat.waiting >= (_UNDER_WAY if seat.stage is Stage.SEATED else 1)

    def is_new(self, connection: int) -> bool:
        """Whether a socket has not said anything yet."""
        seat = self._seats.get(connection)
        return seat is not None and seat.stage is Stage.NEW and not seat.waiting

    def expect(self, connection: int, change: int) -> None:
        """Count a frame of a socket that is looked into before it can be received."""
        seat = self._seats.get(connection)
        if seat is not None:
            seat.waiting += change

    def shutdown(self, now: float = 0.0) -> None:
        """End every socket, and every mailbox unless others have it too; nothing can be opened afterwards."""
        self._stopped = True
        if self._journal is None:
            for mailbox in list(self._mailboxes.values()):
                self._forget(mailbox, EndCode.SHUTDOWN)
        for connection, seat in self._seats.items():
            if seat.stage is not Stage.OVER:
                self._leave(connection, seat, now)
                self._dismiss(connection, seat, End(self._stop_code))

    # The log

    def mailbox(self, key: str) -> Mailbox | None:
        """A mailbox that is followed here."""
        return self._mailboxes.get(key)

    def mailboxes(self) -> Iterable[tuple[str, Mailbox]]:
        """Those that are followed here."""
        return self._mailboxes.items()

    def load(self, key: str, entries: list[Entry]) -> Mailbox | None:
        """Take in a mailbox from its log, to follow it; None when it is over.

        Raises:
            Refused: ``full``: there is no room here.
        """
        opening = entries[0].asked
        if not isinstance(opening, Opening):
            return None
        if len(self._mailboxes) >= self._settings.mailboxes:
            raise full()
        self._take_in(key, opening)
        self.commit(key, 1, entries[1:])
        return self._mailboxes.get(key)

    def commit(self, key: str, start: int, entries: list[Entry]) -> None:
        """Take entries of a log that everybody sees; the first has the index *start*, some may be known."""
        mailbox = self._mailboxes.get(key)
        if mailbox is None:
            return
        for entry in entries[max(mailbox.length - start, 0) :]:
            if key not in self._mailboxes:
                self._settle(entry, unauthorized())
            else:
                self._commit(mailbox, entry)

    def fail(self, entry: Entry, refused: Refused) -> None:
        """An entry did not get into the log."""
        self._settle(entry, refused)

    def lose(self, key: str) -> None:
        """The log of a mailbox is gone, and with it the mailbox."""
        mailbox = self._mailboxes.get(key)
        if mailbox is not None:
            self._forget(mailbox, EndCode.LOST)

    def empty_seats(self, mailbox: Mailbox, living: set[str], now: float) -> None:
        """Take away the seats of instances that are gone, and of sockets of this one that are."""
        for role, party in mailbox.parties.items():
            if party.seat is None:
                continue
            instance, number = party.seat
            is_ours = instance == self._instance
            if number not in self._seats if is_ours else instance not in living:
                self._submit(mailbox, self._new_number(), Leaving(role, party.seat), now)

    def follow_times(self, mailbox: Mailbox) -> None:
        """Be on time for a mailbox again."""
        if mailbox.ended is None:
            self._timetable.follow(mailbox)

    def drop_if_unused(self, key: str) -> None:
        """Follow a mailbox no longer when nobody here has to do with it; others may."""
        mailbox = self._mailboxes.get(key)
        if self._journal is None or mailbox is None or mailbox.users:
            return
        parties = mailbox.parties.values()
        if any(party.seat is not None and party.seat.instance == self._instance for party in parties):
            return
        if all(party.seat is None for party in parties) and any(party.gone_at for party in parties):
            return  # nobody else will end it in time
        self._remove(key, mailbox.opening.name, mailbox)
        self._stored -= mailbox.stored

    # What they are made of

    @property
    def _stop_code(self) -> EndCode:
        return EndCode.SHUTDOWN if self._journal is None else EndCode.RESTART

    def _obey(self, connection: int, seat: Seat, frame: ClientFrame, now: float) -> None:
        stage = ORDER.get((seat.stage, type(frame)))
        if stage is None:
            wanted = (
                "subscribe or claim first" if seat.stage is Stage.NEW else "publish or close from here on"
            )
            raise Refused("malformed", f"type: {wanted}", 400)
        match frame:
            case Publish(topic, body, n):
                if seat.role is not PUBLISHER[topic]:
                    raise _forbidden()
                mailbox = _mailbox_of(seat)
                self._spend(mailbox, now)
                self._ask(connection, seat, mailbox, Publishing(topic, n, body, from_seat=True), now)
            case Subscribe(token, after, away):
                mailbox, role = self._find(token)
                seat.role = role
                self._ask(connection, seat, mailbox, Sitting(role, after, self._away(away)), now)
            case Claim(mailbox_id, by, away):
                mailbox = self._named(mailbox_id)
                secret = secrets.token_hex(16) if by is None else sha256(by.encode()).hexdigest()
                token = mailbox.key + secret[:KEY_DIGITS]
                seat.role, seat.token = Role.WALLET, token
                seat.nonce = seal_nonce(mailbox.sealed_nonce, mailbox_id) if mailbox.sealed_nonce else None
                self._ask(connection, seat, mailbox, Claiming(digest(token), self._away(away)), now)
            case Close():
                self._ask(connection, seat, _mailbox_of(seat), Closing(), now)

    def _away(self, asked: int | None) -> float:
        return self._settings.grace if asked is None else min(float(asked), self._settings.longest_away)

    def _find(self, token: str | None) -> tuple[Mailbox, Role]:
        mailbox = None if token is None else self._mailboxes.get(token[:KEY_DIGITS])
        role = None if mailbox is None or token is None else mailbox.role_of(token)
        if mailbox is None or role is None:
            raise unauthorized()
        return mailbox, role

    def _named(self, mailbox_id: str) -> Mailbox:
        mailbox = self._names.get(name_of(mailbox_id))
        if mailbox is None:
            raise unauthorized()
        return mailbox

    def _ask(self, connection: int, seat: Seat, mailbox: Mailbox, asked: Asked, now: float) -> None:
        self._check_stored(asked)
        seat.waiting += 1
        self._submit(mailbox, connection, asked, now)

    def _request(self, mailbox: Mailbox, asked: Asked, now: float) -> Ticket:
        self._check_stored(asked)
        number, ticket = self._new_number(), Ticket()
        self._tickets[number] = ticket
        self._submit(mailbox, number, asked, now)
        ticket.check()
        return ticket

    def _spend(self, mailbox: Mailbox, now: float) -> None:
        wait = self._messages.spend(mailbox.label, now)
        if wait:
            raise Refused("limit", "too many messages for this mailbox: wait a moment", 429, retry_after=wait)

    def _check_stored(self, asked: Asked) -> None:
        if (
            isinstance(asked, Publishing | Linking)
            and self._stored + len(asked.body) > self._settings.stored_length
        ):
            raise full()

    def _submit(self, mailbox: Mailbox, number: int, asked: Asked, now: float) -> None:
        if self._journal is None:
            self._commit(mailbox, Entry(now, Origin("", number), 0, asked))
            return
        entry = Entry(now, Origin(self._instance, number), self._journal.next_serial(), asked)
        try:
            mailbox.check(entry)
        except Refused as refused:
            if not isinstance(asked, Looking):
                self._settle(entry, refused)
                return
        mailbox.users += 1
        self._journal.submit(mailbox.key, entry)

    def _commit(self, mailbox: Mailbox, entry: Entry) -> None:
        key, name, stored = mailbox.key, mailbox.opening.name, mailbox.stored
        before = mailbox.state, mailbox.crowded
        refused: Refused | None = None
        try:
            mailbox.take(entry)
        except Refused as refusal:
            refused = refusal
        self._stored += mailbox.stored - stored
        is_ours = entry.origin.instance == self._instance
        if mailbox.ended is not None:
            self._remove(key, name, mailbox)
            self._note_end(mailbox, mailbox.ended)
            if self._journal is not None:
                self._journal.ended(key, name, by_us=is_ours)
        elif entry.asked.__class__ is not Publishing:
            self._timetable.follow(mailbox)
            if is_ours and before != (mailbox.state, mailbox.crowded):
                self._note(mailbox, "claimed" if before[0] is not mailbox.state else "crowded")
        if is_ours:
            self._settle(entry, refused, mailbox)

    def _settle(self, entry: Entry, refused: Refused | None, mailbox: Mailbox | None = None) -> None:
        """Answer whoever asked here."""
        number = entry.origin.number
        ticket = self._tickets.pop(number, None)
        if ticket is not None:
            ticket.answer(refused)
            return
        seat = self._seats.get(number)
        if isinstance(entry.asked, Sitting | Claiming) and refused is None and mailbox is not None:
            role = Role.WALLET if isinstance(entry.asked, Claiming) else entry.asked.role
            if seat is None or seat.stage is Stage.OVER:
                if mailbox.ended is None:  # it left before it sat
                    self._submit(mailbox, self._new_number(), Leaving(role, entry.origin), entry.at)
            elif mailbox.ended is None:
                seat.stage, seat.mailbox = Stage.SEATED, mailbox
        if seat is None:
            return
        seat.waiting -= 1
        if refused is not None:
            self.refuse(number, refused, entry.at)
        elif isinstance(entry.asked, Publishing) and seat.stage is Stage.SEATED:
            self._effects.append(Delivery(number, Accepted()))

    def _post(self, to: Origin, frame: ServerFrame, replayed: bool) -> None:  # noqa: FBT001 - `mailbox.Post`
        if to.instance != self._instance:
            return
        seat = self._seats.get(to.number)
        if seat is None:
            return
        if isinstance(frame, Ready) and seat.token is not None:
            frame = Ready(frame.role, frame.expires_in, seat.token, seat.nonce)
            seat.token = seat.nonce = None
        if isinstance(frame, End):
            self._dismiss(to.number, seat, frame)
        else:
            self._effects.append(Delivery(to.number, frame, replayed))

    def _leave(self, connection: int, seat: Seat, now: float) -> None:
        mailbox = seat.mailbox
        if mailbox is not None:
            seat.mailbox = None
            leaving = Leaving(seat.role, Origin(self._instance, connection))
            self._submit(mailbox, self._new_number(), leaving, now)

    def _take_in(self, key: str, opening: Opening) -> Mailbox:
        mailbox = Mailbox(key, opening, self._post)
        self._mailboxes[key] = self._names[opening.name] = mailbox
        self._timetable.follow(mailbox)
        return mailbox

    def _forget(self, mailbox: Mailbox, code: EndCode) -> None:
        key, name, stored = mailbox.key, mailbox.opening.name, mailbox.stored
        mailbox.forget(code)
        self._stored -= stored
        self._remove(key, name, mailbox)
        self._note_end(mailbox, code)

    def _remove(self, key: str, name: str, mailbox: Mailbox) -> None:
        self._timetable.drop(mailbox)
        del self._mailboxes[key]
        del self._names[name]

    def _note_end(self, mailbox: Mailbox, code: EndCode) -> None:
        self._note(mailbox, f"ended: {code}, {len(self._mailboxes)} now")

    def _dismiss(self, connection: int, seat: Seat, last: End | Error) -> None:
        seat.stage, seat.mailbox = Stage.OVER, None
        seat.token = seat.nonce = None
        self._effects.append(Delivery(connection, last))

    def _new_number(self) -> int:
        self._connections += 1
        return self._connections

    def _note(self, mailbox: Mailbox, event: str) -> None:
        self._effects.append(Note(mailbox.label, event))


def _mailbox_of(seat: Seat) -> Mailbox:
    if seat.mailbox is None:
        raise unauthorized()  # its mailbox ended before this frame came
    return seat.mailbox


def _forbidden() -> Refused:
    return Refused("forbidden", "this topic belongs to the other party", 403)
