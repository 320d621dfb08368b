"""How each namespace writes a sign-in text, an address and a chain: the table `PROFILES`.

A text names the kind of account in its first line, so one table serves printing and parsing:

==========  ==========  =====================================  ==================================
namespace   in words    order of the lines                     source
==========  ==========  =====================================  ==================================
eip155      Ethereum    chain id after the version             EIP-4361 §ABNF
solana      Solana      chain id after the version             CASA namespaces, solana CAIP-122
algorand    Algorand    chain id before the resources          CAIP-122 §Examples (no profile yet)
==========  ==========  =====================================  ==================================

The chain stands in the text by its CAIP-2 reference alone, as in every example of these sources.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from handclasp.errors import LinkRefused

from .caip import ChainId

_EIP155_REFERENCE: Final = re.compile(r"[1-9][0-9]{0,18}")
_HIGHEST_CHAIN_ID: Final = 9_223_372_036_854_775_771  # EIP-2294: 2 * id + 36 still fits 64 bits
# The first 32 characters of the hash of the first block (CASA namespaces, CAIP-2 of each), and never a name:
# "mainnet" would be a second way to write the same chain.
_SOLANA_REFERENCE: Final = re.compile(r"[1-9A-HJ-NP-Za-km-z]{32}")
_ALGORAND_REFERENCE: Final = re.compile(r"[-_A-Za-z0-9]{32}")

_FIRST: Final = ("uri", "version")
_NONCE_AND_TIMES: Final = ("nonce", "issued_at", "expiration_time", "not_before", "request_id")


@dataclass(frozen=True)
class Profile:
    """One namespace's way of writing a sign-in text."""

    namespace: str
    blockchain: str
    """What the first line calls the account: ``Ethereum``."""
    order: tuple[str, ...]
    """The labelled lines before the resources, by the names of the fields."""
    has_scheme: bool
    """Whether ``scheme://`` may stand before the domain; elsewhere only the URI tells the scheme."""
    empty_lines: int
    """How many empty lines stand in the place of a statement that is left out."""
    check_address: Callable[[str], None]
    """Refuses (``address``) what is not the one form of an address."""
    check_reference: Callable[[str], None]
    """Refuses (``chain_id``) what is not the one form of a CAIP-2 reference."""

    def parse_chain(self, reference_untrusted: str) -> ChainId:
        """The chain that a ``Chain ID:`` line names.

        Raises:
            LinkRefused: ``chain_id``: not a chain of this namespace.
        """
        self.check_reference(reference_untrusted)
        return ChainId(self.namespace, reference_untrusted)


def profile_of(chain: ChainId) -> Profile:
    """The profile for the namespace of *chain*.

    Raises:
        LinkRefused: ``chain_id``: no sign-in text is defined for that namespace.
    """
    profile = PROFILES.get(chain.namespace)
    if profile is None:
        raise LinkRefused("chain_id", f"is of none of the namespaces {', '.join(PROFILES)}")
    return profile


def _check_eip155_address(text: str) -> None:
    from .eip155 import checksum_address

    if checksum_address(text) != text:
        raise LinkRefused("address", "is not in EIP-55 form, as checksum_address() gives it")


def _check_solana_address(text: str) -> None:
    from .solana import decode_address_untrusted

    decode_address_untrusted(text)


def _check_algorand_address(text: str) -> None:
    from .algorand import decode_address_untrusted

    decode_address_untrusted(text)


def _check_eip155_reference(text: str) -> None:
    # The length first: ``int`` is slow on long numbers, then fails on them.
    if _EIP155_REFERENCE.fullmatch(text) is None:
        raise LinkRefused("chain_id", "is not a decimal number without leading zeros")
    if int(text) > _HIGHEST_CHAIN_ID:
        raise LinkRefused("chain_id", f"is not between 1 and {_HIGHEST_CHAIN_ID}")


def _check_solana_reference(text: str) -> None:
    if _SOLANA_REFERENCE.fullmatch(text) is None:
        raise LinkRefused("chain_id", "is not the first 32 characters of a genesis hash in base58")


def _check_algorand_reference(text: str) -> None:
    if _ALGORAND_REFERENCE.fullmatch(text) is None:
        raise LinkRefused("chain_id", "is not the first 32 characters of a genesis hash in base64url")


PROFILES: Final[Mapping[str, Profile]] = MappingProxyType(
    {
        "eip155": Profile(
            namespace="eip155",
            blockchain="Ethereum",
            order=(*_FIRST, "chain_id", *_NONCE_AND_TIMES),
            has_scheme=True,
            empty_lines=2,
            check_address=_check_eip155_address,
            check_reference=_check_eip155_reference,
        ),
        "solana": Profile(
            namespace="solana",
            blockchain="Solana",
            order=(*_FIRST, "chain_id", *_NONCE_AND_TIMES),
            has_scheme=False,
            empty_lines=1,  # the profile shows only texts with a statement; this is what wallets print without one
            check_address=_check_solana_address,
            check_reference=_check_solana_reference,
        ),
        "algorand": Profile(
            namespace="algorand",
            blockchain="Algorand",
            order=(*_FIRST, *_NONCE_AND_TIMES, "chain_id"),
            has_scheme=False,
            empty_lines=2,
            check_address=_check_algorand_address,
            check_reference=_check_algorand_reference,
        ),
    }
)
"""The namespaces that have a sign-in text."""
