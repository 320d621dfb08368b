from __future__ import annotations

import pytest

from handclasp.abc import PeerRecord
from handclasp.discovery.records import MAX_ADDRESSES, MAX_RECORD, SignedRecord, hash_topic
from handclasp.errors import MisuseError, ProtocolViolation
from handclasp.identity import Identity
from handclasp.protobuf import encode_field

ALICE, BOB = Identity.from_seed(bytes(32)), Identity.from_seed(b"b" * 32)
TOPIC = hash_topic("chat")
ADDRESSES = ("/ip4/192.0.2.1/tcp/80/ws", "/dns4/signal.example/tcp/443/wss/webrtc")
RECORD = SignedRecord(PeerRecord(ALICE.peer_id, ADDRESSES), 7, 2_000)
SIGNED = RECORD.sign(TOPIC, ALICE)


def payload(*, peer: Identity = ALICE, addresses: tuple[bytes, ...] = ()) -> bytes:
    fields = encode_field(1, bytes(peer.peer_id)) + encode_field(2, 1) + encode_field(3, 2_000)
    return fields + b"".join(encode_field(4, address) for address in addresses)


def sealed(text: bytes, *, by: Identity = ALICE, domain: bytes = b"handclasp/1 peer record\n") -> bytes:
    return encode_field(1, text) + encode_field(2, by.sign(domain + TOPIC + text))


def assert_refused(data: bytes, why: str, *, topic: bytes = TOPIC, now: float = 1_000) -> None:
    with pytest.raises(ProtocolViolation, match=why):
        SignedRecord.from_bytes_untrusted(data, topic, now=now)


def test_a_record_comes_back_as_it_was_signed() -> None:
    assert SignedRecord.from_bytes_untrusted(SIGNED, TOPIC, now=1_999.9) == RECORD
    bare = SignedRecord(PeerRecord(ALICE.peer_id), 0, 2_000)
    assert SignedRecord.from_bytes_untrusted(bare.sign(TOPIC, ALICE), TOPIC, now=0) == bare


def test_any_flipped_bit_makes_it_worthless() -> None:
    for at in range(len(SIGNED) * 8):
        changed = bytearray(SIGNED)
        changed[at // 8] ^= 1 << at % 8
        with pytest.raises(ProtocolViolation):
            SignedRecord.from_bytes_untrusted(bytes(changed), TOPIC, now=1_000)


def test_it_is_good_for_one_topic_and_one_time() -> None:
    assert_refused(SIGNED, "for this topic", topic=hash_topic("tea"))
    assert_refused(SIGNED, "expired", now=2_000)


def test_nobody_signs_for_another_peer() -> None:
    assert_refused(sealed(payload(), by=BOB), "not signed by its peer")
    assert_refused(sealed(payload(peer=BOB)), "not signed by its peer")
    with pytest.raises(MisuseError):
        RECORD.sign(TOPIC, BOB)


def test_a_signature_for_something_else_is_none() -> None:
    assert_refused(sealed(payload(), domain=b"handclasp/1 peers\n"), "not signed")


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "not signed"),
        (b"\xff", "cut short|wire type|varint"),
        (encode_field(1, payload()), "not signed"),
        (sealed(b""), "lacks"),
        (sealed(encode_field(1, bytes(ALICE.peer_id)) + encode_field(3, 2_000)), "lacks"),
        (sealed(payload(addresses=(b"\xff",))), "not an address"),
        (sealed(payload(addresses=(b"hello",))), "not an address"),
        (sealed(payload(addresses=(b"/ip4/192.0.2.1",) * (MAX_ADDRESSES + 1))), "at most"),
        (bytes(MAX_RECORD + 1), "at most"),
    ],
)
def test_what_is_malformed_is_refused(data: bytes, why: str) -> None:
    assert_refused(data, why)


def test_a_record_that_nobody_would_take_cannot_be_signed() -> None:
    many = PeerRecord(ALICE.peer_id, ("/ip4/192.0.2.1",) * (MAX_ADDRESSES + 1))
    name = ".".join(["a" * 60] * 4)
    long = PeerRecord(ALICE.peer_id, (f"/dns4/{name}/tcp/443/wss",) * MAX_ADDRESSES)
    longest = PeerRecord(ALICE.peer_id, ("/memory/1",) * MAX_ADDRESSES)
    for record in (many, long):
        with pytest.raises(MisuseError):
            SignedRecord(record, 1, 2_000).sign(TOPIC, ALICE)
    SignedRecord(longest, 1, 2_000).sign(TOPIC, ALICE)
