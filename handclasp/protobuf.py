"""The few protobuf features that libp2p's messages need: varints and length-delimited fields.

Six small messages do not justify a code generator and 30 ms of import
(docs/decisions/0002-dependencies.md); tests hold this codec against Google's.

Source: protobuf encoding specification; libp2p's uvarint is the unsigned-varint
specification of multiformats (at most 9 bytes, minimal encoding).
"""

from __future__ import annotations

from typing import TypeAlias

from .errors import ProtocolViolation

#: One decoded message: field number to its values in order of arrival, ints for varints.
Fields: TypeAlias = dict[int, list[int | bytes]]

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_CONTINUES = 0x80  # set in every byte of a varint but the last
_MAX_VARINT_LENGTH = 9  # unsigned-varint specification: 63 bits
_HIGHEST_FIELD = 2**29 - 1  # protobuf encoding specification
_MAX_FIELDS = 1024  # no message of ours has more than a few; bounds the work a hostile one causes


def encode_uvarint(value: int) -> bytes:
    """Encode a non-negative integer below 2**63 in 1 to 9 bytes."""
    if value < 0 or value >> 63:
        raise ValueError(f"a uvarint holds 0 to 2**63-1, not {value}")
    out = bytearray()
    while value >= _CONTINUES:
        out.append(value & 0x7F | _CONTINUES)
        value >>= 7
    out.append(value)
    return bytes(out)


def decode_uvarint_untrusted(data: bytes | bytearray, offset: int = 0) -> tuple[int, int] | None:
    """Decode a uvarint at *offset*: ``(value, next offset)``, or None when more bytes are needed.

    Raises:
        ProtocolViolation: longer than 9 bytes, or not minimally encoded.
    """
    value = 0
    for length, byte in enumerate(data[offset : offset + _MAX_VARINT_LENGTH], 1):
        value |= (byte & 0x7F) << (7 * (length - 1))
        if byte < _CONTINUES:
            if byte == 0 and length > 1:
                raise ProtocolViolation("a varint was not minimally encoded")
            return value, offset + length
    if len(data) - offset >= _MAX_VARINT_LENGTH:
        raise ProtocolViolation("a varint was longer than 9 bytes")
    return None


def encode_field(number: int, value: int | bytes) -> bytes:
    """Encode one field: a varint for an int, length-delimited for bytes."""
    if isinstance(value, int):
        return encode_uvarint(number << 3 | _VARINT) + encode_uvarint(value)
    return encode_uvarint(number << 3 | _BYTES) + encode_uvarint(len(value)) + value


def decode_fields_untrusted(data: bytes) -> Fields:
    """Decode a whole message.

    Unknown fields are kept, as protobuf asks; a caller reads those it knows. Fixed-size numbers are passed over.

    Raises:
        ProtocolViolation: truncated, a wire type or field number that protobuf does not have, or over 1,024 fields.
    """
    fields: Fields = {}
    offset = count = 0
    while offset < len(data):
        key, offset = _complete(decode_uvarint_untrusted(data, offset))
        wire_type, number = key & 7, key >> 3
        value: int | bytes | None = None
        if wire_type == _VARINT:
            value, offset = _complete(decode_uvarint_untrusted(data, offset))
        else:
            if wire_type == _BYTES:
                length, offset = _complete(decode_uvarint_untrusted(data, offset))
            elif wire_type in (_FIXED32, _FIXED64):
                length = 4 if wire_type == _FIXED32 else 8
            else:
                raise ProtocolViolation(f"a protobuf field has the unknown wire type {wire_type}")
            if length > len(data) - offset:
                raise ProtocolViolation("a protobuf message was cut short")
            if wire_type == _BYTES:
                value = bytes(data[offset : offset + length])
            offset += length
        count += 1
        if not 0 < number <= _HIGHEST_FIELD or count > _MAX_FIELDS:
            raise ProtocolViolation("a protobuf message has an impossible field number or too many fields")
        if value is not None:  # no message of ours has fixed-size numbers; they must not pass for bytes
            fields.setdefault(number, []).append(value)
    return fields


def last_bytes(fields: Fields, number: int) -> bytes | None:
    """The last value of a bytes field (protobuf: the last one wins), or None."""
    values = fields.get(number)
    if values is None:
        return None
    if not isinstance(values[-1], bytes):
        raise ProtocolViolation(f"protobuf field {number} should hold bytes")
    return values[-1]


def last_int(fields: Fields, number: int) -> int | None:
    """The last value of a varint field, or None."""
    values = fields.get(number)
    if values is None:
        return None
    if not isinstance(values[-1], int):
        raise ProtocolViolation(f"protobuf field {number} should hold a number")
    return values[-1]


def _complete(decoded: tuple[int, int] | None) -> tuple[int, int]:
    if decoded is None:
        raise ProtocolViolation("a protobuf message was cut short")
    return decoded
