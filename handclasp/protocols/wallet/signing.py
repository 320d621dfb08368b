"""The signing methods: what a website asks for, brought into the form that is shown and signed.

Source: EIP-191, EIP-712, and the parameter orders that websites really send: ``personal_sign``
takes ``[data, address]``, ``eth_signTypedData_v4`` takes ``[address, data]``, and both are
met the other way round.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from handclasp.accounts import LocalAccount
from handclasp.accounts.typed_data import check_typed_data_untrusted
from handclasp.errors import ProtocolViolation, RequestFailed
from handclasp.jsontext import parse_json_untrusted

from .sessions import INVALID_PARAMS, UNAUTHORIZED

__all__ = ["SigningRequest", "prepare_untrusted"]

_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")
_HEX = re.compile(r"0x(?:[0-9a-fA-F]{2})*")
_JOINERS = "\u200c\u200d"  # not printable by themselves; emoji and some scripts need them


@dataclass(frozen=True)
class SigningRequest:
    """One signature that a website asks for."""

    origin: str
    chain: str
    method: str
    address: str
    shown: str
    """What the person has to see before agreeing."""
    sign: Callable[[], str]
    """Makes the signature, ``0x`` and 130 hexadecimal digits; called after approval only."""


def prepare_untrusted(
    account: LocalAccount, origin: str, chain: str, method: str, params: object
) -> SigningRequest:
    """Check the params of a signing method.

    Raises:
        RequestFailed: -32602 with the field at fault, or 4100 when the address is not *account*'s.
    """
    first, second = _two(params, method)
    if method == "personal_sign":
        data, address = (second, first) if _is_address(first) and not _is_address(second) else (first, second)
        _check_address(account, address)
        message = _message(data)
        return SigningRequest(
            origin, chain, method, account.address, _shown(message), lambda: account.sign_message(message)
        )
    address, data = (second, first) if _is_address(second) and not _is_address(first) else (first, second)
    _check_address(account, address)
    typed = _typed_data(data)
    try:
        check_typed_data_untrusted(typed)  # nobody is asked about what could not be signed as it is shown
    except ProtocolViolation as exc:
        raise RequestFailed(INVALID_PARAMS, str(exc)) from None
    shown = "".join(map(_escaped, json.dumps(typed, indent=2, ensure_ascii=False)))
    return SigningRequest(
        origin, chain, method, account.address, shown, lambda: account.sign_typed_data(typed)
    )


def _two(params: object, method: str) -> tuple[object, object]:
    values = cast("list[object]", params) if isinstance(params, list) else []
    if len(values) < 2:  # noqa: PLR2004 - some websites append a third, which means nothing
        raise RequestFailed(INVALID_PARAMS, f"{method} takes a list of two params")
    return values[0], values[1]


def _is_address(value: object) -> bool:
    return isinstance(value, str) and _ADDRESS.fullmatch(value) is not None


def _check_address(account: LocalAccount, address: object) -> None:
    if not isinstance(address, str) or not _is_address(address):
        raise RequestFailed(INVALID_PARAMS, "address: not 0x and 40 hexadecimal digits")
    if address.lower() != account.address.lower():  # dapps send both spellings
        raise RequestFailed(UNAUTHORIZED, "the wallet was asked to sign for an account that it did not grant")


def _message(data: object) -> bytes:
    """The message of ``personal_sign``: hex is bytes, anything else is text."""
    if not isinstance(data, str):
        raise RequestFailed(INVALID_PARAMS, "personal_sign: the message is not a text")
    if _HEX.fullmatch(data):
        return bytes.fromhex(data[2:])
    try:
        return data.encode()
    except UnicodeEncodeError:  # a lone surrogate: JSON can carry one
        raise RequestFailed(INVALID_PARAMS, "personal_sign: the message is not valid Unicode") from None


def _shown(message: bytes) -> str:
    """The text, or hexadecimal digits when it is none or would show as something else than it is."""
    try:
        text = message.decode()
    except UnicodeDecodeError:
        return "0x" + message.hex()
    return text if all(map(_is_harmless, text)) else "0x" + message.hex()


def _is_harmless(c: str) -> bool:
    # Control characters and those that turn the direction of writing can hide or replace what a person reads.
    return c.isprintable() or c in _JOINERS or c in "\n\t"


def _escaped(c: str) -> str:
    """One character of JSON text, escaped in JSON's own way if need be."""
    if _is_harmless(c):
        return c
    return f"\\u{ord(c):04x}" if ord(c) <= 0xFFFF else json.dumps(c)[1:-1]  # noqa: PLR2004 - one UTF-16 unit


def _typed_data(data: object) -> dict[str, object]:
    if isinstance(data, str):
        try:
            data = parse_json_untrusted(data)
        except ValueError:
            raise RequestFailed(INVALID_PARAMS, "typed data: not JSON") from None
    if not isinstance(data, dict):
        raise RequestFailed(INVALID_PARAMS, "typed data: not an object")
    return cast("dict[str, object]", data)
