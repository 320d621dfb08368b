"""One party's end of a mailbox on a signaling service, over HTTP and a WebSocket.

Source: docs/protocols/mailbox.md. The service is not trusted: it can drop, delay, repeat or
invent messages, and what it says is bounded and checked like anything from the network.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeAlias

import trio

from handclasp.errors import HandclaspError, ProtocolViolation, ServiceRefused, ServiceUnavailable
from handclasp.scope import open_scope

from .answers import decode_untrusted, encode, object_untrusted, optional_text_of, promptly, short, text_of
from .http import HttpClient, open_http
from .ice import Offered, offered_untrusted
from .moments import Moment, Watcher
from .websocket import CLOSE_TIMEOUT, ServiceSocket, open_socket

__all__ = ["Crowded", "Incoming", "Mailbox", "Presence", "claim_mailbox", "open_mailbox"]

_WAITING = 256  # frames that wait for a slow reader; a mailbox holds no more messages than that


@dataclass(frozen=True)
class Ready:
    """The service let us in."""

    token: str | None
    nonce: str | None


@dataclass(frozen=True)
class Incoming:
    """A message from the other party, still sealed."""

    topic: str
    body: bytes


@dataclass(frozen=True)
class Presence:
    """The other party came or went."""

    here: bool


@dataclass(frozen=True)
class Crowded:
    """A third party tried to claim the mailbox and was refused: somebody else saw the QR code."""


@dataclass(frozen=True)
class Accepted:
    """The service has one more of our messages."""


@dataclass(frozen=True)
class End:
    """The mailbox is over."""

    code: str
    detail: str


Frame: TypeAlias = Ready | Incoming | Presence | Crowded | Accepted | End
Event: TypeAlias = Incoming | Presence | Crowded


class Mailbox:
    """Made by `open_mailbox` (website) or `claim_mailbox` (wallet)."""

    def __init__(self, service: str, socket: ServiceSocket, http: HttpClient) -> None:
        self._service = service
        self._socket = socket
        self._http = http
        self._token: str | None = None
        self._nonce: str | None = None
        self._ready = trio.Event()
        self._published = self._accepted = 0
        self._news = trio.Event()  # set, and replaced, at each acknowledgement
        self._over: HandclaspError | None = None
        self._ended = trio.Event()  # set with the reason in `_over`
        self._deliver, self._events = trio.open_memory_channel[Event](_WAITING)

    async def wait_ready(self) -> None:
        """Wait until the service has let us in.

        Raises:
            ServiceRefused: it did not.
            ServiceUnavailable: it went away, or does not answer.
        """
        with promptly("the service did not let us in"):
            await self._ready.wait()
        self._check()

    async def nonce(self) -> str:
        """The nonce that the sign-in message has to carry; once known it stays known.

        Raises:
            ServiceRefused, ServiceUnavailable: see `wait_ready`.
        """
        if self._nonce is None:
            await self.wait_ready()
        if self._nonce is None:
            raise ServiceRefused("malformed", "the service gave no nonce")
        return self._nonce

    async def publish(self, topic: str, body: bytes) -> None:
        """Send one message to the other party; returns once the service has it.

        Raises:
            ServiceRefused: the mailbox is over, or we may not publish to *topic*.
            ServiceUnavailable: the service went away, or does not answer.
        """
        self._check()
        await self._send({"type": "publish", "topic": topic, "body": encode(body)})
        self._published += 1
        number = self._published
        with promptly("the service did not acknowledge a message"):
            while self._accepted < number:
                self._check()
                await self._news.wait()

    async def post_link(self, body: bytes) -> None:
        """Use up the nonce and deliver *body* to the website.

        Raises:
            ServiceRefused: code ``nonce`` when it is wrong, used or expired.
            ServiceUnavailable: the service went away, or does not answer.
        """
        nonce = await self.nonce()
        await self._http.request("POST", "/link", self._token, {"nonce": nonce, "body": encode(body)})

    async def ice_servers(self) -> Offered:
        """The STUN and TURN servers that the service has for this party.

        Raises:
            ServiceRefused: it declined, or answers what makes no sense.
            ServiceUnavailable: it went away, or does not answer.
        """
        if self._token is None:
            await self.wait_ready()
        answer = await self._http.request("GET", "/ice", self._token, None)
        try:
            return offered_untrusted(answer, self._service)
        except ProtocolViolation as exc:
            raise ServiceRefused("malformed", f"the service answered GET /ice with {exc}") from None

    async def receive(self) -> Event:
        """Wait for the next event.

        Raises:
            ServiceRefused: the mailbox is over; the code says why.
            ServiceUnavailable: the service went away.
        """
        try:
            return await self._events.receive()
        except trio.EndOfChannel:
            self._check()
            raise

    async def close(self) -> None:
        """End the mailbox for both sides; harmless when it is over."""
        if self._over is None:
            try:
                await self._send({"type": "close"})
            except ServiceUnavailable:
                return

    # --- inside ---

    def _check(self) -> None:
        if self._over is not None:
            raise self._over

    async def _send(self, frame: dict[str, object]) -> None:
        try:
            await self._socket.send(frame)
        except trio.BrokenResourceError:
            await self._ended.wait()  # what the service said before it closed may still be unread
            self._check()

    async def enter(self, frame: dict[str, object], *, token: str | None, nonce: str | None) -> None:
        """Say who we are; the service's answer is awaited by whoever needs it."""
        self._token, self._nonce = token, nonce
        await self._send(frame)

    async def pump(self) -> None:
        """Read frames until the mailbox is over."""
        try:
            while self._over is None:
                self._take(_frame_untrusted(await self._socket.receive()))
        except trio.BrokenResourceError:
            self._finish(ServiceUnavailable("the signaling service closed the connection"))
        except ProtocolViolation as exc:
            self._finish(ServiceRefused("malformed", f"the signaling service broke its protocol: {exc}"))
        except trio.WouldBlock:
            self._finish(ServiceRefused("limit", f"more than {_WAITING} messages came that nobody read"))
        finally:
            self._finish(ServiceUnavailable("the mailbox was closed"))

    def _finish(self, why: HandclaspError) -> None:
        """The mailbox is over; the first reason stays."""
        if self._over is None:
            self._over = why
        self._ended.set()
        self._ready.set()
        self._news.set()
        self._deliver.close()

    def _take(self, frame: Frame) -> None:
        match frame:
            case Ready(token, nonce):
                self._token, self._nonce = token or self._token, nonce or self._nonce
                self._ready.set()
            case Accepted():
                self._accepted += 1
                self._news.set()
                self._news = trio.Event()
            case End(code, detail):
                self._finish(ServiceRefused(code, detail))
            case Incoming() | Presence() | Crowded():
                self._deliver.send_nowait(frame)


@asynccontextmanager
async def open_mailbox(
    service: str, mailbox: str, watcher: Watcher = lambda _: None
) -> AsyncGenerator[Mailbox]:
    """Open a new mailbox as the website and subscribe to it while the block runs.

    Raises:
        ServiceUnavailable: the service cannot be reached.
        ServiceRefused: it declined.
    """
    async with open_http(service) as http:
        challenge = await http.request("GET", f"/challenge?mailbox={mailbox}", None, None)
        try:
            token, nonce = text_of(challenge, "token"), text_of(challenge, "nonce")
        except ProtocolViolation as exc:
            raise ServiceRefused("malformed", f"the service answered GET /challenge with {exc}") from None
        watcher(Moment.CHALLENGED)
        async with _open_mailbox(service, http) as end:
            await end.enter({"type": "subscribe", "token": token, "after": 0}, token=token, nonce=nonce)
            await end.wait_ready()
            watcher(Moment.SUBSCRIBED)
            yield end


@asynccontextmanager
async def claim_mailbox(service: str, mailbox: str) -> AsyncGenerator[Mailbox]:
    """Claim the mailbox as the wallet while the block runs. Messages may be published at once.

    Raises:
        ServiceUnavailable: the service cannot be reached.
    """
    async with open_http(service) as http, _open_mailbox(service, http) as end:
        await end.enter({"type": "claim", "mailbox": mailbox}, token=None, nonce=None)
        yield end


@asynccontextmanager
async def _open_mailbox(service: str, http: HttpClient) -> AsyncGenerator[Mailbox]:
    """Connect the WebSocket and read from it while the block runs."""
    async with open_socket(service, "/ws") as socket, open_scope() as scope:
        mailbox = Mailbox(service, socket, http)
        scope.start_soon(mailbox.pump)
        try:
            yield mailbox
        finally:
            with trio.move_on_after(CLOSE_TIMEOUT, shield=True):
                await mailbox.close()
                await socket.aclose()  # while its frames are still read


# --- what the service sends ---


def _frame_untrusted(text: str | bytes) -> Frame:  # noqa: PLR0911 - one return for each kind of frame
    """Parse one frame of the service.

    Raises:
        ProtocolViolation: not a frame of the mailbox protocol.
    """
    frame = object_untrusted(text)
    match frame.get("type"):
        case "ready":
            return Ready(optional_text_of(frame, "token"), optional_text_of(frame, "nonce"))
        case "message":
            return Incoming(text_of(frame, "topic"), decode_untrusted(text_of(frame, "body")))
        case "joined":
            return Presence(here=True)
        case "left":
            return Presence(here=False)
        case "crowded":
            return Crowded()
        case "accepted":
            return Accepted()
        case "end" | "error":
            return End(short(frame.get("code")), short(frame.get("detail")))
        case other:
            raise ProtocolViolation(f"the unknown frame {short(other)!r}")
