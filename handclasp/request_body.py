"""A request's body for httpx that can be cancelled at any time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import httpx


def one_piece(body: bytes) -> httpx.AsyncByteStream:
    """A request's body. httpx's own is an async generator, which a cancelled request leaves half run."""
    import httpx

    class Body(httpx.AsyncByteStream):
        def __aiter__(self) -> AsyncIterator[bytes]:
            return _Once(body)

    return Body()


class _Once(AsyncIterator[bytes]):
    def __init__(self, body: bytes) -> None:
        self._rest = [body] if body else []

    async def __anext__(self) -> bytes:
        if not self._rest:
            raise StopAsyncIteration
        return self._rest.pop()
