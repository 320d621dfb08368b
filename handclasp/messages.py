"""Messages on a stream: a uvarint length, then that many bytes. Most libp2p protocols speak like this."""

from __future__ import annotations

import trio

from .abc import Stream
from .errors import ProtocolViolation
from .protobuf import decode_uvarint_untrusted, encode_uvarint

__all__ = ["encode_message", "receive_message_untrusted"]


def encode_message(data: bytes) -> bytes:
    """A message with its length, to be sent."""
    return encode_uvarint(len(data)) + data


async def receive_message_untrusted(stream: Stream, limit: int) -> bytes:
    """Read one message of at most *limit* bytes, and nothing of what follows it.

    Cancelling it loses the bytes that were read so far: the stream is good for nothing more then.

    Raises:
        ProtocolViolation: the message is longer, or its length is malformed.
        trio.BrokenResourceError: the stream broke, or ended before the message did.
    """
    prefix = b""
    while (decoded := decode_uvarint_untrusted(prefix)) is None:
        prefix += await _receive_exactly(stream, 1)
    length = decoded[0]
    if length > limit:
        raise ProtocolViolation(f"the peer announced a message of {length} bytes where {limit} are the most")
    return await _receive_exactly(stream, length)


async def _receive_exactly(stream: Stream, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        chunk = await stream.receive_some(size - len(data))
        if not chunk:
            raise trio.BrokenResourceError("the peer ended the stream in the middle of a message")
        data += chunk
    return bytes(data)
