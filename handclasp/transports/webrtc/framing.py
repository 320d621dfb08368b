"""libp2p's messages on a data channel, without I/O.

Source: libp2p webrtc specification, "Multiplexing": each message is a uvarint length and
a protobuf ``{optional Flag flag = 1; optional bytes message = 2}``, at most 16 KiB with the
prefix. A data channel message may hold any part of that byte stream. Towards a peer that asked for it
we add a field of our own, ``optional uint64 read = 15`` (credit.py); others pass over it, as protobuf asks.
"""

from __future__ import annotations

import enum
import functools
from collections.abc import Iterator
from typing import NamedTuple

from handclasp.errors import ProtocolViolation
from handclasp.protobuf import (
    decode_fields_untrusted,
    decode_uvarint_untrusted,
    encode_field,
    encode_uvarint,
    last_bytes,
    last_int,
)

#: The longest framed message, in bytes with its prefix (libp2p webrtc: "MUST NOT exceed 16 KiB").
MAX_FRAME = 16_384
#: What fits beside the prefix (2 bytes) and the field's key and length (3 bytes).
MAX_PAYLOAD = MAX_FRAME - 5

_FLAG, _DATA, _READ = 1, 2, 15  # fields
_DATA_KEY = 0x12  # field 2, bytes
_CONTINUES = 0x80  # set in every byte of a uvarint but the last
_SHORTEST = 4  # bytes of a frame with data: length, key, size, one byte


class Flag(enum.IntEnum):
    """What a framed message says about its stream."""

    FIN = 0
    """The sender will send no more data."""
    STOP_SENDING = 1
    """The sender will read no more data."""
    RESET = 2
    """Both directions end at once; data may be lost."""
    FIN_ACK = 3
    """The sender has seen FIN, and all data before it."""


class Frame(NamedTuple):
    """One framed message."""

    flag: Flag | None = None
    data: bytes = b""
    read: int | None = None
    """How many bytes of our data the peer's application has read so far (credit.py)."""


def encode_data(payload: bytes) -> bytes:
    """Frame at most `MAX_PAYLOAD` bytes."""
    return _data_head(len(payload)) + payload


@functools.lru_cache(maxsize=64)  # a program sends the same few lengths again and again
def _data_head(length: int) -> bytes:
    size = encode_uvarint(length)
    return b"%b%c%b" % (encode_uvarint(1 + len(size) + length), _DATA_KEY, size)


def encode_flag(flag: Flag) -> bytes:
    """Frame a flag without data."""
    return _framed(encode_field(_FLAG, int(flag)))


def encode_read(size: int) -> bytes:
    """Frame the report that *size* bytes were read so far, of all that the peer has sent on this stream."""
    return _framed(encode_field(_READ, size))


def _framed(body: bytes) -> bytes:
    return encode_uvarint(len(body)) + body


class FrameReader:
    """Cuts the byte stream of one data channel into framed messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def receive_untrusted(self, data: bytes) -> Iterator[Frame]:
        """Take what arrived and yield each complete message.

        Raises:
            ProtocolViolation: too long, malformed, or an unknown flag.
        """
        if not self._buffer:
            plain = _whole_data_frame(data)
            if plain is not None:
                yield Frame(data=plain)
                return
        self._buffer += data
        while True:
            decoded = decode_uvarint_untrusted(self._buffer)
            if decoded is None:
                return
            length, start = decoded
            if start + length > MAX_FRAME:
                raise ProtocolViolation(f"a data channel message was longer than {MAX_FRAME} bytes")
            if len(self._buffer) < start + length:
                return
            body = bytes(self._buffer[start : start + length])
            del self._buffer[: start + length]
            fields = decode_fields_untrusted(body)
            number = last_int(fields, _FLAG)
            try:
                flag = None if number is None else Flag(number)
            except ValueError:
                raise ProtocolViolation(f"a data channel message has the unknown flag {number}") from None
            read = fields.get(_READ, [None])[-1]
            yield Frame(
                flag,
                last_bytes(fields, _DATA) or b"",
                read if isinstance(read, int) else None,  # else somebody's field of that number, not ours
            )


def _whole_data_frame(message: bytes) -> bytes | None:
    """The data of a message that is one whole frame with nothing but data in it, which nearly all are.

    Says None to whatever else there is, valid or not. A fifth of the cost of the general way.
    """
    if not _SHORTEST <= len(message) <= MAX_FRAME:
        return None
    length, start = _short_uvarint(message, 0)
    if start + length != len(message) or message[start] != _DATA_KEY:
        return None
    length, start = _short_uvarint(message, start + 1)
    return message[start:] if start + length == len(message) else None


def _short_uvarint(message: bytes, start: int) -> tuple[int, int]:
    """A minimal uvarint of one or two bytes and where it ends; a negative one for anything else."""
    first = message[start]
    if first < _CONTINUES:
        return first, start + 1
    second = message[start + 1]
    if 0 < second < _CONTINUES:
        return first & 0x7F | second << 7, start + 2
    return -1, start
