"""One asyncio event loop in a thread of its own, with a queue in each direction.

aiortc needs asyncio; everything else here runs on trio. A call across costs one
wake-up, and calls made while a wake-up is pending share it: no worker thread is
held by anything that waits (measured beside the alternatives in
docs/decisions/0003-asyncio-in-a-thread.md).
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar, TypeVarTuple

import outcome
import trio

T = TypeVar("T")
Args = TypeVarTuple("Args")

_log = logging.getLogger(__name__)


class LoopThread:
    """The asyncio side as trio sees it; made by `open_loop_thread`."""

    def __init__(self, token: trio.lowlevel.TrioToken, loop: asyncio.AbstractEventLoop) -> None:
        self._token = token
        self._loop = loop
        self._to_loop: deque[Callable[[], object]] = deque()
        self._to_trio: deque[Callable[[], object]] = deque()
        self._loop_woken = False
        self._trio_woken = False

    def post(self, call: Callable[[], object]) -> None:
        """From trio: run *call* on the loop soon, in order."""
        self._to_loop.append(call)
        if not self._loop_woken:
            self._loop_woken = True
            self._loop.call_soon_threadsafe(self._drain_to_loop)

    def deliver(self, call: Callable[[], object]) -> None:
        """From the loop: run *call* in the trio thread soon, in order."""
        self._to_trio.append(call)
        if not self._trio_woken:
            self._trio_woken = True
            try:
                self._token.run_sync_soon(self._drain_to_trio)
            except trio.RunFinishedError:  # trio is gone, and with it everyone who could care
                self._to_trio.clear()

    async def run(self, function: Callable[[*Args], Coroutine[Any, Any, T]], *args: *Args) -> T:
        """From trio: run a coroutine on the loop and wait for its result.

        Cancelling cancels the coroutine and waits until it has cleaned up.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        trio_task = trio.lowlevel.current_task()
        aio_task: asyncio.Task[T] | None = None
        raise_cancel: Callable[[], object] | None = None

        def start() -> None:
            nonlocal aio_task
            aio_task = self._loop.create_task(function(*args))
            aio_task.add_done_callback(finish)

        def finish(task: asyncio.Task[T]) -> None:
            result: outcome.Outcome[Any]
            if task.cancelled() and raise_cancel is not None:
                result = outcome.capture(raise_cancel)
            else:
                result = outcome.capture(task.result)
            self.deliver(lambda: trio.lowlevel.reschedule(trio_task, result))

        def abort(raise_cancelled: Callable[[], object]) -> trio.lowlevel.Abort:
            nonlocal raise_cancel
            raise_cancel = raise_cancelled
            self.post(lambda: aio_task and aio_task.cancel())
            return trio.lowlevel.Abort.FAILED

        self.post(start)
        value: T = await trio.lowlevel.wait_task_rescheduled(abort)
        return value

    def _drain_to_loop(self) -> None:
        self._loop_woken = False  # first, so that a call appended meanwhile wakes the loop again
        _drain(self._to_loop)

    def _drain_to_trio(self) -> None:
        self._trio_woken = False
        _drain(self._to_trio)


def _drain(calls: deque[Callable[[], object]]) -> None:
    for _ in range(len(calls)):
        try:
            calls.popleft()()
        except Exception:  # noqa: BLE001 - one broken callback must not lose the calls behind it
            _log.exception("a callback between the loops failed")


@asynccontextmanager
async def open_loop_thread() -> AsyncGenerator[LoopThread]:
    """Run an asyncio loop (uvloop where it is installed) in a thread while the block runs.

    When the block ends, tasks still on the loop are cancelled and the thread is joined.
    """
    token = trio.lowlevel.current_trio_token()
    loop = _new_event_loop()
    stopped = trio.Event()

    def main() -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
            _cancel_everything(loop)
        finally:
            loop.close()
            token.run_sync_soon(stopped.set)

    thread = threading.Thread(target=main, name="handclasp-webrtc", daemon=True)
    thread.start()
    try:
        yield LoopThread(token, loop)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        with trio.CancelScope(shield=True):
            await stopped.wait()
        thread.join()  # it has nothing left to do


def _cancel_everything(loop: asyncio.AbstractEventLoop) -> None:
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
    loop.run_until_complete(loop.shutdown_asyncgens())


def _new_event_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()
