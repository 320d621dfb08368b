"""Signaling messages as they arrive from a stranger."""

from __future__ import annotations

import json

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message as GoogleMessage
from hypothesis import given
from hypothesis import strategies as st

from handclasp.errors import ProtocolViolation
from handclasp.protobuf import encode_field
from handclasp.transports.webrtc.sdp import (
    MAX_SDP,
    Kind,
    SignalingMessage,
    candidate_from_json_untrusted,
)

SDP = (
    "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n"
    "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=setup:actpass\r\na=fingerprint:sha-256 00:11:22\r\n"
)
CANDIDATE = json.dumps(
    {"candidate": "candidate:1 1 udp 1 192.0.2.1 9 typ host", "sdpMid": "0", "sdpMLineIndex": 0}
)


def google_message() -> type[GoogleMessage]:
    """The message of ``/webrtc-signaling/0.0.1``, as Google's library reads its schema."""
    proto = descriptor_pb2.FileDescriptorProto(
        name="signaling.proto", package="signaling.pb", syntax="proto2"
    )
    message = proto.message_type.add(name="Message")
    kinds = message.enum_type.add(name="Type")
    for number, name in enumerate(("SDP_OFFER", "SDP_ANSWER", "ICE_CANDIDATE")):
        kinds.value.add(name=name, number=number)
    message.field.add(name="type", number=1, type=14, label=1, type_name=".signaling.pb.Message.Type")
    message.field.add(name="data", number=2, type=9, label=1)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(proto)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("signaling.pb.Message"))


GoogleSignaling = google_message()


def message(kind: int, data: str) -> bytes:
    return encode_field(1, kind) + encode_field(2, data.encode())


def parse(data: bytes) -> SignalingMessage:
    return SignalingMessage.from_bytes_untrusted(data)


# --- the codec ---


@pytest.mark.parametrize(
    "sent",
    [
        SignalingMessage(Kind.SDP_OFFER, SDP),
        SignalingMessage(Kind.SDP_ANSWER, SDP),
        SignalingMessage(Kind.ICE_CANDIDATE, CANDIDATE),
    ],
)
def test_a_message_survives_the_wire_and_equals_protobufs(sent: SignalingMessage) -> None:
    assert parse(bytes(sent)) == sent
    assert bytes(sent) == GoogleSignaling(type=int(sent.kind), data=sent.data).SerializeToString()


def test_a_missing_type_means_offer() -> None:
    assert parse(GoogleSignaling(data=SDP).SerializeToString()) == SignalingMessage(Kind.SDP_OFFER, SDP)


@pytest.mark.parametrize(
    "malformed",
    [
        message(3, SDP),  # an unknown type
        encode_field(1, b"\0") + encode_field(2, SDP.encode()),  # a type that is not a number
        encode_field(1, 0) + encode_field(2, 5),  # data that is not text
        encode_field(1, 2) + encode_field(2, b"\xff"),  # not UTF-8
        message(0, SDP)[:-1],  # cut short
        b"",  # an offer without an SDP
    ],
)
def test_a_malformed_message_is_a_violation(malformed: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        parse(malformed)


@given(st.binary(max_size=200) | st.builds(message, st.integers(0, 4), st.text(max_size=100)))
def test_arbitrary_bytes_raise_nothing_but_violations(data: bytes) -> None:
    try:
        parse(data)
    except ProtocolViolation:
        return


# --- what a description may hold ---


@pytest.mark.parametrize("kind", [Kind.SDP_OFFER, Kind.SDP_ANSWER])
@pytest.mark.parametrize(
    "sdp",
    [
        SDP.replace("m=application", "m=audio"),
        SDP + "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\n",
        "m=video 9 UDP/TLS/RTP/SAVPF 96\r\n" + SDP,
        SDP + SDP,
        SDP.partition("m=")[0],
        SDP.replace("m=application ", "m=applications "),
        SDP + "m=video 9 UDP/TLS/RTP/SAVPF 96",  # no line end
        SDP + "\nm=video 9 UDP/TLS/RTP/SAVPF 96\n",  # another line end
    ],
)
def test_a_description_with_anything_but_one_data_channel_section_is_refused(kind: Kind, sdp: str) -> None:
    with pytest.raises(ProtocolViolation, match="m=application"):
        parse(message(kind, sdp))


@pytest.mark.parametrize("line", ["", "a=fingerprint:sha-1 00:11\r\n", "b=a=fingerprint:sha-256 00\r\n"])
def test_a_description_without_a_strong_fingerprint_is_refused(line: str) -> None:
    with pytest.raises(ProtocolViolation, match="SHA-256"):
        parse(message(0, SDP.partition("a=finger")[0] + line))


def test_a_description_without_a_dtls_role_is_refused() -> None:
    with pytest.raises(ProtocolViolation, match="role"):
        parse(message(0, SDP.replace("a=setup:actpass", "a=x:actpass")))


def test_the_name_of_the_hash_is_taken_in_any_case() -> None:
    parse(message(0, SDP.replace("sha-256", "SHA-256")))


def test_a_description_is_measured_in_bytes() -> None:
    filler = "a=" + "x" * (MAX_SDP - len(SDP) - 2)
    assert len(SDP + filler) == MAX_SDP
    parse(message(0, SDP + filler))
    with pytest.raises(ProtocolViolation, match="longer"):
        parse(message(0, SDP + filler + "x"))
    with pytest.raises(ProtocolViolation, match="longer"):
        parse(message(0, SDP + filler[:-1] + "ä"))


# --- candidates ---


def test_the_attribute_is_taken_out_of_a_candidate() -> None:
    assert candidate_from_json_untrusted(CANDIDATE) == "candidate:1 1 udp 1 192.0.2.1 9 typ host"


@pytest.mark.parametrize("text", ["null", '{"candidate": ""}'])
def test_both_spellings_of_the_end_of_candidates_are_known(text: str) -> None:
    assert candidate_from_json_untrusted(text) is None


@pytest.mark.parametrize("text", ["", "{", "1", "[]", '"x"', "{}", '{"candidate": 1}', '{"candidate": null}'])
def test_a_candidate_that_is_not_the_json_of_one_is_a_violation(text: str) -> None:
    with pytest.raises(ProtocolViolation):
        candidate_from_json_untrusted(text)


def test_deeply_nested_json_is_a_violation() -> None:
    with pytest.raises(ProtocolViolation):
        candidate_from_json_untrusted("[" * 100_000)


def test_a_candidate_has_at_most_1024_bytes() -> None:
    longest = json.dumps({"candidate": "x" * 1_007})
    assert len(longest) == 1_024
    parse(message(2, longest))
    with pytest.raises(ProtocolViolation, match="longer"):
        parse(message(2, longest + " "))


@given(st.text(max_size=60))
def test_arbitrary_text_as_a_candidate_raises_nothing_but_violations(text: str) -> None:
    try:
        candidate_from_json_untrusted(text)
    except ProtocolViolation:
        return
