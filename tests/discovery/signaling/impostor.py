"""A signaling service of the test: honest as it stands, and free to do anything where a test overrides it.

It speaks docs/protocols/mailbox.md honestly; a test makes it hostile by overriding `Service.pass_on`.
"""

from __future__ import annotations

import base64
import itertools
import json
import secrets
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar
from urllib.parse import parse_qs, urlsplit

import h11
import trio
import wsproto
import wsproto.events as ws

Kind = TypeVar("Kind", bound="Service")
WEBSITE, WALLET = "website", "wallet"
_PUBLISHER = {"link": WALLET, "offer": WEBSITE, "answer": WALLET}


def other(role: str) -> str:
    return WALLET if role == WEBSITE else WEBSITE


@dataclass
class Message:
    """One sealed message on its way through the service."""

    mailbox: Mailbox
    topic: str
    body: bytes

    @property
    def to(self) -> str:
        return other(_PUBLISHER[self.topic])


@dataclass
class Mailbox:
    id: str
    tokens: dict[str, str]
    nonce: str
    sockets: dict[str, Socket] = field(default_factory=dict)
    claimed: bool = False
    numbers: dict[str, itertools.count[int]] = field(
        default_factory=lambda: {WEBSITE: itertools.count(1), WALLET: itertools.count(1)}
    )
    passed: list[Message] = field(default_factory=list)
    """Every message that either party published, in order."""


class Socket:
    """One WebSocket of a client."""

    def __init__(self, stream: trio.SocketStream, protocol: wsproto.WSConnection) -> None:
        self._stream = stream
        self._protocol = protocol
        self._sending = trio.Lock()

    async def send(self, **frame: object) -> None:
        await self.send_event(ws.TextMessage(json.dumps(frame)))

    async def send_event(self, event: ws.Event) -> None:
        async with self._sending:
            try:
                await self._stream.send_all(self._protocol.send(event))
            except (trio.BrokenResourceError, trio.ClosedResourceError, wsproto.utilities.LocalProtocolError):
                return

    async def frames(self) -> AsyncGenerator[str]:
        """What the client sends, until it goes away."""
        text = ""
        while True:
            for event in self._protocol.events():
                if isinstance(event, ws.TextMessage):
                    text += event.data
                    if event.message_finished:
                        yield text
                        text = ""
                elif isinstance(event, ws.Ping):
                    await self.send_event(event.response())
                elif isinstance(event, ws.CloseConnection):
                    await self.send_event(event.response())
                    return
            try:
                data = await self._stream.receive_some()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return
            if not data:
                return
            self._protocol.receive_data(data)


class Service:
    """The service; made by `open_hostile_service`.

    Attributes:
        url: what an invitation names.
        seen: every byte of every request, every frame, and every body decoded.
    """

    def __init__(self) -> None:
        self.url = ""
        self.seen: list[bytes] = []
        self.sent = 0  # bytes of answers over HTTP
        self.mailboxes: dict[str, Mailbox] = {}

    # --- what a test overrides or calls ---

    async def pass_on(self, message: Message) -> None:
        """A party published *message*; an honest service delivers it."""
        await self.deliver(message)

    async def accept(self, socket: Socket) -> None:
        """Acknowledge a message."""
        await socket.send(type="accepted")

    async def deliver(self, message: Message) -> None:
        """Bring a message to its receiver, if there is one."""
        mailbox = message.mailbox
        socket = mailbox.sockets.get(message.to)
        if socket is not None:
            number = next(mailbox.numbers[message.to])
            await socket.send(type="message", topic=message.topic, n=number, body=encode(message.body))

    async def end(self, mailbox: Mailbox, code: str) -> None:
        self.mailboxes.pop(mailbox.id, None)
        for socket in list(mailbox.sockets.values()):
            await socket.send(type="end", code=code, detail="the service says so")

    # --- the protocol ---

    async def serve(self, stream: trio.SocketStream) -> None:
        connection = h11.Connection(h11.SERVER)
        async with stream:
            try:
                while connection.our_state is h11.IDLE:
                    await self._request(stream, connection)
                    if connection.our_state is h11.DONE and connection.their_state is h11.DONE:
                        connection.start_next_cycle()
            except (trio.BrokenResourceError, h11.RemoteProtocolError):
                return

    async def _request(self, stream: trio.SocketStream, connection: h11.Connection) -> None:
        request, body = None, b""
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                data = await stream.receive_some()
                self.seen.append(data)
                connection.receive_data(data)
            elif isinstance(event, h11.Request):
                request = event
                if dict(event.headers).get(b"upgrade", b"").lower() == b"websocket":
                    await self._websocket(stream, connection, event)
                    return
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                assert request is not None
                await self._answer(stream, connection, request, body)
                return
            else:
                await stream.aclose()
                raise trio.BrokenResourceError

    async def _answer(
        self, stream: trio.SocketStream, connection: h11.Connection, request: h11.Request, body: bytes
    ) -> None:
        status, answer = await self.http(request, body)
        data = (answer if isinstance(answer, str) else json.dumps(answer)).encode()
        headers = [("content-type", "application/json"), ("content-length", str(len(data)))]
        for event in (
            h11.Response(status_code=status, headers=headers),
            *(h11.Data(data=data[start : start + 65_536]) for start in range(0, len(data), 65_536)),
            h11.EndOfMessage(),
        ):
            part = connection.send(event) or b""
            self.sent += len(part)
            await stream.send_all(part)

    async def http(self, request: h11.Request, body: bytes) -> tuple[int, dict[str, object] | str]:
        url = urlsplit(request.target.decode())
        if url.path == "/challenge":
            (id_,) = parse_qs(url.query)["mailbox"]
            mailbox = Mailbox(id_, {WEBSITE: secrets.token_hex(32)}, secrets.token_hex(16))
            self.mailboxes[id_] = mailbox
            return 200, {"token": mailbox.tokens[WEBSITE], "nonce": mailbox.nonce, "expires_in": 120}
        bearer = dict(request.headers).get(b"authorization", b"").decode().removeprefix("Bearer ")
        found = self._find(bearer)
        fields = json.loads(body)
        if url.path != "/link" or found is None:
            return 404, {"error": "not_found", "detail": "there is nothing here"}
        mailbox, role = found
        if role != WALLET or fields["nonce"] != mailbox.nonce:
            return 403, {"error": "nonce", "detail": "the nonce is wrong, used or expired"}
        mailbox.nonce = ""
        await self.published(mailbox, "link", decode(fields["body"]))
        return 200, {"ok": True}

    def _find(self, token: str) -> tuple[Mailbox, str] | None:
        for mailbox in self.mailboxes.values():
            for role, known in mailbox.tokens.items():
                if token == known:
                    return mailbox, role
        return None

    async def _websocket(
        self, stream: trio.SocketStream, connection: h11.Connection, request: h11.Request
    ) -> None:
        protocol = wsproto.WSConnection(wsproto.ConnectionType.SERVER)
        protocol.initiate_upgrade_connection(list(request.headers), request.target.decode())
        socket = Socket(stream, protocol)
        await socket.send_event(ws.AcceptConnection())
        protocol.receive_data(connection.trailing_data[0])
        mine: tuple[Mailbox, str] | None = None
        async with aclosing(socket.frames()) as frames:
            async for text in frames:
                self.seen.append(text.encode())
                frame = json.loads(text)
                if mine is None:
                    mine = await self._enter(socket, frame)
                    if mine is None:
                        break
                elif frame["type"] == "publish":
                    await self.accept(socket)
                    await self.published(mine[0], frame["topic"], decode(frame["body"]))
                elif frame["type"] == "close":
                    await self.end(mine[0], "closed")
                    break
        if mine is not None and mine[0].sockets.get(mine[1]) is socket:
            del mine[0].sockets[mine[1]]
            await self.end(mine[0], "left")
        await stream.aclose()

    async def _enter(self, socket: Socket, frame: dict[str, str]) -> tuple[Mailbox, str] | None:
        if frame["type"] == "subscribe":
            found = self._find(frame["token"])
            if found is None:
                await socket.send(type="error", code="unauthorized", detail="who are you?")
                return None
            mailbox, role = found
            await socket.send(type="ready", role=role, expires_in=120)
        else:
            known, role = self.mailboxes.get(frame["mailbox"]), WALLET
            if known is None or known.claimed:
                code = "unauthorized" if known is None else "crowded"
                await socket.send(type="error", code=code, detail="it is not yours")
                for party in known.sockets.values() if known else ():
                    await party.send(type="crowded")
                return None
            mailbox, mailbox.claimed = known, True
            mailbox.tokens[role] = secrets.token_hex(32)
            await socket.send(
                type="ready", role=role, expires_in=300, token=mailbox.tokens[role], nonce=mailbox.nonce
            )
        mailbox.sockets[role] = socket
        if len(mailbox.sockets) == 2:
            for party in list(mailbox.sockets.values()):
                await party.send(type="joined")
        return mailbox, role

    async def published(self, mailbox: Mailbox, topic: str, body: bytes) -> None:
        self.seen.append(body)
        message = Message(mailbox, topic, body)
        mailbox.passed.append(message)
        await self.pass_on(message)


def encode(body: bytes) -> str:
    return base64.urlsafe_b64encode(body).rstrip(b"=").decode()


def decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


@asynccontextmanager
async def open_hostile_service(service: Kind) -> AsyncGenerator[Kind]:
    """Run *service* on a free port of the loopback interface while the block runs."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    host, port = listeners[0].socket.getsockname()
    service.url = f"ws://{host}:{port}"
    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, service.serve, listeners)
        yield service
        nursery.cancel_scope.cancel()
