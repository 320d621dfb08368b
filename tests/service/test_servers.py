"""The same application on uvicorn, granian and hypercorn (asyncio and trio), real processes and sockets."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from trio_websocket import ConnectionRejected, WebSocketConnection, wrap_client_stream

from ..ports import free_port  # noqa: TID252 - no installed package
from .driver import ID
from .signin.browser import ACCOUNT, COOKIE, ORIGIN, Browser, Page

ROOT = Path(__file__).parents[2]
HANG = 30
COMMANDS = {
    "uvicorn": ["uvicorn", "--host", "127.0.0.1", "--port", "{port}", "--ws", "websockets-sansio"],
    "granian": ["granian", "--interface", "asgi", "--host", "127.0.0.1", "--port", "{port}"],
    "hypercorn": ["hypercorn", "--bind", "127.0.0.1:{port}"],
    "hypercorn on trio": ["hypercorn", "--bind", "127.0.0.1:{port}", "--worker-class", "trio"],
}
LISTENING = ("running on", "started worker")


@dataclass(frozen=True)
class Server:
    address: str
    process: subprocess.Popen[str]


@contextmanager
def running(server: str, app: str, records: Path) -> Iterator[Server]:
    port = free_port()
    command = [part.format(port=port) for part in COMMANDS[server]]
    process = subprocess.Popen(
        [sys.executable, "-m", *command, f"tests.service.served:{app}"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "RECORDS": str(records)},
    )
    try:
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line)
            if any(words in line.lower() for words in LISTENING):
                break
        else:
            pytest.fail(f"{server} did not start: {''.join(said)}")
        yield Server(f"127.0.0.1:{port}", process)
    finally:
        process.terminate()
        try:
            process.communicate(timeout=HANG)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


@pytest.fixture(params=COMMANDS, scope="module")
def embedded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(request.param, "embedded", tmp_path_factory.mktemp("records") / "records.db") as server:
        yield server


@pytest.fixture(params=COMMANDS, scope="module")
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(request.param, "shared", tmp_path_factory.mktemp("records") / "records.db") as server:
        yield server


def over_http(http: httpx.AsyncClient) -> Callable[..., Awaitable[None]]:
    """An ASGI application that asks a real server."""

    async def app(scope: dict[str, Any], receive: Callable, send: Callable) -> None:
        event = await receive()
        query = scope["query_string"]
        url = scope["path"] + (f"?{query.decode()}" if query else "")
        response = await http.request(
            scope["method"], url, content=event["body"], headers=scope["headers"], follow_redirects=False
        )
        http.cookies.clear()  # the browser above keeps its own
        headers = [(name.lower(), value) for name, value in response.headers.raw]
        await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
        await send({"type": "http.response.body", "body": response.content})

    return app


@asynccontextmanager
async def browser_at(server: Server) -> AsyncGenerator[Browser]:
    async with httpx.AsyncClient(base_url=f"http://{server.address}", timeout=HANG) as http:
        yield Browser(over_http(http))


async def test_a_page_signs_in_by_a_real_server(embedded: Server) -> None:
    async with browser_at(embedded) as browser:
        await Page(browser).sign_in()
        current = await browser.get("/session")
        assert current.json()["account"] == f"eip155:1:{ACCOUNT.address}"
        assert current.all("cache-control") == ["no-store"]
        assert (await browser.post("/session/rotate")).status == 200
        assert (await browser.post("/session/rotate", headers={"origin": None})).error == (403, "forbidden")
        assert (await browser.post("/session/logout")).status == 200
        assert COOKIE not in browser.jar


async def test_cookies_are_read_as_the_server_hands_them_over(embedded: Server) -> None:
    async with browser_at(embedded) as browser:
        await Page(browser).sign_in()
        mine = f"{COOKIE}={browser.jar[COOKIE]}"
        assert (await browser.get("/session", cookies=["a=1", mine, "b=2"])).status == 200
        assert (await browser.get("/session", cookies=[mine, f"{COOKIE}={'0' * 64}"])).status == 401


@asynccontextmanager
async def open_ws(server: Server, origin: bytes | None) -> AsyncGenerator[WebSocketConnection]:
    """A WebSocket over a stream of our own: the library leaves its stream open when the server closes first."""
    headers = [] if origin is None else [(b"origin", origin)]
    host, _, port = server.address.partition(":")
    async with await trio.open_tcp_stream(host, int(port)) as stream, trio.open_nursery() as nursery:
        with trio.fail_after(HANG):
            ws = await wrap_client_stream(nursery, stream, server.address, "/ws", extra_headers=headers)
        yield ws
        with trio.fail_after(HANG):
            await ws.aclose()
        nursery.cancel_scope.cancel()


async def pair(server: Server, mailbox: str, token: str, origin: bytes) -> None:
    """Both parties over WebSockets, one message each way."""

    async def get(ws: WebSocketConnection, kind: str) -> dict[str, Any]:
        while True:
            frame = json.loads(await ws.get_message())
            if frame["type"] != "accepted":
                assert frame["type"] == kind, frame
                return frame

    with trio.fail_after(HANG):
        async with open_ws(server, origin) as website, open_ws(server, None) as wallet:
            await website.send_message(json.dumps({"type": "subscribe", "token": token, "after": 0}))
            await get(website, "ready")
            await wallet.send_message(json.dumps({"type": "claim", "mailbox": mailbox}))
            await get(wallet, "ready")
            await get(wallet, "joined")
            await get(website, "joined")
            for sender, receiver, topic in ((wallet, website, "link"), (website, wallet, "offer")):
                await sender.send_message(json.dumps({"type": "publish", "topic": topic, "body": "AA"}))
                assert (await get(receiver, "message"))["body"] == "AA"
            await website.send_message(json.dumps({"type": "close"}))
            assert (await get(wallet, "end"))["code"] == "closed"


async def test_a_page_and_a_wallet_meet_on_the_websites_own_origin(embedded: Server) -> None:
    async with browser_at(embedded) as browser:
        page = Page(browser)
        begun = (await page.begin()).json()
        await pair(embedded, page.mailbox, begun["token"], ORIGIN.encode())


@pytest.mark.parametrize("origin", [b"https://evil.example", b"https://evil.shop.example", b"null"])
async def test_an_upgrade_from_another_origin_is_refused(embedded: Server, origin: bytes) -> None:
    with pytest.RaisesGroup(ConnectionRejected) as caught:
        async with open_ws(embedded, origin):
            pass
    assert caught.value.exceptions[0].status_code == 403


async def test_a_page_and_a_wallet_meet_at_a_shared_service_without_a_cookie(shared: Server) -> None:
    async with httpx.AsyncClient(base_url=f"http://{shared.address}", timeout=HANG) as http:
        challenge = await http.get(f"/challenge?mailbox={ID}", headers={"origin": "https://any.example"})
        assert challenge.headers["access-control-allow-origin"] == "*"
        assert "set-cookie" not in challenge.headers
        await pair(shared, ID, challenge.json()["token"], b"https://any.example")
        assert (await http.get("/session")).status_code == 404


@pytest.mark.parametrize("server", COMMANDS)
async def test_a_server_that_is_stopped_stops_and_remembers(server: str, tmp_path: Path) -> None:
    records = tmp_path / "records.db"
    with running(server, "embedded", records) as first:
        async with browser_at(first) as browser:
            await Page(browser).sign_in()
        first.process.send_signal(signal.SIGTERM)
        with trio.fail_after(HANG):
            await trio.to_thread.run_sync(first.process.wait, abandon_on_cancel=True)
    with running(server, "embedded", records) as second:
        async with browser_at(second) as again:
            again.jar = browser.jar
            assert (await again.get("/session")).status == 200
