"""A hub that is one of several: its entries go into logs that all of them share, and come back from there.

One task writes. While a batch of it is under way, the next one gathers: whatever many mailboxes have to say at the same
time goes in one piece, and each mailbox's entries keep their order.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager

import anyio
import anyio.abc

from .entries import Claiming, Entry, Journal, Linking, Publishing, from_row, to_row
from .frames import Claim, Refused, Subscribe
from .hub import Hub
from .mailbox import Mailbox, unauthorized
from .opening import KEY_DIGITS, Challenge, crowded, full, name_of
from .settings import Settings
from .state import Created, Row, State, StateUnavailable, Sync

_logger = logging.getLogger("handclasp.service")

PATIENCE = 2.0
"""Seconds that an entry waits for a state that is away: a restart of Redis takes less, and a client should hear."""

_RETRY_EVERY = 0.1
_LOOK_EVERY = 1.0
_BATCH = 512 * 1024  # characters, about: while a state takes it in, it answers nobody else
_ROW_LENGTH = 200  # of them for what is in a row beside a message
_EARLY = 256  # what others said before the answer to us came: as many as they can have under way
_SLACK = 10.0  # seconds that a log outlives its mailbox: nobody's clock is exact


class Replication(Journal):
    """Between a hub and the state; made by the exchange, which has to `run` it."""

    def __init__(self, state: State, settings: Settings) -> None:
        self.instance = state.instance
        self.hub = Hub(settings, self)
        self._settings = settings
        self._state = state
        self._carry_out: Callable[[], None] = _nothing
        self._serial = 0
        self._queues: dict[str, list[Entry]] = {}
        self._behind: dict[str, None] = {}
        self._ended: list[tuple[str, str]] = []
        self._early: dict[
            str, list[tuple[int, Sequence[Row]]]
        ] = {}  # of logs that are asked for at the moment
        self._fetching: dict[str, anyio.Event] = {}
        self._work = anyio.Event()
        self._idle = anyio.Event()
        self._down_since: float | None = None
        self._tasks: anyio.abc.TaskGroup | None = None

    # `Journal`

    def submit(self, key: str, entry: Entry) -> None:
        """See `Journal.submit`."""
        self._queues.setdefault(key, []).append(entry)
        self._work.set()

    def next_serial(self) -> int:
        """See `Journal.next_serial`."""
        self._serial += 1
        return self._serial

    def ended(self, key: str, name: str, *, by_us: bool) -> None:
        """See `Journal.ended`."""
        if by_us:
            self._ended.append((key, name))
            self._work.set()

    # `Follower`

    def follow(self, log: str, start: int, rows: Sequence[Row]) -> None:
        """Take what others have added."""
        if log in self._early:
            early = self._early[log]
            early.append((start, rows))
            if len(early) > _EARLY:
                self._fall_behind(log)
                early.clear()
            return
        self._take(log, start, rows)
        self._carry_out()

    def lost_track(self) -> None:
        """Look everything up again."""
        for key, mailbox in list(self.hub.mailboxes()):
            self.hub.follow_times(mailbox)
            self._fall_behind(key)

    # For the exchange

    def clock(self) -> float:
        """The time that all instances share."""
        return self._state.clock()

    @asynccontextmanager
    async def run(self, carry_out: Callable[[], None]) -> AsyncGenerator[None]:
        """Be one of the instances while the block runs; *carry_out* is called when the hub has something to send."""
        self._carry_out = carry_out
        async with self._state.open(self), anyio.create_task_group() as tasks:
            self._tasks = tasks
            tasks.start_soon(self._write)
            tasks.start_soon(self._look_after_others)
            try:
                yield
            finally:
                self._tasks = None
                tasks.cancel_scope.cancel()

    async def flush(self) -> None:
        """Wait, for a little while, until the others know what happened here."""
        with anyio.move_on_after(PATIENCE):
            while self._queues or self._ended:
                self._idle = anyio.Event()
                await self._idle.wait()

    async def open(self, mailbox_id: str) -> Challenge:
        """Open a mailbox.

        Raises:
            Refused: ``crowded`` when it exists; ``full`` when there is no room, or the state is away.
        """
        plan = self.hub.plan(mailbox_id, self.clock())
        row, life = to_row(plan.entry), self._settings.challenge_life + _SLACK
        try:
            created = await self._state.create(
                plan.key, plan.opening.name, row, life=life, most=self._settings.mailboxes
            )
        except StateUnavailable:
            raise full() from None
        if created is not Created.DONE:
            raise crowded() if created is Created.TAKEN else full()
        return plan.challenge

    @asynccontextmanager
    async def held(self, key: str) -> AsyncGenerator[None]:
        """Follow a mailbox at least while the block runs, if there is one.

        Raises:
            Refused: ``full``: the state is away, or there is no room here.
        """
        mailbox = await self._hold(key)
        try:
            yield
        finally:
            if mailbox is not None:
                self._let_go(key, mailbox, 1)

    def begin(self, connection: int, frame: Subscribe | Claim) -> None:
        """Take in a socket's first frame, once its mailbox is followed here."""
        if self._tasks is None:  # a server without lifespan, or at its end
            self.hub.refuse(connection, full(), self.clock())
        else:
            self.hub.expect(connection, 1)
            self._tasks.start_soon(self._begin, connection, frame)

    async def _begin(self, connection: int, frame: Subscribe | Claim) -> None:
        try:
            key = (
                frame.token[:KEY_DIGITS] if isinstance(frame, Subscribe) else await self._find(frame.mailbox)
            )
            async with self.held(key):
                self.hub.expect(connection, -1)
                self.hub.receive(connection, frame, self.clock())
        except Refused as refused:
            self.hub.expect(connection, -1)
            self.hub.refuse(connection, refused, self.clock())
        self._carry_out()

    # What it is made of

    async def _find(self, mailbox_id: str) -> str:
        try:
            return await self._state.find(name_of(mailbox_id)) or ""
        except StateUnavailable:
            raise full() from None

    async def _hold(self, key: str) -> Mailbox | None:
        while (mailbox := self.hub.mailbox(key)) is None:
            fetched = self._fetching.get(key)
            if fetched is None:
                return await self._fetch(key)
            await fetched.wait()
        mailbox.users += 1
        return mailbox

    async def _fetch(self, key: str) -> Mailbox | None:
        self._fetching[key] = fetched = anyio.Event()
        self._early[key] = []
        mailbox: Mailbox | None = None
        try:
            (rows,) = await self._state.sync([Sync(key, 0)])
            mailbox = None if rows is None else self.hub.load(key, list(map(from_row, rows)))
            if mailbox is not None:
                mailbox.users += 1
        except StateUnavailable:
            raise full() from None
        except ValueError:
            _logger.error("the log of a mailbox makes no sense: is another version running?")  # noqa: TRY400
            raise full() from None
        finally:
            del self._fetching[key]
            fetched.set()
            self._take_early([key])
        return mailbox

    async def _living(self, *mailboxes: Mailbox) -> set[str]:
        seats = (party.seat for mailbox in mailboxes for party in mailbox.parties.values())
        others = {seat.instance for seat in seats if seat is not None} - {self.instance}
        try:
            return await self._state.living(others) if others else set()
        except StateUnavailable:
            return others

    async def _look_after_others(self) -> None:
        """Their sockets count as gone when they do; ours, too, of which others still think that they are there."""
        while True:
            await anyio.sleep(_LOOK_EVERY)
            mailboxes = [mailbox for _, mailbox in self.hub.mailboxes()]
            living = await self._living(*mailboxes)
            for mailbox in mailboxes:
                if mailbox.ended is None:
                    self.hub.empty_seats(mailbox, living, self.clock())
            self._carry_out()

    async def _write(self) -> None:
        while True:
            await self._work.wait()
            self._work = anyio.Event()
            while self._queues or self._behind or self._ended:
                try:
                    await self._write_batch()
                except StateUnavailable:
                    await self._bear_with_it()
            self._idle.set()

    async def _write_batch(self) -> None:
        batch = self._next_batch()
        keys = [sync.log for sync, _ in batch]
        for key in keys:
            self._early.setdefault(key, [])
        try:
            answers = await self._state.sync([sync for sync, _ in batch]) if batch else ()
            for (sync, entries), missed in zip(batch, answers, strict=True):
                self._written(sync, entries, missed)
        finally:
            self._take_early(keys)
        if self._ended:
            ended, self._ended = self._ended, []
            await self._state.delete(ended)
        if self._down_since is not None:
            self._down_since = None
            self.lost_track()
        self._carry_out()

    def _next_batch(self) -> list[tuple[Sync, list[Entry]]]:
        batch: list[tuple[Sync, list[Entry]]] = []
        room = _BATCH
        for key in (*self._queues, *(key for key in self._behind if key not in self._queues)):
            mailbox = self.hub.mailbox(key)
            entries = _first(self._queues.get(key, []), room)
            if mailbox is None:
                self._give_up(key, unauthorized())
                self._behind.pop(key, None)
                continue
            # A claim is all that makes a mailbox live longer.
            claimed = any(isinstance(entry.asked, Claiming) for entry in entries)
            life = mailbox.opening.pairing_life + _SLACK if claimed else None
            batch.append((Sync(key, mailbox.length, list(map(to_row, entries)), life), entries))
            self._behind.pop(key, None)
            room -= sum(map(_length, entries)) + _ROW_LENGTH
            if room <= 0:
                break
        return batch

    def _written(self, sync: Sync, entries: list[Entry], missed: Sequence[Row] | None) -> None:
        key = sync.log
        mailbox = self.hub.mailbox(key)
        left = self._queues.get(key, [])[len(entries) :]
        if missed is None:
            self.hub.lose(key)
            self._give_up(key, unauthorized())
            return
        if left:
            self._queues[key] = left
        else:
            self._queues.pop(key, None)
        try:
            self.hub.commit(key, sync.known, [*map(from_row, missed), *entries])
        except ValueError:
            self.hub.lose(key)
        if mailbox is not None:
            self._let_go(key, mailbox, len(entries))

    def _give_up(self, key: str, refused: Refused) -> None:
        mailbox = self.hub.mailbox(key)
        for entry in self._queues.pop(key, []):
            self.hub.fail(entry, refused)
            if mailbox is not None:
                mailbox.users -= 1
        self.hub.drop_if_unused(key)

    async def _bear_with_it(self) -> None:
        now = anyio.current_time()
        if self._down_since is None:
            self._down_since = now
        elif now - self._down_since >= PATIENCE:
            for key in list(self._queues):
                self._give_up(key, full())
            self._carry_out()
        await anyio.sleep(_RETRY_EVERY)

    def _take_early(self, keys: Sequence[str]) -> None:
        for key in keys:
            for start, rows in self._early.pop(key, ()):
                self._take(key, start, rows)

    def _take(self, key: str, start: int, rows: Sequence[Row]) -> None:
        mailbox = self.hub.mailbox(key)
        if mailbox is None:
            return
        if start > mailbox.length:
            self._fall_behind(key)
            return
        try:
            self.hub.commit(key, start, list(map(from_row, rows)))
        except ValueError:
            self.hub.lose(key)
        self.hub.drop_if_unused(key)

    def _fall_behind(self, key: str) -> None:
        self._behind[key] = None
        self._work.set()

    def _let_go(self, key: str, mailbox: Mailbox, times: int) -> None:
        mailbox.users -= times
        self.hub.drop_if_unused(key)


def _length(entry: Entry) -> int:
    asked = entry.asked
    return _ROW_LENGTH + (len(asked.body) if isinstance(asked, Publishing | Linking) else 0)


def _first(entries: list[Entry], room: int) -> list[Entry]:
    """As many of the first ones as there is room for, and one at least."""
    count = 0
    for entry in entries:
        room -= _length(entry)
        if room < 0 < count:
            break
        count += 1
    return entries[:count]


def _nothing() -> None:
    """It does not run yet."""
