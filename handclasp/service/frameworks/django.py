"""Who is signed in, for Django under ASGI. Django itself loads with the first refusal, settings and all."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import wraps
from importlib import import_module
from typing import Concatenate, ParamSpec, Protocol, cast

from handclasp.service.asgi import Scope
from handclasp.service.embedded import SignInApp
from handclasp.service.frames import Refused
from handclasp.service.signin import SignedIn

__all__ = ["requires_sign_in"]

P = ParamSpec("P")


class Request(Protocol):
    """Of Django's ``ASGIRequest``, what is used here."""

    scope: Scope
    signed_in: SignedIn


def requires_sign_in(
    service: SignInApp,
) -> Callable[
    [Callable[Concatenate[Request, P], Awaitable[object]]],
    Callable[Concatenate[Request, P], Awaitable[object]],
]:
    """Make a decorator for async views: ``request.signed_in`` is who is signed in.

    Others are answered 401, 403 (another origin) or 503. Requests that change something are checked by their Origin,
    so such a view may be ``csrf_exempt``.
    """

    def decorate(
        view: Callable[Concatenate[Request, P], Awaitable[object]],
    ) -> Callable[Concatenate[Request, P], Awaitable[object]]:
        @wraps(view)
        async def guarded(request: Request, /, *args: P.args, **kwargs: P.kwargs) -> object:
            try:
                request.signed_in = await service.require(request.scope)
            except Refused as refused:
                return _refusal(refused)
            return await view(request, *args, **kwargs)

        return guarded

    return decorate


def _refusal(refused: Refused) -> object:
    answer = cast("Callable[..., object]", import_module("django.http").JsonResponse)
    return answer(
        {"error": refused.code, "detail": refused.detail},
        status=refused.status,
        headers={"Cache-Control": "no-store"},
    )
