"""What stands in front of a service: passes connections on to whoever is up, and breaks them when the test says so."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

import trio


class Balancer:
    """Made by `open_balancer`. New connections go to the backends in turn, past those that are down.

    Attributes:
        url: of the service, as its clients know it.
        backends: ``http://…`` of each instance.
        cut_after: bytes from the service after which a connection breaks, for the next connections; one each.
    """

    def __init__(self, *backends: str) -> None:
        self.url = ""
        self.backends = list(backends)
        self.cut_after: list[int] = []
        self.connections = 0
        self._scopes: set[trio.CancelScope] = set()
        self._turn = 0

    def cut(self) -> None:
        """Break every connection."""
        for scope in self._scopes:
            scope.cancel()

    async def serve(self, client: trio.SocketStream) -> None:
        self.connections += 1
        with trio.CancelScope() as scope:
            self._scopes.add(scope)
            try:
                async with client:
                    backend = await self._connect()
                    if backend is not None:
                        async with backend, trio.open_nursery() as nursery:
                            limit = self.cut_after.pop(0) if self.cut_after else None
                            nursery.start_soon(self._pass, client, backend, None, scope)
                            nursery.start_soon(self._pass, backend, client, limit, scope)
            finally:
                self._scopes.discard(scope)

    async def _connect(self) -> trio.SocketStream | None:
        self._turn += 1
        first = self._turn
        for index in range(len(self.backends)):
            parts = urlsplit(self.backends[(first + index) % len(self.backends)])
            assert parts.hostname is not None
            assert parts.port is not None
            with suppress(OSError):
                return await trio.open_tcp_stream(parts.hostname, parts.port)
        return None

    async def _pass(
        self,
        source: trio.SocketStream,
        target: trio.SocketStream,
        limit: int | None,
        scope: trio.CancelScope,
    ) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async for data in source:
                await target.send_all(data if limit is None else data[:limit])
                if limit is not None:
                    limit -= len(data)
                    if limit <= 0:
                        break
        scope.cancel()


@asynccontextmanager
async def open_balancer(*backends: str) -> AsyncGenerator[Balancer]:
    """Listen on a free port of the loopback interface while the block runs."""
    balancer = Balancer(*backends)
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    host, port = listeners[0].socket.getsockname()
    balancer.url = f"ws://{host}:{port}"
    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, balancer.serve, listeners)
        yield balancer
        nursery.cancel_scope.cancel()
