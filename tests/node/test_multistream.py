from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from handclasp.abc import Stream
from handclasp.errors import ProtocolRefused, ProtocolViolation
from handclasp.node.multistream import choose_untrusted, propose
from handclasp.protobuf import encode_uvarint
from handclasp.transports.memory import memory_stream_pair

HEADER = b"\x13/multistream/1.0.0\n"
ECHO = b"\x0c/echo/1.0.0\n"
CHAT = b"\x0c/chat/1.0.0\n"
NA = b"\x03na\n"


def line(content: bytes) -> bytes:
    return encode_uvarint(len(content)) + content


class Watched(Stream):
    """A stream that remembers what was written at once."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self.writes: list[bytes] = []

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self.writes.append(bytes(data))
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return await self._stream.receive_some(max_bytes)

    async def reset(self) -> None:
        await self._stream.reset()

    async def aclose(self) -> None:
        await self._stream.aclose()


class Outcome:
    """What a call in the background came to."""

    def __init__(self) -> None:
        self.value: str | None = None
        self.error: Exception | None = None

    async def of(self, function: Callable[..., Awaitable[str | None]], *args: object) -> None:
        try:
            self.value = await function(*args)
        except (ProtocolRefused, ProtocolViolation, trio.BrokenResourceError) as exc:
            self.error = exc


async def after(
    function: Callable[..., Awaitable[str | None]], argument: object, received: bytes
) -> tuple[Outcome, bytes]:
    """Run one side against a peer that sends *received* and then nothing more; its outcome and its answer."""
    ours, theirs = memory_stream_pair()
    outcome = Outcome()
    async with ours, theirs, trio.open_nursery() as nursery:
        nursery.start_soon(outcome.of, function, ours, argument)
        await theirs.send_all(received)
        await trio.testing.wait_all_tasks_blocked()
        await ours.send_eof()
        answer = b"".join([data async for data in theirs])
        await theirs.send_eof()
    return outcome, answer


async def proposing(received: bytes) -> Outcome:
    outcome, sent = await after(propose, "/echo/1.0.0", received)
    assert sent == HEADER + ECHO
    return outcome


async def choosing(received: bytes, *protocols: str) -> tuple[Outcome, bytes]:
    return await after(choose_untrusted, set(protocols or ["/echo/1.0.0"]), received)


# --- both together ---


async def test_both_sides_agree() -> None:
    ours, theirs = memory_stream_pair()
    outcome = Outcome()
    async with ours, theirs, trio.open_nursery() as nursery:
        nursery.start_soon(outcome.of, choose_untrusted, theirs, {"/chat/1.0.0", "/echo/1.0.0"})
        await propose(ours, "/echo/1.0.0")
    assert outcome.value == "/echo/1.0.0"


async def test_header_and_proposal_leave_in_one_write_and_so_does_the_answer() -> None:
    one, other = memory_stream_pair()
    ours, theirs = Watched(one), Watched(other)
    async with ours, theirs, trio.open_nursery() as nursery:
        nursery.start_soon(choose_untrusted, theirs, {"/echo/1.0.0"})
        await propose(ours, "/echo/1.0.0")
    assert ours.writes == [HEADER + ECHO]
    assert theirs.writes == [HEADER + ECHO]


async def test_the_proposal_does_not_wait_for_the_listeners_header() -> None:
    ours, theirs = memory_stream_pair()
    async with ours, theirs, trio.open_nursery() as nursery:
        nursery.start_soon(propose, ours, "/echo/1.0.0")
        await trio.testing.wait_all_tasks_blocked()
        assert await theirs.receive_some() == HEADER + ECHO
        nursery.cancel_scope.cancel()


async def test_bytes_behind_the_agreement_are_left_for_the_protocol() -> None:
    # A dialer may send its first request right behind the proposal, a listener its greeting behind the answer.
    ours, theirs = memory_stream_pair()
    async with ours, theirs:
        await ours.send_all(HEADER + ECHO + b"request")
        assert await choose_untrusted(theirs, {"/echo/1.0.0"}) == "/echo/1.0.0"
        assert await theirs.receive_some() == b"request"
        assert await ours.receive_some() == HEADER + ECHO
        await theirs.send_all(HEADER + ECHO + b"greeting")
        await propose(ours, "/echo/1.0.0")
        assert await ours.receive_some() == b"greeting"


async def test_lines_may_arrive_byte_by_byte() -> None:
    ours, theirs = memory_stream_pair()
    outcome = Outcome()
    async with ours, theirs, trio.open_nursery() as nursery:
        nursery.start_soon(outcome.of, choose_untrusted, theirs, {"/echo/1.0.0"})
        for byte in HEADER + ECHO:
            await ours.send_all(bytes([byte]))
            await trio.testing.wait_all_tasks_blocked()
    assert outcome.value == "/echo/1.0.0"


# --- the listener ---


async def test_an_unknown_proposal_is_answered_na_and_the_next_one_is_looked_at() -> None:
    outcome, answer = await choosing(HEADER + CHAT + ECHO)
    assert outcome.value == "/echo/1.0.0"
    assert answer == HEADER + NA + ECHO  # the header once


async def test_a_dialer_may_wait_for_na_before_it_proposes_something_else() -> None:
    ours, theirs = memory_stream_pair()
    outcome = Outcome()
    async with ours, theirs, trio.open_nursery() as nursery:
        nursery.start_soon(outcome.of, choose_untrusted, theirs, {"/echo/1.0.0"})
        await ours.send_all(HEADER + CHAT)
        await trio.testing.wait_all_tasks_blocked()
        assert await ours.receive_some() == HEADER + NA
        await ours.send_all(ECHO)
        await trio.testing.wait_all_tasks_blocked()
        assert await ours.receive_some() == ECHO
    assert outcome.value == "/echo/1.0.0"


async def test_after_16_unknown_proposals_the_listener_gives_up() -> None:
    outcome, answer = await choosing(HEADER + CHAT * 15 + ECHO)
    assert outcome.value == "/echo/1.0.0"
    assert answer == HEADER + NA * 15 + ECHO
    outcome, answer = await choosing(HEADER + CHAT * 16 + ECHO)
    assert isinstance(outcome.error, ProtocolRefused)
    assert answer == HEADER + NA * 16


@pytest.mark.parametrize(
    "proposal",
    [
        pytest.param(b"/echo/1.0.0\r\n", id="carriage return"),
        pytest.param(b"/echo/1.0.0\n\n", id="two line feeds"),
        pytest.param(b" /echo/1.0.0\n", id="space"),
        pytest.param(b"/ECHO/1.0.0\n", id="upper case"),
        pytest.param(b"/echo/1.0\n", id="prefix"),
        pytest.param(b"/echo/1.0.0/x\n", id="longer"),
        pytest.param(b"ls\n", id="ls, which was dropped from the specification"),
        pytest.param(b"na\n", id="na"),
        pytest.param(b"\n", id="empty"),
    ],
)
async def test_a_protocol_is_compared_exactly(proposal: bytes) -> None:
    outcome, answer = await choosing(HEADER + line(proposal))
    assert answer == HEADER + NA
    assert isinstance(outcome.error, trio.BrokenResourceError)  # the dialer had nothing else to propose


# --- the dialer ---


async def test_na_is_protocol_refused() -> None:
    outcome = await proposing(HEADER + NA)
    assert isinstance(outcome.error, ProtocolRefused)
    assert "/echo/1.0.0" in str(outcome.error)


async def test_an_answer_with_another_protocol_is_a_violation() -> None:
    assert isinstance((await proposing(HEADER + CHAT)).error, ProtocolViolation)


# --- both: what is no multistream-select ---

MALFORMED = [
    pytest.param(b"\x00", id="line of nothing"),
    pytest.param(line(b"/multistream/1.0.0"), id="no line feed"),
    pytest.param(line(b"/multistream/1.0.0\r"), id="carriage return only"),
    pytest.param(line(b"/multistream/2.0.0\n"), id="another version"),
    pytest.param(line(b"/multistream/1.0.0 \n"), id="space"),
    pytest.param(line(b"/multistream/1.0.0\r\n"), id="carriage return, too"),
    pytest.param(line(b"\xff\xfe\n"), id="not UTF-8"),
    pytest.param(line(b"/\xed\xa0\x80\n"), id="surrogate in UTF-8"),
    pytest.param(ECHO, id="no header"),
    pytest.param(NA, id="na instead of a header"),
    pytest.param(b"GET / HTTP/1.1\r\nHost: shop.example\r\n" * 10, id="HTTP"),
    pytest.param(b"\x93\x00" + HEADER[1:], id="length not minimally encoded"),
    pytest.param(b"\xff" * 10, id="length without an end"),
    pytest.param(b"\x81\x08" + b"a" * 1024 + b"\n", id="line of 1,025 bytes"),
    pytest.param(encode_uvarint(2**62), id="line of 4 EiB announced"),
]


@pytest.mark.parametrize("received", MALFORMED)
async def test_a_dialer_that_does_not_speak_it_is_a_violation(received: bytes) -> None:
    outcome, answer = await choosing(received)
    assert isinstance(outcome.error, ProtocolViolation)
    assert answer == b""


@pytest.mark.parametrize("received", MALFORMED)
async def test_a_listener_that_does_not_speak_it_is_a_violation(received: bytes) -> None:
    assert isinstance((await proposing(received)).error, ProtocolViolation)


@pytest.mark.parametrize("received", MALFORMED[:3] + MALFORMED[6:8] + MALFORMED[11:])
async def test_a_malformed_second_line_is_a_violation(received: bytes) -> None:
    outcome, _ = await choosing(HEADER + received)
    assert isinstance(outcome.error, ProtocolViolation)
    assert isinstance((await proposing(HEADER + received)).error, ProtocolViolation)


async def test_a_line_of_1024_bytes_is_read() -> None:
    longest = "/" + "a" * 1022
    outcome, answer = await choosing(HEADER + line(longest.encode() + b"\n"), longest)
    assert outcome.value == longest
    assert len(answer) == len(HEADER) + 2 + 1024


@pytest.mark.parametrize("cut", range(len(HEADER + ECHO)))
async def test_a_stream_that_ends_early_is_broken(cut: int) -> None:
    received = (HEADER + ECHO)[:cut]
    outcome, _ = await choosing(received)
    assert isinstance(outcome.error, trio.BrokenResourceError)
    assert isinstance((await proposing(received)).error, trio.BrokenResourceError)


@given(st.lists(st.sampled_from([HEADER, ECHO, CHAT, NA]) | st.binary(max_size=30), max_size=4).map(b"".join))
@settings(deadline=None)
def test_any_bytes_are_an_agreement_or_a_peers_fault(received: bytes) -> None:
    async def check() -> None:
        outcome, answer = await choosing(received)
        if outcome.error is None:
            assert outcome.value == "/echo/1.0.0"
            assert received.startswith(HEADER)
            assert answer.endswith(ECHO)
        else:
            assert ECHO not in answer
        outcome = await proposing(received)
        if outcome.error is None:
            assert received.startswith(HEADER + ECHO)

    trio.run(check)
