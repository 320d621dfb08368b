"""One WebSocket: its first frame in time, its frames to the line, what the line has to say to the wire."""

from __future__ import annotations

import logging
from typing import cast

import anyio

from .asgi import Event, Receive, Request, Send
from .counts import Traffic
from .frames import Refused
from .lines import Line, Switchboard

_logger = logging.getLogger("handclasp.service")


class Session:
    """An accepted socket until it is closed."""

    def __init__(
        self,
        switchboard: Switchboard,
        receive: Receive,
        send: Send,
        *,
        first_frame_within: float,
        traffic: Traffic,
    ) -> None:
        self._switchboard = switchboard
        self._receive = receive
        self._send = send
        self._first_frame_within = first_frame_within
        self._traffic = traffic

    async def run(self, request: Request) -> None:
        """Serve it. When this returns or is cancelled, the socket's party counts as gone."""
        with self._switchboard.open_line(request) as line:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._write, line, tasks.cancel_scope)
                if not self._switchboard.timer.is_kept:
                    tasks.start_soon(self._switchboard.timer.run)
                if await self._read_to_the_end(line):
                    tasks.cancel_scope.cancel()

    async def _read_to_the_end(self, line: Line) -> bool:
        """True when the client is gone, False when the writer has the last word."""
        event: Event | None = None
        with anyio.move_on_after(self._first_frame_within):
            event = await self._receive()
        if event is None:
            line.refuse(Refused("timeout", "nothing came in time: say who you are at once", 408))
        while event is not None and not line.finished:
            if event["type"] != "websocket.receive":
                return True
            self._traffic.frames_in += 1
            line.receive_untrusted(cast("str | None", event.get("text")))
            await line.settled()
            if not line.finished:
                event = await self._receive()
        return False

    async def _write(self, line: Line, everything: anyio.CancelScope) -> None:
        try:
            with line.writing:
                while True:
                    frame = await line.next()
                    await self._deliver({"type": "websocket.send", "text": frame.text})
                    self._traffic.frames_out += 1
                    if frame.close_status is not None:
                        await self._deliver(
                            {
                                "type": "websocket.close",
                                "code": frame.close_status,
                                "reason": frame.close_reason,
                            }
                        )
                        break
        except OSError:  # ASGI: the client is gone
            _logger.debug("a socket broke while it was written to")
        everything.cancel()

    async def _deliver(self, event: dict[str, object]) -> None:
        try:
            await self._send(event)
        except RuntimeError:
            # What uvicorn says when it has closed the socket itself, because what came is no WebSocket frame, and
            # the disconnect is still on its way to us.
            raise BrokenPipeError from None
