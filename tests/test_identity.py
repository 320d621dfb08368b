import hashlib
import json
import os
import stat
import subprocess
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st

from handclasp.errors import ConfigurationError, ProtocolViolation
from handclasp.identity import (
    Identity,
    PeerId,
    public_key_from_protobuf_untrusted,
    public_key_to_protobuf,
)
from handclasp.protobuf import encode_field

LIBP2P = Path(__file__).parents[1] / ".venv-libp2p"

IDENTITY = Identity.from_seed(bytes(range(32)))
PEER = IDENTITY.peer_id

# Made by py-libp2p 0.8.1: seed, peer id in bytes, peer id as text, signature over b"handclasp".
VECTORS = [
    (
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0024080112203b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29",
        "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN",
        "8d2766d850d9763749b09184354d296894cfff608b73ecde03548463daa8d7a3e1eed06d3f87b4f6f610b0e00c47421db18a2905ac0721e7af3f4253fdc3be07",
    ),
    (
        "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
        "00240801122003a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8",
        "12D3KooWA4Xop1JaT3MHxwYMkCepYsv4iPVopMXwCz5iHYdBfeSB",
        "85dcc7b69b04d67e0324dbd09a9a7656a865ab3c5b668d4ec7cae2382bdc29fd2502748d295a73f0da5c833485856cfc52c59ba51ddf7b7b910ce7de37b04503",
    ),
    (
        "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        "00240801122076a1592044a6e4f511265bca73a604d90b0529d1df602be30a19a9257660d1f5",
        "12D3KooWHoSyTgntm77sXShoeX9uNkqKNMhHxKtskaHqnA54SrSG",
        "4bc10300d18868e307d5f64fcf5d21401a9b509dc2d7dee78afe25707185f8dc9bc9dc652856e4e831cda8e948861353713823dc333eac8d333c23e36d698205",
    ),
]

# RFC 8032 §5.1.7 leaves it open whether these keys are refused; anyone can sign for them.
P = 2**255 - 19
ORDER_8 = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
SMALL_ORDER = [
    (y | sign << 255).to_bytes(32, "little")
    for y in (0, 1, P - 1, P, P + 1, ORDER_8, P - ORDER_8)
    for sign in (0, 1)
]


# --- equal to libp2p ---


@pytest.mark.parametrize(("seed", "data", "text", "signature"), VECTORS)
def test_peer_ids_and_signatures_are_those_of_libp2p(seed: str, data: str, text: str, signature: str) -> None:
    identity = Identity.from_seed(bytes.fromhex(seed))
    assert bytes(identity.peer_id).hex() == data
    assert str(identity.peer_id) == text
    assert public_key_to_protobuf(identity.peer_id.public_key).hex() == data[4:]
    assert identity.sign(b"handclasp").hex() == signature
    assert PeerId.from_bytes_untrusted(bytes.fromhex(data)) == identity.peer_id
    assert PeerId.from_text_untrusted(text) == identity.peer_id


# Reads seeds from standard input, prints what py-libp2p makes of each.
SCRIPT = """
import json, sys
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.peer.id import ID

def describe(seed):
    pair = create_new_key_pair(bytes.fromhex(seed))
    peer = ID.from_pubkey(pair.public_key)
    return {
        "bytes": peer.to_bytes().hex(),
        "text": peer.to_base58(),
        "key": pair.public_key.serialize().hex(),
        "signature": pair.private_key.sign(b"handclasp").hex(),
    }

json.dump([describe(seed) for seed in json.load(sys.stdin)], sys.stdout)
"""


def test_py_libp2p_makes_the_same_ids_keys_and_signatures_from_the_same_seeds() -> None:
    if not any(LIBP2P.glob("lib/*/site-packages/libp2p")):
        reason = (
            f"py-libp2p is missing from {LIBP2P}: "
            "'make test' installs it where a C compiler and libgmp-dev are present"
        )
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    seeds = [hashlib.sha256(bytes([number])).digest() for number in range(50)]
    question = json.dumps([seed.hex() for seed in seeds])
    theirs = subprocess.run(
        [LIBP2P / "bin" / "python", "-c", SCRIPT],
        input=question,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
    ).stdout
    identities = [Identity.from_seed(seed) for seed in seeds]
    assert json.loads(theirs) == [
        {
            "bytes": bytes(identity.peer_id).hex(),
            "text": str(identity.peer_id),
            "key": public_key_to_protobuf(identity.peer_id.public_key).hex(),
            "signature": identity.sign(b"handclasp").hex(),
        }
        for identity in identities
    ]


# --- one form for each peer ---


@given(st.binary(min_size=32, max_size=32))
@settings(deadline=None)
def test_a_peer_id_survives_both_of_its_forms(key: bytes) -> None:
    peer = PeerId(key)
    assert PeerId.from_bytes_untrusted(bytes(peer)) == peer
    assert PeerId.from_text_untrusted(str(peer)) == peer
    assert repr(peer) == f"PeerId({peer})"


def multihash(key: bytes) -> bytes:
    return bytes([0, len(key)]) + key


KEY = bytes(PEER)[2:]  # 08 01 12 20 and the key itself


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\x00", id="no length"),
        pytest.param(bytes(PEER)[:-1], id="one byte cut off"),
        pytest.param(bytes(PEER)[:20], id="half cut off"),
        pytest.param(bytes(PEER) + b"\x00", id="one byte added"),
        pytest.param(b"\x00\x25" + KEY, id="length too large"),
        pytest.param(b"\x00\x23" + KEY, id="length too small"),
        pytest.param(b"\x00\xa4\x00" + KEY, id="length not minimally encoded"),
        pytest.param(b"\x12" + bytes(PEER)[1:], id="multihash of another kind"),
        pytest.param(b"\x12\x20" + hashlib.sha256(KEY).digest(), id="SHA-256 of a key, as RSA peers have"),
        pytest.param(multihash(b"\x08\x00" + KEY[2:]), id="RSA key"),
        pytest.param(multihash(b"\x08\x02" + KEY[2:]), id="secp256k1 key"),
        pytest.param(multihash(KEY[2:]), id="no key type"),
        pytest.param(multihash(KEY[:2]), id="no key"),
        pytest.param(multihash(KEY[:2] + b"\x10\x05"), id="a number as key"),
        pytest.param(multihash(b"\x0a\x01\x01" + KEY[2:]), id="bytes as key type"),
        pytest.param(multihash(KEY[:2] + b"\x12\x1f" + KEY[4:-1]), id="31 bytes of key"),
        pytest.param(multihash(KEY[:2] + b"\x12\x21" + KEY[4:] + b"\x00"), id="33 bytes of key"),
        pytest.param(multihash(KEY[2:] + KEY[:2]), id="key before type"),
        pytest.param(multihash(b"\x08\x01" + KEY), id="type given twice"),
        pytest.param(multihash(KEY + b"\x18\x00"), id="unknown field"),
        pytest.param(multihash(b"\x08\x81\x00" + KEY[2:]), id="type not minimally encoded"),
        pytest.param(b"\x00\x24" + KEY + encode_field(3, bytes(253)), id="length right modulo 256"),
    ],
)
def test_bytes_that_are_not_exactly_a_peer_id_are_refused(data: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        PeerId.from_bytes_untrusted(data)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param(str(PEER)[:-1], id="one character cut off"),
        pytest.param(str(PEER) + "1", id="one character added"),
        pytest.param("1" + str(PEER), id="a zero byte in front"),
        pytest.param(str(PEER) + "\n", id="line feed behind"),
        pytest.param(str(PEER) + " ", id="space behind"),
        pytest.param(" " + str(PEER), id="space in front"),
        pytest.param(str(PEER).replace("o", "0"), id="0 is not in the alphabet"),
        pytest.param(str(PEER).replace("o", "O"), id="O is not in the alphabet"),
        pytest.param(str(PEER).lower(), id="lower case"),
        pytest.param(str(PEER).replace("1", "\N{FULLWIDTH DIGIT ONE}"), id="digit of another alphabet"),
        pytest.param("z" + str(PEER), id="multibase prefix"),
        pytest.param("bafzaajaiaejca" + "a" * 52, id="CID form"),
        pytest.param("QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N", id="RSA peer"),
        pytest.param("1" * 65, id="too long"),
        pytest.param("\ud800", id="lone surrogate"),
    ],
)
def test_text_that_is_not_exactly_a_peer_id_is_refused(text: str) -> None:
    with pytest.raises(ProtocolViolation):
        PeerId.from_text_untrusted(text)


def test_a_huge_text_is_refused_before_it_is_decoded() -> None:
    # base58 takes quadratic time: a megabyte would keep the machine busy for minutes
    with pytest.raises(ProtocolViolation, match="too long"):
        PeerId.from_text_untrusted("z" * 1_000_000)


@given(st.binary(max_size=64))
@settings(deadline=None)
def test_any_bytes_are_the_one_form_of_a_peer_or_a_protocol_violation(data: bytes) -> None:
    try:
        peer = PeerId.from_bytes_untrusted(data)
    except ProtocolViolation:
        return
    assert bytes(peer) == data


@given(st.text(max_size=70))
@settings(deadline=None)
def test_any_text_is_the_one_form_of_a_peer_or_a_protocol_violation(text: str) -> None:
    try:
        peer = PeerId.from_text_untrusted(text)
    except ProtocolViolation:
        return
    assert str(peer) == text


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_key_of_another_length_makes_no_peer_id(length: int) -> None:
    with pytest.raises(ProtocolViolation, match=f"32 bytes, not {length}"):
        PeerId(bytes(length))


def test_a_key_protobuf_may_hold_fields_that_are_not_known_yet() -> None:
    # Only inside a peer id has it to be canonical; protobuf itself asks to pass over what is unknown.
    later = encode_field(7, b"later") + public_key_to_protobuf(PEER.public_key)
    assert public_key_from_protobuf_untrusted(later) == PEER.public_key


@pytest.mark.parametrize("key_type", [0, 2, 3, 4])
def test_a_key_protobuf_of_another_kind_is_refused(key_type: int) -> None:
    # A secp256k1 key would be read as an Ed25519 key that nobody holds.
    with pytest.raises(ProtocolViolation, match="only Ed25519"):
        public_key_from_protobuf_untrusted(encode_field(1, key_type) + encode_field(2, PEER.public_key))


def test_a_peer_id_of_another_kind_is_refused_for_what_it_is() -> None:
    with pytest.raises(ProtocolViolation, match="only Ed25519 peers are supported"):
        PeerId.from_text_untrusted("QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N")


# --- signatures ---


def test_a_signature_holds_for_its_key_and_message_only() -> None:
    signature = IDENTITY.sign(b"message")
    other = Identity.generate()
    assert PEER.verify(signature, b"message")
    assert not PEER.verify(signature, b"massage")
    assert not other.peer_id.verify(signature, b"message")
    assert not PEER.verify(other.sign(b"message"), b"message")


@pytest.mark.parametrize("length", [0, 1, 63, 65])
def test_a_signature_of_another_length_does_not_hold(length: int) -> None:
    assert not PEER.verify(IDENTITY.sign(b"message").ljust(length, b"\0")[:length], b"message")


def test_no_single_bit_of_a_signature_can_be_flipped() -> None:
    signature = IDENTITY.sign(b"message")
    for bit in range(512):
        flipped = (int.from_bytes(signature, "little") ^ 1 << bit).to_bytes(64, "little")
        assert not PEER.verify(flipped, b"message")


def test_a_key_that_is_no_point_of_the_curve_verifies_nothing() -> None:
    assert not PeerId((2).to_bytes(32, "little")).verify(IDENTITY.sign(b"message"), b"message")


def forgery(key: bytes) -> bytes | None:
    """A message for which (R, S) = (a point of small order, 0) is a signature of *key*, made without a private key."""
    try:
        public = Ed25519PublicKey.from_public_bytes(key)
    except ValueError:
        return None
    for number in range(200):
        message = b"message %d" % number
        try:
            public.verify((1).to_bytes(32, "little") + bytes(32), message)
        except InvalidSignature:
            continue
        return message
    return None


@pytest.mark.parametrize("key", SMALL_ORDER, ids=bytes.hex)
def test_nobody_can_sign_for_a_key_of_small_order(key: bytes) -> None:
    message = forgery(key) or b"message 0"
    assert not PeerId(key).verify((1).to_bytes(32, "little") + bytes(32), message)


def test_the_forgeries_are_real() -> None:
    # What the test above refuses is accepted by the library underneath: for these, the list of keys is
    # all that stands in the way.
    assert sum(forgery(key) is not None for key in SMALL_ORDER) >= 8


# --- keeping an identity ---


def test_generated_identities_differ() -> None:
    assert Identity.generate().peer_id != Identity.generate().peer_id


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_seed_of_another_length_is_a_configuration_error(length: int) -> None:
    with pytest.raises(ConfigurationError, match=f"32 bytes, not {length}"):
        Identity.from_seed(bytes(length))


def test_the_seed_shows_in_no_repr() -> None:
    seed = IDENTITY.seed
    assert seed == bytes(range(32))
    for text in (repr(IDENTITY), str(IDENTITY), f"{IDENTITY}"):
        assert seed.hex() not in text
        assert repr(seed)[2:-1] not in text
        assert "key" not in text.lower()


def test_an_identity_is_created_once_and_found_again(tmp_path: Path) -> None:
    path = tmp_path / "some" / "folder" / "identity"
    created = Identity.load_or_create(path)
    assert path.read_bytes() == created.seed
    assert Identity.load_or_create(path).peer_id == created.peer_id


def test_the_identity_file_can_be_read_by_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "identity"
    before = os.umask(0)  # the widest umask: nothing but our own mode protects the file
    try:
        Identity.load_or_create(path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("content", [b"", b"x" * 31, b"x" * 33, b"00" * 32], ids=len)
def test_a_file_that_holds_no_seed_is_named_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "identity"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        Identity.load_or_create(path)
    assert str(path) in str(caught.value)
    assert path.read_bytes() == content


def test_a_dangling_link_is_not_written_through(tmp_path: Path) -> None:
    # O_EXCL does not follow links: nobody can have the seed written to a place of their choice.
    link, target = tmp_path / "identity", tmp_path / "elsewhere"
    link.symlink_to(target)
    with pytest.raises(FileExistsError):
        Identity.load_or_create(link)
    assert not target.exists()
