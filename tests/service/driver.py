"""Drives an ASGI application as a server would, in memory, on whatever event loop runs."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import anyio

from handclasp.service.app import SignalingApp

ID = "1744803b76013fe6dbf79b16d340b7c1"
OTHER_ID = "00112233445566778899aabbccddeeff"
HANG = 600  # on a clock that jumps; where it does not, the timeout of the test run comes first


@dataclass(frozen=True)
class Response:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> dict:
        return json.loads(self.body)


@dataclass(frozen=True)
class Closed:
    status: int | None


class Client:
    """A server's side of an application."""

    def __init__(self, app: SignalingApp, *, root_path: str = "") -> None:
        self.app = app
        self.root_path = root_path

    def _scope(
        self, kind: str, target: str, headers: dict[str, str] | list[tuple[str, str]]
    ) -> dict[str, object]:
        path, _, query = target.partition("?")
        pairs = headers.items() if isinstance(headers, dict) else headers
        return {
            "type": kind,
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "path": self.root_path + path,
            "raw_path": (self.root_path + path).encode(),
            "root_path": self.root_path,
            "query_string": query.encode(),
            "headers": [(name.lower().encode(), value.encode()) for name, value in pairs],
        }

    async def request(self, method: str, target: str, body: object = None, **headers: str) -> Response:
        """One request; a dict goes as JSON, bytes as they are."""
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        all_headers = {name.replace("_", "-"): value for name, value in headers.items()}
        if body is not None:
            all_headers = {"content-type": "application/json", **all_headers}
        return await self.request_in_chunks(method, target, [data], all_headers)

    async def request_in_chunks(
        self,
        method: str,
        target: str,
        chunks: list[bytes],
        headers: dict[str, str] | list[tuple[str, str]],
        *,
        every: float = 0,
    ) -> Response:
        left = list(chunks)
        events: list[dict] = []

        async def receive() -> dict:
            if not left:
                await anyio.sleep_forever()
            if every:
                await anyio.sleep(every)
            chunk = left.pop(0)
            return {"type": "http.request", "body": chunk, "more_body": bool(left)}

        async def send(event: dict) -> None:
            events.append(event)

        scope = {**self._scope("http", target, headers), "method": method}
        with anyio.fail_after(HANG):
            await self.app(scope, receive, send)
        start, *bodies = events
        assert start["type"] == "http.response.start"
        assert [event["type"] for event in bodies] == ["http.response.body"]
        names = [name.decode() for name, _ in start["headers"]]
        assert len(names) == len(set(names)), f"a header is there twice: {names}"
        return Response(
            start["status"],
            {name.decode(): value.decode() for name, value in start["headers"]},
            bodies[0]["body"],
        )

    async def post(self, topic: str, token: str | None, **fields: object) -> Response:
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        return await self.request("POST", f"/{topic}", fields, **headers)

    async def challenge(self, mailbox: str = ID) -> dict:
        response = await self.request("GET", f"/challenge?mailbox={mailbox}")
        assert response.status == 200, response
        return response.json()

    @asynccontextmanager
    async def socket(self, target: str = "/ws", *, reads: bool = True) -> AsyncGenerator[Socket]:
        """A WebSocket. One that does not read makes the application's `send` wait, like a full TCP window."""
        scope = self._scope("websocket", target, {})
        socket = Socket(reads=reads)
        async with anyio.create_task_group() as tasks:

            async def run() -> None:
                await self.app(scope, socket.receive_event, socket.send_event)
                socket.app_returned()

            tasks.start_soon(run)
            try:
                yield socket
            finally:
                socket.hang_up()
                with anyio.move_on_after(HANG, shield=True) as hang:
                    await socket.gone.wait()
                assert not hang.cancelled_caught, "the application did not notice the end of a socket"


class Socket:
    def __init__(self, *, reads: bool) -> None:
        self._reads = anyio.Event()
        if reads:
            self._reads.set()
        self._to_app, self._app_inbox = anyio.create_memory_object_stream[dict](math.inf)
        self._outbox, self._from_app = anyio.create_memory_object_stream[dict](math.inf)
        self._hung_up = False
        self.accepted = False
        self.gone = anyio.Event()
        self._to_app.send_nowait({"type": "websocket.connect"})

    # The server's side

    async def receive_event(self) -> dict:
        try:
            return self._app_inbox.receive_nowait()  # as uvicorn does: no pause while there is something
        except anyio.WouldBlock:
            return await self._app_inbox.receive()

    async def send_event(self, event: dict) -> None:
        if event["type"] != "websocket.accept":
            await self._reads.wait()
        if self._hung_up:
            raise BrokenPipeError("the client is gone")
        self._outbox.send_nowait(event)

    def app_returned(self) -> None:
        self._outbox.close()
        self._app_inbox.close()
        self._to_app.close()
        self.gone.set()

    # The client's side

    def send(self, **fields: object) -> None:
        self.send_text(json.dumps(fields))

    def send_text(self, text: str) -> None:
        self._to_app.send_nowait({"type": "websocket.receive", "text": text})

    def send_bytes(self, data: bytes) -> None:
        self._to_app.send_nowait({"type": "websocket.receive", "bytes": data})

    def read_on(self) -> None:
        self._reads.set()

    def stop_reading(self) -> None:
        self._reads = anyio.Event()

    def hang_up(self) -> None:
        """The connection breaks: the client is gone without a word."""
        if not self._hung_up:
            self._hung_up = True
            self._reads.set()
            if not self.gone.is_set():
                self._to_app.send_nowait({"type": "websocket.disconnect", "code": 1006})
            self._from_app.close()

    async def get(self) -> dict | Closed:
        """The next frame, or how it ended."""
        with anyio.fail_after(HANG):
            while True:
                try:
                    event = await self._from_app.receive()
                except anyio.EndOfStream:
                    return Closed(None)
                match event["type"]:
                    case "websocket.send":
                        return json.loads(event["text"])
                    case "websocket.close":
                        return Closed(event.get("code"))
                    case "websocket.accept":
                        self.accepted = True

    async def frames_until(self, wanted: Callable[[dict], bool]) -> list[dict]:
        frames = []
        while True:
            frame = await self.get()
            assert isinstance(frame, dict), (frame, frames[-3:])
            frames.append(frame)
            if wanted(frame):
                return frames

    async def expect(self, kind: str, **fields: object) -> dict:
        """The next frame, by its kind; acknowledgements in between are not looked at."""
        frame = await self.get()
        while kind != "accepted" and frame == {"type": "accepted"}:
            frame = await self.get()
        assert isinstance(frame, dict), f"wanted {kind}, got {frame}"
        assert frame["type"] == kind, frame
        assert {name: frame.get(name) for name in fields} == fields, frame
        return frame

    async def expect_end(self, status: int, kind: str, code: str) -> None:
        await self.expect(kind, code=code)
        assert await self.get() == Closed(status)


@asynccontextmanager
async def running(app: SignalingApp, *, lifespan: bool = True) -> AsyncGenerator[Client]:
    """The application in a server, with or without lifespan."""
    if not lifespan:
        yield Client(app)
        return
    stop = anyio.Event()
    states: list[str] = []
    started, stopped = anyio.Event(), anyio.Event()
    events = iter(["lifespan.startup", "lifespan.shutdown"])

    async def receive() -> dict:
        kind = next(events)
        if kind == "lifespan.shutdown":
            await stop.wait()
        return {"type": kind}

    async def send(event: dict) -> None:
        states.append(event["type"])
        (started if len(states) == 1 else stopped).set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(app, {"type": "lifespan"}, receive, send)
        with anyio.fail_after(HANG):
            await started.wait()
        yield Client(app)
        stop.set()
        with anyio.fail_after(HANG):
            await stopped.wait()
    assert states == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


@dataclass(frozen=True)
class Pair:
    """A claimed mailbox and both sockets, all greetings read."""

    website: Socket
    wallet: Socket
    website_token: str
    wallet_token: str
    nonce: str


@asynccontextmanager
async def paired(client: Client, mailbox: str = ID) -> AsyncGenerator[Pair]:
    challenge = await client.challenge(mailbox)
    async with client.socket() as website, client.socket() as wallet:
        website.send(type="subscribe", token=challenge["token"], after=0)
        await website.expect("ready", role="website")
        wallet.send(type="claim", mailbox=mailbox)
        ready = await wallet.expect("ready", role="wallet", nonce=challenge["nonce"])
        await wallet.expect("joined")
        await website.expect("joined")
        yield Pair(website, wallet, challenge["token"], ready["token"], ready["nonce"])
