"""The service with a server around it: what ``handclasp serve`` runs.

uvicorn, without what costs memory or tells secrets (permessage-deflate, access log, forwarded headers).
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from contextlib import ExitStack, suppress

import anyio
import uvicorn

from handclasp.errors import ConfigurationError

from .app import SignalingApp, create_app
from .configuration import IN_MEMORY, Configuration
from .impatience import impatient_protocol
from .journal import server_logging
from .metrics import open_metrics, take_snapshot
from .settings import Settings
from .state import from_url
from .strict import FRAME_LENGTH

_DEFAULTS = Settings()
BACKLOG = 2048  # connections waiting to be accepted: a page that many people open in the same second
GRACEFUL_SHUTDOWN = 5  # seconds for requests under way; the sockets have had their own by then
_LAST_WORDS = 0.25  # seconds for whoever was accepted last to say what it wants: uvicorn would hang up on it
_PING_EVERY = 20.0  # seconds: below the minute after which proxies drop a silent connection
_UNREAD_WITHIN = 20_000  # milliseconds until the kernel drops a peer that acknowledges but never reads


def serve(
    host: str = "127.0.0.1",
    port: int = 8787,
    *,
    ready: Callable[[str], None] | None = None,
    settings: Settings = _DEFAULTS,
    log_level: int = logging.INFO,
) -> None:
    """Run the service until SIGINT or SIGTERM; then every socket gets ``end`` / ``shutdown``.

    Port 0 takes any free port. *ready* is called with the service's URL once connections are accepted.
    *log_level* is that of the logger ``handclasp.service``; where its lines go is the caller's to set up. The
    server below is kept from logging requests and frames, at any level.

    SIGINT makes this return; SIGTERM ends the process by that signal, once all is done.

    Raises:
        ConfigurationError: the address cannot be listened on; the message says why.
    """
    serve_as(Configuration(host=host, port=port, settings=settings), ready=ready, log_level=log_level)


def serve_as(
    configuration: Configuration, *, ready: Callable[[str], None] | None = None, log_level: int = logging.INFO
) -> None:
    """Run the service as *configuration* says; otherwise as `serve`.

    Raises:
        ConfigurationError: an address cannot be listened on, or what the configuration needs is missing.
    """
    if configuration.workers > 1:
        from .workers import supervise

        supervise(configuration, ready=ready)
        return
    with listen(configuration.host, configuration.port) as listener:
        run(configuration, listener, ready=ready, log_level=log_level)


def run(
    configuration: Configuration,
    listener: socket.socket,
    *,
    ready: Callable[[str], None] | None,
    log_level: int,
    started: Callable[[SignalingApp], None] = lambda _: None,
) -> None:
    """Serve in this process on a socket that listens. *started* is called once connections are accepted."""
    app = _create_app(configuration)
    with server_logging(log_level), ExitStack() as stack:
        config = uvicorn.Config(
            app,
            interface="asgi3",
            lifespan="on",
            loop="auto",
            http=impatient_protocol(configuration.settings.headers_within),
            ws="websockets-sansio",
            ws_max_size=FRAME_LENGTH,
            ws_per_message_deflate=False,
            ws_ping_interval=_PING_EVERY,
            ws_ping_timeout=_PING_EVERY,
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            backlog=BACKLOG,
            timeout_graceful_shutdown=GRACEFUL_SHUTDOWN,
        )
        url = url_of(listener)

        failures: list[BaseException] = []

        def has_started(app: SignalingApp) -> None:
            started(app)
            try:
                if ready is not None:
                    ready(url)
            except BaseException as exc:  # noqa: BLE001 - the caller's own, and not uvicorn's to deal with
                failures.append(exc)
                server.should_exit = True

        server = _Server(config, app, drain=configuration.drain, started=has_started)
        if configuration.metrics:
            snapshot = lambda: take_snapshot(app)  # noqa: E731 - one line
            is_ready = lambda: server.started and app.is_ready  # noqa: E731 - one line
            stack.enter_context(open_metrics(configuration.metrics_address(), snapshot, is_ready))
        # KeyboardInterrupt is how a person stops it, and by now it has stopped in good order; SystemExit is how uvicorn
        # says that it did not start.
        with suppress(KeyboardInterrupt, SystemExit):
            server.run(sockets=[listener])
        for failure in (*failures, app.failure):
            if failure is not None:
                raise failure


def _create_app(configuration: Configuration) -> SignalingApp:
    if configuration.state == IN_MEMORY:
        return create_app(configuration.settings)
    return create_app(configuration.settings, state=from_url(configuration.state))


class _Server(uvicorn.Server):
    """uvicorn closes sockets before it ends the lifespan; ours are to hear why first."""

    def __init__(
        self,
        config: uvicorn.Config,
        app: SignalingApp,
        *,
        drain: float,
        started: Callable[[SignalingApp], None],
    ) -> None:
        super().__init__(config)
        self._app = app
        self._drain = drain
        self._started = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._started(self._app)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._app.is_ready = False
        with anyio.move_on_after(self._drain):
            while not self.force_exit:  # noqa: ASYNC110 - set by a second signal; uvicorn looks as often
                await anyio.sleep(0.1)
        for server in self.servers:  # first: who connects now is better off at another process or machine
            server.close()
        await anyio.sleep(_LAST_WORDS)
        await self._app.shut_down()
        await super().shutdown(sockets)


def listen(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """A socket that listens; *shared* when others will listen at the same port.

    Raises:
        ConfigurationError: the address cannot be listened on; the message says why.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG, reuse_port=shared)
    except (OSError, OverflowError, ValueError) as exc:
        raise ConfigurationError(f"cannot listen on {host} port {port}: {exc}") from exc
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux; accepted sockets inherit it
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNREAD_WITHIN)
    return listener


def url_of(listener: socket.socket) -> str:
    """The URL of the service behind a socket that listens."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if listener.family == socket.AF_INET6 else f"http://{host}:{port}"
