"""The service with a server around it: what ``handclasp serve`` runs.

uvicorn, without what costs memory or tells secrets (permessage-deflate, access log, forwarded headers).
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from contextlib import suppress

import uvicorn

from handclasp.errors import ConfigurationError

from .app import SignalingApp, create_app
from .impatience import impatient_protocol
from .journal import server_logging
from .settings import Settings
from .state import State
from .strict import FRAME_LENGTH

_DEFAULTS = Settings()
_BACKLOG = 2048  # connections waiting to be accepted: a page that many people open in the same second
_GRACEFUL_SHUTDOWN = 5  # seconds for requests under way; the sockets have had their own by then
_PING_EVERY = 20.0  # seconds: below the minute after which proxies drop a silent connection
_UNREAD_WITHIN = 20_000  # milliseconds until the kernel drops a peer that acknowledges but never reads


def serve(
    host: str = "127.0.0.1",
    port: int = 8787,
    *,
    ready: Callable[[str], None] | None = None,
    settings: Settings = _DEFAULTS,
    state: State | None = None,
    log_level: int = logging.INFO,
) -> None:
    """Run the service until SIGINT or SIGTERM; then every socket gets ``end`` / ``shutdown``.

    Port 0 takes any free port. *ready* is called with the service's URL once connections are accepted.
    *state* is where the mailboxes are kept, if they are to outlast this process or to be shared with others.
    *log_level* is that of the logger ``handclasp.service``; where its lines go is the caller's to set up. The
    server below is kept from logging requests and frames, at any level.

    SIGINT makes this return; SIGTERM ends the process by that signal, once all is done.

    Raises:
        ConfigurationError: the address cannot be listened on; the message says why.
    """
    app = create_app(settings, state=state)
    with _listen(host, port) as listener, server_logging(log_level):
        config = uvicorn.Config(
            app,
            interface="asgi3",
            lifespan="on",
            loop="auto",
            http=impatient_protocol(settings.headers_within),
            ws="websockets-sansio",
            ws_max_size=FRAME_LENGTH,
            ws_per_message_deflate=False,
            ws_ping_interval=_PING_EVERY,
            ws_ping_timeout=_PING_EVERY,
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            backlog=_BACKLOG,
            timeout_graceful_shutdown=_GRACEFUL_SHUTDOWN,
        )
        server = _Server(config, app)
        if ready is not None:
            ready(_url(listener))
        with suppress(KeyboardInterrupt):  # how a person stops it; by now it has stopped in good order
            server.run(sockets=[listener])


class _Server(uvicorn.Server):
    """uvicorn closes sockets before it ends the lifespan; ours are to hear why first."""

    def __init__(self, config: uvicorn.Config, app: SignalingApp) -> None:
        super().__init__(config)
        self._app = app

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self._app.shut_down()
        await super().shutdown(sockets)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except (OSError, OverflowError) as exc:
        raise ConfigurationError(f"cannot listen on {host} port {port}: {exc}") from exc
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux; accepted sockets inherit it
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNREAD_WITHIN)
    return listener


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if listener.family == socket.AF_INET6 else f"http://{host}:{port}"
