"""Keccak-256 as Ethereum uses it: the padding from before FIPS 202, so not ``hashlib.sha3_256``."""

from __future__ import annotations


def keccak256(data: bytes) -> bytes:
    """The Keccak-256 hash of *data*, 32 bytes."""
    # eth-hash comes with eth-account and loads ten times faster than it: parsing a sign-in
    # message needs this hash for the address checksum, but no curve.
    from eth_hash.auto import keccak

    return keccak(data)
