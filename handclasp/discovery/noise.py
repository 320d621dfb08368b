"""Noise_XX_25519_ChaChaPoly_SHA256 with libp2p's payloads, without I/O.

Source: the Noise Protocol Framework, revision 34, sections 5 and 7; libp2p noise
specification (payload protobuf ``{identity_key = 1, identity_sig = 2}``). Early data is
field 15 of that payload; libp2p peers ignore it. The test suite runs both roles against
an independent implementation.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from handclasp.errors import HandshakeFailed, MisuseError, ProtocolViolation
from handclasp.identity import Identity, PeerId, public_key_from_protobuf_untrusted, public_key_to_protobuf
from handclasp.protobuf import decode_fields_untrusted, encode_field, last_bytes

__all__ = ["MAX_MESSAGE", "CipherState", "Handshake", "Secured"]

#: Bytes of the longest message (Noise §3), its tag and all.
MAX_MESSAGE = 65_535
_TAG = 16
_KEY = 32
_NAME = b"Noise_XX_25519_ChaChaPoly_SHA256"
_SIGNATURE_PREFIX = b"noise-libp2p-static-key:"
_PATTERN = (("e",), ("e", "ee", "s", "es"), ("s", "se"))  # -> e   <- e, ee, s, es   -> s, se
_FAILED = len(_PATTERN) + 1
_EARLY_DATA = 15


class CipherState:
    """One direction of an encrypted channel; messages must be opened in the order they were sealed."""

    def __init__(self, key: bytes) -> None:
        self._cipher = ChaCha20Poly1305(key)
        self._counter = 0

    def seal(self, text: bytes, associated: bytes = b"") -> bytes:
        """Encrypt the next message."""
        sealed = self._cipher.encrypt(self._nonce(), text, associated)
        self._counter += 1
        return sealed

    def open_untrusted(self, sealed: bytes, associated: bytes = b"") -> bytes:
        """Decrypt the next message; a failure does not use up its number.

        Raises:
            HandshakeFailed: altered, repeated, out of order, too long, or not from the peer.
        """
        if len(sealed) > MAX_MESSAGE:
            raise HandshakeFailed(f"a sealed message is longer than {MAX_MESSAGE} bytes")
        try:
            text = self._cipher.decrypt(self._nonce(), sealed, associated)
        except (InvalidTag, ValueError):
            raise HandshakeFailed(
                "a sealed message does not verify: it was altered, repeated or left out on its way"
            ) from None
        self._counter += 1
        return text

    def _nonce(self) -> bytes:
        return bytes(4) + self._counter.to_bytes(8, "little")


@dataclass(frozen=True)
class Secured:
    """What a finished handshake leaves to one side."""

    peer: PeerId
    seal: CipherState
    open: CipherState
    handshake_hash: bytes
    """32 public bytes that name this very session (Noise §11.2)."""
    binding: bytes
    """32 secret bytes that only the two sides of this session know."""


class Handshake:
    """One side of the handshake: `write` and `read_untrusted` in turn, three messages in all.

    Args:
        identity: who this side is.
        initiator: whether this side sends the first message.
        prologue: bytes that both sides must agree on.
    """

    def __init__(self, identity: Identity, *, initiator: bool, prologue: bytes) -> None:
        self._identity = identity
        self._initiator = initiator
        self._static = X25519PrivateKey.generate()
        self._ephemeral = X25519PrivateKey.generate()
        self._their_static: X25519PublicKey | None = None
        self._their_ephemeral: X25519PublicKey | None = None
        self._peer: PeerId | None = None
        self._hash = self._chaining_key = _NAME  # exactly 32 bytes: used as it is (Noise §5.2)
        self._cipher: CipherState | None = None
        self._turn = 0
        self._mix_hash(prologue)

    @property
    def may_write(self) -> bool:
        """Whether the next message is this side's."""
        return self._turn < len(_PATTERN) and (self._turn % 2 == 0) is self._initiator

    def write(self, early_data: bytes = b"") -> bytes:
        """The next message, with *early_data* inside (the first message is not encrypted and takes none)."""
        if not self.may_write or (early_data and self._turn == 0):
            raise MisuseError("it is the other side's turn in the handshake, or early data came too early")
        message = b""
        for token in _PATTERN[self._turn]:
            if token == "e":  # noqa: S105 - the Noise token
                public = self._ephemeral.public_key().public_bytes_raw()
                self._mix_hash(public)
                message += public
            elif token == "s":  # noqa: S105
                message += self._encrypt_and_hash(self._static.public_key().public_bytes_raw())
            else:
                self._mix_dh(token)
        payload = b"" if self._turn == 0 else self._payload(early_data)
        message += self._encrypt_and_hash(payload)
        self._turn += 1
        return message

    def read_untrusted(self, message: bytes) -> bytes:
        """Take the peer's next message and return the early data in it. After a failure the handshake is over.

        Raises:
            HandshakeFailed: it does not verify, or comes out of turn.
        """
        in_turn, turn = not self.may_write and self._turn < len(_PATTERN), self._turn
        self._turn = _FAILED  # until it turns out well
        if not in_turn:
            raise HandshakeFailed("a handshake message came out of turn")
        if len(message) > MAX_MESSAGE:
            raise HandshakeFailed(f"a handshake message is longer than {MAX_MESSAGE} bytes")
        rest = message
        for token in _PATTERN[turn]:
            if token == "e":  # noqa: S105
                public, rest = _cut(rest, _KEY)
                self._their_ephemeral = X25519PublicKey.from_public_bytes(public)
                _exchange(self._ephemeral, self._their_ephemeral)  # refuse it now, not when we answer
                self._mix_hash(public)
            elif token == "s":  # noqa: S105
                sealed, rest = _cut(rest, _KEY + _TAG)
                self._their_static = X25519PublicKey.from_public_bytes(
                    self._decrypt_and_hash_untrusted(sealed)
                )
            else:
                self._mix_dh(token)
        payload = self._decrypt_and_hash_untrusted(rest)
        if self._their_static is not None:
            early_data = self._check_payload_untrusted(payload, self._their_static)
        elif payload:
            raise HandshakeFailed("the first handshake message carries a payload")
        else:
            early_data = b""
        self._turn = turn + 1
        return early_data

    @property
    def peer(self) -> PeerId | None:
        """Who the other side proved to be, once its static key has arrived."""
        return self._peer

    def finish(self) -> Secured:
        """Derive the keys after the third message (Noise §5.2, Split)."""
        if self._turn != len(_PATTERN) or self._peer is None:
            raise MisuseError("the handshake is not finished")
        first, second = _hkdf(self._chaining_key, b"")
        mine, theirs = (first, second) if self._initiator else (second, first)
        binding = hmac.digest(self._chaining_key, b"handclasp/1 binding" + self._hash, "sha256")
        return Secured(self._peer, CipherState(mine), CipherState(theirs), self._hash, binding)

    # --- libp2p's payload ---

    def _payload(self, early_data: bytes) -> bytes:
        public = self._static.public_key().public_bytes_raw()
        payload = encode_field(1, public_key_to_protobuf(self._identity.peer_id.public_key))
        payload += encode_field(2, self._identity.sign(_SIGNATURE_PREFIX + public))
        return payload + (encode_field(_EARLY_DATA, early_data) if early_data else b"")

    def _check_payload_untrusted(self, payload: bytes, static: X25519PublicKey) -> bytes:
        try:
            fields = decode_fields_untrusted(payload)
            key, signature = last_bytes(fields, 1), last_bytes(fields, 2)
            early_data = last_bytes(fields, _EARLY_DATA) or b""
            if key is None or signature is None:
                raise HandshakeFailed("the handshake payload has no identity")
            peer = PeerId(public_key_from_protobuf_untrusted(key))
        except ProtocolViolation as exc:
            raise HandshakeFailed(f"the handshake payload is malformed: {exc}") from None
        if not peer.verify(signature, _SIGNATURE_PREFIX + static.public_bytes_raw()):
            raise HandshakeFailed("the peer's identity key did not sign its handshake key")
        self._peer = peer
        return early_data

    # --- Noise §5.2: the symmetric state ---

    def _mix_hash(self, data: bytes) -> None:
        self._hash = hashlib.sha256(self._hash + data).digest()

    def _mix_dh(self, token: str) -> None:
        """Mix in a Diffie-Hellman result; the first letter of *token* is the initiator's key."""
        ours = token[0] if self._initiator else token[1]
        theirs = token[1] if self._initiator else token[0]
        private = self._ephemeral if ours == "e" else self._static
        public = self._their_ephemeral if theirs == "e" else self._their_static
        assert public is not None  # noqa: S101 - the pattern sends every key before it is used
        self._chaining_key, key = _hkdf(self._chaining_key, _exchange(private, public))
        self._cipher = CipherState(key)

    def _encrypt_and_hash(self, text: bytes) -> bytes:
        sealed = text if self._cipher is None else self._cipher.seal(text, self._hash)
        self._mix_hash(sealed)
        return sealed

    def _decrypt_and_hash_untrusted(self, sealed: bytes) -> bytes:
        text = sealed if self._cipher is None else self._cipher.open_untrusted(sealed, self._hash)
        self._mix_hash(sealed)
        return text


def _exchange(private: X25519PrivateKey, public: X25519PublicKey) -> bytes:
    try:
        return private.exchange(public)
    except ValueError:  # a small-order point: the all-zero result (RFC 7748 §6.1)
        raise HandshakeFailed("the peer's handshake key is degenerate") from None


def _hkdf(chaining_key: bytes, material: bytes) -> tuple[bytes, bytes]:
    """Noise's HKDF with two outputs (§4.3)."""
    key = hmac.digest(chaining_key, material, "sha256")
    first = hmac.digest(key, b"\x01", "sha256")
    return first, hmac.digest(key, first + b"\x02", "sha256")


def _cut(data: bytes, size: int) -> tuple[bytes, bytes]:
    if len(data) < size:
        raise HandshakeFailed("a handshake message was cut short")
    return data[:size], data[size:]
