"""Strict about typed data (EIP-712, version 4 of ``eth_signTypedData``), which eth-account encodes.

Typed data is shown to a person and then signed, so whatever could look different from what is signed is
refused: keys that no type declares, values that would have to be guessed at (``"no"`` is no bool, though
eth-account takes it for true), names that could pass for syntax. Shape, as JSON gives it::

    {"types": {"EIP712Domain": [{"name": …, "type": …}, …], "Mail": [{"name": …, "type": …}, …], …},
     "primaryType": "Mail", "domain": {…}, "message": {…}}

Values: ``uintN`` and ``intN`` are an int, a decimal text or an ``0x`` text; ``bool`` is a bool; ``address``,
``bytes`` and ``bytesN`` are ``0x`` texts of exactly their length (the case of an address is not looked at:
EIP-55 and EIP-1191 disagree about it); ``string`` is a text; an array is a list; a struct is an object with
exactly the declared keys, or null inside another, which stands for no struct at all (a linked list ends so).
The ``EIP712Domain`` type has to be there, with one or more of the five fields of the EIP in the EIP's order,
and is the type of no field. The aliases ``uint`` and ``int`` are not part of EIP-712. Types that the message
does not use are checked, and have no part in what is signed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, cast

from handclasp.errors import ProtocolViolation

MAX_DEPTH: Final = 32
"""Structs and arrays within each other: Seaport's bulk orders nest 24 arrays; Python's stack holds more."""
MAX_TYPES: Final = 64
"""Struct types in one request: well above what a person could still read."""
MAX_FIELDS: Final = 64
"""Fields of one struct type: likewise."""
MAX_STEPS: Final = 65_536
"""Values, and for each struct once more every field of every type in use, as eth-account prints the types
anew for each: half a second of its time. Seaport's bulk order of 64 listings takes 10,000."""

_LONGEST_TYPE: Final = 256  # characters: a name and some array brackets; unwrapping them is quadratic
_NAME: Final = re.compile(r"[A-Za-z_$][A-Za-z0-9_$]{0,127}")  # an identifier of Solidity
_BUILT_IN: Final = re.compile(r"u?int[0-9]*|bytes[0-9]*|address|bool|string")
_ARRAY: Final = re.compile(r"(.+)\[(0|[1-9][0-9]{0,8})?\]")
_NUMBER: Final = re.compile(r"0|-?[1-9][0-9]{0,77}|0x[0-9a-fA-F]{1,64}")
_HEX: Final = re.compile(r"0x((?:[0-9a-fA-F]{2})*)")
_DOMAIN: Final = "EIP712Domain"
_DOMAIN_FIELDS: Final = (  # in the EIP's order, in which eth-account hashes them
    ("name", "string"),
    ("version", "string"),
    ("chainId", "uint256"),
    ("verifyingContract", "address"),
    ("salt", "bytes32"),
)
_ATOMS: Final = frozenset(
    {"address", "bool", "string", "bytes"}
    | {f"bytes{size}" for size in range(1, 33)}
    | {f"{sign}int{bits}" for sign in ("", "u") for bits in range(8, 257, 8)}
)


def check_typed_data_untrusted(typed: Mapping[str, object]) -> None:
    """Check that *typed* is typed data in the form above, so that what it shows is what is signed.

    Raises:
        ProtocolViolation: it is not; the message names the place.
    """
    top = _keys(typed, "the whole", ("types", "primaryType", "domain", "message"))
    types = _read_types(top["types"])
    primary = top["primaryType"]
    if not isinstance(primary, str) or primary == _DOMAIN or primary not in types:
        raise _refused("primaryType", "is not one of the struct types")
    used = _used_types(types, primary)
    # eth-account takes the primary type to be the one that no other refers to.
    if any(primary == _core(type_) for struct in used - {primary} for _, type_ in types[struct]):
        raise _refused("primaryType", "refers to itself by way of another struct")
    checker = _Checker(types, sum(len(types[struct]) for struct in used))
    checker.check_struct(_DOMAIN, top["domain"], "domain")
    checker.check_struct(primary, top["message"], "message")


_Fields = tuple[tuple[str, str], ...]


def _read_types(value: object) -> dict[str, _Fields]:
    types: dict[str, _Fields] = {}
    for struct, members in _object(value, "types").items():
        if _NAME.fullmatch(struct) is None or _BUILT_IN.fullmatch(struct) is not None:
            raise _refused("types", "has a struct whose name is not allowed")
        types[struct] = _read_fields(members, f"types.{struct}")
    if not types.get(_DOMAIN):
        raise _refused("types", f"has no {_DOMAIN}, or an empty one")
    if len(types) > MAX_TYPES:
        raise _refused("types", f"has more than {MAX_TYPES} structs")
    for struct, fields in types.items():
        for _, type_ in fields:
            if (core := _core(type_)) == _DOMAIN:
                raise _refused(f"types.{struct}", f"has a field of type {_DOMAIN}")
            if core not in _ATOMS and core not in types:
                raise _refused(f"types.{struct}", "has a field of unknown type")
    _check_domain_type(types[_DOMAIN])
    return types


def _check_domain_type(fields: _Fields) -> None:
    if not set(fields) <= set(_DOMAIN_FIELDS):
        raise _refused(f"types.{_DOMAIN}", "has a field that EIP-712 does not define")
    if fields != tuple(field for field in _DOMAIN_FIELDS if field in fields):
        raise _refused(f"types.{_DOMAIN}", "has its fields in another order than EIP-712 does")


def _read_fields(value: object, where: str) -> _Fields:
    fields: dict[str, str] = {}
    for member in _list(value, where):
        entry = _keys(member, where, ("name", "type"))
        name, type_ = entry["name"], entry["type"]
        if not isinstance(name, str) or not isinstance(type_, str) or _NAME.fullmatch(name) is None:
            raise _refused(where, "has a field whose name is not allowed")
        if name in fields:
            raise _refused(where, "has a field twice")
        if len(type_) > _LONGEST_TYPE:
            raise _refused(where, f"has a type of more than {_LONGEST_TYPE} characters")
        fields[name] = type_
    if len(fields) > MAX_FIELDS:
        raise _refused(where, f"has more than {MAX_FIELDS} fields")
    return tuple(fields.items())


def _used_types(types: dict[str, _Fields], primary: str) -> set[str]:
    """*primary* and all the structs that it refers to, also by way of others."""
    used: set[str] = set()
    waiting = [primary]
    while waiting:
        if (struct := waiting.pop()) in types and struct not in used:
            used.add(struct)
            waiting += [_core(type_) for _, type_ in types[struct]]
    return used


class _Checker:
    """Checks values against one set of struct types."""

    def __init__(self, types: dict[str, _Fields], steps_per_struct: int) -> None:
        self._types = types
        self._steps_per_struct = steps_per_struct
        self._steps = 0

    def check_struct(self, struct: str, value: object, where: str, depth: int = 0) -> None:
        fields = self._types[struct]
        members = _keys(value, where, tuple(name for name, _ in fields))
        self._count(self._steps_per_struct)
        for name, type_ in fields:
            self._check_value(type_, members[name], f"{where}.{name}", depth + 1)

    def _check_value(self, type_: str, value: object, where: str, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise _refused("message", f"is nested deeper than {MAX_DEPTH} levels")
        self._count(1)
        if type_ in self._types:
            if value is not None:
                self.check_struct(type_, value, where, depth)
            return
        array = _ARRAY.fullmatch(type_)
        if array is None:
            _check_atom(type_, value, where)
            return
        items = _list(value, where)
        if array[2] is not None and len(items) != int(array[2]):
            raise _refused(where, f"does not have {array[2]} items")
        for item in items:
            self._check_value(array[1], item, f"{where}[]", depth + 1)

    def _count(self, steps: int) -> None:
        self._steps += steps
        if self._steps > MAX_STEPS:
            raise _refused("message", f"takes more than {MAX_STEPS} steps to encode")


def _check_atom(type_: str, value: object, where: str) -> None:
    if type_ == "bool":
        if not isinstance(value, bool):
            raise _refused(where, "is not a bool")
    elif type_ == "string":
        _check_text(value, where)
    elif type_ == "bytes":
        _check_bytes(value, where)
    elif type_ == "address":
        _check_bytes(value, where, 20)
    elif type_.startswith("bytes"):
        _check_bytes(value, where, int(type_.removeprefix("bytes")))
    else:
        _check_integer(type_, value, where)


def _check_text(value: object, where: str) -> None:
    if not isinstance(value, str):
        raise _refused(where, "is not a text")
    try:
        value.encode()
    except UnicodeEncodeError:  # a lone surrogate: JSON can carry one
        raise _refused(where, "is not valid Unicode") from None


def _check_integer(type_: str, value: object, where: str) -> None:
    if isinstance(value, str) and _NUMBER.fullmatch(value) is not None:
        number = int(value, 16 if value.startswith("0x") else 10)
    elif isinstance(value, int) and not isinstance(value, bool):
        number = value
    else:
        raise _refused(where, "is not an integer")
    bits = int(type_.removeprefix("u").removeprefix("int"))
    lowest, highest = (-(1 << bits - 1), (1 << bits - 1) - 1) if type_[0] == "i" else (0, (1 << bits) - 1)
    if not lowest <= number <= highest:
        raise _refused(where, f"is out of range for {type_}")


def _check_bytes(value: object, where: str, size: int | None = None) -> None:
    match = _HEX.fullmatch(value) if isinstance(value, str) else None
    if match is None or (size is not None and len(match[1]) != 2 * size):
        raise _refused(
            where, "is not 0x and " + ("whole bytes of hex" if size is None else f"{size} bytes of hex")
        )


def _core(type_: str) -> str:
    """The type of the items at the bottom of an array type."""
    while (array := _ARRAY.fullmatch(type_)) is not None:
        type_ = array[1]
    return type_


def _object(value: object, where: str) -> dict[str, object]:
    if not isinstance(value, dict) or not all(
        isinstance(key, str) for key in cast("dict[object, object]", value)
    ):
        raise _refused(where, "is not an object")
    return cast("dict[str, object]", value)


def _keys(value: object, where: str, names: tuple[str, ...]) -> dict[str, object]:
    found = _object(value, where)
    if found.keys() != set(names):
        raise _refused(where, "does not have exactly the keys of its type")
    return found


def _list(value: object, where: str) -> list[object]:
    if not isinstance(value, list):
        raise _refused(where, "is not a list")
    return cast("list[object]", value)


def _refused(where: str, reason: str) -> ProtocolViolation:
    return ProtocolViolation(f"typed data: {where}: {reason}")
