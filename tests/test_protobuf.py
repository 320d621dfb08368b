"""Held against Google's implementation: both read and write the same bytes, or both refuse."""

from contextlib import suppress
from typing import Any, Final

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError, Message
from hypothesis import example, given, settings
from hypothesis import strategies as st

from handclasp.errors import ProtocolViolation
from handclasp.protobuf import (
    Fields,
    decode_fields_untrusted,
    decode_uvarint_untrusted,
    encode_field,
    encode_uvarint,
    last_bytes,
    last_int,
)

HIGHEST: Final = 2**63 - 1

numbers = st.integers(0, HIGHEST) | st.sampled_from([0, 1, 127, 128, 2**14 - 1, 2**14, 2**56 - 1, 2**56])
values = numbers | st.binary(max_size=40)
fields = st.lists(st.tuples(st.integers(1, 40), values), max_size=12)


def google_message() -> type[Message]:
    """Like libp2p's messages: fields 1 to 9 are numbers, 10 to 19 are bytes."""
    file = descriptor_pb2.FileDescriptorProto(name="sample.proto", package="handclasp.tests", syntax="proto2")
    message = file.message_type.add(name="Sample")
    for number in range(1, 20):
        kind = (
            descriptor_pb2.FieldDescriptorProto.TYPE_UINT64
            if number < 10
            else descriptor_pb2.FieldDescriptorProto.TYPE_BYTES
        )
        message.field.add(
            name=f"f{number}",
            number=number,
            type=kind,
            label=descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL,
        )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("handclasp.tests.Sample"))


Sample: Final[Any] = google_message()


# --- varints ---


@given(numbers)
@settings(deadline=None)
def test_a_uvarint_survives_the_wire(number: int) -> None:
    data = encode_uvarint(number)
    assert decode_uvarint_untrusted(data) == (number, len(data))
    assert len(data) == max(1, -(-number.bit_length() // 7))  # no byte more than its 7-bit groups need


# The table of the unsigned-varint specification, and both ends of the range.
UVARINTS = [
    (0, "00"),
    (1, "01"),
    (127, "7f"),
    (128, "8001"),
    (255, "ff01"),
    (300, "ac02"),
    (16384, "808001"),
    (HIGHEST, "ffffffffffffffff7f"),
]


@pytest.mark.parametrize(("number", "data"), UVARINTS)
def test_uvarints_are_those_of_the_specification(number: int, data: str) -> None:
    assert encode_uvarint(number).hex() == data
    assert decode_uvarint_untrusted(bytes.fromhex(data)) == (number, len(data) // 2)


@pytest.mark.parametrize("number", [-1, HIGHEST + 1, 2**64])
def test_a_number_outside_63_bits_is_not_encoded(number: int) -> None:
    with pytest.raises(ValueError, match="a uvarint holds"):
        encode_uvarint(number)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\x80\x00", id="zero in two bytes"),
        pytest.param(b"\x81\x00", id="one in two bytes"),
        pytest.param(b"\xff\xff\x00", id="a zero group at the end"),
        pytest.param(b"\x80" * 8 + b"\x00", id="zero in nine bytes"),
        pytest.param(b"\xff" * 9, id="no end after nine bytes"),
        pytest.param(b"\xff" * 9 + b"\x01", id="2**64-1, ten bytes"),
        pytest.param(b"\x80" * 9 + b"\x01", id="2**63, ten bytes"),
        pytest.param(b"\x80" * 1000, id="no end at all"),
    ],
)
def test_a_long_or_padded_uvarint_is_a_protocol_violation(data: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        decode_uvarint_untrusted(data)
    with pytest.raises(ProtocolViolation):
        decode_uvarint_untrusted(b"before" + data, offset=6)


@given(numbers, st.binary(max_size=12), st.binary(max_size=12))
@settings(deadline=None)
def test_a_uvarint_is_found_between_other_bytes_and_waits_for_its_last_one(
    number: int, before: bytes, behind: bytes
) -> None:
    data = encode_uvarint(number)
    end = len(before) + len(data)
    assert decode_uvarint_untrusted(bytearray(before + data + behind), len(before)) == (number, end)
    for cut in range(len(data)):
        assert decode_uvarint_untrusted(before + data[:cut], len(before)) is None


@given(st.binary(max_size=12))
@example(b"\x80\x80\x80\x80\x80\x80\x80\x80\x01")
@settings(deadline=None)
def test_any_bytes_are_one_uvarint_or_the_beginning_of_one_or_refused(data: bytes) -> None:
    try:
        decoded = decode_uvarint_untrusted(data)
    except ProtocolViolation:
        return
    if decoded is None:
        assert len(data) < 9
        assert all(byte >= 0x80 for byte in data)
    else:
        assert encode_uvarint(decoded[0]) == data[: decoded[1]]


# --- messages ---


@given(fields)
@settings(deadline=None)
def test_fields_survive_the_wire_in_order(given_fields: list[tuple[int, int | bytes]]) -> None:
    expected: Fields = {}
    for number, value in given_fields:
        expected.setdefault(number, []).append(value)
    decoded = decode_fields_untrusted(b"".join(encode_field(*field) for field in given_fields))
    assert decoded == expected
    assert list(decoded) == list(expected)


@given(
    st.dictionaries(st.integers(1, 9), numbers, max_size=9),
    st.dictionaries(st.integers(10, 19), st.binary(max_size=200), max_size=10),
)
@settings(deadline=None)
def test_google_writes_and_reads_the_same_bytes(ints: dict[int, int], texts: dict[int, bytes]) -> None:
    values = dict(sorted({**ints, **texts}.items()))
    ours = b"".join(encode_field(number, value) for number, value in values.items())
    theirs = Sample(**{f"f{number}": value for number, value in values.items()})
    assert theirs.SerializeToString() == ours
    assert Sample.FromString(ours) == theirs
    assert decode_fields_untrusted(ours) == {number: [value] for number, value in values.items()}


def what_google_reads(data: bytes) -> dict[int, int | bytes] | None:
    try:
        message = Sample.FromString(data)
    except DecodeError:
        return None
    return {descriptor.number: value for descriptor, value in message.ListFields()}


def what_we_read(data: bytes) -> dict[int, int | bytes] | None:
    """The known fields, or None when a reader would refuse the message."""
    try:
        decoded = decode_fields_untrusted(data)
        found = {number: last_int(decoded, number) for number in range(1, 10)} | {
            number: last_bytes(decoded, number) for number in range(10, 20)
        }
    except ProtocolViolation:
        return None
    return {number: value for number, value in found.items() if value is not None}


def key(number: int, wire_type: int) -> bytes:
    return encode_uvarint(number << 3 | wire_type)


# Well-formed parts of every kind there is, in the wrong places too, and now and then noise.
parts = st.one_of(
    st.builds(encode_field, st.integers(1, 25), values),
    st.builds(lambda n, v: key(n, 1) + v, st.integers(1, 25), st.binary(min_size=8, max_size=8)),
    st.builds(lambda n, v: key(n, 5) + v, st.integers(1, 25), st.binary(min_size=4, max_size=4)),
    st.builds(key, st.integers(0, 25), st.integers(0, 7)),
    st.binary(max_size=3),
)


@given(st.lists(parts, max_size=8).map(b"".join))
@example(key(10, 1) + b"8 bytes.")
@example(key(10, 5) + b"four")
@example(encode_field(10, b"first") + key(10, 5) + b"four")
@example(encode_field(1, 7) + key(1, 5) + b"four")
@example(encode_field(2**29 - 1, 1))
@example(encode_field(2**29, 1))
@example(encode_field(2**32 + 1, 1))
@example(encode_field(2**60 - 1, b""))
@settings(deadline=None)
def test_whatever_we_read_google_reads_alike(data: bytes) -> None:
    # The other way round does not hold, on purpose: we refuse groups, padded varints, numbers of 64 bits
    # and a known field of the wrong kind.
    ours = what_we_read(data)
    if ours is not None:
        assert what_google_reads(data) == ours


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\x80", id="key cut short"),
        pytest.param(b"\x08", id="number missing"),
        pytest.param(b"\x08\x80", id="number cut short"),
        pytest.param(b"\x0a", id="length missing"),
        pytest.param(b"\x0a\x80", id="length cut short"),
        pytest.param(b"\x0a\x01", id="bytes missing"),
        pytest.param(b"\x0a\x05four", id="bytes cut short"),
        pytest.param(b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7fx", id="2**63-1 bytes announced"),
        pytest.param(b"\x0d123", id="fixed32 cut short"),
        pytest.param(b"\x091234567", id="fixed64 cut short"),
        pytest.param(b"\x0b\x0c", id="group"),
        pytest.param(b"\x0c", id="end of a group"),
        pytest.param(b"\x0e", id="wire type 6"),
        pytest.param(b"\x0f", id="wire type 7"),
        pytest.param(b"\x00\x01", id="field 0, number"),
        pytest.param(b"\x02\x00", id="field 0, bytes"),
        pytest.param(b"\x88\x00\x01", id="key not minimally encoded"),
        pytest.param(b"\x08\x81\x00", id="number not minimally encoded"),
        pytest.param(b"\x0a\x81\x00x", id="length not minimally encoded"),
        pytest.param(b"\x08" + b"\xff" * 9 + b"\x01", id="number of 64 bits"),
        pytest.param(b"\x08\x01\x0a\x05four", id="malformed after a good field"),
    ],
)
def test_a_malformed_message_is_a_protocol_violation(data: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        decode_fields_untrusted(data)


def test_a_message_has_at_most_1024_fields() -> None:
    assert decode_fields_untrusted(encode_field(1, 1) * 1024) == {1: [1] * 1024}
    with pytest.raises(ProtocolViolation, match="too many fields"):
        decode_fields_untrusted(encode_field(1, 1) * 1025)


@given(st.binary(max_size=60))
@settings(deadline=None)
def test_any_bytes_are_fields_or_a_protocol_violation(data: bytes) -> None:
    with suppress(ProtocolViolation):
        decode_fields_untrusted(data)


def test_the_last_value_of_a_field_wins() -> None:
    decoded = decode_fields_untrusted(
        encode_field(1, 5) + encode_field(2, b"first") + encode_field(1, 6) + encode_field(2, b"last")
    )
    assert (last_int(decoded, 1), last_bytes(decoded, 2)) == (6, b"last")
    assert (last_int(decoded, 3), last_bytes(decoded, 3)) == (None, None)


def test_a_known_field_of_the_wrong_kind_is_a_protocol_violation() -> None:
    good = encode_field(1, 5) + encode_field(2, b"bytes")
    decoded = decode_fields_untrusted(good + encode_field(1, b"bytes") + encode_field(2, 5))
    with pytest.raises(ProtocolViolation, match="field 1 should hold a number"):
        last_int(decoded, 1)
    with pytest.raises(ProtocolViolation, match="field 2 should hold bytes"):
        last_bytes(decoded, 2)
