"""Both roles against the package ``noiseprotocol``, then against an attacker on the way."""

import copy
import hmac
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from noise.connection import Keypair, NoiseConnection

from handclasp.discovery.noise import MAX_MESSAGE, CipherState, Handshake, Secured
from handclasp.errors import HandshakeFailed, MisuseError
from handclasp.identity import Identity, PeerId

PROLOGUE = b"handclasp/1 invitation" + bytes(32)
WALLET = Identity.from_seed(b"w" * 32)
WEBSITE = Identity.from_seed(b"s" * 32)


def handshakes(prologue: bytes = PROLOGUE) -> tuple[Handshake, Handshake]:
    """The initiator (wallet) and the responder (website)."""
    return (
        Handshake(WALLET, initiator=True, prologue=prologue),
        Handshake(WEBSITE, initiator=False, prologue=PROLOGUE),
    )


def fork(handshake: Handshake) -> Handshake:
    """The same handshake at the same point, once more: an attacker has many tries, we set up once."""
    twin = copy.copy(handshake)
    twin._cipher = copy.copy(handshake._cipher)
    return twin


def finish(initiator: Handshake, responder: Handshake) -> tuple[Secured, Secured]:
    responder.read_untrusted(initiator.write())
    initiator.read_untrusted(responder.write())
    responder.read_untrusted(initiator.write())
    return initiator.finish(), responder.finish()


def bit_flips(message: bytes) -> Iterator[bytes]:
    number = int.from_bytes(message, "big")
    for bit in range(8 * len(message)):
        yield (number ^ 1 << bit).to_bytes(len(message), "big")


def has_no_session(handshake: Handshake) -> bool:
    """Whether the handshake is over without a session."""
    with pytest.raises(MisuseError):
        handshake.finish()
    return not handshake.may_write


# --- both roles against another implementation ---


@dataclass(frozen=True)
class Libp2pPeer:
    """A peer whose Noise is the other package's and whose payload is put together here, byte by byte."""

    noise: NoiseConnection
    static: X25519PrivateKey
    identity: Ed25519PrivateKey

    @classmethod
    def create(cls, *, initiator: bool, prologue: bytes = PROLOGUE) -> "Libp2pPeer":
        static = X25519PrivateKey.generate()
        noise = NoiseConnection.from_name(b"Noise_XX_25519_ChaChaPoly_SHA256")
        noise.set_keypair_from_private_bytes(Keypair.STATIC, static.private_bytes_raw())
        noise.set_prologue(prologue)
        if initiator:
            noise.set_as_initiator()
        else:
            noise.set_as_responder()
        noise.start_handshake()
        return cls(noise, static, Ed25519PrivateKey.generate())

    @property
    def key(self) -> bytes:
        return self.identity.public_key().public_bytes_raw()

    def payload(self, extra: bytes = b"", *, signed: bytes = b"noise-libp2p-static-key:") -> bytes:
        signature = self.identity.sign(signed + self.static.public_key().public_bytes_raw())
        return b"\x0a\x24\x08\x01\x12\x20" + self.key + b"\x12\x40" + signature + extra

    def write(self, payload: bytes) -> bytes:
        return bytes(self.noise.write_message(payload))

    def read(self, message: bytes) -> bytes:
        return bytes(self.noise.read_message(message))


def early(data: bytes) -> bytes:
    """Field 15 of the payload, of less than 128 bytes."""
    return b"\x7a" + bytes([len(data)]) + data


def check_payload(payload: bytes, identity: Identity, behind: bytes) -> None:
    key = identity.peer_id.public_key
    assert payload[:40] == b"\x0a\x24\x08\x01\x12\x20" + key + b"\x12\x40"[:2]
    assert payload[40 + 64 :] == behind


def check_session(secured: Secured, other: Libp2pPeer) -> None:
    assert secured.peer == PeerId(other.key)
    assert secured.handshake_hash == other.noise.get_handshake_hash()
    for number in range(3):
        text = b"message %d" % number
        assert bytes(other.noise.decrypt(secured.seal.seal(text))) == text
        assert secured.open.open_untrusted(bytes(other.noise.encrypt(text))) == text


def test_the_initiator_understands_an_independent_responder() -> None:
    ours, theirs = Handshake(WALLET, initiator=True, prologue=PROLOGUE), Libp2pPeer.create(initiator=False)
    assert theirs.read(ours.write()) == b""
    assert ours.read_untrusted(theirs.write(theirs.payload(early(b"an offer")))) == b"an offer"
    assert ours.peer == PeerId(theirs.key)
    check_payload(theirs.read(ours.write(b"an answer")), WALLET, early(b"an answer"))
    check_session(ours.finish(), theirs)


def test_the_responder_understands_an_independent_initiator() -> None:
    ours, theirs = Handshake(WEBSITE, initiator=False, prologue=PROLOGUE), Libp2pPeer.create(initiator=True)
    assert ours.read_untrusted(theirs.write(b"")) == b""
    check_payload(theirs.read(ours.write(b"an offer")), WEBSITE, early(b"an offer"))
    assert ours.read_untrusted(theirs.write(theirs.payload(early(b"an answer")))) == b"an answer"
    check_session(ours.finish(), theirs)


def test_the_binding_is_that_of_the_documentation() -> None:
    ours, theirs = Handshake(WALLET, initiator=True, prologue=PROLOGUE), Libp2pPeer.create(initiator=False)
    state = theirs.noise.noise_protocol.symmetric_state
    theirs.read(ours.write())
    ours.read_untrusted(theirs.write(theirs.payload()))
    theirs.read(ours.write())
    secured = ours.finish()
    assert secured.handshake_hash == state.h
    assert secured.binding == hmac.digest(state.ck, b"handclasp/1 binding" + state.h, "sha256")


def test_a_libp2p_peer_that_sends_no_early_data_and_fields_of_its_own_is_understood() -> None:
    ours, theirs = Handshake(WALLET, initiator=True, prologue=PROLOGUE), Libp2pPeer.create(initiator=False)
    theirs.read(ours.write())
    extensions = b"\x22\x06\x12\x04/yam"  # libp2p's NoiseExtensions, field 4
    assert ours.read_untrusted(theirs.write(theirs.payload(extensions))) == b""
    check_payload(theirs.read(ours.write()), WALLET, b"")
    check_session(ours.finish(), theirs)


def test_the_signature_in_the_payload_is_over_libp2ps_prefix_and_the_static_key() -> None:
    ours, theirs = Handshake(WEBSITE, initiator=False, prologue=PROLOGUE), Libp2pPeer.create(initiator=True)
    ours.read_untrusted(theirs.write(b""))
    signature = theirs.read(ours.write())[40:]
    static = theirs.noise.noise_protocol.handshake_state.rs.public_bytes
    assert WEBSITE.peer_id.verify(signature, b"noise-libp2p-static-key:" + static)


Forge = Callable[[Libp2pPeer], bytes]

FORGED: list[tuple[str, Forge]] = [
    ("no payload", lambda _: b""),
    ("not a protobuf", lambda _: b"\xff" * 20),
    ("no identity", lambda peer: peer.payload()[38:]),
    ("no signature", lambda peer: peer.payload()[:38]),
    ("signature without the prefix", lambda peer: peer.payload(signed=b"")),
    ("signature with another prefix", lambda peer: peer.payload(signed=b"noise-libp2p-static-key;")),
    ("signature cut short", lambda peer: peer.payload()[:38] + b"\x12\x3f" + peer.payload()[40:-1]),
    (
        "another peer's identity",
        lambda peer: peer.payload()[:6] + WEBSITE.peer_id.public_key + peer.payload()[38:],
    ),
    ("another peer's signature", lambda peer: peer.payload()[:40] + WEBSITE.sign(b"something else")),
    ("RSA identity", lambda peer: peer.payload()[:3] + b"\x00" + peer.payload()[4:]),
    ("a number as identity", lambda peer: b"\x08\x01" + peer.payload()[38:]),
    ("a number as early data", lambda peer: peer.payload(b"\x78\x01")),
    (
        "a small-order identity",
        lambda peer: peer.payload()[:6] + b"\x01" + bytes(31) + b"\x12\x40\x01" + bytes(63),
    ),
    (
        "an identity of 31 bytes",
        lambda peer: b"\x0a\x23\x08\x01\x12\x1f" + peer.key[:31] + peer.payload()[38:],
    ),
    ("bytes behind the payload", lambda peer: peer.payload(b"\x00")),
]


@pytest.mark.parametrize(("forge"), [forge for _, forge in FORGED], ids=[name for name, _ in FORGED])
@pytest.mark.parametrize("initiator", [True, False], ids=["to the wallet", "to the website"])
def test_a_payload_that_proves_no_identity_is_refused(forge: Forge, *, initiator: bool) -> None:
    identity = WALLET if initiator else WEBSITE
    ours = Handshake(identity, initiator=initiator, prologue=PROLOGUE)
    theirs = Libp2pPeer.create(initiator=not initiator)
    if initiator:
        theirs.read(ours.write())
    else:
        ours.read_untrusted(theirs.write(b""))
        theirs.read(ours.write())
    with pytest.raises(HandshakeFailed):
        ours.read_untrusted(theirs.write(forge(theirs)))
    assert has_no_session(ours)
    assert ours.peer is None


def test_a_signature_from_another_handshake_proves_nothing() -> None:
    # An attacker who once talked to the website replays its identity and signature with a key of his own.
    victim, attacker = Handshake(WALLET, initiator=True, prologue=PROLOGUE), Libp2pPeer.create(initiator=True)
    website = Handshake(WEBSITE, initiator=False, prologue=PROLOGUE)
    website.read_untrusted(attacker.write(b""))
    stolen = attacker.read(website.write())
    second = Libp2pPeer.create(initiator=False)
    second.read(victim.write())
    with pytest.raises(HandshakeFailed, match="did not sign"):
        victim.read_untrusted(second.write(stolen))


# --- what a finished handshake gives ---


def test_both_sides_know_each_other_and_share_everything() -> None:
    wallet, website = finish(*handshakes())
    assert (wallet.peer, website.peer) == (WEBSITE.peer_id, WALLET.peer_id)
    assert wallet.handshake_hash == website.handshake_hash
    assert wallet.binding == website.binding
    assert len(wallet.binding) == len(wallet.handshake_hash) == 32
    assert website.open.open_untrusted(wallet.seal.seal(b"request", b"ad"), b"ad") == b"request"
    assert wallet.open.open_untrusted(website.seal.seal(b"response")) == b"response"


def test_every_session_has_keys_of_its_own() -> None:
    one, _ = finish(*handshakes())
    other, _ = finish(*handshakes())
    assert one.handshake_hash != other.handshake_hash
    assert one.binding != other.binding
    assert one.binding != one.handshake_hash
    with pytest.raises(HandshakeFailed):
        other.open.open_untrusted(one.seal.seal(b"text"))


def test_what_one_side_sealed_does_not_come_back_to_it_as_the_others() -> None:
    wallet, _ = finish(*handshakes())
    with pytest.raises(HandshakeFailed):
        wallet.open.open_untrusted(wallet.seal.seal(b"reflected"))


def test_the_identities_travel_encrypted() -> None:
    initiator, responder = handshakes()
    first = initiator.write()
    responder.read_untrusted(first)
    second = responder.write(b"an offer in the second")
    initiator.read_untrusted(second)
    third = initiator.write(b"an answer in the third")
    for secret in (WALLET.peer_id.public_key, WEBSITE.peer_id.public_key, b"an offer", b"an answer"):
        assert secret not in first + second + third
    assert len(first) == 32


# --- order ---


def test_messages_are_written_and_read_in_turn_only() -> None:
    initiator, responder = handshakes()
    assert (initiator.may_write, responder.may_write) == (True, False)
    with pytest.raises(MisuseError):
        responder.write()
    with pytest.raises(MisuseError):
        initiator.finish()
    first = initiator.write()
    with pytest.raises(MisuseError):
        initiator.write()
    responder.read_untrusted(first)
    assert (initiator.may_write, responder.may_write) == (False, True)
    second = responder.write()
    with pytest.raises(MisuseError):
        responder.finish()
    initiator.read_untrusted(second)
    assert responder.peer is None
    with pytest.raises(MisuseError):
        initiator.finish()
    responder.read_untrusted(initiator.write())
    assert (initiator.may_write, responder.may_write) == (False, False)
    with pytest.raises(MisuseError):
        initiator.write()


def test_the_first_message_takes_no_early_data_because_it_is_not_encrypted() -> None:
    initiator, _ = handshakes()
    with pytest.raises(MisuseError, match="early data came too early"):
        initiator.write(b"data")
    assert len(initiator.write()) == 32


def test_a_first_message_with_a_payload_is_refused() -> None:
    initiator, responder = handshakes()
    with pytest.raises(HandshakeFailed, match="carries a payload"):
        responder.read_untrusted(initiator.write() + b"x")
    assert has_no_session(responder)


@dataclass(frozen=True)
class Recorded:
    """A handshake that went well: what was sent, and both sides before each of the three reads."""

    messages: tuple[bytes, bytes, bytes]
    readers: tuple[Handshake, Handshake, Handshake]

    def reader(self, turn: int) -> Handshake:
        return fork(self.readers[turn])


@pytest.fixture(scope="module")
def recorded() -> Recorded:
    initiator, responder = handshakes()
    first = initiator.write()
    before_first = fork(responder)
    responder.read_untrusted(first)
    second = responder.write(b"offer")
    before_second = fork(initiator)
    initiator.read_untrusted(second)
    third = initiator.write(b"answer")
    return Recorded((first, second, third), (before_first, before_second, fork(responder)))


def test_the_recorded_handshake_can_be_taken_up_at_any_point(recorded: Recorded) -> None:
    # Otherwise the tests below would refuse anything for reasons of their own.
    assert recorded.reader(0).read_untrusted(recorded.messages[0]) == b""
    assert recorded.reader(1).read_untrusted(recorded.messages[1]) == b"offer"
    assert recorded.reader(2).read_untrusted(recorded.messages[2]) == b"answer"


@pytest.mark.parametrize("turn", [1, 2])
def test_no_bit_of_an_encrypted_message_can_be_flipped(recorded: Recorded, turn: int) -> None:
    for flipped in bit_flips(recorded.messages[turn]):
        reader = recorded.reader(turn)
        with pytest.raises(HandshakeFailed):
            reader.read_untrusted(flipped)
        assert has_no_session(reader)
        assert reader.peer is None


def test_no_bit_of_the_first_message_can_be_flipped() -> None:
    # Nothing protects it by itself: that it was altered shows in the second one, whose tag covers it.
    # X25519 passes over the highest bit of a key; the hash does not.
    initiator, responder = handshakes()
    for flipped in bit_flips(initiator.write()):
        website, wallet = fork(responder), fork(initiator)
        website.read_untrusted(flipped)
        with pytest.raises(HandshakeFailed):
            wallet.read_untrusted(website.write())
        assert has_no_session(wallet)
        with pytest.raises(MisuseError):
            website.finish()


@pytest.mark.parametrize("turn", [0, 1, 2])
def test_a_message_cut_short_is_refused(recorded: Recorded, turn: int) -> None:
    message = recorded.messages[turn]
    for length in range(len(message)):
        reader = recorded.reader(turn)
        with pytest.raises(HandshakeFailed):
            reader.read_untrusted(message[:length])
        assert has_no_session(reader)


@pytest.mark.parametrize("turn", [0, 1, 2])
def test_a_message_with_bytes_behind_it_is_refused(recorded: Recorded, turn: int) -> None:
    for extra in (b"\0", bytes(16), bytes(100)):
        reader = recorded.reader(turn)
        with pytest.raises(HandshakeFailed):
            reader.read_untrusted(recorded.messages[turn] + extra)
        assert has_no_session(reader)


@pytest.mark.parametrize("turn", [0, 1, 2])
def test_after_a_failure_the_right_message_is_too_late(recorded: Recorded, turn: int) -> None:
    for wrong in (b"", b"short", bytes(len(recorded.messages[turn]))):
        reader = recorded.reader(turn)
        with pytest.raises(HandshakeFailed):
            reader.read_untrusted(wrong)
        with pytest.raises(HandshakeFailed):
            reader.read_untrusted(recorded.messages[turn])
        with pytest.raises(MisuseError):
            reader.write()
        assert has_no_session(reader)


@pytest.mark.parametrize(("turn", "played"), [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)])
def test_another_message_of_the_same_handshake_is_refused(recorded: Recorded, turn: int, played: int) -> None:
    # (1, 0) and (2, 1) are one's own message reflected; the others come early or again.
    reader = recorded.reader(turn)
    with pytest.raises(HandshakeFailed):
        reader.read_untrusted(recorded.messages[played])
    assert has_no_session(reader)


def test_the_same_message_twice_is_out_of_turn(recorded: Recorded) -> None:
    for turn in range(3):
        reader = recorded.reader(turn)
        reader.read_untrusted(recorded.messages[turn])
        with pytest.raises(HandshakeFailed, match="out of turn"):
            reader.read_untrusted(recorded.messages[turn])
        assert not reader.may_write


def test_messages_of_an_earlier_handshake_are_refused(recorded: Recorded) -> None:
    initiator, responder = handshakes()
    initiator.write()
    with pytest.raises(HandshakeFailed):
        initiator.read_untrusted(recorded.messages[1])
    # The first message can be replayed, but then only its maker could go on.
    responder.read_untrusted(recorded.messages[0])
    responder.write()
    with pytest.raises(HandshakeFailed):
        responder.read_untrusted(recorded.messages[2])
    assert has_no_session(responder)


def test_a_message_before_ones_own_first_is_out_of_turn() -> None:
    initiator, _ = handshakes()
    with pytest.raises(HandshakeFailed, match="out of turn"):
        initiator.read_untrusted(bytes(32))


@given(st.binary(max_size=300), st.integers(0, 2))
@settings(deadline=None)
def test_any_bytes_are_refused(recorded: Recorded, message: bytes, turn: int) -> None:
    reader = recorded.reader(turn)
    if turn == 0 and len(message) == 32:
        return  # nearly any 32 bytes are a key
    with pytest.raises(HandshakeFailed):
        reader.read_untrusted(message)


# --- the prologue, and who sits in between ---


@pytest.mark.parametrize("prologue", [b"", PROLOGUE[:-1], PROLOGUE + b"\0", PROLOGUE[:-1] + b"\x01"])
def test_another_prologue_gives_no_session(prologue: bytes) -> None:
    initiator, responder = handshakes(prologue)
    responder.read_untrusted(initiator.write())
    with pytest.raises(HandshakeFailed):
        initiator.read_untrusted(responder.write())
    assert has_no_session(initiator)


class TagBlind(Handshake):
    """An attacker who decrypts without looking at the tags, which he could not check: they cover the prologue."""

    def _decrypt_and_hash_untrusted(self, sealed: bytes) -> bytes:
        assert self._cipher is not None
        key_stream = self._cipher.seal(bytes(len(sealed) - 16))
        self._mix_hash(sealed)
        return bytes(ours ^ theirs for ours, theirs in zip(sealed[:-16], key_stream, strict=False))


def test_who_does_not_know_the_prologue_reads_the_second_message_but_cannot_be_the_initiator() -> None:
    # The first half is no claim but a limit: the keys come from Diffie-Hellman alone, the prologue is only
    # in the tags. Whoever may send the first message sees the offer; nobody gets further without the secret.
    attacker = TagBlind(Identity.generate(), initiator=True, prologue=b"a guess")
    website = handshakes()[1]
    website.read_untrusted(attacker.write())
    assert attacker.read_untrusted(website.write(b"the offer")) == b"the offer"
    with pytest.raises(HandshakeFailed):
        website.read_untrusted(attacker.write(b"an answer"))
    assert has_no_session(website)
    assert website.peer is None


# Points of small order on Curve25519 (RFC 7748 §6.1): their product with any key is zero, so everybody
# knows the "shared" secret.
DEGENERATE = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
]


@pytest.mark.parametrize("key", DEGENERATE)
def test_a_degenerate_key_is_refused_when_it_is_read(key: str) -> None:
    initiator, responder = handshakes()
    with pytest.raises(HandshakeFailed, match="degenerate"):
        responder.read_untrusted(bytes.fromhex(key))
    assert has_no_session(responder)
    initiator.write()
    with pytest.raises(HandshakeFailed, match="degenerate"):
        initiator.read_untrusted(bytes.fromhex(key) + bytes(200))
    assert has_no_session(initiator)


@pytest.mark.parametrize("key", DEGENERATE)
@pytest.mark.parametrize("initiator", [True, False], ids=["to the wallet", "to the website"])
def test_a_degenerate_static_key_is_refused(key: str, *, initiator: bool) -> None:
    class Degenerate:
        """What our own side would send if its static key were this one."""

        def public_key(self) -> "Degenerate":
            return self

        def public_bytes_raw(self) -> bytes:
            return bytes.fromhex(key)

        def exchange(self, _: object) -> bytes:
            return bytes(32)

    attacker = Handshake(WALLET, initiator=not initiator, prologue=PROLOGUE)
    attacker._static = Degenerate()  # type: ignore[assignment]
    victim = Handshake(WEBSITE, initiator=initiator, prologue=PROLOGUE)
    if initiator:
        attacker.read_untrusted(victim.write())
    else:
        victim.read_untrusted(attacker.write())
        attacker.read_untrusted(victim.write())
    with pytest.raises(HandshakeFailed, match="degenerate"):
        victim.read_untrusted(attacker.write())
    assert has_no_session(victim)


# --- sizes ---


def test_the_longest_messages_go_through_and_longer_ones_do_not() -> None:
    ours, theirs = Handshake(WALLET, initiator=True, prologue=PROLOGUE), Libp2pPeer.create(initiator=False)
    theirs.read(ours.write())
    # 32 (e) + 48 (s) + 16 (tag) and the payload: 104 with the identity, 4 before the early data
    room = MAX_MESSAGE - 32 - 48 - 16 - 104 - 4
    data = b"\x7a" + bytes([room & 0x7F | 0x80, room >> 7 & 0x7F | 0x80, room >> 14]) + b"x" * room
    longest = theirs.write(theirs.payload(data))
    assert len(longest) == MAX_MESSAGE == 65_535
    assert fork(ours).read_untrusted(longest) == b"x" * room
    with pytest.raises(HandshakeFailed, match="longer than 65535 bytes"):
        ours.read_untrusted(longest + b"x")


def test_a_sealed_message_has_at_most_65535_bytes() -> None:
    wallet, website = finish(*handshakes())
    text = bytes(MAX_MESSAGE - 16)
    assert website.open.open_untrusted(wallet.seal.seal(text)) == text
    with pytest.raises(HandshakeFailed, match="longer than 65535 bytes"):
        website.open.open_untrusted(wallet.seal.seal(text + b"x"))


# --- the cipher ---


def test_sealed_messages_open_once_in_order_and_unaltered() -> None:
    seal, unseal = CipherState(bytes(32)), CipherState(bytes(32))
    first, second, third = (seal.seal(text) for text in (b"one", b"two", b"three"))
    for wrong in (second, third, b"", first[:-1], first + b"\0", *bit_flips(first)):
        with pytest.raises(HandshakeFailed):
            unseal.open_untrusted(wrong)
    assert unseal.open_untrusted(first) == b"one"
    for wrong in (first, third):
        with pytest.raises(HandshakeFailed):
            unseal.open_untrusted(wrong)
    assert unseal.open_untrusted(second) == b"two"
    assert unseal.open_untrusted(third) == b"three"


def test_associated_data_has_to_be_the_same() -> None:
    seal, unseal = CipherState(bytes(32)), CipherState(bytes(32))
    sealed = seal.seal(b"text", b"about this")
    with pytest.raises(HandshakeFailed):
        unseal.open_untrusted(sealed, b"about that")
    assert unseal.open_untrusted(sealed, b"about this") == b"text"


def test_the_same_text_is_never_sealed_alike_twice() -> None:
    seal = CipherState(bytes(32))
    assert len({seal.seal(b"text") for _ in range(100)}) == 100
