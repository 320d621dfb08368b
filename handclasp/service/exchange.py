"""The hub among its sockets: one clock, one timer, and a bounded outbox for each connection."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Generator
from contextlib import contextmanager

import anyio

from .frames import End, Error, Refused, ServerFrame
from .hub import Hub
from .seats import Delivery
from .settings import Settings

_logger = logging.getLogger("handclasp.service")


class Outbox:
    """The frames that wait for one socket. Full means that its client does not read."""

    def __init__(self, settings: Settings) -> None:
        self._room = settings.outbox
        self._close_within = settings.close_within
        self._frames: deque[ServerFrame] = deque()
        self._filled: anyio.Event | None = None
        self.finished = False
        """The last frame is in; nothing follows."""

        self.writing = anyio.CancelScope()
        """Around the task that writes: gets a deadline with the last frame."""

    def put(self, frame: ServerFrame, *, replayed: bool) -> bool:
        """Add a frame; False when there is no room for it."""
        if self.finished:
            return True
        if isinstance(frame, End | Error):
            self.finished = True
            self.writing.deadline = anyio.current_time() + self._close_within
        elif replayed:
            self._room += 1  # a resume may bring the whole log at once: not the fault of the one who resumes
        elif len(self._frames) >= self._room:
            self._frames.clear()  # it subscribes again and gets them again
            return False
        self._frames.append(frame)
        if self._filled is not None:
            self._filled.set()
        return True

    async def take(self) -> ServerFrame:
        """Wait for the next frame. Cancelling loses none."""
        while not self._frames:
            self._filled = anyio.Event()
            await self._filled.wait()
        return self._frames.popleft()


class Exchange:
    """Drives a `Hub` for any number of sockets and requests of one event loop."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.is_timed = False
        """A task of the server keeps the time, so no socket has to."""

        self._hub = Hub(settings)
        self._outboxes: dict[int, Outbox] = {}
        self._timing = anyio.Lock()
        self._armed = math.inf
        self._earlier: anyio.Event | None = None
        self._empty: anyio.Event | None = None

    @contextmanager
    def at_work(self) -> Generator[tuple[Hub, float]]:
        """The hub and the time; what it did is carried out when the block ends, also by an error."""
        now = anyio.current_time()
        try:
            yield self._hub, now
        finally:
            self._carry_out(now)

    def connect(self, outbox: Outbox) -> int:
        """Take in a socket; end it with `disconnect`, always."""
        with self.at_work() as (hub, _):
            connection = hub.connect()
            self._outboxes[connection] = outbox
        return connection

    def disconnect(self, connection: int) -> None:
        """Take note that a socket is gone."""
        del self._outboxes[connection]
        with self.at_work() as (hub, now):
            hub.disconnect(connection, now)
        if self._empty is not None and not self._outboxes:
            self._empty.set()

    async def keep_time(self) -> None:
        """End what is over when it is over. Runs until it is cancelled.

        Any number of tasks may call this; one of them does the work, and when it is cancelled, another
        takes over. So the service is on time in a server without lifespan, where each socket offers a task.
        """
        async with self._timing:
            while True:
                with self.at_work() as (hub, now):
                    hub.tick(now)
                deadline = self._hub.next_deadline()
                self._armed = math.inf if deadline is None else deadline
                self._earlier = anyio.Event()
                with anyio.move_on_after(self._armed - anyio.current_time()):
                    await self._earlier.wait()

    async def shut_down(self) -> None:
        """Tell every socket that the service stops, and wait until each has heard it or had its time."""
        with self.at_work() as (hub, _):
            hub.shutdown()
        if self._outboxes:  # each has its last frame now, and with it a deadline
            self._empty = self._empty or anyio.Event()
            await self._empty.wait()

    def _carry_out(self, now: float) -> None:
        while effects := self._hub.drain():
            for effect in effects:
                if not isinstance(effect, Delivery):
                    _logger.info("mailbox %s %s", effect.label, effect.event)
                    continue
                outbox = self._outboxes.get(effect.connection)
                if outbox is not None and not outbox.put(effect.frame, replayed=effect.replayed):
                    self._hub.refuse(effect.connection, _slow(), now)
        deadline = self._hub.next_deadline()
        if deadline is not None and deadline < self._armed and self._earlier is not None:
            self._earlier.set()


def _slow() -> Refused:
    return Refused("slow", "this socket does not read what is sent to it: subscribe again", 503)
