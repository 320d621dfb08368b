"""A real server in a process of its own, real sockets, real clients."""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx
import pytest
import trio
from trio_websocket import (
    ConnectionClosed,
    WebSocketConnection,
    wrap_client_stream,
)

from handclasp.errors import ConfigurationError
from handclasp.service import serve

HANG = 20
FRAME_LENGTH = 96 * 1024
UNKNOWN_NONCE = "cd" * 16

SERVER = """
import sys
from handclasp.service import Settings, serve
{before}
serve(port=0, ready={ready}, settings=Settings({settings}))
print("returned", flush=True)
"""
#: For the tests that wait for the end of one of these.
SHORT = "grace=0.5, headers_within=1, body_within=1, first_frame_within=1"

WALLET = """
import json, sys, trio
from trio_websocket import open_websocket_url
async def main(url, mailbox):
    async with open_websocket_url(url) as socket:
        await socket.send_message(json.dumps({"type": "claim", "mailbox": mailbox}))
        print(await socket.get_message(), flush=True)
        await trio.sleep_forever()
trio.run(main, *sys.argv[1:])
"""


@dataclass(frozen=True)
class Server:
    url: str
    process: subprocess.Popen[str]

    async def rest_of_output(self) -> str:
        """What it says from here to its end. Not by `communicate`: that loses what `readline` has buffered."""
        assert self.process.stdout is not None
        with trio.fail_after(HANG):
            output = await trio.to_thread.run_sync(self.process.stdout.read, abandon_on_cancel=True)
            await trio.to_thread.run_sync(self.process.wait, abandon_on_cancel=True)
        return output

    @property
    def address(self) -> tuple[str, int]:
        parts = urlsplit(self.url)
        assert parts.hostname is not None
        assert parts.port is not None
        return parts.hostname, parts.port


@contextmanager
def running(
    settings: str = "", *, before: str = "", ready: str = "lambda url: print(url, flush=True)"
) -> Iterator[Server]:
    code = SERVER.format(settings=settings, before=before, ready=ready)
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        assert process.stdout is not None
        yield Server(process.stdout.readline().strip(), process)
    finally:
        process.terminate()
        process.communicate()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running() as server:
        yield server


@pytest.fixture(scope="module")
def impatient() -> Iterator[Server]:
    with running(SHORT) as server:
        yield server


@pytest.fixture
async def http(server: Server) -> AsyncGenerator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=server.url, timeout=HANG) as client:
        yield client


@pytest.fixture
async def impatient_http(impatient: Server) -> AsyncGenerator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=impatient.url, timeout=HANG) as client:
        yield client


def new_id() -> str:
    return os.urandom(16).hex()


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


async def challenge(http: httpx.AsyncClient, mailbox: str) -> dict:
    response = await http.get("/challenge", params={"mailbox": mailbox})
    assert response.status_code == 200, response.text
    return response.json()


@asynccontextmanager
async def open_ws(server: Server, target: str = "/ws", **options: int) -> AsyncGenerator[WebSocketConnection]:
    """A WebSocket over a stream of our own: the library leaves its stream open when the server closes first."""
    async with raw(server, **options) as stream, trio.open_nursery() as nursery:
        ws = await wrap_client_stream(nursery, stream, "x", target)
        yield ws
        with trio.fail_after(HANG):
            await ws.aclose()
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def raw(server: Server, *, receive_buffer: int | None = None) -> AsyncGenerator[trio.SocketStream]:
    sock = trio.socket.socket()
    if receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    with sock:
        await sock.connect(server.address)
        yield trio.SocketStream(sock)


def upgrade(target: str) -> bytes:
    return (
        f"GET {target} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    ).encode()


async def send(ws: WebSocketConnection, **fields: object) -> None:
    await ws.send_message(json.dumps(fields))


async def get(ws: WebSocketConnection) -> dict:
    with trio.fail_after(HANG):
        return json.loads(await ws.get_message())


async def expect(ws: WebSocketConnection, kind: str, **fields: object) -> dict:
    frame = await get(ws)
    while kind != "accepted" and frame == {"type": "accepted"}:
        frame = await get(ws)
    assert frame["type"] == kind, frame
    assert {name: frame.get(name) for name in fields} == fields
    return frame


async def expect_close(ws: WebSocketConnection, status: int) -> None:
    try:
        with trio.fail_after(HANG):
            while True:
                await ws.get_message()
    except ConnectionClosed as closed:
        code = closed.reason.code
    assert code == status


@dataclass(frozen=True)
class Pair:
    id: str
    website: WebSocketConnection
    wallet: WebSocketConnection
    website_token: str
    wallet_token: str
    nonce: str


@asynccontextmanager
async def paired(server: Server, http: httpx.AsyncClient) -> AsyncGenerator[Pair]:
    mailbox = new_id()
    opened = await challenge(http, mailbox)
    async with open_ws(server) as website, open_ws(server) as wallet:
        await send(website, type="subscribe", token=opened["token"], after=0)
        await expect(website, "ready", role="website")
        await send(wallet, type="claim", mailbox=mailbox)
        ready = await expect(wallet, "ready", role="wallet", nonce=opened["nonce"])
        await expect(wallet, "joined")
        await expect(website, "joined")
        yield Pair(mailbox, website, wallet, opened["token"], ready["token"], opened["nonce"])


async def whole_sequence(server: Server, http: httpx.AsyncClient) -> Pair:
    async with paired(server, http) as pair:
        await send(pair.wallet, type="publish", topic="link", body="bm9pc2U")
        await expect(pair.wallet, "accepted")
        await expect(pair.website, "message", topic="link", n=1, body="bm9pc2U")
        response = await http.post("/offer", json={"body": "b2ZmZXI"}, headers=bearer(pair.website_token))
        assert (response.status_code, response.json()) == (202, {"ok": True})
        await expect(pair.wallet, "message", topic="offer", n=1, body="b2ZmZXI")
        await send(pair.wallet, type="publish", topic="answer", body="YW5zd2Vy")
        await expect(pair.website, "message", topic="answer", n=2)
        response = await http.post(
            "/link", json={"nonce": pair.nonce, "body": "c2l3ZQ"}, headers=bearer(pair.wallet_token)
        )
        assert (response.status_code, response.json()) == (200, {"ok": True})
        await expect(pair.website, "message", topic="link", n=3, body="c2l3ZQ")
        await send(pair.wallet, type="close")
        for ws in (pair.website, pair.wallet):
            await expect(ws, "end", code="closed")
            await expect_close(ws, 1000)
    response = await http.post("/offer", json={"body": "AA"}, headers=bearer(pair.website_token))
    assert response.status_code == 401
    return pair


async def test_the_whole_sequence(server: Server, http: httpx.AsyncClient) -> None:
    await whole_sequence(server, http)


async def test_a_second_claim_is_crowded_for_all_three(server: Server, http: httpx.AsyncClient) -> None:
    async with paired(server, http) as pair, open_ws(server) as thief:
        await send(thief, type="claim", mailbox=pair.id)
        await expect(thief, "error", code="crowded")
        await expect_close(thief, 1008)
        await expect(pair.website, "crowded")
        await expect(pair.wallet, "crowded")


async def test_a_killed_wallet_is_missed_and_then_the_mailbox_is_forgotten(
    impatient: Server, impatient_http: httpx.AsyncClient
) -> None:
    mailbox = new_id()
    opened = await challenge(impatient_http, mailbox)
    async with open_ws(impatient) as website:
        await send(website, type="subscribe", token=opened["token"], after=0)
        await expect(website, "ready")
        wallet = await trio.lowlevel.open_process(
            [sys.executable, "-c", WALLET, impatient.url.replace("http", "ws") + "/ws", mailbox],
            stdout=subprocess.PIPE,
        )
        assert wallet.stdout is not None
        async with wallet.stdout:
            ready = json.loads(await wallet.stdout.receive_some())
            await expect(website, "joined")
            wallet.kill()
            await wallet.wait()
        await expect(website, "left")
        await expect(website, "end", code="left")
        await expect_close(website, 1000)
    for token in (opened["token"], ready["token"]):
        response = await impatient_http.post("/answer", json={"body": "AA"}, headers=bearer(token))
        assert response.status_code == 401
        async with open_ws(impatient) as late:
            await send(late, type="subscribe", token=token, after=0)
            await expect(late, "error", code="unauthorized")
            await expect_close(late, 1008)


async def test_of_100_concurrent_uses_of_a_nonce_one_succeeds_and_the_others_look_unknown(
    server: Server,
) -> None:
    limits = httpx.Limits(max_connections=100)
    async with (
        httpx.AsyncClient(base_url=server.url, timeout=HANG, limits=limits) as http,
        paired(server, http) as pair,
    ):
        answers: list[tuple[int, tuple, bytes]] = []

        async def use(nonce: str, into: list[tuple[int, tuple, bytes]]) -> None:
            body = {"nonce": nonce, "body": "c2l3ZQ"}
            response = await http.post("/link", json=body, headers=bearer(pair.wallet_token))
            headers = tuple((name, value) for name, value in response.headers.raw if name.lower() != b"date")
            into.append((response.status_code, headers, response.content))

        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(use, pair.nonce, answers)
        unknown: list[tuple[int, tuple, bytes]] = []
        await use(UNKNOWN_NONCE, unknown)
        assert unknown[0][0] == 403
        assert [status for status, _, _ in answers].count(200) == 1
        assert {answer for answer in answers if answer[0] != 200} == {unknown[0]}

        await send(pair.wallet, type="publish", topic="answer", body="AA")
        await expect(pair.website, "message", topic="link", n=1)
        await expect(pair.website, "message", topic="answer", n=2)


# Limits


async def read_to_the_end(stream: trio.SocketStream) -> bytes:
    data = b""
    with trio.fail_after(HANG):
        try:
            async for chunk in stream:
                data += chunk
        except trio.BrokenResourceError:
            pass  # a reset is an end, too
    return data


async def test_a_body_that_drips_in_is_cut_off(impatient: Server, impatient_http: httpx.AsyncClient) -> None:
    token = (await challenge(impatient_http, new_id()))["token"]
    async with raw(impatient) as stream, trio.open_nursery() as nursery:

        async def drip() -> None:
            head = (
                f"POST /offer HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n"
                f"Authorization: Bearer {token}\r\n\r\n"
            )
            await stream.send_all(head.encode())
            for _ in range(1000):
                await trio.sleep(0.02)
                await stream.send_all(b" ")

        nursery.start_soon(drip)
        with trio.fail_after(HANG):
            answer = await stream.receive_some()
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"connection: close" in answer.lower()
        nursery.cancel_scope.cancel()
    async with raw(impatient) as stream:
        await stream.send_all(
            b"POST /offer HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n "
        )
        assert (await read_to_the_end(stream)).startswith(b"HTTP/1.1 401 ")


async def test_a_connection_that_does_not_say_what_it_wants_is_dropped(impatient: Server) -> None:
    complete = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"

    async def begin(beginning: bytes) -> None:
        async with raw(impatient) as stream:
            await stream.send_all(beginning)
            assert await read_to_the_end(stream) == b""

    async def begin_again() -> None:
        async with raw(impatient) as stream:
            await stream.send_all(complete)
            answer = b""
            with trio.fail_after(HANG):
                while not answer.endswith(b'{"ok":true}'):
                    answer += await stream.receive_some()
            await stream.send_all(complete[:8])
            assert await read_to_the_end(stream) == b""

    async with trio.open_nursery() as nursery:
        nursery.start_soon(begin_again)
        nursery.start_soon(begin, b"")
        nursery.start_soon(begin, complete[:8])
        nursery.start_soon(begin, complete[:-2])


async def test_a_websocket_is_not_dropped_for_having_no_request(
    impatient: Server, impatient_http: httpx.AsyncClient
) -> None:
    token = (await challenge(impatient_http, new_id()))["token"]
    async with open_ws(impatient) as website:
        await send(website, type="subscribe", token=token, after=0)
        await expect(website, "ready")
        async with raw(impatient) as silent:
            assert await read_to_the_end(silent) == b""
        await send(website, type="close")
        await expect(website, "end", code="closed")


async def test_a_socket_that_says_nothing_is_closed(impatient: Server) -> None:
    async with open_ws(impatient) as ws:
        await expect(ws, "error", code="timeout")
        await expect_close(ws, 1008)


async def test_an_oversized_frame_closes_that_socket_only(server: Server, http: httpx.AsyncClient) -> None:
    async with paired(server, http) as pair, paired(server, http) as others:
        with suppress(ConnectionClosed):  # it may be closed before the frame is out
            await pair.wallet.send_message("x" * (FRAME_LENGTH + 1))
        await expect_close(pair.wallet, 1009)
        await expect(pair.website, "left")
        async with open_ws(server) as back:
            await send(back, type="subscribe", token=pair.wallet_token, after=0)
            await expect(back, "ready")
            await expect(pair.website, "joined")
            await send(others.wallet, type="publish", topic="answer", body="AA")
            await expect(others.website, "message")


async def test_the_longest_message_passes_by_websocket_and_by_http(
    server: Server, http: httpx.AsyncClient
) -> None:
    body = base64.urlsafe_b64encode(os.urandom(65_535)).decode().rstrip("=")
    async with paired(server, http) as pair:
        await send(pair.wallet, type="publish", topic="answer", body=body)
        await expect(pair.website, "message", n=1, body=body)
        response = await http.post("/offer", json={"body": body}, headers=bearer(pair.website_token))
        assert response.status_code == 202
        await expect(pair.wallet, "message", n=1, body=body)


async def test_an_oversized_frame_in_fragments_is_cut_off_before_its_end(server: Server) -> None:
    async with raw(server) as stream:
        await stream.send_all(upgrade("/ws"))
        with trio.fail_after(HANG):
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 101 ")
        for opcode in (0x01, 0x00, 0x00):  # text, and two continuations; none is the last
            await stream.send_all(struct.pack("!BBQ", opcode, 0x80 | 127, 40_000) + bytes(4) + b"x" * 40_000)
        answer = await read_to_the_end(stream)
        assert answer[:1] == b"\x88"
        assert answer[2:4] == struct.pack("!H", 1009)


async def test_a_body_over_the_limit_is_refused_in_a_way_that_the_client_can_read(
    http: httpx.AsyncClient,
) -> None:
    token = (await challenge(http, new_id()))["token"]
    for headers in (bearer(token), {}):
        response = await http.post(
            "/offer",
            content=b" " * (FRAME_LENGTH + 1),
            headers={"content-type": "application/json", **headers},
        )
        assert response.status_code == (413 if headers else 401)


async def test_a_url_over_the_limit_is_refused(server: Server, http: httpx.AsyncClient) -> None:
    assert (await http.get("/health?" + "x" * 2048)).status_code == 414
    async with raw(server) as stream:
        await stream.send_all(upgrade("/ws?" + "x" * 2048))
        assert (await read_to_the_end(stream)).startswith(b"HTTP/1.1 414 ")


async def test_a_slow_consumer_is_closed_with_1013_while_others_go_on() -> None:
    # So much that the buffers of the system cannot swallow it.
    body, count = "A" * 80_000, 256
    with running(f"direction_length={count * len(body)}, stored_length=2**26") as server:
        async with (
            httpx.AsyncClient(base_url=server.url, timeout=HANG) as http,
            paired(server, http) as others,
            open_ws(server, receive_buffer=4096) as website,
            open_ws(server) as wallet,
        ):
            mailbox = new_id()
            token = (await challenge(http, mailbox))["token"]
            await send(website, type="subscribe", token=token, after=0)
            await send(wallet, type="claim", mailbox=mailbox)
            await expect(wallet, "ready")
            await expect(wallet, "joined")
            for _ in range(count):
                await send(wallet, type="publish", topic="answer", body=body)
            await expect(wallet, "left")

            await send(others.wallet, type="publish", topic="answer", body="AA")
            await expect(others.website, "message")

            await expect(website, "ready")
            await expect(website, "joined")
            n = 1
            while (frame := await get(website))["type"] == "message":
                assert frame["n"] == n
                n += 1
            assert (frame["type"], frame["code"]) == ("error", "slow")
            await expect_close(website, 1013)


# Beginning and end


@pytest.mark.parametrize(
    ("name", "code", "said"), [("SIGINT", 0, "returned"), ("SIGTERM", -signal.SIGTERM, "")]
)
async def test_a_signal_ends_it_in_good_order(name: str, code: int, said: str) -> None:
    with running() as server:
        async with (
            httpx.AsyncClient(base_url=server.url, timeout=HANG) as http,
            paired(server, http) as pair,
            open_ws(server) as silent,
        ):
            server.process.send_signal(getattr(signal, name))
            for ws in (pair.website, pair.wallet, silent):
                await expect(ws, "end", code="shutdown")
                await expect_close(ws, 1001)
        output = await server.rest_of_output()
        assert server.process.returncode == code
        assert output.strip() == said


def test_an_address_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"127.0.0.1 port {port}"):
            serve(port=port)


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
def test_an_address_of_the_sixth_version_is_written_as_a_url() -> None:
    class Enough(Exception):
        pass

    urls: list[str] = []

    def ready(url: str) -> None:
        urls.append(url)
        raise Enough

    with pytest.raises(Enough):
        serve("::1", 0, ready=ready)
    assert urls[0].startswith("http://[::1]:")


# What it says


#: Everything at the lowest level there is, before the server starts and again after it has set its own.
LOUD = """
import asyncio, logging
def loud():
    for name in [None, *logging.root.manager.loggerDict]:
        logging.getLogger(name).setLevel(1)
logging.basicConfig(level=1, stream=sys.stdout)
import uvicorn.protocols.websockets.websockets_sansio_impl, uvicorn.protocols.http.h11_impl
loud()
def ready(url):
    print(url, flush=True)
    loud()
    logging.getLogger("probe").debug("debug lines are shown")
"""


async def test_at_debug_no_line_of_the_server_holds_a_secret() -> None:
    bodies = ["bm9pc2U", "b2ZmZXI", "YW5zd2Vy", "c2l3ZQ"]
    with running(before=LOUD, ready="ready") as server:
        async with httpx.AsyncClient(base_url=server.url, timeout=HANG) as http:
            pair = await whole_sequence(server, http)
            for text in ("{" + pair.wallet_token, json.dumps({"type": "subscribe", "token": pair.nonce})):
                async with open_ws(server, "/ws?token=" + pair.wallet_token) as ws:
                    await ws.send_message(text)
                    await expect(ws, "error", code="malformed")
                    await expect_close(ws, 1008)
            async with open_ws(server) as ws:
                await ws.send_message(b"\xff\xfe" + pair.nonce.encode())
                await expect(ws, "error", code="malformed")
                await expect_close(ws, 1008)
            await http.get("/nowhere?token=" + pair.wallet_token)
            async with raw(server) as stream:
                await stream.send_all(upgrade("/nowhere?token=" + pair.wallet_token))
                assert (await read_to_the_end(stream)).startswith(b"HTTP/1.1 404 ")
        server.process.send_signal(signal.SIGINT)
        output = await server.rest_of_output()
    for event in ("opened, 1 now", "claimed", "ended: closed, 0 now", "debug lines are shown"):
        assert event in output
    assert "ERROR" not in output
    for secret in (pair.id, pair.website_token, pair.wallet_token, pair.nonce, *bodies, "?token="):
        assert secret not in output


def in_a_new_process(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()


def test_importing_the_package_imports_nothing_else() -> None:
    code = """
import sys, typing, importlib, handclasp
before = set(sys.modules)
import handclasp.service
print(sorted(name for name in set(sys.modules) - before if not name.startswith("handclasp")))
print(dir(handclasp.service)[:1] + [name for name in dir(handclasp.service) if not name.startswith("_")])
"""
    first, second = in_a_new_process(code).splitlines()
    assert first == "[]"
    assert "'create_app', 'serve'" in second


def test_the_application_needs_no_server_and_the_names_are_the_real_ones() -> None:
    code = """
import sys
from handclasp.service import Settings, create_app
create_app(Settings())
print("uvicorn" in sys.modules, create_app.__module__, Settings.__module__)
"""
    assert in_a_new_process(code) == "False handclasp.service.app handclasp.service.settings"


def test_importing_everything_sets_no_logger_up() -> None:
    code = """
import logging
from handclasp.service import create_app, serve
loggers = [logging.root, *map(logging.getLogger, logging.root.manager.loggerDict)]
print([each.name for each in loggers if set(map(type, each.handlers)) - {logging.NullHandler}])
print([each.name for each in loggers if each.filters])
print(logging.getLogger("handclasp.service").level, logging.getLogger("uvicorn.error").level)
"""
    assert in_a_new_process(code).splitlines() == ["[]", "[]", "0 0"]


def test_an_unknown_name_of_the_package_is_an_attribute_error() -> None:
    import handclasp.service

    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        _ = handclasp.service.Nothing
