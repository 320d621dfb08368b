"""Good backends to be broken, and how to see that a suite finds out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import pytest

from handclasp.abc import Stream

T = TypeVar("T")

#: Some defects leave a socket to the garbage collector.
leaky = [
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def each(defects: dict[Any, str]) -> pytest.MarkDecorator:
    """Run a test on each broken backend and the claim that it breaks."""
    params = [pytest.param(kind, claim, id=kind.__name__) for kind, claim in defects.items()]
    return pytest.mark.parametrize(("kind", "claim"), params)


async def fails_with(claim: str, suite: Awaitable[None]) -> None:
    """The suite has to fail, and to say that it was this claim."""
    with pytest.raises(Exception) as caught:  # noqa: PT011 - what it has to say is looked at below
        await suite
    told = "\n".join(told_by(caught.value))
    assert claim in told, told


def told_by(exc: BaseException) -> list[str]:
    inner = [line for each in getattr(exc, "exceptions", []) for line in told_by(each)]
    return [str(exc), *getattr(exc, "__notes__", []), *inner]


class Mapped(AsyncIterator[T]):
    """What comes out of an iterator, each through a function; a generator would want to be closed."""

    def __init__(self, source: AsyncIterator[T], function: Callable[[T], T]) -> None:
        self._source = source
        self._function = function

    async def __anext__(self) -> T:
        return self._function(await anext(self._source))


class AStream(Stream):
    """A good stream, to be broken."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream

    async def send_all(self, data: Any) -> None:
        await self.stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self.stream.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        await self.stream.send_eof()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return await self.stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        await self.stream.aclose()

    async def reset(self) -> None:
        await self.stream.reset()
