"""Accounts of people: their names (CAIP-2, CAIP-10), what they sign to sign in (EIP-4361), signatures.

Importing this package costs next to nothing: each name loads its module when it is first used, and
eth-account (half a second) loads only when something is signed or verified, or with `preload`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .caip import AccountId, ChainId
    from .eip155 import (
        LocalAccount,
        checksum_address,
        preload,
        recover_message,
        recover_typed_data,
        verify_message,
        verify_typed_data,
    )
    from .siwe import Expectation, SignInMessage, check

__all__ = [
    "AccountId",
    "ChainId",
    "Expectation",
    "LocalAccount",
    "SignInMessage",
    "check",
    "checksum_address",
    "preload",
    "recover_message",
    "recover_typed_data",
    "verify_message",
    "verify_typed_data",
]

_MODULES = {
    "AccountId": "caip",
    "ChainId": "caip",
    "Expectation": "siwe",
    "LocalAccount": "eip155",
    "SignInMessage": "siwe",
    "check": "siwe",
    "checksum_address": "eip155",
    "preload": "eip155",
    "recover_message": "eip155",
    "recover_typed_data": "eip155",
    "verify_message": "eip155",
    "verify_typed_data": "eip155",
}


def __getattr__(name: str) -> object:
    module = _MODULES.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{module}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
