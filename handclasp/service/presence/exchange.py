"""The presence hub among its sockets."""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import contextmanager

import anyio

from handclasp.service.asgi import Request
from handclasp.service.frames import Refused
from handclasp.service.lines import Line, Outgoing, Switchboard, Timer
from handclasp.service.settings import Settings
from handclasp.service.strict import malformed

from .frames import End, Error
from .hub import PresenceHub
from .wire import encode_frame, parse_frame_untrusted

_logger = logging.getLogger("handclasp.service")


class PresenceLine(Line):
    """A socket; what waits for it is in the hub."""

    def __init__(self, exchange: PresenceExchange, connection: int) -> None:
        super().__init__()
        self._exchange = exchange
        self._connection = connection
        self._woken: anyio.Event | None = None
        self._finished = False

    @property
    def finished(self) -> bool:
        """See `Line.finished`."""
        return self._finished

    def wake(self, *, finished: bool) -> None:
        """There is something to send; *finished* when that is the last."""
        if finished and not self._finished:
            self._finished = True
            self.writing.deadline = anyio.current_time() + self._exchange.close_within
        if self._woken is not None:
            self._woken.set()

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
        with self._exchange.at_work() as (hub, _):
            hub.refuse(self._connection, refused)

    async def next(self) -> Outgoing:
        """See `Line.next`."""
        while (frame := self._exchange.take(self._connection)) is None:
            self._woken = anyio.Event()
            await self._woken.wait()
        if isinstance(frame, End | Error):
            return Outgoing(encode_frame(frame), frame.close_status, frame.code)
        return Outgoing(encode_frame(frame))


class PresenceExchange(Switchboard):
    """Drives a `PresenceHub` for any number of sockets of one event loop."""

    def __init__(self, settings: Settings) -> None:
        self.close_within = settings.close_within
        self._hub = PresenceHub(settings.presence)
        self.timer = Timer(self._tick, self._hub.next_deadline)
        self.take = self._hub.take
        self.population = self._hub.population
        self._lines: dict[int, PresenceLine] = {}
        self._empty: anyio.Event | None = None

    @contextmanager
    def at_work(self) -> Generator[tuple[PresenceHub, float]]:
        """The hub and the time; what it did is carried out when the block ends, also by an error."""
        try:
            yield self._hub, anyio.current_time()
        finally:
            self._carry_out()

    @contextmanager
    def open_line(self, request: Request) -> Generator[PresenceLine]:
        """See `Switchboard.open_line`."""
        host = request.headers.get(b"host")
        with self.at_work() as (hub, now):
            connection = hub.connect(None if host is None else host.decode("latin-1"), now)
            self._lines[connection] = line = PresenceLine(self, connection)
        try:
            yield line
        finally:
            del self._lines[connection]
            with self.at_work() as (hub, _):
                hub.disconnect(connection)
            if self._empty is not None and not self._lines:
                self._empty.set()

    async def shut_down(self) -> None:
        """See `Switchboard.shut_down`."""
        with self.at_work() as (hub, _):
            hub.shutdown()
        if self._lines:
            self._empty = self._empty or anyio.Event()
            await self._empty.wait()

    def _tick(self, now: float) -> None:
        self._hub.tick(now)
        self._carry_out()

    def _carry_out(self) -> None:
        woken, notes = self._hub.drain()
        for connection in woken:
            line = self._lines.get(connection)
            if line is not None:
                line.wake(finished=self._hub.is_over(connection))
        for note in notes:
            _logger.info("presence: %s", note.event)
        self.timer.look_again()
