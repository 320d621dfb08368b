"""An asyncio event loop that lives in the trio thread and runs when it has something to do.

aiortc needs asyncio; everything else here runs on trio. Instead of a second thread, a trio task
waits for the loop's own selector and then lets the loop do one round: no thread to wake, no
interpreter lock to fight for, so a message costs what it costs in bare aiortc
(figures: docs/decisions/0003-asyncio-inside-trio.md).
"""

from __future__ import annotations

import asyncio
import logging
import math
import selectors
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence, Sized
from contextlib import asynccontextmanager
from typing import Any, TypeVar, TypeVarTuple

import outcome
import trio

from handclasp.errors import ConfigurationError
from handclasp.scope import open_scope

from .datagrams import LARGEST, DatagramTransport

T = TypeVar("T")
Args = TypeVarTuple("Args")

_log = logging.getLogger(__name__)

#: Rounds in a row before the loop lets other trio tasks run; a send takes three.
_ROUNDS = 32


class InlineLoop:
    """The asyncio side as trio sees it; made by `open_inline_loop`."""

    def __init__(self, loop: _Loop) -> None:
        self._loop = loop
        self._running = False
        self._parked = False
        self._drivers: dict[object, trio.CancelScope] = {}
        self._alarm = trio.CancelScope()  # of `watch_timers`; ends when the next timer is due

    def post(self, call: Callable[[], object]) -> None:
        """From trio: run *call* on the loop, in order; usually it has been done on return."""
        if self._loop.is_closed():
            return  # what is left after the end can only be farewells
        if self._running or self._loop.has_work():
            self._loop.call_soon(call)
            self.turn()
            return
        # Nothing waits, so this is what the next round would do; the round itself costs more than most calls.
        self._running = True
        try:
            self._loop.run_now(call)
        finally:
            self._running = False
        if self._loop.has_work():
            self.turn()
        else:
            self._set_alarm()

    def post_soon(self, call: Callable[[], object]) -> None:
        """From trio: run *call* on the loop, in order with `post`, but not before the caller has gone on.

        For what may call back at once: the caller sets its callbacks first.
        """
        if not self._loop.is_closed():
            self._loop.call_soon(call)
            self._alarm.deadline = -math.inf

    def deliver(self, call: Callable[[], object]) -> None:
        """From the loop: run *call* on the trio side: at once, it is the same thread."""
        try:
            call()
        except Exception:  # noqa: BLE001 - a broken callback must not end the loop's own work
            _log.exception("a callback from the loop failed")

    async def run(self, function: Callable[[*Args], Coroutine[Any, Any, T]], *args: *Args) -> T:
        """From trio: run a coroutine on the loop and wait for its result.

        Cancelling cancels the coroutine and waits until it has cleaned up.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        trio_task = trio.lowlevel.current_task()
        raise_cancel: Callable[[], object] | None = None

        def finish(task: asyncio.Task[T]) -> None:
            result: outcome.Outcome[Any]
            if task.cancelled() and raise_cancel is not None:
                result = outcome.capture(raise_cancel)
            else:
                result = outcome.capture(task.result)
            trio.lowlevel.reschedule(trio_task, result)

        def abort(raise_cancelled: Callable[[], object]) -> trio.lowlevel.Abort:
            nonlocal raise_cancel
            raise_cancel = raise_cancelled
            self.post(aio_task.cancel)
            return trio.lowlevel.Abort.FAILED

        aio_task = self._loop.create_task(function(*args))
        aio_task.add_done_callback(finish)
        self._alarm.deadline = -math.inf  # its first round comes once this task sleeps
        value: T = await trio.lowlevel.wait_task_rescheduled(abort)
        return value

    def finish(self) -> None:
        """Cancel what still runs on the loop, wait for it, and close the loop."""
        self._running = True
        outer = asyncio._get_running_loop()  # noqa: SLF001 - trio may itself be a guest of asyncio
        asyncio._set_running_loop(None)  # noqa: SLF001
        try:
            self._loop.run_until_complete(_cancel_everything())
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        finally:
            asyncio._set_running_loop(outer)  # noqa: SLF001
            self._loop.close()

    def turn(self) -> None:
        """Let the loop work until it has nothing to do at once, or for `_ROUNDS` rounds."""
        if self._running:
            return  # called from within a round: the one under way goes on to it
        self._running = True
        try:
            self._loop.run_rounds(_ROUNDS)
        finally:
            self._running = False
        self._set_alarm()

    def _set_alarm(self) -> None:
        # An alarm that comes too early is harmless, so it is only ever moved forward here.
        alarm = trio.current_time() + self._loop.idle_time()
        if alarm < self._alarm.deadline:  # noqa: PLR1730 - the setter does work each time
            self._alarm.deadline = alarm

    async def drive(self, watch: Callable[[], Awaitable[None]]) -> None:
        """Keep *watch* going until `park`, even when all around it is cancelled.

        Whoever is cancelled closes its connections first, and needs the loop for that.
        """
        with trio.CancelScope(shield=True) as self._drivers[watch]:
            if not self._parked:
                await watch()

    def park(self) -> None:
        """End `drive`: nobody uses the loop any more."""
        self._parked = True
        for driver in self._drivers.values():
            driver.cancel()

    async def watch_sockets(self) -> None:
        """Take a turn whenever a datagram arrives."""
        while True:
            await trio.lowlevel.wait_readable(self._loop.fileno)
            self.turn()

    async def watch_timers(self) -> None:
        """Take a turn whenever a timer is due."""
        while True:
            with trio.CancelScope(deadline=trio.current_time() + self._loop.idle_time()) as self._alarm:
                await trio.sleep_forever()
            self.turn()


class _Loop(asyncio.SelectorEventLoop):
    """asyncio's own loop, run one round at a time."""

    # What has no public name; a canary test watches it.
    _ready: Sized
    _scheduled: Sequence[asyncio.TimerHandle]
    _stopping: bool
    _run_once: Callable[[], None]

    def __init__(self) -> None:
        selector = selectors.DefaultSelector()
        super().__init__(selector)
        fileno: object = getattr(selector, "fileno", lambda: None)()
        if not isinstance(fileno, int):  # the selector of Windows
            self.close()
            raise ConfigurationError(
                "the aiortc engine needs epoll or kqueue (Linux, macOS): pass another engine"
            )

        self.fileno = fileno
        self._read_into = memoryview(bytearray(LARGEST))

    def _make_datagram_transport(
        self, sock: socket.socket, protocol: Any, address: Any = None, waiter: Any = None, extra: Any = None
    ) -> DatagramTransport:
        return DatagramTransport(self, self._read_into, sock, protocol, address, waiter, extra)

    def has_work(self) -> bool:
        """Whether something is to be done at once."""
        return bool(self._ready)

    def run_now(self, call: Callable[[], object]) -> None:
        """Do what a round would do that has nothing but *call* to do."""
        outer = asyncio._get_running_loop()  # noqa: SLF001 - trio may itself be a guest of asyncio
        asyncio._set_running_loop(self)  # noqa: SLF001
        try:
            asyncio.Handle(call, (), self)._run()  # noqa: SLF001
        finally:
            asyncio._set_running_loop(outer)  # noqa: SLF001

    def run_rounds(self, most: int) -> None:
        """Do what is ready, without waiting, until there is nothing more to do at once.

        ``stop()`` and ``run_forever()`` would do the same in public, for 7 µs more each round.
        """
        outer = asyncio._get_running_loop()  # noqa: SLF001 - trio may itself be a guest of asyncio
        asyncio._set_running_loop(self)  # noqa: SLF001
        self._stopping = True  # a round does not wait then
        try:
            for _ in range(most):
                self._run_once()
                if not self._ready:
                    break
        finally:
            self._stopping = False
            asyncio._set_running_loop(outer)  # noqa: SLF001

    def idle_time(self) -> float:
        """Seconds until the next timer."""
        if self._ready:
            return 0
        return max(0, self._scheduled[0].when() - self.time()) if self._scheduled else math.inf


@asynccontextmanager
async def open_inline_loop() -> AsyncGenerator[InlineLoop]:
    """Run an asyncio loop inside this trio run while the block runs; afterwards its tasks have ended."""
    inline = InlineLoop(_Loop())
    try:
        async with open_scope() as scope:
            scope.start_soon(inline.drive, inline.watch_sockets)
            scope.start_soon(inline.drive, inline.watch_timers)
            try:
                yield inline
            finally:
                inline.park()
    finally:
        inline.finish()


async def _cancel_everything() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
