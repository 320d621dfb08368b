"""Answering what peers ask: a handler for each stream that they open."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import trio

from handclasp.abc import Connection, Handler, Stream
from handclasp.errors import ConnectionLost, ProtocolRefused, ProtocolViolation
from handclasp.identity import PeerId

from .connections import Connections
from .multistream import choose_untrusted

__all__ = ["Server"]

_log = logging.getLogger(__name__)

#: Seconds that a peer may take to agree on a protocol for a stream that it opened.
NEGOTIATION_TIMEOUT = 10.0
#: Seconds that handlers may go on after the connection is over: what has arrived is still there to be read.
HANDLER_GRACE = 10.0


class Server:
    """Serves the connections of a node.

    Args:
        protocols: protocol id to handler.
        connections: where a connection that is over is taken out.
        streams: how many streams of one connection are answered at the same time; more are reset.
    """

    def __init__(self, protocols: Mapping[str, Handler], connections: Connections, *, streams: int) -> None:
        self._protocols = protocols
        self._connections = connections
        self._streams = streams

    async def serve(self, connection: Connection) -> None:
        """Answer the peer's streams until the connection is over, then close it."""
        reason = "this node was closed"
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._connections.watch_path, connection)
                try:
                    while True:
                        stream = await connection.accept_stream()
                        if len(nursery.child_tasks) > self._streams:  # one of them watches the path
                            _log.info("%s opened more than %d streams", connection.peer, self._streams)
                            await stream.reset()
                            continue
                        nursery.start_soon(self._answer, stream, connection.peer)
                except (ConnectionLost, trio.ClosedResourceError) as exc:
                    reason = str(exc)
                    self._connections.remove(connection, reason)
                    nursery.cancel_scope.deadline = trio.current_time() + HANDLER_GRACE
        finally:
            self._connections.remove(connection, reason)
            with trio.CancelScope(shield=True):  # has a deadline of its own
                await connection.aclose()

    async def _answer(self, stream: Stream, peer: PeerId) -> None:
        try:
            with trio.fail_after(NEGOTIATION_TIMEOUT):
                protocol = await choose_untrusted(stream, self._protocols)
        except (ProtocolRefused, ProtocolViolation, trio.TooSlowError, trio.BrokenResourceError) as exc:
            _log.info("a stream from %s was refused: %s", peer, str(exc) or "it took too long")
            await stream.reset()
            return
        try:
            await self._protocols[protocol](stream, peer)
        except Exception:  # noqa: BLE001 - a handler's error is its own: it ends its stream and nothing else
            _log.exception("the handler of %s failed", protocol)
            await stream.reset()
        else:
            await stream.aclose()
