"""Background tasks that live exactly as long as a block, without changing the block's errors."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeAlias, TypeVarTuple, cast

import trio

from .errors import DeadlineExceeded

_Group: TypeAlias = BaseExceptionGroup[BaseException]
Args = TypeVarTuple("Args")


class Scope:
    """Runs background tasks; made by `open_scope`."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery

    def start_soon(self, function: Callable[[*Args], Awaitable[object]], *args: *Args) -> None:
        """Run *function* in the background until the block ends; then it is cancelled."""
        self._nursery.start_soon(function, *args)

    async def start(self, function: Callable[..., Awaitable[object]], *args: object) -> Any:
        """Run *function* in the background and wait until it reports ``task_status.started(value)``."""
        return await self._nursery.start(function, *args)

    def cancel(self) -> None:
        """End the block and every background task now."""
        self._nursery.cancel_scope.cancel()


@contextmanager
def deadline(seconds: float, what: str) -> Generator[None]:
    """The block has *seconds*; otherwise `DeadlineExceeded` says *what* took too long."""
    try:
        with trio.fail_after(seconds):
            yield
    except trio.TooSlowError:
        raise DeadlineExceeded(f"{what} within {seconds:.0f} s") from None


@asynccontextmanager
async def open_scope() -> AsyncGenerator[Scope]:
    """Own background tasks for the length of a block.

    When the block ends, its tasks are cancelled and waited for. The block's own
    error comes out bare: a plain nursery around a ``yield`` would hand the
    caller's ``ValueError`` out as an ``ExceptionGroup``. An error of a
    background task cancels the block and comes out as it is, too.
    """
    from_block: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            try:
                yield Scope(nursery)
            except BaseException as exc:
                from_block = exc
                raise
            finally:
                nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        error = _only_error(group, from_block)
        context = error.__context__
        try:
            raise error  # not `from None`: that would erase the cause it came with
        finally:
            error.__context__ = context  # raising put the group there


def _only_error(group: _Group, from_block: BaseException | None) -> BaseException:
    if from_block is not None and not _is_cancelled(from_block):
        return from_block
    # A background task failed and the block was merely cancelled for it.
    _, failures = group.split(trio.Cancelled)
    if failures is None:
        return from_block or group
    return _unwrap(failures)


def _is_cancelled(exc: BaseException) -> bool:
    """Whether *exc* is a cancellation, or what a nursery inside the block makes of several."""
    if isinstance(exc, BaseExceptionGroup):
        return cast("_Group", exc).split(trio.Cancelled)[1] is None
    return isinstance(exc, trio.Cancelled)


def _unwrap(group: _Group) -> BaseException:
    """The only error in nested groups of one; a group of several as it is."""
    only, *others = group.exceptions
    if others:
        return group
    return _unwrap(cast("_Group", only)) if isinstance(only, BaseExceptionGroup) else only
