"""The hub among its sockets: one clock, one timer, and a bounded outbox for each connection."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import AsyncGenerator, Generator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager

import anyio

from .asgi import Request
from .frames import Claim, ClientFrame, End, Error, Refused, ServerFrame, Subscribe, Topic
from .hub import Hub
from .lines import Line, Outgoing, Switchboard, Timer
from .opening import KEY_DIGITS, Challenge
from .replication import Replication
from .seats import Delivery, Ticket
from .settings import Settings
from .state import State
from .strict import malformed
from .wire import encode_frame, parse_frame_untrusted

_logger = logging.getLogger("handclasp.service")


class MailboxLine(Line):
    """A socket and the frames that wait for it. Full means that its client does not read."""

    def __init__(self, exchange: Exchange) -> None:
        super().__init__()
        self._exchange = exchange
        self._connection = 0
        self._room = exchange.settings.outbox
        self._frames: deque[ServerFrame] = deque()
        self._filled: anyio.Event | None = None
        self._moved: anyio.Event | None = None
        self._is_idle = False  # everything so far was sent, and what came since has had no chance
        self._finished = False

    @property
    def finished(self) -> bool:
        """See `Line.finished`."""
        return self._finished

    def connected(self, connection: int) -> None:
        """Take note of the number that the hub knows this socket by."""
        self._connection = connection

    def put(self, frame: ServerFrame, *, replayed: bool) -> bool:
        """Add a frame; False when there is no room for it."""
        if self._finished:
            return True
        if isinstance(frame, End | Error):
            self._finished = True
            self.writing.deadline = anyio.current_time() + self._exchange.settings.close_within
        elif replayed or (self._is_idle and len(self._frames) >= self._room):
            # A resume may bring the whole log at once, and so may the state after an interruption: not the fault of
            # the one who gets it. A mailbox holds so few messages that this has an end.
            self._room += 1
        elif len(self._frames) >= self._room:
            self._frames.clear()  # it subscribes again and gets them again
            return False
        self._frames.append(frame)
        if self._filled is not None:
            self._filled.set()
        if self._moved is not None:
            self._moved.set()
        return True

    def receive_untrusted(self, text: str | None) -> None:
        """See `Line.receive_untrusted`."""
        try:
            if text is None:
                raise malformed("frame", "must be a text frame")
            frame = parse_frame_untrusted(text)
        except Refused as refused:
            self.refuse(refused)
        else:
            self._exchange.receive(self._connection, frame)

    async def settled(self) -> None:
        """See `Line.settled`."""
        await super().settled()
        # Nor does a client get more answers on top of those that it has not read: it waits, and is not slow.
        while not self._finished and (
            len(self._frames) > self._exchange.settings.outbox // 2
            or self._exchange.is_busy(self._connection)
        ):
            self._moved = anyio.Event()
            await self._moved.wait()

    def refuse(self, refused: Refused) -> None:
        """See `Line.refuse`."""
        with self._exchange.at_work() as (hub, now):
            hub.refuse(self._connection, refused, now)

    async def next(self) -> Outgoing:
        """See `Line.next`."""
        while not self._frames:
            self._filled = anyio.Event()
            self._is_idle = True
            await self._filled.wait()
        self._is_idle = False
        frame = self._frames.popleft()
        if self._moved is not None:
            self._moved.set()
        if isinstance(frame, End | Error):
            return Outgoing(encode_frame(frame), frame.close_status, frame.code)
        return Outgoing(encode_frame(frame))


class Exchange(Switchboard):
    """Drives a `Hub` for any number of sockets and requests of one event loop."""

    def __init__(self, settings: Settings, state: State | None = None) -> None:
        self.settings = settings
        self._replication = None if state is None else Replication(state, settings)
        self._hub = Hub(settings) if self._replication is None else self._replication.hub
        self._now = anyio.current_time if self._replication is None else self._replication.clock
        self.is_busy = self._hub.is_busy
        self.timer = Timer(self._tick, self._hub.next_deadline, self._now)
        self.population = self._hub.population
        self._lines: dict[int, MailboxLine] = {}
        self._empty: anyio.Event | None = None

    @contextmanager
    def at_work(self) -> Generator[tuple[Hub, float]]:
        """The hub and the time; what it did is carried out when the block ends, also by an error."""
        now = self._now()
        try:
            yield self._hub, now
        finally:
            self._carry_out(now)

    # Requests

    async def open(self, mailbox_id: str) -> Challenge:
        """Open a mailbox.

        Raises:
            Refused: see `Hub.open`.
        """
        if self._replication is not None:
            return await self._replication.open(mailbox_id)
        with self.at_work() as (hub, now):
            return hub.open(mailbox_id, now)

    @asynccontextmanager
    async def authorized(self, token: str | None, topic: Topic) -> AsyncGenerator[None]:
        """For the length of the block, the mailbox of *token* is at hand.

        Raises:
            Refused: see `Hub.authorize`.
        """
        async with AsyncExitStack() as stack:
            if self._replication is not None and token is not None:
                await stack.enter_async_context(self._replication.held(token[:KEY_DIGITS]))
            with self.at_work() as (hub, now):
                hub.authorize(token, topic, now)
            yield

    async def ask_as_party(self, token: str | None) -> tuple[bool, bytes]:
        """See `Hub.ask_as_party`.

        Raises:
            Refused: see there.
        """
        async with AsyncExitStack() as stack:
            if self._replication is not None and token is not None:
                await stack.enter_async_context(self._replication.held(token[:KEY_DIGITS]))
            with self.at_work() as (hub, now):
                return hub.ask_as_party(token, now)

    async def publish(self, token: str | None, topic: Topic, body: str, n: int) -> None:
        """Deliver one message, inside `authorized`.

        Raises:
            Refused: see `Hub.publish`.
        """
        with self.at_work() as (hub, now):
            ticket = hub.publish(token, topic, body, now, n=n)
        await _answer_to(ticket)

    async def link(self, token: str | None, nonce: str, body: str, n: int) -> None:
        """Take the nonce and deliver the sign-in message, inside `authorized`.

        Raises:
            Refused: see `Hub.link`.
        """
        with self.at_work() as (hub, now):
            ticket = hub.link(token, nonce, body, now, n=n)
        await _answer_to(ticket)

    # Sockets

    def receive(self, connection: int, frame: ClientFrame) -> None:
        """Take in a frame of a socket."""
        with self.at_work() as (hub, now):
            if (
                self._replication is not None
                and isinstance(frame, Subscribe | Claim)
                and hub.is_new(connection)
            ):
                self._replication.begin(connection, frame)
            else:
                hub.receive(connection, frame, now)

    @contextmanager
    def open_line(self, request: Request) -> Generator[MailboxLine]:  # noqa: ARG002 - the first frame says it all
        """See `Switchboard.open_line`."""
        line = MailboxLine(self)
        with self.at_work() as (hub, _):
            connection = hub.connect()
            line.connected(connection)
            self._lines[connection] = line
        try:
            yield line
        finally:
            del self._lines[connection]
            with self.at_work() as (hub, now):
                hub.disconnect(connection, now)
            if self._empty is not None and not self._lines:
                self._empty.set()

    # Beginning and end

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """See `Switchboard.running`."""
        if self._replication is None:
            yield
            return
        async with self._replication.run(lambda: self._carry_out(self._now())):
            yield

    async def shut_down(self) -> None:
        """See `Switchboard.shut_down`."""
        with self.at_work() as (hub, now):
            hub.shutdown(now)
        if self._lines:  # each has its last frame now, and with it a deadline
            self._empty = self._empty or anyio.Event()
            await self._empty.wait()
        if self._replication is not None:
            await self._replication.flush()

    def _tick(self, now: float) -> None:
        self._hub.tick(now)
        self._carry_out(now)

    def _carry_out(self, now: float) -> None:
        while effects := self._hub.drain():
            for effect in effects:
                if not isinstance(effect, Delivery):
                    _logger.info("mailbox %s %s", effect.label, effect.event)
                    continue
                line = self._lines.get(effect.connection)
                if line is not None and not line.put(effect.frame, replayed=effect.replayed):
                    self._hub.refuse(effect.connection, _slow(), now)
        self.timer.look_again()


async def _answer_to(ticket: Ticket) -> None:
    if not ticket.is_answered:
        answered = anyio.Event()
        ticket.wake = answered.set
        await answered.wait()  # `replication` gives up in time
        ticket.check()


def _slow() -> Refused:
    return Refused("slow", "this socket does not read what is sent to it: subscribe again", 503)
