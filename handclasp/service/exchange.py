"""The hub among its sockets: one clock, one timer, and a bounded outbox for each connection."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Generator
from contextlib import contextmanager

import anyio

from .asgi import Request
from .frames import End, Error, Refused, ServerFrame
from .hub import Hub
from .lines import Line, Outgoing, Switchboard, Timer
from .seats import Delivery
from .settings import Settings
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
        elif replayed:
            self._room += 1  # a resume may bring the whole log at once: not the fault of the one who resumes
        elif len(self._frames) >= self._room:
            self._frames.clear()  # it subscribes again and gets them again
            return False
        self._frames.append(frame)
        if self._filled is not None:
            self._filled.set()
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
            with self._exchange.at_work() as (hub, now):
                hub.receive(self._connection, frame, now)

    def refuse(self, refused: Refused) -> None:
        """See `Line.refuse`."""
        with self._exchange.at_work() as (hub, now):
            hub.refuse(self._connection, refused, now)

    async def next(self) -> Outgoing:
        """See `Line.next`."""
        while not self._frames:
            self._filled = anyio.Event()
            await self._filled.wait()
        frame = self._frames.popleft()
        if isinstance(frame, End | Error):
            return Outgoing(encode_frame(frame), frame.close_status, frame.code)
        return Outgoing(encode_frame(frame))


class Exchange(Switchboard):
    """Drives a `Hub` for any number of sockets and requests of one event loop."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._hub = Hub(settings)
        self.timer = Timer(self._tick, self._hub.next_deadline)
        self.population = self._hub.population
        self._lines: dict[int, MailboxLine] = {}
        self._empty: anyio.Event | None = None

    @contextmanager
    def at_work(self) -> Generator[tuple[Hub, float]]:
        """The hub and the time; what it did is carried out when the block ends, also by an error."""
        now = anyio.current_time()
        try:
            yield self._hub, now
        finally:
            self._carry_out(now)

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

    async def shut_down(self) -> None:
        """See `Switchboard.shut_down`."""
        with self.at_work() as (hub, _):
            hub.shutdown()
        if self._lines:  # each has its last frame now, and with it a deadline
            self._empty = self._empty or anyio.Event()
            await self._empty.wait()

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


def _slow() -> Refused:
    return Refused("slow", "this socket does not read what is sent to it: subscribe again", 503)
