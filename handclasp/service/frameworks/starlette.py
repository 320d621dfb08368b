"""Who is signed in, for Starlette and FastAPI."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection

from handclasp.service.embedded import SignInApp
from handclasp.service.frames import Refused
from handclasp.service.signin import SignedIn

__all__ = ["signed_in"]

Dependency: TypeAlias = Callable[[HTTPConnection], Awaitable[SignedIn]]


def signed_in(service: SignInApp) -> Dependency:
    """Make a function that gives who is signed in, or answers 401, 403 (another origin) or 503.

    In FastAPI a dependency, ``Annotated[SignedIn, Depends(me)]``; in Starlette ``await me(request)``, for WebSockets as
    well.
    """

    async def who(connection: HTTPConnection) -> SignedIn:
        try:
            return await service.require(connection.scope)
        except Refused as refused:
            raise HTTPException(refused.status, refused.detail, {"Cache-Control": "no-store"}) from None

    return who
