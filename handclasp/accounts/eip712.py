"""Hashing of typed data (EIP-712, version 4 of ``eth_signTypedData``), strict about its input.

Typed data is shown to a person and then signed, so whatever could look different from what is hashed is
refused: keys that no type declares, values that would have to be converted (``"no"`` is no bool), names
that could pass for syntax. Shape, as JSON gives it::

    {"types": {"EIP712Domain": [{"name": …, "type": …}, …], "Mail": […], …},
     "primaryType": "Mail", "domain": {…}, "message": {…}}

Values: ``uintN`` and ``intN`` are an int, a decimal text or an ``0x`` text; ``bool`` is a bool; ``address``,
``bytes`` and ``bytesN`` are ``0x`` texts of exactly their length (the case of an address is not looked at);
``string`` is a text; an array is a list; a struct is an object with exactly the declared keys, or null
inside another, which stands for no struct at all (a linked list ends so). The ``EIP712Domain`` type has to
be there, with one or more of the five fields of the EIP in any order. The aliases ``uint`` and ``int`` are
not part of EIP-712.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, cast

from handclasp.errors import ProtocolViolation

from .keccak import keccak256

MAX_DEPTH: Final = 32
"""Structs and arrays within each other: Seaport's bulk orders nest 24 arrays; Python's stack holds more."""
MAX_TYPES: Final = 64
"""Struct types in one request: well above what a person could still read."""
MAX_FIELDS: Final = 64
"""Fields of one struct type: likewise."""

_LONGEST_TYPE: Final = 256  # characters: a name and some array brackets; unwrapping them is quadratic
_WORD: Final = 32
_NAME: Final = re.compile(r"[A-Za-z_$][A-Za-z0-9_$]{0,127}")  # an identifier of Solidity
_BUILT_IN: Final = re.compile(r"u?int[0-9]*|bytes[0-9]*|address|bool|string")
_ARRAY: Final = re.compile(r"(.+)\[(0|[1-9][0-9]{0,8})?\]")
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,77})|0x[0-9a-fA-F]{1,64}")
_HEX: Final = re.compile(r"0x((?:[0-9a-fA-F]{2})*)")
_DOMAIN: Final = "EIP712Domain"
_DOMAIN_FIELDS: Final = {
    "name": "string",
    "version": "string",
    "chainId": "uint256",
    "verifyingContract": "address",
    "salt": "bytes32",
}
_ATOMS: Final = frozenset(
    {"address", "bool", "string", "bytes"}
    | {f"bytes{size}" for size in range(1, 33)}
    | {f"{sign}int{bits}" for sign in ("", "u") for bits in range(8, 257, 8)}
)


def hash_typed_data_untrusted(typed: Mapping[str, object]) -> tuple[bytes, bytes]:
    """The domain separator and the struct hash of *typed*, 32 bytes each.

    Raises:
        ProtocolViolation: not typed data in the form above; the message says where.
    """
    top = _keys(typed, "the whole", ("types", "primaryType", "domain", "message"))
    types = _read_types(top["types"])
    for name, type_ in types[_DOMAIN]:
        if _DOMAIN_FIELDS.get(name) != type_:
            raise _refused(f"types.{_DOMAIN}", "has a field that EIP-712 does not define")
    primary = top["primaryType"]
    if not isinstance(primary, str) or primary == _DOMAIN or primary not in types:
        raise _refused("primaryType", "is not one of the struct types")
    hasher = _Hasher(types)
    return (
        hasher.hash_struct(_DOMAIN, top["domain"], "domain"),
        hasher.hash_struct(primary, top["message"], "message"),
    )


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
            if (core := _core(type_)) not in _ATOMS and core not in types:
                raise _refused(f"types.{struct}", "has a field of unknown type")
    return types


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


class _Hasher:
    """Hashes values of one set of struct types."""

    def __init__(self, types: dict[str, _Fields]) -> None:
        self._types = types
        # Kept: a list of ten thousand structs would otherwise print the types ten thousand times.
        self._type_hashes: dict[str, bytes] = {}

    def hash_struct(self, struct: str, value: object, where: str, depth: int = 0) -> bytes:
        """``hashStruct``: the hash of the type's hash and one word for each field."""
        fields = self._types[struct]
        members = _keys(value, where, tuple(name for name, _ in fields))
        words = [self._word(type_, members[name], f"{where}.{name}", depth + 1) for name, type_ in fields]
        return keccak256(self._type_hash(struct) + b"".join(words))

    def _word(self, type_: str, value: object, where: str, depth: int) -> bytes:
        """``encodeData`` of one value: always 32 bytes."""
        if depth > MAX_DEPTH:
            raise _refused("message", f"is nested deeper than {MAX_DEPTH} levels")
        if type_ in self._types:
            return bytes(_WORD) if value is None else self.hash_struct(type_, value, where, depth)
        array = _ARRAY.fullmatch(type_)
        if array is None:
            return _atom(type_, value, where)
        items = _list(value, where)
        if array[2] is not None and len(items) != int(array[2]):
            raise _refused(where, f"does not have {array[2]} items")
        return keccak256(b"".join(self._word(array[1], item, f"{where}[]", depth + 1) for item in items))

    def _type_hash(self, struct: str) -> bytes:
        known = self._type_hashes.get(struct)
        if known is None:
            known = self._type_hashes[struct] = keccak256(self._encode_type(struct).encode())
        return known

    def _encode_type(self, struct: str) -> str:
        """``encodeType``: the struct itself, then all it refers to, sorted by name."""
        used: set[str] = set()
        waiting = [struct]
        while waiting:
            if (name := waiting.pop()) in used or name not in self._types:
                continue
            used.add(name)
            waiting += [_core(type_) for _, type_ in self._types[name]]
        return "".join(
            f"{name}({','.join(f'{type_} {field}' for field, type_ in self._types[name])})"
            for name in (struct, *sorted(used - {struct}))
        )


def _atom(type_: str, value: object, where: str) -> bytes:
    if type_ == "bool":
        if not isinstance(value, bool):
            raise _refused(where, "is not a bool")
        return value.to_bytes(_WORD, "big")
    if type_ == "string":
        if not isinstance(value, str):
            raise _refused(where, "is not a text")
        try:
            return keccak256(value.encode())
        except UnicodeEncodeError:  # a lone surrogate: JSON can carry one
            raise _refused(where, "is not valid Unicode") from None
    if type_ == "bytes":
        return keccak256(_bytes(value, where))
    if type_ == "address":
        return _bytes(value, where, 20).rjust(_WORD, b"\0")
    if type_.startswith("bytes"):
        return _bytes(value, where, int(type_.removeprefix("bytes"))).ljust(_WORD, b"\0")
    return _integer(type_, value, where)


def _integer(type_: str, value: object, where: str) -> bytes:
    if isinstance(value, str) and _NUMBER.fullmatch(value) is not None:
        number = int(value, 16 if value.startswith("0x") else 10)
    elif isinstance(value, int) and not isinstance(value, bool):
        number = value
    else:
        raise _refused(where, "is not an integer")
    signed = type_.startswith("int")
    bits = int(type_.removeprefix("u").removeprefix("int"))
    lowest, highest = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    if not lowest <= number <= highest:
        raise _refused(where, f"is out of range for {type_}")
    return number.to_bytes(_WORD, "big", signed=signed)


def _bytes(value: object, where: str, size: int | None = None) -> bytes:
    match = _HEX.fullmatch(value) if isinstance(value, str) else None
    if match is None or (size is not None and len(match[1]) != 2 * size):
        raise _refused(
            where, "is not 0x and " + ("whole bytes of hex" if size is None else f"{size} bytes of hex")
        )
    return bytes.fromhex(match[1])


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
