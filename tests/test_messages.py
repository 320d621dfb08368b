"""Messages with a length: read to the byte, bounded, and never half."""

from __future__ import annotations

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from handclasp.errors import ProtocolViolation
from handclasp.messages import encode_message, receive_message_untrusted
from handclasp.transports.memory import memory_stream_pair


@given(messages=st.lists(st.binary(max_size=300)), rest=st.binary(max_size=20))
def test_messages_come_out_as_they_went_in_and_what_follows_stays(messages: list[bytes], rest: bytes) -> None:
    async def main() -> None:
        ours, theirs = memory_stream_pair()
        async with ours, theirs:
            await ours.send_all(b"".join(map(encode_message, messages)) + rest)
            await ours.send_eof()
            assert [await receive_message_untrusted(theirs, 300) for _ in messages] == messages
            assert b"".join([chunk async for chunk in theirs]) == rest

    trio.run(main)


async def test_a_message_over_the_limit_is_refused_before_it_is_read() -> None:
    ours, theirs = memory_stream_pair()
    async with ours, theirs:
        await ours.send_all(encode_message(b"x" * 11)[:3])
        with pytest.raises(ProtocolViolation, match="11 bytes where 10"):
            await receive_message_untrusted(theirs, 10)


@pytest.mark.parametrize("cut", [0, 1, 2, 100])
async def test_an_end_in_the_middle_of_a_message_is_no_message(cut: int) -> None:
    ours, theirs = memory_stream_pair()
    async with ours, theirs:
        await ours.send_all(encode_message(b"x" * 200)[:cut])
        await ours.send_eof()
        with pytest.raises(trio.BrokenResourceError, match="in the middle"):
            await receive_message_untrusted(theirs, 200)
