"""Algorand accounts: addresses (base32 with a checksum) and signatures over a text.

Everything that Algorand's keys sign begins with letters that say what it is: ``TX`` a transaction,
``Program`` a logic signature, ``MX`` a message for people. A text is signed as ``MX`` and its UTF-8 bytes,
as the SDKs' ``signBytes`` and wallets do. ARC-60 is not spoken here: docs/decisions/0007-signatures-by-namespace.md.

The key of an address that was rekeyed has no more say over the account, and only a node knows that.
"""

from __future__ import annotations

import re
from base64 import b32decode, b64decode
from typing import Final

from handclasp.errors import LinkRefused

from . import ed25519
from .caip import AccountId
from .text import encode

_ADDRESS: Final = re.compile(r"[A-Z2-7]{57}[AEIMQUY4]")  # CASA namespaces, algorand CAIP-10 §Syntax
_SIGNATURE: Final = re.compile(r"[A-Za-z0-9+/]{85}[AQgw]==")  # the last four bits are zero
_KEY: Final = 32
_CHECKSUM: Final = 4
_MESSAGE: Final = b"MX"


def decode_address_untrusted(text: str) -> bytes:
    """The 32 bytes of an address.

    Raises:
        LinkRefused: ``address``: not 58 characters of base32, or its checksum is wrong (one was mistyped).
    """
    if _ADDRESS.fullmatch(text) is None:
        raise LinkRefused("address", "is not 58 characters of base32 in upper case")
    data = b32decode(text + "=" * 6)
    key, checksum = data[:_KEY], data[_KEY:]
    if _sha512_256(key)[-_CHECKSUM:] != checksum:
        raise LinkRefused("address", "has a wrong checksum")
    return key


def signed_bytes(text: str) -> bytes:
    """What a wallet signs for *text*: no transaction, whatever the text is.

    Raises:
        ProtocolViolation: *text* has a lone surrogate.
    """
    return _MESSAGE + encode(text)


class AlgorandVerifier:
    """Verifies texts that Algorand wallets signed; signatures are 64 bytes in base64 with padding.

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
            ProtocolViolation: *text* is not Unicode.
        """
        key = decode_address_untrusted(account.address)
        if _SIGNATURE.fullmatch(signature_untrusted) is None:
            raise LinkRefused("signature", "is not 64 bytes in base64")
        ed25519.verify(key, signed_bytes(text), b64decode(signature_untrusted))


def _sha512_256(data: bytes) -> bytes:
    # Not hashlib: it has this one only if the OpenSSL it was built with does.
    from cryptography.hazmat.primitives.hashes import SHA512_256, Hash

    digest = Hash(SHA512_256())
    digest.update(data)
    return digest.finalize()
