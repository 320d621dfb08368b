"""Accounts of people: their names (CAIP-2, CAIP-10), what they sign to sign in (EIP-4361, CAIP-122), signatures.

Importing this package costs next to nothing: each name loads its module when it is first used, and
eth-account (half a second) loads only when something is signed or verified, or with `preload`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .algorand import AlgorandVerifier
    from .caip import AccountId, ChainId
    from .chain_reader import ChainReader, open_json_rpc
    from .eip155 import (
        LocalAccount,
        checksum_address,
        preload,
        recover_message,
        recover_typed_data,
        verify_message,
        verify_typed_data,
    )
    from .eip155_verifier import Eip155Verifier
    from .siwx import SignInMessage
    from .siwx_check import Expectation, check
    from .solana import SolanaVerifier
    from .verifiers import Verifier, Verifiers, verify_sign_in

__all__ = [
    "AccountId",
    "AlgorandVerifier",
    "ChainId",
    "ChainReader",
    "Eip155Verifier",
    "Expectation",
    "LocalAccount",
    "SignInMessage",
    "SolanaVerifier",
    "Verifier",
    "Verifiers",
    "check",
    "checksum_address",
    "open_json_rpc",
    "preload",
    "recover_message",
    "recover_typed_data",
    "verify_message",
    "verify_sign_in",
    "verify_typed_data",
]

_MODULES = {
    "AccountId": "caip",
    "AlgorandVerifier": "algorand",
    "ChainId": "caip",
    "ChainReader": "chain_reader",
    "Eip155Verifier": "eip155_verifier",
    "Expectation": "siwx_check",
    "LocalAccount": "eip155",
    "SignInMessage": "siwx",
    "SolanaVerifier": "solana",
    "Verifier": "verifiers",
    "Verifiers": "verifiers",
    "check": "siwx_check",
    "checksum_address": "eip155",
    "open_json_rpc": "chain_reader",
    "preload": "eip155",
    "recover_message": "eip155",
    "recover_typed_data": "eip155",
    "verify_message": "eip155",
    "verify_sign_in": "verifiers",
    "verify_typed_data": "eip155",
}


def __getattr__(name: str) -> object:
    module = _MODULES.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{module}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
