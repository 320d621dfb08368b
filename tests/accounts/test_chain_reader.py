"""The JSON-RPC client against nodes that lie, stall and talk nonsense; test_chain.py has a real one."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial

import pytest
import trio
import trio.testing

from handclasp.accounts import AccountId, ChainId, ChainReader, Eip155Verifier, open_json_rpc
from handclasp.errors import ConfigurationError, DeadlineExceeded, ServiceUnavailable
from handclasp.testing import cancel_everywhere

CHAIN = ChainId("eip155", "5")
ADDRESS = "0x" + "11" * 20

Handler = Callable[[trio.SocketStream], Awaitable[None]]


@asynccontextmanager
async def serving(handler: Handler) -> AsyncGenerator[str]:
    """The URL of a server that gives each connection to *handler*."""
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, handler, 0, host="127.0.0.1"))
        port = listeners[0].socket.getsockname()[1]
        yield f"http://127.0.0.1:{port}"
        nursery.cancel_scope.cancel()


def http(body: bytes, status: str = "200 OK", headers: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body


async def _some(stream: trio.SocketStream) -> bytes:
    data = await stream.receive_some()
    if not data:
        raise trio.BrokenResourceError
    return bytes(data)


async def request_of(stream: trio.SocketStream) -> dict[str, object]:
    """The JSON of one request."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += await _some(stream)
    head, _, body = data.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
    while len(body) < length:
        body += await _some(stream)
    request: dict[str, object] = json.loads(body)
    return request


def node(reply: bytes) -> Handler:
    """A node for the right chain, which answers everything else with *reply* and goes."""

    async def handle(stream: trio.SocketStream) -> None:
        async with stream:
            while (await request_of(stream))["method"] == "eth_chainId":
                await stream.send_all(http(b'{"jsonrpc":"2.0","id":1,"result":"0x5"}'))
            await stream.send_all(reply)
            await stream.send_eof()
            while await stream.receive_some():
                pass

    return handle


def result(value: object) -> bytes:
    return http(json.dumps({"jsonrpc": "2.0", "id": 1, "result": value}).encode())


def error(code: object, *, status: str = "200 OK") -> bytes:
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "error": {"code": code, "message": "no"}}).encode()
    return http(body, status, "Content-Type: application/json; charset=utf-8\r\n")


async def asked(reply: bytes) -> tuple[object, object]:
    """What a reader makes of *reply* to both of its questions: a value, or the sentence of its error."""

    async def outcome(ask: Callable[[ChainReader], Awaitable[bytes | None]]) -> object:
        async with serving(node(reply)) as url, open_json_rpc({CHAIN: url}) as reader:
            try:
                return await ask(reader)
            except ServiceUnavailable as exc:
                return str(exc)

    return (
        await outcome(lambda reader: reader.code(CHAIN, ADDRESS)),
        await outcome(lambda reader: reader.call(CHAIN, ADDRESS, b"")),
    )


@pytest.mark.parametrize(("text", "value"), [("0x", b""), ("0x00", b"\0"), ("0xAbcD", b"\xab\xcd")])
async def test_hex_is_read(text: str, value: bytes) -> None:
    assert await asked(result(text)) == (value, value)


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(http(b""), id="nothing"),
        pytest.param(http(b"<html>"), id="no JSON"),
        pytest.param(http(b"\xff"), id="no UTF-8"),
        pytest.param(http(b"[" * 100_000), id="deep JSON"),
        pytest.param(http(b"[]"), id="a list"),
        pytest.param(http(b"{}"), id="an empty object"),
        pytest.param(http(b'{"error":null}'), id="no error"),
        pytest.param(http(b'{"error":{}}'), id="an error without a code"),
        pytest.param(error("3"), id="a code that is text"),
        pytest.param(error(3.0), id="a code that is no integer"),
        pytest.param(result(None), id="null"),
        pytest.param(result(1), id="a number"),
        pytest.param(result(["0x"]), id="a list of hex"),
        pytest.param(result(""), id="empty text"),
        pytest.param(result("00"), id="hex without 0x"),
        pytest.param(result("0X00"), id="0X"),
        pytest.param(result("0x0"), id="odd hex"),
        pytest.param(result("0xgg"), id="no hex"),
        pytest.param(result("0x00\n"), id="a line feed"),
        pytest.param(result("0x\u0661\u0661"), id="digits of another script"),
        pytest.param(
            http(gzip.compress(b'{"result":"0x"}'), headers="Content-Encoding: gzip\r\n"), id="compressed"
        ),
    ],
)
async def test_nonsense_is_said_to_be_no_reply(reply: bytes) -> None:
    sentence = "the node for eip155:5 answered with something that is no reply of a node"
    assert await asked(reply) == (sentence, sentence)


@pytest.mark.parametrize(
    ("reply", "sentence"),
    [
        (http(b"{}", "500 Internal Server Error"), "answered with status 500"),
        (http(b"", "302 Found", "Location: http://127.0.0.1:1/\r\n"), "answered with status 302"),
        (http(b"{}", "401 Unauthorized"), "answered with status 401"),
        (b"SSH-2.0-OpenSSH\r\n", "cannot be asked: RemoteProtocolError"),
        (b"", "cannot be asked: RemoteProtocolError"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}", "cannot be asked: RemoteProtocolError"),
        (http(b" " * (1024 * 1024 + 1)), "answered with more than 1048576 bytes"),
        *(
            (error(code), f"(error {code})")
            for code in (-32700, -32600, -32601, -32602, -32001, -32002, -32004, -32005, -32006)
        ),
        (error(-32005, status="429 Too Many Requests"), "(error -32005)"),
    ],
)
async def test_a_node_that_does_not_do_it_is_the_worlds_fault(reply: bytes, sentence: str) -> None:
    for outcome in await asked(reply):
        assert sentence in str(outcome)


async def test_a_node_that_refuses_often_is_still_asked() -> None:
    async def handle(stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):
            async with stream:
                while True:
                    known = (await request_of(stream))["method"] == "eth_chainId"
                    await stream.send_all(result("0x5") if known else http(b"{}", "503 Busy"))

    async with serving(handle) as url, open_json_rpc({CHAIN: url}) as reader:
        for _ in range(110):  # httpx opens at most 100 connections
            with pytest.raises(ServiceUnavailable, match="status 503"):
                await reader.code(CHAIN, ADDRESS)


@pytest.mark.parametrize(
    "reply", [error(3), error(-32000), error(-32003), error(-32015), error(-32603), error(3, status="400 No")]
)
async def test_a_call_that_failed_has_no_result_but_code_there_always_is(reply: bytes) -> None:
    code, called = await asked(reply)
    assert "no reply of a node" in str(code)
    assert called is None


@pytest.mark.parametrize("chain", [None, 5, "", "5", "0x", "0x05", "0x" + "1" * 17, "0x5\n", "0xg"])
async def test_a_node_that_does_not_know_its_chain_is_not_asked(chain: object) -> None:
    async def handle(stream: trio.SocketStream) -> None:
        async with stream:
            assert (await request_of(stream))["method"] == "eth_chainId"
            await stream.send_all(result(chain))
            assert await stream.receive_some() == b""  # and nothing else

    async with serving(handle) as url, open_json_rpc({CHAIN: url}) as reader:
        with pytest.raises(ServiceUnavailable, match="no reply of a node"):
            await reader.code(CHAIN, ADDRESS)


async def test_the_chain_is_asked_for_once_and_the_sender_is_new_for_each_call() -> None:
    seen: list[dict[str, object]] = []

    async def handle(stream: trio.SocketStream) -> None:
        async with stream:
            while True:
                seen.append(await request_of(stream))
                await stream.send_all(result("0x5" if seen[-1]["method"] == "eth_chainId" else "0x"))

    async with serving(handle) as url, open_json_rpc({CHAIN: url}) as reader:
        for _ in range(2):
            await reader.call(CHAIN, ADDRESS, b"\1\2")
            await reader.call(CHAIN, None, b"\3")
    assert [request["method"] for request in seen] == ["eth_chainId", *["eth_call"] * 4]
    calls = [request["params"] for request in seen[1:]]
    senders = set()
    for number, call in enumerate(calls):
        assert isinstance(call, list)
        message, block = call
        senders.add(message.pop("from"))
        assert block == "latest"
        message.pop("gas")
        assert message == ({"data": "0x03"} if number % 2 else {"data": "0x0102", "to": ADDRESS})
    assert len(senders) == 4
    assert "0x" + "00" * 20 not in senders


@pytest.mark.parametrize(
    "url",
    [
        "http://node.example",
        "http://127.0.0.1.example",
        "ws://localhost",
        "localhost:8545",
        "",
        "file:///x",
        "http:",
        "https:",
        "https://",
    ],
)
async def test_a_node_whose_answers_others_could_give_is_not_named(url: str) -> None:
    with pytest.raises(ConfigurationError, match="has to be at an https: URL"):
        async with open_json_rpc({CHAIN: url}):
            pass


@pytest.mark.parametrize("url", ["https://[::1", "https://[x]", "https://node.example:port", "https://a\nb"])
async def test_what_is_no_url_is_said_to_be_none(url: str) -> None:
    with pytest.raises(ConfigurationError, match="the node for eip155:5 is not at a URL"):
        async with open_json_rpc({CHAIN: url}):
            pass


async def test_a_node_that_is_not_there_is_the_worlds_fault() -> None:
    with trio.socket.socket() as probe:
        await probe.bind(("127.0.0.1", 0))
        async with open_json_rpc({CHAIN: f"http://127.0.0.1:{probe.getsockname()[1]}"}) as reader:
            with pytest.raises(ServiceUnavailable, match="cannot be asked: ConnectError"):
                await reader.code(CHAIN, ADDRESS)


async def test_a_proxy_of_the_environment_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
        monkeypatch.setenv(name.lower(), "http://127.0.0.1:1")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    assert await asked(result("0x00")) == (b"\0", b"\0")


async def _silent(stream: trio.SocketStream) -> None:
    async with stream:
        await trio.sleep_forever()


async def _dripping(stream: trio.SocketStream) -> None:
    async with stream:
        await request_of(stream)
        await stream.send_all(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            await stream.send_all(b" ")
            await trio.sleep(1)


async def _trickling_headers(stream: trio.SocketStream) -> None:
    async with stream:
        await stream.send_all(b"HTTP/1.1 200 OK\r\n")
        while True:
            await stream.send_all(b"X: y\r\n")
            await trio.sleep(1)


@pytest.mark.parametrize("handler", [_silent, _dripping, _trickling_headers])
async def test_a_node_that_never_finishes_is_waited_for_until_the_deadline(
    handler: Handler, autojump_clock: trio.testing.MockClock
) -> None:
    async with serving(handler) as url, open_json_rpc({CHAIN: url}) as reader:
        verifier = Eip155Verifier(reader, deadline=3)
        with pytest.raises(DeadlineExceeded, match="the node for eip155:5 did not answer in 3 seconds"):
            await verifier.verify(AccountId(CHAIN, ADDRESS), "text", "0x")
        assert trio.current_time() == pytest.approx(3, abs=0.5)


async def _one_answer(stream: trio.SocketStream) -> None:
    with suppress(trio.BrokenResourceError):
        async with stream:
            for value in ("0x5", "0x"):
                await request_of(stream)
                await stream.send_all(result(value))
            await stream.receive_some()


async def test_cancelling_leaves_nothing_behind() -> None:
    async def ask(url: str) -> None:
        async with open_json_rpc({CHAIN: url}) as reader:
            await reader.code(CHAIN, ADDRESS)

    assert await cancel_everywhere(ask, around=partial(serving, _one_answer)) > 5


def test_it_works_on_asyncio_too() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for value in (b'{"result":"0x5"}', b'{"result":"0x6001"}'):
            await reader.readuntil(b"}")
            writer.write(http(value))
        writer.close()
        await writer.wait_closed()

    async def ask() -> None:
        async with await asyncio.start_server(handle, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            async with open_json_rpc({CHAIN: f"http://127.0.0.1:{port}"}) as reader:
                assert await reader.code(CHAIN, ADDRESS) == b"\x60\x01"

    asyncio.run(ask())
