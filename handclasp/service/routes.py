"""The HTTP half: a request in, a JSON answer out."""

from __future__ import annotations

import json
import math
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TypeAlias, cast

import anyio

from .asgi import Headers, Receive, Request
from .attesting import Attestations
from .exchange import Exchange
from .frames import Refused, Topic
from .ice import IceServers
from .strict import FRAME_LENGTH
from .wire import (
    URL_LENGTH,
    parse_bearer_untrusted,
    parse_challenge_untrusted,
    parse_link_untrusted,
    parse_publish_untrusted,
)

_MOST_DISCARDED = 4 * FRAME_LENGTH  # a client slightly over the limit reads why; a flood is cut off
_MOST_DIGITS = 12  # of a Content-Length


class ClientGone(Exception):
    """The client hung up before its request was complete; there is nobody to answer."""


@dataclass(frozen=True)
class Answer:
    """A response; *body* is sent as JSON, None for an empty one."""

    status: int
    body: Mapping[str, object] | None
    headers: Headers

    def content(self) -> bytes:
        """The bytes of the body."""
        return b"" if self.body is None else json.dumps(self.body, separators=(",", ":")).encode()


def finished(answer: Answer) -> Answer:
    """The answer with the headers that every answer has."""
    headers: Headers = [
        (b"cache-control", b"no-store"),
        (b"access-control-allow-origin", b"*"),
        (b"x-content-type-options", b"nosniff"),
    ]
    if answer.body is not None:  # RFC 9110 §8.6: none for a 204
        length = str(len(answer.content())).encode()
        headers += [(b"content-type", b"application/json"), (b"content-length", length)]
    return replace(answer, headers=headers + answer.headers)


def closing(answer: Answer, request: Request) -> Answer:
    """The answer, as the last one of its connection: there may be a body that nobody will read."""
    if not request.keeps_alive:
        return answer
    return replace(answer, headers=[*answer.headers, (b"connection", b"close")])


class Body:
    """The body of a request: bounded in size and in time, whoever drips it in."""

    def __init__(self, receive: Receive, announced: bytes | None, within: float) -> None:
        self._receive = receive
        self._announced = announced or b""
        self._deadline = anyio.current_time() + within
        self._length = 0
        self._done = False

    async def read_untrusted(self) -> bytes:
        """The whole body.

        Raises:
            Refused: ``limit``, or ``timeout``.
            ClientGone: the client hung up.
        """
        data = bytearray()
        while not self._done:
            chunk = await self._next_untrusted()
            if self._length <= FRAME_LENGTH:
                data += chunk
        if self._length > FRAME_LENGTH:
            raise _too_long()
        return bytes(data)

    async def finish_untrusted(self) -> bool:
        """Read what nobody wanted, so that the client can read its answer; False when that is too much.

        Closing a connection with unread bytes resets it, and the client never sees why it was refused.
        """
        try:
            while not self._done:
                await self._next_untrusted()
        except Refused:
            return False
        return True

    async def _next_untrusted(self) -> bytes:
        if self._length > _MOST_DISCARDED or self._announces_untrusted() > _MOST_DISCARDED:
            raise _too_long()
        with anyio.move_on_after(self._deadline - anyio.current_time()):
            event = await self._receive()
            if event["type"] != "http.request":
                raise ClientGone
            chunk = cast("bytes", event.get("body", b""))
            self._length += len(chunk)
            self._done = not event.get("more_body", False)
            return chunk
        raise Refused("timeout", "the body did not come in time", 408)

    def _announces_untrusted(self) -> int:
        digits = self._announced[:_MOST_DIGITS]
        return int(digits) if digits.isdigit() else 0  # nonsense is the server's to refuse


_Handler: TypeAlias = Callable[["Routes", Request, Body], Awaitable[Answer]]


class Routes:
    """Everything that can be asked over HTTP."""

    def __init__(self, exchange: Exchange, is_ready: Callable[[], bool]) -> None:
        self._exchange = exchange
        self._is_ready = is_ready
        self._ice = IceServers(exchange.settings.ice, time.time)
        self._attestations = Attestations(exchange.settings)

    async def answer_untrusted(self, request: Request, receive: Receive) -> Answer:
        """Answer any request.

        Raises:
            ClientGone: the client hung up before its request was complete.
        """
        within = self._exchange.settings.body_within
        body = Body(receive, request.headers.get(b"content-length"), within)
        try:
            answer = await _handler_untrusted(request)(self, request, body)
        except Refused as refused:
            answer = refusal(refused)
        answer = finished(answer)
        return answer if await body.finish_untrusted() else closing(answer, request)

    async def challenge_untrusted(self, request: Request, _body: Body) -> Answer:
        """``GET /challenge``: open a mailbox."""
        mailbox = parse_challenge_untrusted(request.query)
        challenge = await self._exchange.open(mailbox)
        self._attestations.note_untrusted(mailbox, request.headers.get(b"origin"))
        fields = {"token": challenge.token, "nonce": challenge.nonce, "expires_in": challenge.expires_in}
        return Answer(200, fields, [])

    async def origin_untrusted(self, request: Request, _body: Body) -> Answer:
        """``GET /origin``: which page of a browser opened a mailbox."""
        origin = self._attestations.origin_of(parse_challenge_untrusted(request.query))
        if origin is None:
            raise Refused("not_found", "no page of a browser opened this mailbox here", 404)
        return Answer(200, {"origin": origin}, [])

    async def link_untrusted(self, request: Request, body: Body) -> Answer:
        """``POST /link``: use the nonce and sign in."""
        async with self._authorized_untrusted(request, Topic.LINK) as token:
            nonce, text, n = parse_link_untrusted(await body.read_untrusted())
            await self._exchange.link(token, nonce, text, n)
        return Answer(200, {"ok": True}, [])

    async def offer_untrusted(self, request: Request, body: Body) -> Answer:
        """``POST /offer``: publish without a WebSocket."""
        return await self._publish_untrusted(request, body, Topic.OFFER)

    async def answer_topic_untrusted(self, request: Request, body: Body) -> Answer:
        """``POST /answer``: publish without a WebSocket."""
        return await self._publish_untrusted(request, body, Topic.ANSWER)

    async def health(self, _request: Request, _body: Body) -> Answer:
        """``GET /health``: it answers, so it lives."""
        return Answer(200, {"ok": True}, [])

    async def ready(self, _request: Request, _body: Body) -> Answer:
        """``GET /ready``: send it new clients, or not any more."""
        if not self._is_ready():
            raise Refused("full", "the service is about to stop: use another one", 503)
        return Answer(200, {"ok": True}, [])

    async def ice(self, request: Request, _body: Body) -> Answer:
        """``GET /ice``: the servers that help to find a path; relays once the two have met."""
        token = parse_bearer_untrusted(request.headers.get(b"authorization"))
        is_claimed, party = await self._exchange.ask_as_party(token)
        return Answer(200, self._ice.answer(party, is_claimed=is_claimed), [])

    async def preflight(self, _request: Request, _body: Body) -> Answer:
        """``OPTIONS``: every website may use the service (Fetch standard §3.2)."""
        allowed: Headers = [
            (b"access-control-allow-methods", b"GET, POST"),
            (b"access-control-allow-headers", b"authorization, content-type"),
            (b"access-control-max-age", b"600"),
        ]
        return Answer(204, None, allowed)

    async def wrong_method(self, request: Request, _body: Body) -> Answer:
        """A path of ours by a method that it does not have."""
        methods = ", ".join([*_ROUTES[request.path], "OPTIONS"])
        answer = refusal(Refused("method", f"use one of {methods}", 405))
        return replace(answer, headers=[(b"allow", methods.encode())])  # RFC 9110 §15.5.6: a 405 names them

    async def _publish_untrusted(self, request: Request, body: Body, topic: Topic) -> Answer:
        async with self._authorized_untrusted(request, topic) as token:
            text, n = parse_publish_untrusted(await body.read_untrusted())
            await self._exchange.publish(token, topic, text, n)
        return Answer(202, {"ok": True}, [])

    @asynccontextmanager
    async def _authorized_untrusted(self, request: Request, topic: Topic) -> AsyncGenerator[str | None]:
        """Check the token before a byte of the body is kept."""
        token = parse_bearer_untrusted(request.headers.get(b"authorization"))
        async with self._exchange.authorized(token, topic):
            media_type = (request.headers.get(b"content-type") or b"").partition(b";")[0]
            if media_type.strip().lower() != b"application/json":
                raise Refused("media_type", "Content-Type must be application/json", 415)
            yield token


#: Path and method to handler.
_ROUTES: Mapping[str, Mapping[str, _Handler]] = MappingProxyType(
    {
        "/challenge": {"GET": Routes.challenge_untrusted},
        "/origin": {"GET": Routes.origin_untrusted},
        "/link": {"POST": Routes.link_untrusted},
        "/offer": {"POST": Routes.offer_untrusted},
        "/answer": {"POST": Routes.answer_topic_untrusted},
        "/ice": {"GET": Routes.ice},
        "/health": {"GET": Routes.health},
        "/ready": {"GET": Routes.ready},
    }
)


def refusal(refused: Refused) -> Answer:
    """The answer that tells a client why not."""
    headers: Headers = []
    if refused.code == "unauthorized":
        headers.append((b"www-authenticate", b"Bearer"))  # RFC 9110 §11.6.1: a 401 names its scheme
    if refused.retry_after is not None:
        headers.append(
            (b"retry-after", str(math.ceil(refused.retry_after)).encode())
        )  # whole seconds, §10.2.3
    return Answer(refused.status, {"error": refused.code, "detail": refused.detail}, headers)


def _handler_untrusted(request: Request) -> _Handler:
    check_url_untrusted(request)
    methods = _ROUTES.get(request.path)
    if methods is None:
        raise not_found()
    if request.method == "OPTIONS":
        return Routes.preflight
    return methods.get(request.method, Routes.wrong_method)


def check_url_untrusted(request: Request) -> None:
    """Refuse a URL that is too long to be one of ours.

    Raises:
        Refused: ``limit``.
    """
    if request.url_length > URL_LENGTH:
        raise Refused("limit", f"a URL has at most {URL_LENGTH} bytes here", 414)


def not_found() -> Refused:
    """The refusal for a path that is none of ours."""
    return Refused("not_found", "there is nothing at this path", 404)


def _too_long() -> Refused:
    return Refused("limit", f"a body has at most {FRAME_LENGTH} bytes", 413)
