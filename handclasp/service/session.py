"""One WebSocket: its first frame in time, its frames to the hub, its outbox to the wire."""

from __future__ import annotations

import logging
from typing import cast

import anyio
import anyio.lowlevel

from .asgi import Event, Receive, Send
from .exchange import Exchange, Outbox
from .frames import End, Error, Refused
from .strict import malformed
from .wire import encode_frame, parse_frame_untrusted

_logger = logging.getLogger("handclasp.service")


class Session:
    """An accepted socket until it is closed."""

    def __init__(self, exchange: Exchange, receive: Receive, send: Send) -> None:
        self._exchange = exchange
        self._receive = receive
        self._send = send
        self._outbox = Outbox(exchange.settings)
        self._connection = 0

    async def run(self) -> None:
        """Serve it. When this returns or is cancelled, the socket's party counts as gone."""
        self._connection = self._exchange.connect(self._outbox)
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._write, tasks.cancel_scope)
                if not self._exchange.is_timed:
                    tasks.start_soon(self._exchange.keep_time)
                if await self._read_to_the_end():
                    tasks.cancel_scope.cancel()
        finally:
            self._exchange.disconnect(self._connection)

    async def _read_to_the_end(self) -> bool:
        """True when the client is gone, False when the writer has the last word."""
        event: Event | None = None
        with anyio.move_on_after(self._exchange.settings.first_frame_within):
            event = await self._receive()
        if event is None:
            self._refuse(Refused("timeout", "nothing came in time: say who you are at once", 408))
        while event is not None and not self._outbox.finished:
            if event["type"] != "websocket.receive":
                return True
            self._take_in_untrusted(cast("str | None", event.get("text")))
            # A server that has read many frames at once hands them out without a pause: let the
            # writers of both sides run, or the receiver of a burst would look slow.
            await anyio.lowlevel.checkpoint()
            if not self._outbox.finished:
                event = await self._receive()
        return False

    def _take_in_untrusted(self, text: str | None) -> None:
        try:
            if text is None:
                raise malformed("frame", "must be a text frame")
            frame = parse_frame_untrusted(text)
        except Refused as refused:
            self._refuse(refused)
        else:
            with self._exchange.at_work() as (hub, now):
                hub.receive(self._connection, frame, now)

    def _refuse(self, refused: Refused) -> None:
        with self._exchange.at_work() as (hub, now):
            hub.refuse(self._connection, refused, now)

    async def _write(self, everything: anyio.CancelScope) -> None:
        try:
            with self._outbox.writing:
                while True:
                    frame = await self._outbox.take()
                    await self._send({"type": "websocket.send", "text": encode_frame(frame)})
                    if isinstance(frame, End | Error):
                        await self._send(
                            {"type": "websocket.close", "code": frame.close_status, "reason": frame.code}
                        )
                        break
        except OSError:  # ASGI: the client is gone
            _logger.debug("a socket broke while it was written to")
        everything.cancel()
