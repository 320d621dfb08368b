"""One party's end of a mailbox on a signaling service, over HTTP and a WebSocket.

Source: docs/protocols/mailbox.md. The service is not trusted: it can drop, delay, repeat or
invent messages, and what it says is bounded and checked like anything from the network.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias, cast
from urllib.parse import SplitResult, urlsplit

import trio

from handclasp.errors import HandclaspError, ProtocolViolation, ServiceRefused, ServiceUnavailable
from handclasp.scope import Scope, open_scope

from .moments import Moment, Watcher

if TYPE_CHECKING:
    import httpx
    import trio_websocket

__all__ = ["Crowded", "Incoming", "Mailbox", "Presence", "claim_mailbox", "open_mailbox"]

#: Seconds for one HTTP request, a WebSocket handshake or an acknowledgement.
TIMEOUT = 10.0
_LONGEST_FRAME = 96 * 1024  # bytes; the service's own limit
_WAITING = 256  # frames that wait for a slow reader; a mailbox holds no more messages than that
_CLOSE_TIMEOUT = 0.5  # seconds for a WebSocket's farewell: nothing depends on it


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

    def __init__(self, socket: trio_websocket.WebSocketConnection, http: _Http) -> None:
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
        with _deadline("the service did not let us in"):
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
        await self._send({"type": "publish", "topic": topic, "body": _encode(body)})
        self._published += 1
        number = self._published
        with _deadline("the service did not acknowledge a message"):
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
        await self._http.request("POST", "/link", self._token, {"nonce": nonce, "body": _encode(body)})

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
        from trio_websocket import ConnectionClosed

        try:
            with _deadline("the service does not take messages"):
                await self._socket.send_message(json.dumps(frame))
        except ConnectionClosed:
            await self._ended.wait()  # what the service said before it closed may still be unread
            self._check()
            raise ServiceUnavailable("the signaling service closed the connection") from None

    async def enter(self, frame: dict[str, object], *, token: str | None, nonce: str | None) -> None:
        """Say who we are; the service's answer is awaited by whoever needs it."""
        self._token, self._nonce = token, nonce
        await self._send(frame)

    async def pump(self) -> None:
        """Read frames until the mailbox is over."""
        from trio_websocket import ConnectionClosed

        try:
            while self._over is None:
                self._take(_frame_untrusted(await self._socket.get_message()))
        except ConnectionClosed:
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
    async with _open_http(service) as http:
        challenge = await http.request("GET", f"/challenge?mailbox={mailbox}", None, None)
        try:
            token, nonce = _text(challenge, "token"), _text(challenge, "nonce")
        except ProtocolViolation as exc:
            raise ServiceRefused("malformed", f"the service answered GET /challenge with {exc}") from None
        watcher(Moment.CHALLENGED)
        async with _open_socket(service, http) as end:
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
    async with _open_http(service) as http, _open_socket(service, http) as end:
        await end.enter({"type": "claim", "mailbox": mailbox}, token=None, nonce=None)
        yield end


@asynccontextmanager
async def _open_socket(service: str, http: _Http) -> AsyncGenerator[Mailbox]:
    """Connect the WebSocket and read from it while the block runs."""
    import trio_websocket

    url = urlsplit(service)
    connecting = True
    try:
        # Our own stream: trio-websocket leaves its own open when it is cancelled after the server's farewell.
        async with await _connect(url) as stream, open_scope() as scope:
            with _deadline("the signaling service did not answer"):
                readers = cast("trio.Nursery", _Readers(scope, stream))
                socket = await trio_websocket.wrap_client_stream(
                    readers, stream, url.netloc, f"{url.path}/ws", max_message_size=_LONGEST_FRAME
                )
            connecting = False
            mailbox = Mailbox(socket, http)
            scope.start_soon(mailbox.pump)
            try:
                yield mailbox
            finally:
                with trio.move_on_after(_CLOSE_TIMEOUT) as closing:
                    closing.shield = True
                    await mailbox.close()
                    await socket.aclose()
    except (OSError, trio_websocket.HandshakeError) as exc:
        if not connecting:
            raise
        why = str(exc) or "it does not speak WebSocket there"
        raise ServiceUnavailable(f"the signaling service at {service} cannot be reached: {why}") from exc


class _Readers:
    """The nursery of trio-websocket's reader, which trips over a message that is too long and goes on."""

    def __init__(self, scope: Scope, stream: trio.abc.AsyncResource) -> None:
        self._scope = scope
        self._stream = stream

    def start_soon(self, reader: Callable[[], Awaitable[object]]) -> None:
        self._scope.start_soon(self._read, reader)

    async def _read(self, reader: Callable[[], Awaitable[object]]) -> None:
        from wsproto.utilities import LocalProtocolError

        try:
            await reader()
        except LocalProtocolError:  # whoever waits for a message is told that the connection is over
            await trio.aclose_forcefully(self._stream)


async def _connect(url: SplitResult) -> trio.SocketStream | trio.SSLStream[trio.SocketStream]:
    host, secure = url.hostname or "", url.scheme == "wss"
    port = url.port or (443 if secure else 80)
    with _deadline("the signaling service did not answer"):
        if secure:
            return await trio.open_ssl_over_tcp_stream(host, port, https_compatible=True)
        return await trio.open_tcp_stream(host, port)


class _Http:
    """The few HTTP requests of a mailbox; the connection is made at the first and kept."""

    def __init__(self, service: str) -> None:
        self._base = "http" + service.removeprefix("ws")  # ws: to http:, wss: to https:
        self._client: httpx.AsyncClient | None = None

    async def request(
        self, method: str, path: str, token: str | None, content: dict[str, object] | None
    ) -> dict[str, object]:
        """One request; see the module for what is raised."""
        import httpx

        if self._client is None:
            # Building a TLS context takes 20 ms and more: not for plain http:.
            self._client = httpx.AsyncClient(
                timeout=TIMEOUT, verify=self._base.startswith("https:"), trust_env=False
            )
        headers = {"Accept-Encoding": "identity"}  # what is small stays small
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        body = b"" if content is None else json.dumps(content).encode()
        if body:
            headers["Content-Type"] = "application/json"
        request = self._client.build_request(method, self._base + path, headers=headers, content=body)
        request.stream = _one_piece(body)
        try:
            with _deadline("the signaling service did not answer"):  # httpx's own are for each piece
                response = await self._client.send(request, stream=True)
                data = await _read_untrusted(response)
        except httpx.HTTPError as exc:
            raise ServiceUnavailable(
                f"the signaling service at {self._base} cannot be reached: {exc}"
            ) from exc
        try:
            answer = _object_untrusted(data)
        except ProtocolViolation as exc:
            raise ServiceRefused(
                "malformed", f"the service answered {method} {path.partition('?')[0]} with {exc}"
            ) from None
        if response.status_code >= 400:  # noqa: PLR2004 - HTTP's classes of status
            raise ServiceRefused(_short(answer.get("error")), _short(answer.get("detail")))
        return answer

    async def aclose(self) -> None:
        """Close the connection, if there is one."""
        if self._client is not None:
            await self._client.aclose()


async def _read_untrusted(response: httpx.Response) -> bytes:
    data = bytearray()
    with trio.CancelScope() as scope:
        async for piece in response.aiter_raw():
            data += piece
            if len(data) > _LONGEST_FRAME:
                scope.cancel()  # to break off would leave httpx's generators half run
    if scope.cancelled_caught:
        raise ServiceRefused("malformed", f"the service's answer is longer than {_LONGEST_FRAME} bytes")
    return bytes(data)


def _one_piece(body: bytes) -> httpx.AsyncByteStream:
    """A request's body. httpx's own is an async generator, which a cancelled request leaves half run."""
    import httpx

    class Body(httpx.AsyncByteStream):
        def __aiter__(self) -> AsyncIterator[bytes]:
            return _Once(body)

    return Body()


class _Once(AsyncIterator[bytes]):
    def __init__(self, body: bytes) -> None:
        self._rest = [body] if body else []

    async def __anext__(self) -> bytes:
        if not self._rest:
            raise StopAsyncIteration
        return self._rest.pop()


@asynccontextmanager
async def _open_http(service: str) -> AsyncGenerator[_Http]:
    http = _Http(service)
    try:
        yield http
    finally:
        with trio.move_on_after(_CLOSE_TIMEOUT, shield=True):
            await http.aclose()


@contextmanager
def _deadline(what: str) -> Generator[None]:
    try:
        with trio.fail_after(TIMEOUT):
            yield
    except trio.TooSlowError:
        raise ServiceUnavailable(f"{what} within {TIMEOUT:.0f} s") from None


# --- what the service sends ---


def _frame_untrusted(text: str | bytes) -> Frame:  # noqa: PLR0911 - one return for each kind of frame
    """Parse one frame of the service.

    Raises:
        ProtocolViolation: not a frame of the mailbox protocol.
    """
    frame = _object_untrusted(text)
    match frame.get("type"):
        case "ready":
            return Ready(_optional_text(frame, "token"), _optional_text(frame, "nonce"))
        case "message":
            return Incoming(_text(frame, "topic"), _decode_untrusted(_text(frame, "body")))
        case "joined":
            return Presence(here=True)
        case "left":
            return Presence(here=False)
        case "crowded":
            return Crowded()
        case "accepted":
            return Accepted()
        case "end" | "error":
            return End(_short(frame.get("code")), _short(frame.get("detail")))
        case other:
            raise ProtocolViolation(f"the unknown frame {_short(other)!r}")


def _object_untrusted(text: str | bytes) -> dict[str, object]:
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError):
        raise ProtocolViolation("something that is not JSON") from None
    if not isinstance(value, dict):
        raise ProtocolViolation("JSON that is not an object")
    return cast("dict[str, object]", value)


def _text(frame: dict[str, object], name: str) -> str:
    value = frame.get(name)
    if not isinstance(value, str):
        raise ProtocolViolation(f"no text in '{name}'")
    return value


def _optional_text(frame: dict[str, object], name: str) -> str | None:
    return _text(frame, name) if name in frame else None


def _short(value: object) -> str:
    return str(value)[:200] if value is not None else "unknown"


def _encode(body: bytes) -> str:
    return base64.urlsafe_b64encode(body).rstrip(b"=").decode()


def _decode_untrusted(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        raise ProtocolViolation("'body' is not base64url") from None
