"""The service as an ASGI application: for uvicorn, any other server, or a framework that can mount one.

It runs on asyncio and on trio. Where the server supports lifespan, that task keeps the time and says
goodbye; elsewhere the sockets do the first, and `SignalingApp.shut_down` is there for the second.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import cast

import anyio

from handclasp.errors import ConfigurationError

from .asgi import Receive, Request, Scope, Send
from .counts import Counts, Traffic
from .door import Door
from .exchange import Exchange
from .frames import Refused
from .journal import describe
from .lines import Switchboard
from .presence.exchange import PresenceExchange
from .routes import ClientGone, Routes, check_url_untrusted, closing, finished, not_found, refusal
from .session import Session
from .settings import Settings
from .state import State

_logger = logging.getLogger("handclasp.service")
_DEFAULTS = Settings()


class SignalingApp:
    """One service with its mailboxes and peers; made by `create_app`. Belongs to the event loop that uses it first."""

    def __init__(self, settings: Settings, state: State | None = None) -> None:
        self._settings = settings
        self.counts = Counts()
        """What happened so far; see `handclasp.service.metrics`."""

        self._door = Door(settings, self.counts)
        self._mailboxes = Exchange(settings, state)
        self._presence = PresenceExchange(settings)
        self._routes = Routes(self._mailboxes, lambda: self.is_ready)
        self._switchboards: Mapping[str, Switchboard] = {"/ws": self._mailboxes, "/peers": self._presence}
        self.is_ready = True
        """Whether new clients should come here: what ``/ready`` says."""
        self.failure: ConfigurationError | None = None
        """Why it could not start."""
        for path in self._switchboards:
            self.counts.traffic[path] = Traffic()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection as ASGI 3 says."""
        try:
            if scope["type"] == "lifespan":
                await self._serve_lifespan(receive, send)
            elif scope["type"] == "websocket":
                await self._serve_socket(scope, receive, send)
            elif scope["type"] == "http":
                await self._serve_request(scope, receive, send)
        except OSError:  # ASGI: what `send` raises when the client is gone
            _logger.debug("a connection broke")
        except Exception as exc:  # noqa: BLE001 - the boundary: a server would log the message with what is in it
            self.counts.faults += 1
            _logger.error("a connection failed by a fault of the service: %s", describe(exc))  # noqa: TRY400 - same

    def population(self) -> tuple[int, int, int]:
        """How many mailboxes and peers there are, and how many characters of messages are kept."""
        mailboxes, stored = self._mailboxes.population()
        return mailboxes, self._presence.population(), stored

    async def shut_down(self) -> None:
        """Send ``end`` / ``shutdown`` to every socket; return when each has it, or had its time to read it.

        Nothing can be opened afterwards. Lifespan calls this; call it yourself before a server that
        closes its sockets first. Calling it twice is harmless.
        """
        self.is_ready = False
        async with anyio.create_task_group() as tasks:
            for switchboard in self._switchboards.values():
                tasks.start_soon(switchboard.shut_down)

    async def _serve_lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        async with AsyncExitStack() as background:
            try:
                for switchboard in self._switchboards.values():
                    await background.enter_async_context(switchboard.running())
            except ConfigurationError as exc:
                self.failure = exc
                await send({"type": "lifespan.startup.failed", "message": str(exc)})
                return
            await self._serve_in_time(receive, send)
        await send({"type": "lifespan.shutdown.complete"})

    async def _serve_in_time(self, receive: Receive, send: Send) -> None:
        timers = [switchboard.timer for switchboard in self._switchboards.values()]
        async with anyio.create_task_group() as tasks:
            for timer in timers:
                tasks.start_soon(timer.run)
                timer.is_kept = True
            try:
                await send({"type": "lifespan.startup.complete"})
                await receive()
                await self.shut_down()
            finally:
                for timer in timers:
                    timer.is_kept = False
                tasks.cancel_scope.cancel()

    async def _serve_socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        request = Request.from_scope(scope)
        try:
            check_url_untrusted(request)
            self._door.admit_untrusted(scope, request, anyio.current_time())
            switchboard = self._switchboards.get(request.path)
            if switchboard is None:
                raise not_found()
            with self._door.seat_untrusted(scope):
                await self._run_session(switchboard, request, receive, send)
        except Refused as refused:
            await _refuse_upgrade(scope, send, refused)

    async def _run_session(
        self, switchboard: Switchboard, request: Request, receive: Receive, send: Send
    ) -> None:
        await send({"type": "websocket.accept"})
        within = self._settings.first_frame_within
        traffic = self.counts.traffic[request.path]
        traffic.sockets += 1
        traffic.opened += 1
        try:
            session = Session(switchboard, receive, send, first_frame_within=within, traffic=traffic)
            await session.run(request)
        finally:
            traffic.sockets -= 1

    async def _serve_request(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request.from_scope(scope)
        try:
            self._door.admit_untrusted(scope, request, anyio.current_time())
            answer = await self._routes.answer_untrusted(request, receive)
        except ClientGone:
            return
        except Refused as refused:
            answer = closing(finished(refusal(refused)), request)
        except Exception as exc:  # noqa: BLE001 - as above, and the client learns that it is not its fault
            self.counts.faults += 1
            _logger.error("a request failed by a fault of the service: %s", describe(exc))  # noqa: TRY400 - same
            answer = finished(refusal(Refused("internal", "the service failed, not you: try again", 500)))
        self.counts.answers[answer.status] += 1
        await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
        await send({"type": "http.response.body", "body": answer.content(), "more_body": False})


async def _refuse_upgrade(scope: Scope, send: Send, refused: Refused) -> None:
    """Answer an upgrade with an HTTP error, where the server can send one; else it answers 403 by itself."""
    if "websocket.http.response" not in cast("Mapping[str, object]", scope.get("extensions") or {}):
        await send({"type": "websocket.close"})
        return
    answer = finished(refusal(refused))
    await send({"type": "websocket.http.response.start", "status": answer.status, "headers": answer.headers})
    await send({"type": "websocket.http.response.body", "body": answer.content(), "more_body": False})


def create_app(settings: Settings = _DEFAULTS, *, state: State | None = None) -> SignalingApp:
    """Make a service. It may be mounted below any path.

    Without *state* its mailboxes and peers are in this object and nowhere else: run it in one process. With one, its
    mailboxes are there (`handclasp.service.state`), and any number of processes with the same state are one service:
    each serves any client. That needs a server with lifespan; in one without, nothing can be opened.
    """
    return SignalingApp(settings, state)
