"""Cancelling a piece of code at each of its awaits, one run after the other."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any, TypeVar, overload

import trio
import trio.abc
import trio.lowlevel

from .leftovers import Leftovers, old_objects_aside

T = TypeVar("T")


@overload
async def cancel_everywhere(
    function: Callable[[], Awaitable[object]], *, but: tuple[str, ...] = ..., quiet: float = ...
) -> int: ...


@overload
async def cancel_everywhere(
    function: Callable[[T], Awaitable[object]],
    *,
    around: Callable[[], AbstractAsyncContextManager[T]],
    but: tuple[str, ...] = ...,
    quiet: float = ...,
) -> int: ...


async def cancel_everywhere(
    function: Callable[..., Awaitable[object]],
    *,
    around: Callable[[], AbstractAsyncContextManager[Any]] | None = None,
    but: tuple[str, ...] = (),
    quiet: float = 0.02,
) -> int:
    """Run *function* again and again, each time cancelled one moment later, until it completes.

    A moment is when any task of the program has just suspended, or was just told to go on. So *function*
    is cancelled at each of its awaits, at each state that the tasks around it can be in meanwhile, and
    between the wake-up of a task and its running. Time limits that *function* sets itself are not reached:
    each run begins anew.

    ::

        async def dial() -> None:
            async with await transport.dial(address, peer):
                pass

        assert await cancel_everywhere(dial) > 3  # it was cancelled somewhere

    Args:
        function: closes what it opens, like the block above.
        around: opens what a run needs and must not be cancelled with it, for example a listening
            peer; *function* gets what it yields.
        but: what may stay; see `Leftovers`.
        quiet: see `Leftovers.settled`.

    Returns:
        How many moments there were: the number of runs that were cancelled.

    Raises:
        AssertionError: a run left a task, thread, socket or file behind; says which, and where it was cancelled.
    """
    leftovers = Leftovers(*but)
    moments = 0
    with old_objects_aside():
        while True:
            watch = await _run(function, around, moments + 1)
            left = await leftovers.settled(quiet=quiet)
            assert not left, f"cancelled at {watch}, it left behind: {', '.join(sorted(left))}"
            if not watch.fired:
                return moments
            moments += 1


async def _run(
    function: Callable[..., Awaitable[object]],
    around: Callable[[], AbstractAsyncContextManager[Any]] | None,
    moment: int,
) -> _Watch:
    """Run *function* once, cancelled at one moment."""
    watch: _Watch | None = None
    try:
        if around is None:
            with _cancelled_at(moment) as watch:
                await function()
        else:
            async with around() as needs:
                with _cancelled_at(moment) as watch:
                    await function(needs)
    except Exception as exc:
        exc.add_note(f"It came out of the run that was cancelled at {watch or 'no moment'}.")
        raise
    return watch


async def check_nothing_lost(
    bring: Callable[[], Awaitable[object]], take: Callable[[], Awaitable[T]]
) -> None:
    """Cancel *take* at each of its awaits while *bring* brings something for it.

    What a cancelled one did not return, the next one has to: if it was lost, that one waits forever.
    """
    moment, fired = 0, True
    while fired:
        moment += 1
        taken: list[T] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bring)
            with _cancelled_at(moment) as watch:
                taken.append(await take())
        if not taken:
            await take()
        fired = watch.fired


@contextmanager
def _cancelled_at(moment: int) -> Generator[_Watch]:
    watch = _Watch(moment)
    trio.lowlevel.add_instrument(watch)
    try:
        with watch.scope:
            yield watch
    finally:
        trio.lowlevel.remove_instrument(watch)


class _Watch(trio.abc.Instrument):
    """Cancels a block at one moment of its run."""

    def __init__(self, moment: int) -> None:
        self._moment = self._left = moment
        self.scope = trio.CancelScope()
        self._task = trio.lowlevel.current_task()
        self._where = ""

    @property
    def fired(self) -> bool:
        """Whether the moment came."""
        return self._left <= 0

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        del task  # whichever it is
        self._pass_moment()

    def task_scheduled(self, task: trio.lowlevel.Task) -> None:
        del task
        self._pass_moment()

    def _pass_moment(self) -> None:
        self._left -= 1
        if self._left == 0:
            self._where = self._awaiting()
            self.scope.cancel()

    def _awaiting(self) -> str:
        """The awaits that the task is in, outermost first, without trio's own."""
        frames = [
            f"{frame.f_code.co_qualname}, line {line}"
            for frame, line in self._task.iter_await_frames()
            if not str(frame.f_globals.get("__name__", "")).startswith(("trio.", __name__))
        ]
        return " > ".join(frames[-4:])

    def __str__(self) -> str:
        return f"moment {self._moment} ({self._where or 'not reached'})"
