"""A limit that uvicorn does not have: it waits without end for a request to begin.

The one place that relies on how uvicorn's protocol class is made inside (``cycle``, ``transport``, ``loop``);
tests/service/test_server.py fails when one of them moves.
"""

from __future__ import annotations

from typing import Any, Protocol

from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle


class _Timer(Protocol):
    def cancel(self) -> None: ...


def impatient_protocol(within: float) -> type[H11Protocol]:
    """Make uvicorn's HTTP protocol drop a connection that completes no headers for *within* seconds."""

    class ImpatientProtocol(H11Protocol):
        _watch: _Timer | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._watch_again()

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            if self._watch is not None:
                self._watch.cancel()

        def _watch_again(self) -> None:
            self._watch = self.loop.call_later(within, self._look, self.cycle)

        def _look(self, before: RequestResponseCycle | None) -> None:
            if self.transport.get_protocol() is not self:
                return  # a WebSocket by now, with a deadline of its own
            is_idle = before is None or before.response_complete
            if is_idle and self.cycle is before:
                self.transport.abort()
            else:
                self._watch_again()

    return ImpatientProtocol
