"""A signaling service in the hands of an attacker: the real one, with somebody in between.

It reads everything, and changes, drops, repeats or holds back what it delivers.
"""

from __future__ import annotations

import json
import threading
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio
import uvicorn

from handclasp.service import create_app
from handclasp.service.app import SignalingApp

#: Gets each message frame on its way to its receiver and returns what is delivered instead.
Tamper = Callable[[dict[str, Any]], list[dict[str, Any]]]


class HostileService:
    """Made by `open_hostile_service`."""

    def __init__(self, tamper: Tamper) -> None:
        self.url = ""
        self.everything = bytearray()  # all that it received and sent, as bytes
        self.bodies: list[bytes] = []  # the sealed messages in it
        self._tamper = tamper
        self._app: SignalingApp | None = None  # made by the loop that it belongs to

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def spying_receive() -> Any:
            event = await receive()
            self._note(event.get("text") or event.get("body") or b"")
            return event

        async def tampering_send(event: Any) -> None:
            if event["type"] != "websocket.send":
                self._note(event.get("body") or b"")
                await send(event)
                return
            self._note(event["text"])
            frame = json.loads(event["text"])
            if frame["type"] == "message":
                self.bodies.append(decode(frame["body"]))
                for changed in self._tamper(frame):
                    await send({"type": "websocket.send", "text": json.dumps(changed)})
            else:
                await send(event)

        self._note(repr(scope))
        self._app = self._app or create_app()
        await self._app(scope, spying_receive, tampering_send)

    def _note(self, data: str | bytes) -> None:
        self.everything += data.encode() if isinstance(data, str) else data


def decode(body: str) -> bytes:
    return urlsafe_b64decode(body + "==")


def encode(body: bytes) -> str:
    return urlsafe_b64encode(body).rstrip(b"=").decode()


def honest(frame: dict[str, Any]) -> list[dict[str, Any]]:
    return [frame]


@asynccontextmanager
async def open_hostile_service(tamper: Tamper = honest) -> AsyncGenerator[HostileService]:
    hostile = HostileService(tamper)
    async with open_server(hostile) as hostile.url:
        yield hostile


@asynccontextmanager
async def open_server(application: Any) -> AsyncGenerator[str]:
    """An ASGI application on a free port, in a thread with a loop of its own; yields its WebSocket URL."""
    config = uvicorn.Config(application, port=0, log_config=None, ws="websockets-sansio", lifespan="on")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        with trio.fail_after(30):
            while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
                await trio.sleep(0.005)
        yield f"ws://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(thread.join)
