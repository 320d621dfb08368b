"""The HTTP half of signing in: docs/protocols/sign-in.md."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import NamedTuple, TypeAlias

from handclasp.errors import RecordsUnavailable
from handclasp.service.asgi import Headers, Receive, Request, Scope
from handclasp.service.frames import Refused
from handclasp.service.routes import Answer, Body, refusal

from .cookies import read_cookie_untrusted, set_cookie
from .origins import OriginRule
from .sessions import Sessions, SignedIn, unauthorized
from .wire import (
    device_fields,
    parse_begin_untrusted,
    parse_device_untrusted,
    parse_link_untrusted,
    parse_nothing_untrusted,
    parse_redeem_untrusted,
    parse_session_untrusted,
    session_fields,
)


class Challenge(NamedTuple):
    """What a mailbox's ``GET /challenge`` gave."""

    token: str
    nonce: str
    expires_in: int


#: Opens the mailbox of a page on the service that is part of this application; raises what that refuses.
Challenger: TypeAlias = Callable[[Scope, str], Awaitable[Challenge]]


@dataclass(frozen=True)
class Asked:
    """A request, and the cookies that it shows."""

    scope: Scope
    request: Request
    body: Body
    login: str | None
    session: str | None


class SignInRoutes:
    """Everything about sessions that can be asked over HTTP. The only place that sets a cookie."""

    def __init__(self, sessions: Sessions, challenger: Challenger | None) -> None:
        self._sessions = sessions
        self._challenger = challenger
        self._rule = OriginRule(sessions.settings)

    @staticmethod
    def has(path: str) -> bool:
        """Whether *path* is one of these."""
        return path in _ROUTES

    async def answer_untrusted(self, scope: Scope, request: Request, receive: Receive) -> Answer:
        """Answer any request to one of these paths.

        Raises:
            ClientGone: the client hung up before its request was complete.
        """
        name = self._sessions.settings.cookie
        body = Body(receive, request.headers.get(b"content-length"), self._sessions.settings.body_within)
        asked = Asked(
            scope,
            request,
            body,
            login=read_cookie_untrusted(scope, f"{name}-login"),
            session=read_cookie_untrusted(scope, name),
        )
        try:
            answer = await self._route_untrusted(asked)
        except Refused as refused:
            answer = refusal(refused)
        except RecordsUnavailable:
            answer = refusal(
                Refused("unavailable", "the service cannot remember at the moment: try again", 503)
            )
        if not await body.finish_untrusted() and request.keeps_alive:
            answer = replace(answer, headers=[*answer.headers, (b"connection", b"close")])
        return private(answer)

    async def signed_in_untrusted(self, scope: Scope) -> SignedIn | None:
        """Who makes this request or upgrade to the application around: None for nobody.

        Raises:
            Refused: ``forbidden``: it could change something and comes from another origin, or from none.
        """
        request = Request.from_scope(scope)
        if scope["type"] == "websocket" or request.method not in {"GET", "HEAD", "OPTIONS"}:
            self._rule.own_untrusted(request.headers)
        else:
            self._rule.reading_untrusted(request.headers)
        return await self._sessions.signed_in(read_cookie_untrusted(scope, self._sessions.settings.cookie))

    async def _route_untrusted(self, asked: Asked) -> Answer:
        methods = _ROUTES[asked.request.path]
        handler = methods.get(asked.request.method)
        if handler is None:
            answer = refusal(Refused("method", f"use {', '.join(methods)}", 405))
            return replace(answer, headers=[(b"allow", ", ".join(methods).encode())])
        if asked.request.method == "GET":
            self._rule.reading_untrusted(asked.request.headers)
            return await handler(self, asked, "")
        # The origin first: it costs nothing, and what another site sends is not even read.
        origin = self._rule.own_untrusted(asked.request.headers)
        media_type = (asked.request.headers.get(b"content-type") or b"").partition(b";")[0]
        if media_type.strip().lower() != b"application/json":
            raise Refused("media_type", "Content-Type must be application/json", 415)
        return await handler(self, asked, origin)

    # Signing in

    async def begin_untrusted(self, asked: Asked, origin: str) -> Answer:
        """``POST /session/begin``: a page is about to show an invitation."""
        mailbox, website = parse_begin_untrusted(await asked.body.read_untrusted())
        fields: dict[str, object] = {}
        nonce = None
        if self._challenger is not None:
            opened = await self._challenger(asked.scope, mailbox)
            nonce = opened.nonce
            fields = {"token": opened.token, "nonce": nonce, "expires_in": opened.expires_in}
        begun = await self._sessions.begin(
            origin=origin, mailbox=mailbox, website=website, nonce=nonce, login=asked.login
        )
        fields = {"expires_in": begun.expires_in, **fields, "challenge": begun.challenge}
        return Answer(200, fields, [self._login_cookie(begun.login, begun.expires_in)])

    async def link_untrusted(self, asked: Asked, origin: str) -> Answer:
        """``POST /session/link``: the page hands on what the wallet signed."""
        link = parse_link_untrusted(await asked.body.read_untrusted())
        return Answer(200, {"code": await self._sessions.link(asked.login, origin, link)}, [])

    async def redeem_untrusted(self, asked: Asked, _origin: str) -> Answer:
        """``POST /session/redeem``: a code for a session."""
        code = parse_redeem_untrusted(await asked.body.read_untrusted())
        session_id, signed_in = await self._sessions.redeem(asked.login, code, asked.session)
        cookies = [self._cookie(session_id), self._login_cookie("", 0)]
        return Answer(200, session_fields(signed_in), cookies)

    # Being signed in

    async def current_untrusted(self, asked: Asked, _origin: str) -> Answer:
        """``GET /session``: who is signed in."""
        return Answer(200, session_fields(await self._signed_in(asked)), [])

    async def rotate_untrusted(self, asked: Asked, _origin: str) -> Answer:
        """``POST /session/rotate``: another id for the session."""
        parse_nothing_untrusted(await asked.body.read_untrusted())
        if asked.session is None:
            raise unauthorized()
        session_id, signed_in = await self._sessions.rotate(asked.session)
        return Answer(200, session_fields(signed_in), [self._cookie(session_id)])

    async def log_out_untrusted(self, asked: Asked, _origin: str) -> Answer:
        """``POST /session/logout``: end it."""
        parse_nothing_untrusted(await asked.body.read_untrusted())
        if asked.session is not None:
            await self._sessions.log_out(asked.session)
        return Answer(200, {"ok": True}, [self._no_cookie(), self._login_cookie("", 0)])

    # Lists

    async def list_sessions_untrusted(self, asked: Asked, _origin: str) -> Answer:
        """``GET /sessions``: those of this account."""
        me = await self._signed_in(asked)
        sessions = await self._sessions.sessions_of(me.account)
        return Answer(200, {"sessions": [session_fields(each, current=me.label) for each in sessions]}, [])

    async def list_devices_untrusted(self, asked: Asked, _origin: str) -> Answer:
        """``GET /devices``: those of this account."""
        me = await self._signed_in(asked)
        devices = await self._sessions.devices_of(me.account)
        return Answer(200, {"devices": [device_fields(each) for each in devices]}, [])

    async def revoke_session_untrusted(self, asked: Asked, _origin: str) -> Answer:
        """``POST /sessions/revoke``: end one of this account."""
        label = parse_session_untrusted(await asked.body.read_untrusted())
        me = await self._signed_in(asked)
        if not await self._sessions.revoke_session(me.account, label):
            raise _not_yours()
        return Answer(200, {"ok": True}, [self._no_cookie()] if label == me.label else [])

    async def revoke_all_untrusted(self, asked: Asked, _origin: str) -> Answer:
        """``POST /sessions/revoke-all``: end every one of this account."""
        parse_nothing_untrusted(await asked.body.read_untrusted())
        me = await self._signed_in(asked)
        await self._sessions.revoke_all(me.account)
        return Answer(200, {"ok": True}, [self._no_cookie()])

    async def revoke_device_untrusted(self, asked: Asked, _origin: str) -> Answer:
        """``POST /devices/revoke``: forget one, and end what it opened."""
        device = parse_device_untrusted(await asked.body.read_untrusted())
        me = await self._signed_in(asked)
        if not await self._sessions.revoke_device(me.account, device):
            raise _not_yours()
        return Answer(200, {"ok": True}, [self._no_cookie()] if device == me.device else [])

    async def _signed_in(self, asked: Asked) -> SignedIn:
        signed_in = await self._sessions.signed_in(asked.session)
        if signed_in is None:
            raise unauthorized()
        return signed_in

    def _cookie(self, session_id: str) -> tuple[bytes, bytes]:
        settings = self._sessions.settings
        return set_cookie(settings.cookie, session_id, settings.session_life)

    def _no_cookie(self) -> tuple[bytes, bytes]:
        return set_cookie(self._sessions.settings.cookie, "", 0)

    def _login_cookie(self, login: str, life: int) -> tuple[bytes, bytes]:
        return set_cookie(f"{self._sessions.settings.cookie}-login", login, life)


_Handler: TypeAlias = Callable[[SignInRoutes, Asked, str], Awaitable[Answer]]

#: Path and method to handler.
_ROUTES: Mapping[str, Mapping[str, _Handler]] = MappingProxyType(
    {
        "/session": {"GET": SignInRoutes.current_untrusted},
        "/session/begin": {"POST": SignInRoutes.begin_untrusted},
        "/session/link": {"POST": SignInRoutes.link_untrusted},
        "/session/redeem": {"POST": SignInRoutes.redeem_untrusted},
        "/session/rotate": {"POST": SignInRoutes.rotate_untrusted},
        "/session/logout": {"POST": SignInRoutes.log_out_untrusted},
        "/sessions": {"GET": SignInRoutes.list_sessions_untrusted},
        "/sessions/revoke": {"POST": SignInRoutes.revoke_session_untrusted},
        "/sessions/revoke-all": {"POST": SignInRoutes.revoke_all_untrusted},
        "/devices": {"GET": SignInRoutes.list_devices_untrusted},
        "/devices/revoke": {"POST": SignInRoutes.revoke_device_untrusted},
    }
)


def private(answer: Answer) -> Answer:
    """The answer with the headers of everything that is for one browser's eyes: no cache, no other origin."""
    headers: Headers = [
        (b"cache-control", b"no-store"),
        (b"cross-origin-resource-policy", b"same-origin"),
        (b"x-content-type-options", b"nosniff"),
        (b"content-type", b"application/json"),
        (b"content-length", str(len(answer.content())).encode()),
    ]
    return replace(answer, headers=[*headers, *answer.headers])


def _not_yours() -> Refused:
    return Refused("not_found", "there is no such session or device of this account", 404)
