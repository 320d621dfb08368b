"""Who is signed in, for Quart."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from quart import Response, g, has_websocket_context, jsonify, request, websocket

from handclasp.service.embedded import SignInApp
from handclasp.service.frames import Refused

__all__ = ["requires_sign_in"]

P = ParamSpec("P")
T = TypeVar("T")


def requires_sign_in(
    service: SignInApp,
) -> Callable[[Callable[P, Awaitable[T]]], Callable[P, Awaitable[T | Response]]]:
    """Make a decorator for views, below ``@app.route``: ``g.signed_in`` is who is signed in.

    Others are answered 401, 403 (another origin) or 503.
    """

    def decorate(view: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T | Response]]:
        @wraps(view)
        async def guarded(*args: P.args, **kwargs: P.kwargs) -> T | Response:
            scope = websocket.scope if has_websocket_context() else request.scope
            try:
                g.signed_in = await service.require({**scope})
            except Refused as refused:
                answer = jsonify(error=refused.code, detail=refused.detail)
                answer.status_code = refused.status
                answer.headers["Cache-Control"] = "no-store"
                return answer
            return await view(*args, **kwargs)

        return guarded

    return decorate
