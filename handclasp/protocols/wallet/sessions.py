"""What a website may ask for and what a wallet grants: CAIP-25 scopes and CAIP-27 requests, without I/O.

First cut: one namespace (``eip155``), one account. Source: CAIP-25 (2025-08), CAIP-27, CAIP-171.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

from handclasp.accounts import ChainId
from handclasp.errors import ProtocolViolation, RequestFailed

__all__ = [
    "METHODS",
    "Invocation",
    "Scope",
    "Session",
    "parse_invocation_untrusted",
    "parse_scopes_untrusted",
]

#: The methods that this wallet knows, in the order in which it shows them.
METHODS = ("eth_accounts", "personal_sign", "eth_signTypedData_v4")

# JSON-RPC, EIP-1193 and CAIP-25 codes
INVALID_PARAMS, UNAUTHORIZED, REJECTED = -32602, 4100, 4001
CHAINS_UNSUPPORTED, METHODS_UNSUPPORTED, SCOPE_MISMATCH, UNKNOWN_SESSION = 5100, 5101, 5203, 5500

_MOST_ENTRIES = 64  # scopes of a proposal, and chains or methods of a scope


@dataclass(frozen=True)
class Scope:
    """One CAIP-25 scope: a namespace with chain references, or a single chain (CAIP-2)."""

    key: str
    chains: tuple[str, ...]
    """Full CAIP-2 ids, whatever the key."""
    methods: tuple[str, ...]
    notifications: tuple[str, ...] = ()
    accounts: tuple[str, ...] = ()
    """Bare addresses; empty in a proposal."""

    def to_json(self) -> dict[str, object]:
        """The scope as it stands in a session, under its unchanged key."""
        value: dict[str, object] = {
            "accounts": list(self.accounts),
            "methods": list(self.methods),
            "notifications": list(self.notifications),
        }
        if ":" not in self.key:
            value["chains"] = [chain.partition(":")[2] for chain in self.chains]
        return value

    def grant(self, chains: frozenset[str], address: str) -> Scope | None:
        """The part of this proposed scope that a wallet with *address* on *chains* can give."""
        granted_chains = tuple(chain for chain in self.chains if chain in chains)
        methods = tuple(method for method in self.methods if method in METHODS)
        if not granted_chains or not methods:
            return None
        return Scope(self.key, granted_chains, methods, (), (address,))


@dataclass(frozen=True)
class Session:
    """What one website was granted (CAIP-171: the id has 128 random bits and dies with the session)."""

    scopes: tuple[Scope, ...]
    session_id: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)

    def to_json(self) -> dict[str, object]:
        """The result of ``wallet_createSession``."""
        return {"sessionId": self.session_id, "scopes": {scope.key: scope.to_json() for scope in self.scopes}}

    def allows(self, chain: str, method: str) -> bool:
        """Whether a request for *method* on *chain* was granted."""
        return any(chain in scope.chains and method in scope.methods for scope in self.scopes)


@dataclass(frozen=True)
class Invocation:
    """The params of ``wallet_invokeMethod``."""

    session_id: str
    chain: str
    method: str
    params: object

    def answer(self, outcome: Mapping[str, object]) -> dict[str, object]:
        """The CAIP-27 result around a method's own *outcome*: ``{"result": …}`` or ``{"error": …}``."""
        return {
            "sessionId": self.session_id,
            "chainId": self.chain,
            "result": {"method": self.method, **outcome},
        }


def parse_scopes_untrusted(params: object) -> tuple[Scope, ...]:
    """The scopes in the params of ``wallet_createSession``.

    Raises:
        RequestFailed: -32602 with the field at fault, or 5203 for a chain that is not of its namespace.
    """
    scopes = _object(_object(params, "params").get("scopes"), "scopes")
    if not 1 <= len(scopes) <= _MOST_ENTRIES:
        raise RequestFailed(INVALID_PARAMS, f"scopes: 1 to {_MOST_ENTRIES} entries, not {len(scopes)}")
    return tuple(_scope_untrusted(key, _object(value, f"scopes.{key[:50]}")) for key, value in scopes.items())


def _scope_untrusted(key: str, value: dict[str, object]) -> Scope:
    where = f"scopes.{key[:50]}"
    references = _texts(value.get("chains", []), f"{where}.chains")
    if ":" in key:
        if references:
            raise RequestFailed(SCOPE_MISMATCH, f"{where}: a scope for one chain names no chains")
        chains: tuple[str, ...] = (key,)
    else:
        chains = tuple(f"{key}:{reference}" for reference in references)
    for chain in chains:
        try:
            ChainId.from_text_untrusted(chain)
        except ProtocolViolation as exc:
            raise RequestFailed(SCOPE_MISMATCH, f"{where}: {exc}") from None
    return Scope(
        key,
        chains,
        _texts(value.get("methods"), f"{where}.methods"),
        _texts(value.get("notifications", []), f"{where}.notifications"),
    )


def parse_invocation_untrusted(params: object) -> Invocation:
    """The params of ``wallet_invokeMethod``.

    Raises:
        RequestFailed: -32602 with the field at fault.
    """
    fields = _object(params, "params")
    request = _object(fields.get("request"), "request")
    return Invocation(
        session_id=_text(fields.get("sessionId"), "sessionId"),
        chain=_text(fields.get("chainId"), "chainId"),
        method=_text(request.get("method"), "request.method"),
        params=request.get("params"),
    )


def _object(value: object, name: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise RequestFailed(INVALID_PARAMS, f"{name}: not an object")
    return cast("dict[str, object]", value)


def _text(value: object, name: str) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= 200:  # noqa: PLR2004 - ids and method names are short
        raise RequestFailed(INVALID_PARAMS, f"{name}: not a text of 1 to 200 characters")
    return value


def _texts(value: object, name: str) -> tuple[str, ...]:
    if not isinstance(value, list) or len(cast("list[object]", value)) > _MOST_ENTRIES:
        raise RequestFailed(INVALID_PARAMS, f"{name}: not a list of at most {_MOST_ENTRIES} texts")
    return tuple(_text(entry, name) for entry in cast("list[object]", value))
