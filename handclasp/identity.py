"""Who a peer is: an Ed25519 key and the libp2p peer id made from it.

Source: libp2p peer-ids specification (Ed25519 keys are inlined with the
identity multihash, text form base58btc).
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import ConfigurationError, ProtocolViolation
from .protobuf import decode_fields_untrusted, encode_field, last_bytes, last_int

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_ED25519 = 1  # libp2p KeyType
_IDENTITY_MULTIHASH = 0x00
_KEY_LENGTH = 32
_LONGEST_TEXT = 64  # an Ed25519 peer id has 52 characters; refuse the rest before decoding


@dataclass(frozen=True, order=True)
class PeerId:
    """The name of a peer, equal on the wire to libp2p's: 38 bytes, ``12D3KooW…`` as text.

    Only Ed25519 peers exist here, so a peer id always holds the public key itself.
    """

    public_key: bytes
    """The raw Ed25519 public key, 32 bytes."""

    def __post_init__(self) -> None:
        if len(self.public_key) != _KEY_LENGTH:
            raise ProtocolViolation(f"an Ed25519 public key has 32 bytes, not {len(self.public_key)}")

    @classmethod
    def from_bytes_untrusted(cls, data: bytes) -> PeerId:
        """Parse the binary multihash form.

        Raises:
            ProtocolViolation: not the canonical identity multihash of an Ed25519 key.
        """
        if data[:1] != bytes([_IDENTITY_MULTIHASH]) or data[1:2] != bytes([len(data) - 2 & 0xFF]):
            raise ProtocolViolation(
                "the peer id is not an identity multihash (only Ed25519 peers are supported)"
            )
        peer = cls(public_key_from_protobuf_untrusted(data[2:]))
        if bytes(peer) != data:
            raise ProtocolViolation("the peer id is not in canonical form")
        return peer

    @classmethod
    def from_text_untrusted(cls, text: str) -> PeerId:
        """Parse the base58btc form ``12D3KooW…``.

        Raises:
            ProtocolViolation: not base58, or not an Ed25519 peer id.
        """
        import base58

        if len(text) > _LONGEST_TEXT:
            raise ProtocolViolation("the peer id is too long")
        try:
            data = base58.b58decode(text)
        except ValueError as exc:
            raise ProtocolViolation(f"the peer id is not base58: {exc}") from None
        peer = cls.from_bytes_untrusted(data)
        if str(peer) != text:  # base58 passes over white space at the end
            raise ProtocolViolation("the peer id is not in canonical form")
        return peer

    def __bytes__(self) -> bytes:
        key = public_key_to_protobuf(self.public_key)
        return bytes([_IDENTITY_MULTIHASH, len(key)]) + key

    def __str__(self) -> str:
        import base58

        return base58.b58encode(bytes(self)).decode("ascii")

    def __repr__(self) -> str:
        return f"PeerId({self})"

    def verify(self, signature: bytes, message: bytes) -> bool:
        """Whether *signature* (64 bytes) over *message* was made by this peer."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        if self.public_key in _SMALL_ORDER_KEYS:  # anyone can sign for these (4-torsion and friends)
            return False
        try:
            Ed25519PublicKey.from_public_bytes(self.public_key).verify(signature, message)
        except (InvalidSignature, ValueError):
            return False
        return True


@dataclass(frozen=True)
class Identity:
    """The private half: make one with `generate`, keep one with `load_or_create`."""

    _key: Ed25519PrivateKey = field(repr=False)

    @classmethod
    def generate(cls) -> Identity:
        """A new random identity, kept in memory only."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_seed(cls, seed: bytes) -> Identity:
        """The identity of a 32-byte Ed25519 seed."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        if len(seed) != _KEY_LENGTH:
            raise ConfigurationError(f"an identity seed has 32 bytes, not {len(seed)}")
        return cls(Ed25519PrivateKey.from_private_bytes(seed))

    @classmethod
    def load_or_create(cls, path: Path) -> Identity:
        """Read the 32-byte seed in *path*; write a new one there, readable by you alone, if there is none.

        Raises:
            ConfigurationError: the file is there but does not hold 32 bytes.
        """
        try:
            return cls.from_seed(path.read_bytes())
        except FileNotFoundError:
            pass
        except ConfigurationError as exc:
            raise ConfigurationError(f"{path} is not an identity file: {exc}") from None
        identity = cls.generate()
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # O_EXCL: of two programs that start at once, one creates and the other fails loudly.
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(identity.seed)
        return identity

    @property
    def seed(self) -> bytes:
        """The 32 bytes to keep: whoever has them is this peer."""
        return self._key.private_bytes_raw()

    @property
    def peer_id(self) -> PeerId:
        """The public name of this identity."""
        return PeerId(self._key.public_key().public_bytes_raw())

    def sign(self, message: bytes) -> bytes:
        """An Ed25519 signature, 64 bytes. Callers prefix *message* with its domain."""
        return self._key.sign(message)


def public_key_to_protobuf(public_key: bytes) -> bytes:
    """libp2p's ``PublicKey {Type, Data}`` of a raw Ed25519 key."""
    return encode_field(1, _ED25519) + encode_field(2, public_key)


def public_key_from_protobuf_untrusted(data: bytes) -> bytes:
    """The raw Ed25519 key in libp2p's ``PublicKey``.

    Raises:
        ProtocolViolation: malformed, or of another key type.
    """
    fields = decode_fields_untrusted(data)
    key_type, key = last_int(fields, 1), last_bytes(fields, 2)
    if key_type != _ED25519 or key is None:
        raise ProtocolViolation("only Ed25519 keys are supported")
    return key


# The points of order 1, 2, 4 and 8 with their non-canonical encodings: for these a signature
# can be made without any private key, and `cryptography` accepts it.
_P = 2**255 - 19
_ORDER_8_Y = int.from_bytes(
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little"
)
_SMALL_ORDER_KEYS = frozenset(
    (y | sign << 255).to_bytes(32, "little")
    for y in (0, 1, _P - 1, _P, _P + 1, _ORDER_8_Y, _P - _ORDER_8_Y)
    for sign in (0, 1)
)
