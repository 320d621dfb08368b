"""libp2p's messages on a data channel. Google's protobuf is the second opinion on the bytes."""

from __future__ import annotations

import itertools

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message as GoogleMessage
from hypothesis import example, given
from hypothesis import strategies as st

from handclasp.errors import ProtocolViolation
from handclasp.protobuf import encode_field, encode_uvarint
from handclasp.transports.webrtc.framing import (
    MAX_FRAME,
    MAX_PAYLOAD,
    Flag,
    Frame,
    FrameReader,
    encode_data,
    encode_flag,
    encode_read,
)

frames = st.one_of(
    st.builds(lambda data: Frame(data=data), st.binary(max_size=200) | st.just(bytes(MAX_PAYLOAD))),
    st.sampled_from(Flag).map(Frame),
    st.builds(lambda read: Frame(read=read), st.integers(0, 2**63 - 1)),
)


def encode(frame: Frame) -> bytes:
    if frame.read is not None:
        return encode_read(frame.read)
    return encode_data(frame.data) if frame.flag is None else encode_flag(frame.flag)


def read_all(reader: FrameReader, *parts: bytes) -> list[Frame]:
    return [frame for part in parts for frame in reader.receive_untrusted(part)]


def google_message() -> type[GoogleMessage]:
    """The message of libp2p's webrtc specification, as Google's library reads its schema."""
    proto = descriptor_pb2.FileDescriptorProto(name="webrtc.proto", package="webrtc.pb", syntax="proto2")
    message = proto.message_type.add(name="Message")
    flags = message.enum_type.add(name="Flag")
    for number, name in enumerate(("FIN", "STOP_SENDING", "RESET", "FIN_ACK")):
        flags.value.add(name=name, number=number)
    message.field.add(name="flag", number=1, type=14, label=1, type_name=".webrtc.pb.Message.Flag")
    message.field.add(name="message", number=2, type=12, label=1)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(proto)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("webrtc.pb.Message"))


GoogleFrame = google_message()


# --- encoding ---


@given(st.binary(max_size=300) | st.sampled_from([bytes(127), bytes(128), bytes(MAX_PAYLOAD)]))
def test_data_is_encoded_as_protobuf_does(data: bytes) -> None:
    body = GoogleFrame(message=data).SerializeToString()
    assert encode_data(data) == encode_uvarint(len(body)) + body


@pytest.mark.parametrize("flag", Flag)
def test_a_flag_is_encoded_as_protobuf_does(flag: Flag) -> None:
    body = GoogleFrame(flag=int(flag)).SerializeToString()
    assert encode_flag(flag) == encode_uvarint(len(body)) + body


@given(st.none() | st.sampled_from(Flag), st.none() | st.binary(max_size=100))
def test_what_protobuf_encodes_is_understood(flag: Flag | None, data: bytes | None) -> None:
    message = GoogleFrame()
    if flag is not None:
        message.flag = int(flag)
    if data is not None:
        message.message = data
    body = message.SerializeToString()
    assert read_all(FrameReader(), encode_uvarint(len(body)) + body) == [Frame(flag, data or b"")]


@given(st.integers(0, 2**63 - 1))
def test_peers_that_know_no_reports_see_an_empty_message(read: int) -> None:
    framed = encode_read(read)
    message = GoogleFrame.FromString(framed[1:])
    assert framed[0] == len(framed) - 1
    assert not message.HasField("flag")
    assert not message.HasField("message")


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_kind_of_bytes_can_be_framed(kind: type) -> None:
    assert encode_data(kind(b"abc")) == encode_data(b"abc")


def test_the_longest_payload_fills_a_frame_exactly() -> None:
    assert len(encode_data(bytes(MAX_PAYLOAD))) == MAX_FRAME


# --- reading ---


@given(st.lists(frames, max_size=8), st.data())
def test_any_split_of_the_byte_stream_gives_the_same_frames(sent: list[Frame], data: st.DataObject) -> None:
    stream = b"".join(encode(frame) for frame in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=10)))
    parts = [stream[start:end] for start, end in itertools.pairwise([0, *cuts, len(stream)])]
    assert read_all(FrameReader(), *parts) == sent


def test_one_byte_at_a_time_gives_the_same_frames() -> None:
    sent = [Frame(data=bytes(300)), Frame(Flag.FIN), Frame(data=b"x"), Frame(read=300), Frame(Flag.RESET)]
    stream = b"".join(encode(frame) for frame in sent)
    assert read_all(FrameReader(), *(bytes([byte]) for byte in stream)) == sent


def test_a_frame_of_exactly_16_kib_is_read_and_one_byte_more_is_refused() -> None:
    body = encode_field(2, bytes(MAX_PAYLOAD))
    longest = encode_uvarint(len(body)) + body
    assert len(longest) == MAX_FRAME
    assert read_all(FrameReader(), longest) == [Frame(data=bytes(MAX_PAYLOAD))]
    body = encode_field(2, bytes(MAX_PAYLOAD + 1))
    with pytest.raises(ProtocolViolation, match=str(MAX_FRAME)):
        read_all(FrameReader(), encode_uvarint(len(body)) + body)


def test_a_frame_that_is_too_long_is_refused_by_its_length_alone() -> None:
    with pytest.raises(ProtocolViolation, match=str(MAX_FRAME)):
        read_all(FrameReader(), encode_uvarint(MAX_FRAME))


def test_unknown_fields_are_skipped() -> None:
    body = encode_field(15, b"later") + encode_field(2, b"now") + encode_field(9, 7)
    assert read_all(FrameReader(), encode_uvarint(len(body)) + body) == [Frame(data=b"now")]


def test_an_empty_frame_says_nothing() -> None:
    assert read_all(FrameReader(), b"\0") == [Frame()]


@pytest.mark.parametrize(
    "body",
    [
        encode_field(1, 4),  # an unknown flag
        encode_field(1, b"\0"),  # a flag that is not a number
        encode_field(2, 1),  # a message that is not bytes
        b"\x12\x05ab",  # cut short
        b"\x13",  # a group, which protobuf gave up
        b"\x00\x00",  # field 0
    ],
)
def test_a_malformed_frame_is_a_violation(body: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        read_all(FrameReader(), encode_uvarint(len(body)) + body)


def test_a_length_that_is_not_minimally_encoded_is_a_violation() -> None:
    with pytest.raises(ProtocolViolation):
        read_all(FrameReader(), b"\x80\x00")


@given(st.lists(st.binary(max_size=60), max_size=6))
@example([b"\xff" * 9])
@example([encode_uvarint(3) + b"\x08\xff\x7f"])
def test_arbitrary_bytes_raise_nothing_but_violations(parts: list[bytes]) -> None:
    reader = FrameReader()
    try:
        frames = read_all(reader, *parts)
    except ProtocolViolation:
        return
    assert sum(len(frame.data) for frame in frames) <= sum(map(len, parts))


@st.composite
def nearly_frames(draw: st.DrawFn) -> bytes:
    """A frame of data with up to two bytes of its head changed."""
    frame = bytearray(encode_data(draw(st.binary(max_size=300))))
    for _ in range(draw(st.integers(0, 2))):
        frame[draw(st.integers(0, min(len(frame), 6) - 1))] = draw(st.integers(0, 255))
    return bytes(frame)


def outcome_of(*parts: bytes) -> tuple[list[Frame], bool]:
    reader, frames = FrameReader(), []
    try:
        for part in parts:
            frames += reader.receive_untrusted(part)
    except ProtocolViolation:
        return frames, True
    return frames, False


@given(nearly_frames())
@example(b"\x04\x12\x82\x00ab")  # a size that is not minimally encoded
@example(b"\x84\x00\x12\x02ab")
def test_a_frame_in_one_piece_means_what_it_means_in_two(frame: bytes) -> None:
    assert outcome_of(frame) == outcome_of(frame[:1], frame[1:])
