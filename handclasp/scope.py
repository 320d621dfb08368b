"""Background tasks that live exactly as long as a block, without changing the block's errors."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVarTuple

import trio

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
        raise _only_error(group, from_block) from None


def _only_error(group: BaseExceptionGroup[BaseException], from_block: BaseException | None) -> BaseException:
    if from_block is not None and not isinstance(from_block, trio.Cancelled):
        return from_block
    # A background task failed and the block was merely cancelled for it.
    rest = group.split(trio.Cancelled)[1]
    if rest is None:
        return from_block or group
    while isinstance(rest, BaseExceptionGroup) and len(rest.exceptions) == 1:
        rest = rest.exceptions[0]
    return rest
