"""The service beside a website in one ASGI application, whatever framework that is made with."""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable
from typing import TypeAlias, cast

from handclasp.errors import ConfigurationError, HandclaspError

from .asgi import Event, Receive, Scope, Send
from .embedded import WELL_KNOWN, SignInApp
from .journal import describe

__all__ = ["beside"]

_logger = logging.getLogger("handclasp.service")
_App: TypeAlias = Callable[..., Awaitable[None]]
_PATH = re.compile(r"(?:/[A-Za-z0-9._~-]+)+")


def beside(website: _App, service: SignInApp, *, at: str = "/handclasp") -> _App:
    """Make one application of *website* and *service*, which answers below *at* and at `WELL_KNOWN`.

    Everything else is the website's, startup and shutdown included; a website that knows nothing of those (Django) is
    spared them. The service's sockets hear of a shutdown before the website does.

    Raises:
        ConfigurationError: *at* is not a path such as ``/handclasp``.
    """
    if not _PATH.fullmatch(at):
        raise ConfigurationError("at: is a path that begins with a slash and does not end with one")

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _serve_lifespan(website, service, (scope, receive, send))
            return
        path, root = cast("str", scope["path"]), cast("str", scope.get("root_path", ""))
        below = path.removeprefix(root)
        if below.startswith(f"{WELL_KNOWN}/"):
            await service(scope, receive, send)
        elif below.startswith(f"{at}/"):
            await service({**scope, "root_path": root + at, "path": root + below}, receive, send)
        else:
            await website(scope, receive, send)

    return application


async def _serve_lifespan(website: _App, service: SignInApp, connection: tuple[Scope, Receive, Send]) -> None:
    scope, receive, send = connection
    waiting: list[Event] = [await receive()]
    try:
        await service.sessions.records.open()
    except HandclaspError as exc:
        await send({"type": "lifespan.startup.failed", "message": str(exc)})
        return
    answered = False

    async def receive_for_website() -> Event:
        if waiting:
            return waiting.pop()
        event = await receive()
        await service.shut_down()
        return event

    async def send_for_website(event: dict[str, object]) -> None:
        nonlocal answered
        answered = True
        await send(event)

    try:
        await website(scope, receive_for_website, send_for_website)
    except Exception as exc:
        if answered:
            raise
        _logger.info("the website does not know startup and shutdown, or failed at it: %s", describe(exc))
    if not answered:  # ASGI Lifespan: this is how an application says that it does not know it
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await service.shut_down()
        await send({"type": "lifespan.shutdown.complete"})
