"""Ed25519 signatures through PyNaCl (the extra ``ed25519``), for the namespaces whose addresses are such keys.

Not through ``cryptography``: it takes signatures of keys of small order, for which anybody can make one that
verifies over any text. Such keys are addresses that people know (Solana's ``111…1``, Algorand's zero address).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from handclasp.errors import ConfigurationError, LinkRefused

if TYPE_CHECKING:
    from types import ModuleType

KEY_BYTES = 32
SIGNATURE_BYTES = 64


def load() -> ModuleType:
    """PyNaCl's bindings to libsodium.

    Raises:
        ConfigurationError: PyNaCl is not installed; the message says what to install.
    """
    try:
        from nacl import bindings
    except ImportError as exc:
        raise ConfigurationError(
            f"accounts of Solana and Algorand need PyNaCl: pip install 'handclasp[ed25519]' ({exc})"
        ) from exc
    return bindings


def verify(key: bytes, data: bytes, signature: bytes) -> None:
    """Check a signature of 64 bytes over *data* by *key* (RFC 8032 §5.1.7, and what libsodium adds to it).

    Raises:
        LinkRefused: ``address``: *key* is not a point in canonical form, or has a part of small order;
            ``signature``: made by another key or over other data, or not in canonical form.
        ConfigurationError: PyNaCl is not installed.
    """
    load()
    from nacl.bindings import crypto_core_ed25519_is_valid_point
    from nacl.exceptions import BadSignatureError
    from nacl.signing import VerifyKey

    if not crypto_core_ed25519_is_valid_point(key):
        # Addresses of programs, contracts and vaults are hashes: half of them are no points at all.
        raise LinkRefused("address", "is not the key of a person: nothing that it signs proves anything")
    try:
        VerifyKey(key).verify(data, signature)
    except BadSignatureError:
        raise LinkRefused("signature", "was not made by the key of this address over this text") from None
