"""What a WebSocket is served by, whatever is spoken on it: a line to an exchange, and the exchange's clock."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass

import anyio
import anyio.lowlevel

from .asgi import Request
from .frames import Refused


@dataclass(frozen=True)
class Outgoing:
    """A text frame; with a status when the socket is closed right after it."""

    text: str
    close_status: int | None = None
    close_reason: str = ""


class Line(ABC):
    """One socket's end of an exchange."""

    def __init__(self) -> None:
        self.writing = anyio.CancelScope()
        """Around the task that writes: gets a deadline with the last frame."""

    @property
    @abstractmethod
    def finished(self) -> bool:
        """The last frame is in; nothing that the client says counts any more."""

    @abstractmethod
    def receive_untrusted(self, text: str | None) -> None:
        """Take in one frame, None for a binary one. Nothing is raised: a client at fault is told."""

    @abstractmethod
    def refuse(self, refused: Refused) -> None:
        """End the socket by the fault of its client."""

    async def settled(self) -> None:
        """Wait until the next frame may be taken in. Lets others run in any case."""
        # A server that has read many frames at once hands them out without a pause: let the
        # writers of both sides run, or the receiver of a burst would look slow.
        await anyio.lowlevel.checkpoint()

    @abstractmethod
    async def next(self) -> Outgoing:
        """Wait for what is to be sent next. Cancelling loses nothing."""


class Timer:
    """Calls *tick* when the first of any number of deadlines comes up."""

    def __init__(
        self,
        tick: Callable[[float], None],
        next_deadline: Callable[[], float | None],
        clock: Callable[[], float] = anyio.current_time,
    ) -> None:
        self.is_kept = False
        """A task of the server runs it, so no socket has to."""

        self._tick = tick
        self._next_deadline = next_deadline
        self._clock = clock
        self._running = anyio.Lock()
        self._armed = math.inf
        self._earlier: anyio.Event | None = None

    async def run(self) -> None:
        """End what is over when it is over. Runs until it is cancelled.

        Any number of tasks may call this; one of them does the work, and when it is cancelled, another
        takes over. So the service is on time in a server without lifespan, where each socket offers a task.
        """
        async with self._running:
            while True:
                self._tick(self._clock())
                deadline = self._next_deadline()
                self._armed = math.inf if deadline is None else deadline
                self._earlier = anyio.Event()
                with anyio.move_on_after(self._armed - self._clock()):
                    await self._earlier.wait()

    def look_again(self) -> None:
        """There may be a deadline earlier than the first one so far."""
        deadline = self._next_deadline()
        if deadline is not None and deadline < self._armed and self._earlier is not None:
            self._earlier.set()


class Switchboard(ABC):
    """Drives a protocol without I/O for any number of sockets of one event loop."""

    timer: Timer

    @abstractmethod
    def open_line(self, request: Request) -> AbstractContextManager[Line]:
        """Take in a socket while the block runs."""

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Do what has to be done in the background while the block runs."""
        yield

    @abstractmethod
    async def shut_down(self) -> None:
        """Tell every socket that the service stops, and wait until each has heard it or had its time."""
