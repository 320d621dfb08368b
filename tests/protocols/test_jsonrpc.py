from __future__ import annotations

import json
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from handclasp.abc import Stream
from handclasp.errors import (
    ConnectionLost,
    DeadlineExceeded,
    HandclaspError,
    MisuseError,
    ProtocolViolation,
    RequestFailed,
)
from handclasp.protobuf import decode_uvarint_untrusted, encode_uvarint
from handclasp.protocols.jsonrpc import MAX_CONCURRENT, MAX_MESSAGE, JsonRpcPeer, RequestHandler, open_jsonrpc
from handclasp.transports.memory import WINDOW, memory_stream_pair


async def echo(method: str, params: object) -> object:
    """Answers with what it was asked."""
    await trio.lowlevel.checkpoint()
    return {"method": method, "params": params}


@asynccontextmanager
async def two_peers(
    one: RequestHandler | None = None, other: RequestHandler | None = None
) -> AsyncGenerator[tuple[JsonRpcPeer, JsonRpcPeer]]:
    here, there = memory_stream_pair()
    async with open_jsonrpc(here, one) as first, open_jsonrpc(there, other) as second:
        yield first, second


class Raw:
    """A peer that may send anything."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self._buffer = b""

    async def send_bytes(self, content: bytes) -> None:
        """One message with this content."""
        await self.stream.send_all(encode_uvarint(len(content)) + content)

    async def send(self, message: object) -> None:
        await self.send_bytes(json.dumps(message).encode())

    async def receive(self) -> object:
        while (message := self._cut()) is None:
            data = await self.stream.receive_some()
            assert data, "the stream ended"
            self._buffer += data
        return json.loads(message)

    def _cut(self) -> bytes | None:
        decoded = decode_uvarint_untrusted(self._buffer)
        if decoded is None or len(self._buffer) < sum(decoded):
            return None
        length, start = decoded
        message, self._buffer = self._buffer[start : start + length], self._buffer[start + length :]
        return message

    async def ask(self, number: object, method: str = "method", params: object = None) -> None:
        await self.send({"jsonrpc": "2.0", "id": number, "method": method, "params": params})

    async def answer(self, result: object) -> dict[str, object]:
        """Take the next request and answer it."""
        request = await self.receive()
        assert isinstance(request, dict)
        await self.send({"jsonrpc": "2.0", "id": request["id"], "result": result})
        return request


@asynccontextmanager
async def against_raw(handler: RequestHandler | None = None) -> AsyncGenerator[tuple[JsonRpcPeer, Raw]]:
    """One end of ours, and a peer that may send anything."""
    here, there = memory_stream_pair()
    async with open_jsonrpc(here, handler) as peer, there:
        yield peer, Raw(there)


class Outcome:
    """What a call in the background came to."""

    def __init__(self) -> None:
        self.result: object = None
        self.error: HandclaspError | None = None

    async def of(self, function: Callable[..., Awaitable[object]], *args: object) -> None:
        try:
            self.result = await function(*args)
        except HandclaspError as exc:
            self.error = exc


def error_of(answer: object) -> tuple[object, int, str]:
    """The id, code and message of an answer with an error."""
    assert isinstance(answer, dict)
    assert answer.keys() == {"jsonrpc", "id", "error"}
    return answer["id"], answer["error"]["code"], answer["error"]["message"]


# --- calls ---


async def test_each_side_calls_the_other() -> None:
    async with two_peers(echo, echo) as peers:
        for peer in peers:
            assert await peer.call("add", [1, 2]) == {"method": "add", "params": [1, 2]}


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        0,
        -(2**70),
        1.5,
        "",
        "\u00e9\u4e16\U0001f600",
        "\x00\x1f",
        [],
        {},
        [[{"a": [None]}]],
        "\ud800",
    ],
)
async def test_params_and_results_come_through_as_they_are(value: object) -> None:
    async with two_peers(other=echo) as (ours, _):
        assert await ours.call("method", value) == {"method": "method", "params": value}


async def test_messages_are_a_uvarint_length_and_json() -> None:
    async with against_raw() as (peer, raw), trio.open_nursery() as nursery:
        nursery.start_soon(peer.call, "wallet_getSession", {"a": "\u00e9"})
        await trio.testing.wait_all_tasks_blocked()
        data = await raw.stream.receive_some()
        assert data[0] == len(data) - 1
        assert json.loads(data[1:]) == {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "wallet_getSession",
            "params": {"a": "\u00e9"},
        }
        await raw.send({"jsonrpc": "2.0", "id": 1, "result": None})


async def test_answers_may_come_in_any_order() -> None:
    outcomes = [Outcome() for _ in range(5)]
    async with against_raw() as (peer, raw), trio.open_nursery() as nursery:
        for number, outcome in enumerate(outcomes):
            nursery.start_soon(outcome.of, peer.call, "method", number)
        requests = [await raw.receive() for _ in outcomes]
        for request in reversed(requests):
            assert isinstance(request, dict)
            await raw.send({"jsonrpc": "2.0", "id": request["id"], "result": request["params"]})
    assert [outcome.result for outcome in outcomes] == list(range(5))


async def test_calls_overtake_each_other_and_cross() -> None:
    release = trio.Event()

    async def handler(method: str, params: object) -> object:
        if method == "slow":
            await release.wait()
        return params

    slow = Outcome()
    async with two_peers(handler, handler) as (ours, theirs), trio.open_nursery() as nursery:
        nursery.start_soon(slow.of, ours.call, "slow", "late")
        await trio.testing.wait_all_tasks_blocked()
        assert await ours.call("fast", "early") == "early"
        assert await theirs.call("fast", "the other way") == "the other way"
        assert slow.result is None
        release.set()
    assert slow.result == "late"


async def test_a_handler_may_call_back_before_it_answers() -> None:
    async def handler(method: str, params: object) -> object:
        return await theirs.call("back", params)

    async with two_peers(echo, handler) as (ours, theirs):
        assert await ours.call("there", 5) == {"method": "back", "params": 5}


async def test_messages_arrive_whole_however_they_are_cut() -> None:
    async with against_raw(echo) as (_, raw):
        content = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "m", "params": "x" * 200}).encode()
        message = encode_uvarint(len(content)) + content
        for byte in message:
            await raw.stream.send_all(bytes([byte]))
            await trio.testing.wait_all_tasks_blocked()
        await raw.stream.send_all(message * 3)
        for _ in range(4):
            assert await raw.receive() == {
                "jsonrpc": "2.0",
                "id": 1,
                "result": {"method": "m", "params": "x" * 200},
            }


async def test_an_id_comes_back_as_it_was() -> None:
    async with against_raw(echo) as (_, raw):
        for number in (0, -1, 2**62, "", "text", "\u00e9", "\ud800", "x" * 128):
            await raw.ask(number)
            answer = await raw.receive()
            assert isinstance(answer, dict)
            assert answer["id"] == number
            assert type(answer["id"]) is type(number)


# --- errors ---


async def test_an_error_arrives_with_code_message_and_data() -> None:
    async def handler(method: str, params: object) -> object:
        raise RequestFailed(4001, f"no {method}", params)

    async with two_peers(other=handler) as (ours, _):
        with pytest.raises(RequestFailed) as caught:
            await ours.call("please", {"why": ["because"]})
        error = caught.value
        assert (error.code, error.message, error.data) == (4001, "no please", {"why": ["because"]})
        with pytest.raises(RequestFailed) as caught:
            await ours.call("please", None)
        assert caught.value.data is None


async def test_without_a_handler_there_are_no_methods() -> None:
    async with two_peers() as (ours, _):
        with pytest.raises(RequestFailed, match="there is no method nonsense") as caught:
            await ours.call("nonsense", [])
        assert caught.value.code == -32601


async def test_a_handlers_exception_is_an_internal_error_that_tells_the_peer_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def handler(method: str, params: object) -> object:
        raise ValueError("the password is hunter2")

    async with against_raw(handler) as (_, raw):
        await raw.ask(7, "compute")
        assert await raw.receive() == {
            "jsonrpc": "2.0",
            "id": 7,
            "error": {"code": -32603, "message": "internal error"},
        }
        await raw.ask(8, "compute")  # the conversation goes on
        assert error_of(await raw.receive()) == (8, -32603, "internal error")
    (first, _) = caplog.records
    assert (first.levelno, first.name) == (logging.ERROR, "handclasp.protocols.jsonrpc")
    assert "compute" in first.getMessage()
    assert first.exc_info is not None
    assert isinstance(first.exc_info[1], ValueError)


@pytest.mark.parametrize(
    "error", [ConnectionLost("another connection"), trio.ClosedResourceError("another"), MisuseError("a bug")]
)
async def test_a_handlers_trouble_with_another_connection_is_answered_like_any_other(
    error: Exception,
) -> None:
    async def handler(method: str, params: object) -> object:
        raise error

    async with two_peers(other=handler) as (ours, _):
        with pytest.raises(RequestFailed, match="internal error"):
            await ours.call("forward", [])


@pytest.mark.parametrize(
    "result",
    [
        pytest.param(object(), id="no JSON"),
        pytest.param({1, 2}, id="a set"),
        pytest.param(b"bytes", id="bytes"),
        pytest.param(float("nan"), id="not a number"),
        pytest.param("x" * MAX_MESSAGE, id="too long"),
    ],
)
async def test_a_result_that_cannot_be_sent_is_an_internal_error(
    result: object, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(method: str, params: object) -> object:
        if method == "data":
            raise RequestFailed(4001, "no", result)
        return result

    async with two_peers(other=handler) as (ours, _):
        for method in ("result", "data"):
            with pytest.raises(RequestFailed, match="internal error") as caught:
                await ours.call(method, [])
            assert caught.value.code == -32603
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]


@pytest.mark.parametrize(
    "error",
    [
        None,
        "text",
        [],
        {},
        {"code": 1},
        {"message": "x"},
        {"code": "1", "message": "x"},
        {"code": 1, "message": 5},
        {"code": 1.5, "message": "x"},
    ],
)
async def test_a_malformed_error_is_an_internal_error(error: object) -> None:
    outcome = Outcome()
    async with against_raw() as (peer, raw), trio.open_nursery() as nursery:
        nursery.start_soon(outcome.of, peer.call, "method", [])
        await raw.receive()
        await raw.send({"jsonrpc": "2.0", "id": 1, "error": error})
    assert isinstance(outcome.error, RequestFailed)
    assert outcome.error.code == -32603


async def test_a_long_error_message_is_cut() -> None:
    outcome = Outcome()
    async with against_raw() as (peer, raw), trio.open_nursery() as nursery:
        nursery.start_soon(outcome.of, peer.call, "method", [])
        await raw.receive()
        await raw.send({"jsonrpc": "2.0", "id": 1, "error": {"code": 1, "message": "x" * 100_000}})
    assert isinstance(outcome.error, RequestFailed)
    assert len(outcome.error.message) == 1_000


# --- notifications ---


async def test_a_notification_is_handled_and_not_answered() -> None:
    heard: list[tuple[str, object]] = []

    async def handler(method: str, params: object) -> object:
        heard.append((method, params))
        return "ignored"

    async with against_raw(handler) as (_, raw):
        await raw.send({"jsonrpc": "2.0", "method": "changed", "params": [1]})
        await raw.send({"jsonrpc": "2.0", "method": "changed"})
        await raw.send({"jsonrpc": "2.0", "id": None, "method": "changed", "params": {}})
        await raw.ask(1, "asked")
        assert await raw.receive() == {"jsonrpc": "2.0", "id": 1, "result": "ignored"}
        await trio.testing.wait_all_tasks_blocked()
    # Handlers run side by side, so their order is not the messages'.
    assert sorted(heard, key=repr) == [("asked", None), ("changed", None), ("changed", [1]), ("changed", {})]


async def test_notify_sends_no_id() -> None:
    async with against_raw() as (peer, raw):
        await peer.notify("changed", {"a": 1})
        assert await raw.receive() == {"jsonrpc": "2.0", "method": "changed", "params": {"a": 1}}


async def test_the_error_of_a_notifications_handler_goes_to_the_log_only(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def handler(method: str, params: object) -> object:
        if method == "bad":
            raise ValueError("a bug")
        if method == "refused":
            raise RequestFailed(4001, "no")
        return params

    async with against_raw(handler) as (_, raw):
        await raw.send({"jsonrpc": "2.0", "method": "bad"})
        await raw.send({"jsonrpc": "2.0", "method": "refused"})
        await raw.ask(1, "good", "params")
        assert await raw.receive() == {"jsonrpc": "2.0", "id": 1, "result": "params"}
    assert [record.levelname for record in caplog.records] == ["ERROR"]


# --- answers that nobody waits for ---


@pytest.mark.parametrize("number", [0, 2, -1, "1", 1.0, True, None, [1], {}])
async def test_an_answer_to_no_request_is_passed_over(number: object) -> None:
    outcome = Outcome()
    async with against_raw() as (peer, raw), trio.open_nursery() as nursery:
        nursery.start_soon(outcome.of, peer.call, "method", [])
        await raw.receive()
        await raw.send({"jsonrpc": "2.0", "id": number, "result": "not this one"})
        await raw.send({"jsonrpc": "2.0", "id": number, "error": {"code": 1, "message": "nor this"}})
        await trio.testing.wait_all_tasks_blocked()
        await raw.send({"jsonrpc": "2.0", "id": 1, "result": "this one"})
    assert outcome.result == "this one"


async def test_a_second_answer_is_passed_over() -> None:
    async with against_raw() as (peer, raw), trio.open_nursery() as nursery:
        nursery.start_soon(raw.answer, "first")
        assert await peer.call("method", []) == "first"
        await raw.send({"jsonrpc": "2.0", "id": 1, "result": "second"})
        nursery.start_soon(raw.answer, "third")
        assert await peer.call("method", []) == "third"


# --- malformed messages ---


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"x", id="no JSON"),
        pytest.param(b"{", id="half an object"),
        pytest.param(b'{"jsonrpc":"2.0","id":1,"method":"m"}x', id="bytes behind"),
        pytest.param(b"null", id="null"),
        pytest.param(b"5", id="a number"),
        pytest.param(b'"text"', id="a text"),
        pytest.param(b"[]", id="empty batch"),
        pytest.param(b'[{"jsonrpc":"2.0","id":1,"method":"m"}]', id="batch"),
        pytest.param(b"{}", id="empty object"),
        pytest.param(b'{"id":1,"method":"m"}', id="no version"),
        pytest.param(b'{"jsonrpc":"1.0","id":1,"method":"m"}', id="another version"),
        pytest.param(b'{"jsonrpc":2.0,"id":1,"method":"m"}', id="version as a number"),
        pytest.param(b'{"jsonrpc":"2.0","id":1,"method":5}', id="method is no text"),
        pytest.param(b'{"jsonrpc":"2.0","id":1,"method":null}', id="method is null"),
        pytest.param(b'{"jsonrpc":"2.0","id":1.5,"method":"m"}', id="fraction as id"),
        pytest.param(b'{"jsonrpc":"2.0","id":true,"method":"m"}', id="bool as id"),
        pytest.param(b'{"jsonrpc":"2.0","id":[1],"method":"m"}', id="list as id"),
        pytest.param(b'{"jsonrpc":"2.0","id":{},"method":"m"}', id="object as id"),
        pytest.param(b'{"jsonrpc":"2.0","id":"' + b"x" * 129 + b'","method":"m"}', id="long id"),
        pytest.param(b'{"jsonrpc":"2.0","id":1,"method":"m","params":NaN}', id="NaN"),
        pytest.param(b'{"jsonrpc":"2.0","id":1,"method":"m","params":-Infinity}', id="infinity"),
        pytest.param(
            b'{"jsonrpc":"2.0","id":1,"method":"m","params":' + b"9" * 5000 + b"}", id="huge number"
        ),
        pytest.param(b"[" * 500_000, id="deep nesting"),
        pytest.param(b'{"a":' * 100_000, id="deep objects"),
        pytest.param(b'{"jsonrpc":"2.0","id":1,"method":"\xff"}', id="not UTF-8"),
        pytest.param(b'{"jsonrpc":"2.0","id":1,"method":"\xed\xa0\x80"}', id="surrogate in UTF-8"),
        pytest.param(b'\xef\xbb\xbf{"jsonrpc":"2.0","id":1,"method":"m"}', id="byte order mark"),
        pytest.param('{"jsonrpc":"2.0","id":1,"method":"m"}'.encode("utf-16"), id="UTF-16"),
        pytest.param('{"jsonrpc":"2.0","id":1,"method":"m"}'.encode("utf-32-le"), id="UTF-32"),
    ],
)
async def test_a_malformed_message_ends_the_conversation_and_fails_the_calls(content: bytes) -> None:
    handled: list[str] = []

    async def handler(method: str, params: object) -> object:
        handled.append(method)
        return None

    outcome = Outcome()
    async with against_raw(handler) as (peer, raw), trio.open_nursery() as nursery:
        nursery.start_soon(outcome.of, peer.call, "method", [])
        await raw.receive()
        await raw.send_bytes(content)
        await peer.wait_closed()
        with pytest.raises(ConnectionLost) as caught:
            await peer.call("another", [])
        assert isinstance(caught.value.__cause__, ProtocolViolation)
        with pytest.raises(trio.BrokenResourceError):
            await raw.stream.receive_some()  # the stream was reset
    assert isinstance(outcome.error, ProtocolViolation)
    assert handled == []


@pytest.mark.parametrize(
    "prefix",
    [
        pytest.param(encode_uvarint(MAX_MESSAGE + 1), id="one byte too long"),
        pytest.param(encode_uvarint(2**60), id="an exbibyte"),
        pytest.param(b"\xff" * 9, id="length without an end"),
        pytest.param(b"\x81\x00", id="length not minimally encoded"),
    ],
)
async def test_an_impossible_length_ends_the_conversation_at_once(prefix: bytes) -> None:
    async with against_raw(echo) as (peer, raw):
        await raw.stream.send_all(prefix)
        await peer.wait_closed()
        with pytest.raises(trio.BrokenResourceError):
            await raw.stream.receive_some()


async def test_a_message_of_the_greatest_length_is_read() -> None:
    frame = b'{"jsonrpc":"2.0","id":1,"method":"length","params":""}'

    async def length(method: str, params: object) -> object:
        assert isinstance(params, str)
        return len(params)

    async with against_raw(length) as (_, raw):
        await raw.send_bytes(frame.replace(b'""', b'"' + b"x" * (MAX_MESSAGE - len(frame)) + b'"'))
        assert await raw.receive() == {"jsonrpc": "2.0", "id": 1, "result": MAX_MESSAGE - len(frame)}


async def test_a_message_that_is_too_long_is_misuse_and_harms_nothing() -> None:
    async with two_peers(other=echo) as (ours, _):
        for send in (ours.call, ours.notify):
            with pytest.raises(MisuseError, match=str(MAX_MESSAGE)):
                await send("method", "x" * MAX_MESSAGE)
        assert await ours.call("method", "short") == {"method": "method", "params": "short"}


async def test_params_that_are_no_json_are_the_callers_error_and_harm_nothing() -> None:
    async with two_peers(other=echo) as (ours, _):
        with pytest.raises(TypeError):
            await ours.call("method", object())
        with pytest.raises(ValueError, match="JSON"):
            await ours.call("method", float("nan"))
        assert await ours.call("method", 1) == {"method": "method", "params": 1}


@given(st.binary(max_size=200) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["jsonrpc", "id", "method", "params", "error", "result", "2.0"]), inner),
    max_leaves=8,
).map(lambda value: json.dumps(value).encode()))  # fmt: skip
@settings(deadline=None)
def test_no_message_raises_anything_in_the_block(content: bytes) -> None:
    async def check() -> None:
        async with against_raw(echo) as (peer, raw):
            with trio.move_on_after(5):
                await raw.send_bytes(content)
                await trio.testing.wait_all_tasks_blocked()
                await raw.stream.send_eof()
                await peer.wait_closed()

    trio.run(check, clock=trio.testing.MockClock(autojump_threshold=0))


# --- the end ---


async def test_calls_fail_when_the_peer_ends_the_stream() -> None:
    outcomes = [Outcome(), Outcome()]
    async with against_raw() as (peer, raw), trio.open_nursery() as nursery:
        for outcome in outcomes:
            nursery.start_soon(outcome.of, peer.call, "method", [])
        await trio.testing.wait_all_tasks_blocked()
        await raw.stream.send_eof()
    assert [type(outcome.error) for outcome in outcomes] == [ConnectionLost, ConnectionLost]


async def test_calls_fail_when_the_stream_ends_in_the_middle_of_an_answer() -> None:
    outcome = Outcome()
    async with against_raw() as (peer, raw), trio.open_nursery() as nursery:
        nursery.start_soon(outcome.of, peer.call, "method", [])
        await raw.receive()
        await raw.stream.send_all(b'\x40{"jsonrpc":"2.0","id":1,"res')
        await raw.stream.send_eof()
    assert isinstance(outcome.error, ConnectionLost)


async def test_calls_fail_when_the_peer_resets_the_stream() -> None:
    outcome = Outcome()
    async with against_raw() as (peer, raw), trio.open_nursery() as nursery:
        nursery.start_soon(outcome.of, peer.call, "method", [])
        await trio.testing.wait_all_tasks_blocked()
        await raw.stream.reset()
        await peer.wait_closed()
        with pytest.raises(ConnectionLost):
            await peer.call("another", [])
        with pytest.raises(ConnectionLost):
            await peer.notify("another", [])
    assert isinstance(outcome.error, ConnectionLost)


async def test_leaving_the_block_closes_the_stream_and_ends_the_handlers() -> None:
    cancelled = False

    async def handler(method: str, params: object) -> object:
        nonlocal cancelled
        try:
            await trio.sleep_forever()
        finally:
            cancelled = True

    here, there = memory_stream_pair()
    async with there:
        raw = Raw(there)
        async with open_jsonrpc(here, handler):
            await raw.ask(1)
            await trio.testing.wait_all_tasks_blocked()
        assert cancelled
        assert await there.receive_some() == b""


async def test_an_error_in_the_block_comes_out_bare() -> None:
    error = ValueError("mine")
    here, there = memory_stream_pair()
    with pytest.raises(ValueError, match="mine") as caught:
        async with there, open_jsonrpc(here):
            raise error
    assert caught.value is error


async def test_an_answer_to_a_peer_that_has_left_is_dropped(caplog: pytest.LogCaptureFixture) -> None:
    release = trio.Event()

    async def handler(method: str, params: object) -> object:
        await release.wait()
        return "too late"

    async with against_raw(handler) as (peer, raw):
        await raw.ask(1)
        await trio.testing.wait_all_tasks_blocked()
        await raw.stream.aclose()
        await peer.wait_closed()
        release.set()
        await trio.testing.wait_all_tasks_blocked()
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


# --- time ---


async def test_no_answer_in_time_is_deadline_exceeded(autojump_clock: trio.testing.MockClock) -> None:
    async with against_raw() as (peer, raw), trio.open_nursery() as nursery:
        with pytest.raises(DeadlineExceeded, match="no answer to method within 30 s"):
            await peer.call("method", [], timeout=30)
        assert autojump_clock.current_time() == pytest.approx(30)
        assert peer._waiting == {}  # nothing is kept for an answer that nobody waits for
        await raw.receive()
        await raw.send({"jsonrpc": "2.0", "id": 1, "result": "too late"})
        nursery.start_soon(raw.answer, "in time")
        assert await peer.call("method", []) == "in time"


async def test_a_person_has_five_minutes_unless_told_otherwise(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with against_raw() as (peer, _):
        with pytest.raises(DeadlineExceeded):
            await peer.call("method", [])
    assert autojump_clock.current_time() == pytest.approx(300)


async def test_the_deadline_holds_for_a_peer_that_does_not_even_read(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with against_raw() as (peer, _):
        with pytest.raises(DeadlineExceeded):
            await peer.call("method", "x" * (WINDOW + 1), timeout=30)
        assert autojump_clock.current_time() == pytest.approx(30)
        # Half of the request is out, so nothing can follow it.
        with pytest.raises(ConnectionLost, match="the stream is over"):
            await peer.call("method", [], timeout=30)


# --- cancellation ---


async def test_a_cancelled_call_leaves_the_conversation_usable() -> None:
    async with against_raw() as (peer, raw), trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            nursery.start_soon(raw.receive)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
            await peer.call("cancelled before it was sent", [])
        async with trio.open_nursery() as calls:
            calls.start_soon(peer.call, "cancelled while it waits", [])
            await trio.testing.wait_all_tasks_blocked()
            calls.cancel_scope.cancel()
        nursery.start_soon(raw.answer, "fine")
        assert await peer.call("method", []) == "fine"


async def test_a_call_that_is_cancelled_half_sent_ends_the_conversation() -> None:
    # Otherwise the rest of the stream would be read as the rest of this request.
    outcome = Outcome()
    async with against_raw() as (peer, raw), trio.open_nursery() as nursery:
        nursery.start_soon(outcome.of, peer.call, "small", [])
        await trio.testing.wait_all_tasks_blocked()
        async with trio.open_nursery() as calls:
            calls.start_soon(peer.call, "large", "x" * (WINDOW + 1))
            await trio.testing.wait_all_tasks_blocked()
            calls.cancel_scope.cancel()
        with pytest.raises(ConnectionLost):
            await peer.call("next", [])
        await peer.wait_closed()
        with pytest.raises(trio.BrokenResourceError):
            await raw.stream.receive_some()
    assert isinstance(outcome.error, ConnectionLost)
    assert "cut short" in str(outcome.error)


# --- limits ---


async def test_at_most_64_requests_are_handled_at_once() -> None:
    release = trio.Event()
    running = 0

    async def handler(method: str, params: object) -> object:
        nonlocal running
        running += 1
        await release.wait()
        return "done"

    async with against_raw(handler) as (_, raw):
        for number in range(MAX_CONCURRENT):
            await raw.ask(number)
        await trio.testing.wait_all_tasks_blocked()
        assert running == MAX_CONCURRENT == 64
        await raw.ask("one more")
        await raw.send({"jsonrpc": "2.0", "method": "a notification more"})
        assert error_of(await raw.receive()) == ("one more", -32005, "too many requests at once")
        release.set()
        for _ in range(MAX_CONCURRENT):
            answer = await raw.receive()
            assert isinstance(answer, dict)
            assert answer["result"] == "done"
        await trio.testing.wait_all_tasks_blocked()
        await raw.ask("again")  # there is room again
        assert await raw.receive() == {"jsonrpc": "2.0", "id": "again", "result": "done"}
    assert running == 65


async def test_a_peer_that_asks_without_reading_the_answers_is_held_up() -> None:
    handled = 0

    async def handler(method: str, params: object) -> object:
        nonlocal handled
        handled += 1
        return "x" * 1_000

    async def ask_and_ask(raw: Raw) -> None:
        while True:
            await raw.ask(1)

    async with against_raw(handler) as (_, raw), trio.open_nursery() as nursery:
        nursery.start_soon(ask_and_ask, raw)
        await trio.testing.wait_all_tasks_blocked()  # never, if requests were taken without end
        assert handled <= WINDOW // 1_000 + MAX_CONCURRENT + 1
        nursery.cancel_scope.cancel()


async def test_two_peers_with_many_calls_at_once_get_all_their_answers() -> None:
    results: list[int] = []

    async def call(peer: JsonRpcPeer, number: int) -> None:
        result = await peer.call("method", [number, "x" * 5_000])
        assert isinstance(result, dict)
        results.append(result["params"][0])

    async with two_peers(echo, echo) as peers, trio.open_nursery() as nursery:
        for peer in peers:
            for number in range(MAX_CONCURRENT):
                nursery.start_soon(call, peer, number)
    assert sorted(results) == sorted([*range(MAX_CONCURRENT)] * 2)


async def test_an_id_or_method_of_lone_surrogates_ends_nothing() -> None:
    # JSON can carry them, UTF-8 cannot: an answer that repeats one must still be possible to write.
    async with against_raw() as (_, raw):
        await raw.send_bytes(b'{"jsonrpc":"2.0","id":"\\ud800","method":"\\udfff"}')
        assert error_of(await raw.receive()) == ("\ud800", -32601, "there is no method \udfff")
