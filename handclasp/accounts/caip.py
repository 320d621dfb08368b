"""Names of chains (CAIP-2, ``eip155:1``) and of accounts on them (CAIP-10, ``eip155:1:0xab16…``).

Both are compared as text: what counts as the same address is for each namespace to say, so an
``eip155`` address should be brought into EIP-55 form first (`handclasp.accounts.checksum_address`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from handclasp.errors import ProtocolViolation

_NAMESPACE: Final = re.compile(r"[-a-z0-9]{3,8}")  # CAIP-2 §Syntax
_REFERENCE: Final = re.compile(r"[-_a-zA-Z0-9]{1,32}")  # CAIP-2 §Syntax
_ADDRESS: Final = re.compile(r"[-.%a-zA-Z0-9]{1,128}")  # CAIP-10 §Syntax
_LONGEST_CHAIN: Final = 8 + 1 + 32  # what the expressions above add up to; refuse the rest before splitting
_LONGEST_ACCOUNT: Final = _LONGEST_CHAIN + 1 + 128


@dataclass(frozen=True, order=True)
class ChainId:
    """The name of a chain (CAIP-2): ``namespace:reference``, at most 41 characters.

    Raises:
        ProtocolViolation: a part is malformed; the message names the part.
    """

    namespace: str
    """3 to 8 of ``-a-z0-9``: ``eip155``, ``solana``, ``algorand``."""
    reference: str
    """1 to 32 of ``-_a-zA-Z0-9``; for ``eip155`` the decimal chain id."""

    def __post_init__(self) -> None:
        _check("chain id", "namespace", _NAMESPACE, self.namespace)
        _check("chain id", "reference", _REFERENCE, self.reference)

    @classmethod
    def from_text_untrusted(cls, text: str) -> ChainId:
        """Parse ``namespace:reference``.

        Raises:
            ProtocolViolation: not of that form; the message names the part at fault.
        """
        return cls(*_split("chain id", text, _LONGEST_CHAIN, ("namespace", "reference")))

    def __str__(self) -> str:
        return f"{self.namespace}:{self.reference}"


@dataclass(frozen=True, order=True)
class AccountId:
    """The name of an account on a chain (CAIP-10): ``namespace:reference:address``, at most 170 characters.

    Raises:
        ProtocolViolation: the address is malformed.
    """

    chain: ChainId
    address: str
    """1 to 128 of ``-.%a-zA-Z0-9``, in the namespace's own form; the case is kept."""

    def __post_init__(self) -> None:
        _check("account id", "address", _ADDRESS, self.address)

    @classmethod
    def from_text_untrusted(cls, text: str) -> AccountId:
        """Parse ``namespace:reference:address``.

        Raises:
            ProtocolViolation: not of that form; the message names the part at fault.
        """
        parts = _split("account id", text, _LONGEST_ACCOUNT, ("namespace", "reference", "address"))
        namespace, reference, address = parts
        return cls(ChainId(namespace, reference), address)

    def __str__(self) -> str:
        return f"{self.chain}:{self.address}"


def _split(what: str, text: str, longest: int, fields: tuple[str, ...]) -> list[str]:
    if len(text) > longest:
        raise ProtocolViolation(f"{what}: has {len(text)} characters, more than {longest}")
    parts = text.split(":")
    if len(parts) != len(fields):
        raise ProtocolViolation(f"{what}: is not of the form {':'.join(fields)}")
    return parts


def _check(what: str, field: str, allowed: re.Pattern[str], value: str) -> None:
    # fullmatch, not "$": that would let a trailing line feed through.
    if allowed.fullmatch(value) is None:
        raise ProtocolViolation(f"{what}: {field}: does not match {allowed.pattern}")
