"""Keys for tests, and forgeries: signatures that anybody can make for keys of small order."""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from nacl.signing import SigningKey

KEY = SigningKey(b"\1" * 32)
OTHER = SigningKey(b"\2" * 32)
ORDER = 2**252 + 27742317777372353535851937790883648493  # RFC 8032 §5.1

_P = 2**255 - 19
_ORDER_8 = int.from_bytes(
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little"
)
#: Every encoding of a point whose order divides 8, also those that are not canonical (y at least the prime).
SMALL_ORDER = [
    (y | sign << 255).to_bytes(32, "little")
    for y in (0, 1, _P - 1, _P, _P + 1, _ORDER_8, _P - _ORDER_8)
    for sign in (0, 1)
]


def forged(key: bytes, text: bytes) -> bytes | None:
    """A signature over *text* by *key* that ``cryptography`` accepts, made without any secret; None if it has none.

    R is a point of small order, too, and S is zero: what is left of the equation holds for one text in eight.
    """
    for r in SMALL_ORDER:
        signature = r + bytes(32)
        try:
            Ed25519PublicKey.from_public_bytes(key).verify(signature, text)
        except (InvalidSignature, ValueError):
            continue
        return signature
    return None


def malleable(signature: bytes) -> bytes:
    """Another signature that satisfies the equation: S and the order of the group."""
    s = int.from_bytes(signature[32:], "little") + ORDER
    return signature[:32] + s.to_bytes(32, "little")
