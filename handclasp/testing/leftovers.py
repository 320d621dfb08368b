"""What a piece of code leaves behind, found by counting: tasks, threads, sockets and files."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from collections.abc import AsyncGenerator, Generator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import cast

import trio
import trio.lowlevel
import trio.testing

#: Where the system lists the open files of this process; Windows lists them nowhere, and there they are not counted.
_FILES = next((path for path in (Path("/proc/self/fd"), Path("/dev/fd")) if path.is_dir()), None)
#: Quiet periods before what is left counts as forgotten, as shares of *quiet*. Short ones first, because most is
#: gone in milliseconds; then three whole ones, because a timer that is due may start something.
_ROUNDS = (*[0.1] * 15, 1.0, 1.0, 1.0)


class Leftovers:
    """What there is now and was not there when this object was made.

    Counts trio tasks, asyncio tasks, threads, and open files and sockets (not on Windows).

    ::

        async with Leftovers().none():
            await use_my_backend()

    Args:
        but: what may stay; beginnings of the names that are reported, for example ``"thread asyncio_"``.
    """

    def __init__(self, *but: str) -> None:
        self._but = but
        self._before = set(_holdings())

    def __call__(self) -> set[str]:
        """The names of what is new."""
        new = set(_holdings()) - self._before
        return {name for name in new if not name.startswith(self._but)} if self._but else new

    async def settled(self, *, quiet: float = 0.02) -> set[str]:
        """What is new once nothing moves any more; returns as soon as there is nothing.

        Args:
            quiet: seconds without any task running, three times over, after which what is left counts as
                forgotten. Raise it where other processes or threads take part in cleaning up.
        """
        await trio.lowlevel.checkpoint()
        for share in _ROUNDS:
            if not self():
                return set()
            await trio.testing.wait_all_tasks_blocked(share * quiet)
        return self()

    @asynccontextmanager
    async def none(self, *, quiet: float = 0.02) -> AsyncGenerator[None]:
        """Raises AssertionError when something is left after the block; see `settled` for *quiet*."""
        yield
        left = await self.settled(quiet=quiet)
        assert not left, f"left behind: {', '.join(sorted(left))}"


@contextmanager
def old_objects_aside() -> Generator[None]:
    """Count often in this block, with a `Leftovers` that was made right before it.

    asyncio names the tasks of one loop only, so counting looks at every object there is: 20 ms under pytest, most of
    what a run of `cancel_everywhere` takes. Here it looks at those that are new; the others have been counted.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _holdings() -> Iterator[str]:
    for thread in threading.enumerate():
        if not thread.name.startswith("Trio thread"):  # trio keeps idle workers for a while
            yield f"thread {thread.name} {thread.ident}"
    yield from _open_files()
    yield from _trio_tasks(trio.lowlevel.current_root_task())
    for thing in gc.get_objects():  # the tasks of every loop, also of those that do not run now
        # By its type: isinstance() asks the object itself, and some (Django's settings) do things then.
        if issubclass(type(thing), asyncio.Task):
            task = cast("asyncio.Task[object]", thing)
            if not task.done():
                yield f"asyncio task {id(task)} {task}"


def _open_files() -> Iterator[str]:
    if _FILES is None:
        return
    for name in os.listdir(_FILES):  # noqa: PTH208 - names, not paths
        try:
            found = os.fstat(int(name))
        except OSError:  # the listing itself, closed again
            continue
        # The number alone would hide a file that was closed while another one took its number.
        yield f"file {_target(_FILES / name)} {name} {found.st_dev}:{found.st_ino}"


def _target(file: Path) -> str:
    try:
        return str(file.readlink())
    except OSError:  # macOS has no links there
        return "open"


def _trio_tasks(task: trio.lowlevel.Task | None) -> Iterator[str]:
    if task is None:
        return
    for nursery in task.child_nurseries:
        for child in nursery.child_tasks:
            yield f"trio task {child.name} {id(child)}"
            yield from _trio_tasks(child)
