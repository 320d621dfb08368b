"""Solana accounts: addresses (base58) and signatures over a text, as wallets make them with ``signMessage``.

A wallet signs the text's UTF-8 bytes as they are, without a prefix. Nothing but the bytes themselves tells a
text from a transaction, so what begins like a transaction is refused (`signed_bytes`).
"""

from __future__ import annotations

import re
from typing import Final

from handclasp.errors import LinkRefused, ProtocolViolation

from . import ed25519
from .caip import AccountId
from .text import encode

_ADDRESS: Final = re.compile(r"[1-9A-HJ-NP-Za-km-z]{32,44}")  # CASA namespaces, solana CAIP-10 §Syntax
_SIGNATURE: Final = re.compile(r"[1-9A-HJ-NP-Za-km-z]{64,88}")
_KEY: Final = 32
_HASH: Final = 32
_HEADER: Final = 3  # required signatures, those of them that do not pay, the same for other accounts
_VERSIONED: Final = 0x80


def decode_address_untrusted(text: str) -> bytes:
    """The 32 bytes of an address; base58 has one text for each.

    Raises:
        LinkRefused: ``address``: not base58 of 32 bytes.
    """
    # The expression first: the decoder strips white space, and takes quadratic time.
    if _ADDRESS.fullmatch(text) is None or len(key := _base58(text)) != _KEY:
        raise LinkRefused("address", "is not 32 bytes in base58")
    return key


def signed_bytes(text: str) -> bytes:
    """What a wallet signs for *text*.

    Raises:
        ProtocolViolation: *text* has a lone surrogate, or its bytes begin like a transaction.
    """
    data = encode(text)
    if begins_like_transaction(data):
        raise ProtocolViolation("the text to sign could be a transaction")
    return data


def begins_like_transaction(data: bytes) -> bool:
    """Whether *data* could be a transaction's message, of any version, whatever its instructions are.

    A message begins with three counters, the number of accounts (up to three bytes of seven bits, the lowest
    first), the accounts and a hash (Solana, "Transactions", §Message format). A first byte with the highest
    bit set is a version; valid UTF-8 never begins with one of the first 66.
    """
    if not data or data[0] & _VERSIONED:
        return bool(data) and data[0] < 0xC2  # noqa: PLR2004 - where the first bytes of UTF-8 begin
    if len(data) <= _HEADER:
        return False
    required, readonly_signing, readonly = data[:_HEADER]
    accounts, at = 0, _HEADER
    for shift in (0, 7, 14):
        if at == len(data):
            return False
        accounts |= (data[at] & 0x7F) << shift
        at += 1
        if not data[at - 1] & 0x80:
            break
    return (
        0 < required <= accounts
        and readonly_signing < required
        and readonly <= accounts - required
        and len(data) >= at + accounts * _KEY + _HASH
    )


class SolanaVerifier:
    """Verifies texts that Solana wallets signed; signatures are 64 bytes in base58.

    Needs the extra ``ed25519``.

    Raises:
        ConfigurationError: PyNaCl is not installed.
    """

    def __init__(self) -> None:
        ed25519.load()

    async def verify(self, account: AccountId, text: str, signature_untrusted: str) -> None:
        """See `handclasp.accounts.Verifier.verify`.

        Raises:
            LinkRefused: ``address``: not an address, or not a key that can sign; ``signature``: malformed,
                of another key, or over another text.
            ProtocolViolation: *text* is not Unicode, or could be a transaction.
        """
        key = decode_address_untrusted(account.address)
        if (
            _SIGNATURE.fullmatch(signature_untrusted) is None
            or len(signature := _base58(signature_untrusted)) != ed25519.SIGNATURE_BYTES
        ):
            raise LinkRefused("signature", "is not 64 bytes in base58")
        ed25519.verify(key, signed_bytes(text), signature)


def _base58(text: str) -> bytes:
    from base58 import b58decode

    return b58decode(text)
