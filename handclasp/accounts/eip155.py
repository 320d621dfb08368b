"""Ethereum accounts that are keys (externally owned): addresses, signatures, signing.

Two things are ever signed, and both carry a prefix that no transaction has (EIP-191): a text
(version ``E``) and typed data (version ``01``, EIP-712). Accounts that are contracts judge signatures
themselves: `handclasp.accounts.Eip155Verifier` asks them.

A signature is accepted in one form only: ``0x`` and 130 hex digits (r, s, v: 65 bytes), r and s in range,
s in the lower half (EIP-2: the mirrored one is valid mathematics, and a second name for the same
signature), v in 0, 1, 27, 28. The compact form of EIP-2098 and v with a chain id (EIP-155) are refused.

eth-account takes half a second to import and is partly untyped: `_load_eth_account` loads it when
something is signed or verified, and what is used of it is written down in `_Accounts` and `_Key`.
"""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Final, NoReturn, Protocol, cast

from handclasp.errors import ConfigurationError, LinkRefused, MisuseError
from handclasp.jsontext import parse_json_untrusted

from .keccak import keccak256
from .text import encode
from .typed_data import check_typed_data_untrusted

_ADDRESS: Final = re.compile(r"0x[0-9a-fA-F]{40}")
_SIGNATURE: Final = re.compile(r"0x([0-9a-fA-F]{64})([0-9a-fA-F]{64})([0-9a-fA-F]{2})")
_ORDER: Final = 0xFFFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFE_BAAEDCE6_AF48A03B_BFD25E8C_D0364141  # SEC 2 §2.4.1
_V: Final = {0: 27, 1: 28, 27: 27, 28: 28}
_KEYSTORE_VERSION: Final = 3
_LARGEST_KEYSTORE: Final = 64 * 1024  # bytes; real ones have about 500
_LOADING: Final = threading.Lock()


class _Signed(Protocol):
    signature: bytes


class _Key(Protocol):
    @property
    def address(self) -> str: ...
    def sign_message(self, signable_message: object, /) -> _Signed: ...


class _Accounts(Protocol):
    def create(self) -> _Key: ...
    def decrypt(self, keyfile_json: str, password: str, /) -> bytes: ...
    def from_key(self, private_key: bytes, /) -> _Key: ...
    def recover_message(self, signable_message: object, /, *, vrs: tuple[int, int, int]) -> str: ...


def preload() -> None:
    """Load eth-account now, which takes half a second, so that nobody waits for it in the middle of a pairing.

    Optional: the first signature or verification loads it otherwise. Call it in any thread, also while
    another one signs or verifies for the first time; from trio, in a worker thread.
    """
    _load_eth_account()


def _load_eth_account() -> None:
    """Import eth-account without what its import does to the process.

    It brings py-ecc (BLS keys, not used here), which raises the recursion limit to 100,000: from then on
    90 KB of ``[`` from anyone would end the process in ``json.loads`` with a stack overflow, not a
    `RecursionError`.
    """
    # One thread at a time: a second one would take the raised limit for the one to restore.
    with _LOADING:
        if "eth_account" in sys.modules:
            # The application may be importing it in another thread just now: this waits. Going on with
            # ``eth_account.messages`` would enter its circle of imports at a second place, which ends both
            # with an ImportError.
            import_module("eth_account")
            return
        limit = sys.getrecursionlimit()
        try:
            # By itself first: other threads go on reading JSON, and the limit is raised for a millisecond
            # or two, not for most of the half second.
            with suppress(ModuleNotFoundError):
                import_module("py_ecc")
            sys.setrecursionlimit(limit)
            import_module("eth_account")
        finally:
            sys.setrecursionlimit(limit)


def _accounts() -> _Accounts:
    _load_eth_account()
    from eth_account import Account

    return cast("_Accounts", Account)


def _text(text: str | bytes) -> object:
    """EIP-191 version ``E``: what ``personal_sign`` signs."""
    _load_eth_account()
    from eth_account.messages import encode_defunct

    return encode_defunct(encode(text) if isinstance(text, str) else text)


def _typed(typed: Mapping[str, object]) -> object:
    """EIP-191 version ``01``: what ``eth_signTypedData_v4`` signs."""
    check_typed_data_untrusted(typed)
    _load_eth_account()
    from eth_account.messages import encode_typed_data

    return encode_typed_data(full_message=_without_unused_types(typed))


def _without_unused_types(typed: Mapping[str, object]) -> dict[str, object]:
    """A copy of *typed*, which has been checked, with the types that it needs.

    Websites send all they have (so does MetaMask's own example) and other wallets ignore those that the
    primary type does not refer to; eth-account refuses them. They have no part in the hash.
    """
    types = cast("dict[str, list[dict[str, str]]]", typed["types"])
    used = {"EIP712Domain": types["EIP712Domain"]}
    waiting = [cast("str", typed["primaryType"])]
    while waiting:
        struct = waiting.pop().partition("[")[0]  # of an array, the type of its items
        if struct in types and struct not in used:
            used[struct] = types[struct]
            waiting += [field["type"] for field in types[struct]]
    return {**typed, "types": used}


def checksum_address(text_untrusted: str) -> str:
    """The EIP-55 form of an address: ``0x`` and 40 hex digits, whose case is a checksum.

    All lower and all upper digits carry no checksum and are taken; in a mixed one it has to be right.

    Raises:
        LinkRefused: ``address``: not an address, or its checksum is wrong (a digit was mistyped).
    """
    if _ADDRESS.fullmatch(text_untrusted) is None:
        raise LinkRefused("address", "is not 0x and 40 hex digits")
    digits = text_untrusted[2:]
    lower = digits.lower()
    nibbles = keccak256(lower.encode()).hex()
    # A digit is upper case if the nibble of the hash in its place has the top bit set.
    canonical = "".join(d.upper() if int(n, 16) & 8 else d for d, n in zip(lower, nibbles, strict=False))
    if digits not in (lower, digits.upper(), canonical):
        raise LinkRefused("address", "has a wrong EIP-55 checksum")
    return f"0x{canonical}"


def recover_message(text: str | bytes, signature_untrusted: str) -> str:
    """The address whose key signed *text* (EIP-191 version ``E``; a str is signed as UTF-8).

    Any well-formed signature recovers to *some* address: compare it, or use `verify_message`.

    Raises:
        LinkRefused: ``signature``: malformed, malleable, or of no key at all.
        ProtocolViolation: *text* has a lone surrogate.
    """
    return _recover(_text(text), signature_untrusted)


def recover_typed_data(typed: Mapping[str, object], signature_untrusted: str) -> str:
    """The address whose key signed *typed* (EIP-712 version 4, as parsed JSON).

    Raises:
        LinkRefused: ``signature``: malformed, malleable, or of no key at all.
        ProtocolViolation: *typed* is not typed data (see `handclasp.accounts.typed_data`).
    """
    return _recover(_typed(typed), signature_untrusted)


def verify_message(text: str | bytes, signature_untrusted: str, address: str) -> None:
    """Check that *signature_untrusted* over *text* was made by the key of *address* (EIP-191 version ``E``).

    Raises:
        LinkRefused: ``signature``: malformed, malleable, or made by another key; ``address``: not an address.
        ProtocolViolation: *text* has a lone surrogate.
    """
    _compare(recover_message(text, signature_untrusted), address)


def verify_typed_data(typed: Mapping[str, object], signature_untrusted: str, address: str) -> None:
    """Check that *signature_untrusted* over *typed* was made by the key of *address* (EIP-712).

    Raises:
        LinkRefused: ``signature``: malformed, malleable, or made by another key; ``address``: not an address.
        ProtocolViolation: *typed* is not typed data (see `handclasp.accounts.typed_data`).
    """
    _compare(recover_typed_data(typed, signature_untrusted), address)


def _compare(recovered: str, address: str) -> None:
    if recovered != checksum_address(address):
        raise LinkRefused("signature", "was not made by the key of this address over this text")


def _recover(signable: object, signature: str) -> str:
    from eth_keys.exceptions import BadSignature

    match = _SIGNATURE.fullmatch(signature)
    if match is None:
        raise LinkRefused("signature", "is not 0x and 130 hex digits")
    r, s, v = (int(part, 16) for part in match.groups())
    if not (0 < r < _ORDER and 0 < s < _ORDER):
        raise LinkRefused("signature", "has r or s out of range")
    if s > _ORDER // 2:
        raise LinkRefused("signature", "has a high s (EIP-2)")
    if v not in _V:
        raise LinkRefused("signature", "has a v other than 0, 1, 27 or 28")
    try:
        return _accounts().recover_message(signable, vrs=(_V[v], r, s))
    except BadSignature:
        raise LinkRefused("signature", "is of no key: its r is not a point of the curve") from None


class LocalAccount:
    """An account whose key is in this process: make one with `generate`, load one with `from_keystore`.

    The key shows in no repr and no error; nothing here hands it out or writes it down.
    """

    __slots__ = ("_key",)

    def __init__(self, key: _Key) -> None:
        self._key = key

    @classmethod
    def generate(cls) -> LocalAccount:
        """A new random account, kept in memory only: gone with the process."""
        return cls(_accounts().create())

    @classmethod
    def from_keystore(cls, path: Path, password: str) -> LocalAccount:
        """The account in an Ethereum JSON keystore (Web3 Secret Storage version 3).

        Takes up to some seconds by design of the format: from trio, run it in a worker thread.

        Raises:
            ConfigurationError: no such file, not a version 3 keystore, or a wrong password; says which.
        """
        malformed = ConfigurationError(f"{path} is not an Ethereum keystore of version 3")
        keystore = _read_keystore(path)
        if keystore is None:
            raise malformed
        try:
            return cls(_accounts().from_key(_accounts().decrypt(keystore, password)))
        except ValueError as exc:
            if str(exc) == "MAC mismatch":
                raise ConfigurationError(f"the password does not open the keystore {path}") from None
            raise malformed from None
        # What eth-keyfile stumbles over when a key is missing, of another type or out of range.
        except (LookupError, TypeError, AttributeError, NotImplementedError, AssertionError):
            raise malformed from None
        except (ArithmeticError, MemoryError, RecursionError):
            raise malformed from None

    @property
    def address(self) -> str:
        """The address in EIP-55 form."""
        return self._key.address

    def sign_message(self, text: str | bytes) -> str:
        """Sign *text* with the prefix of EIP-191 (version ``E``; a str as UTF-8): ``0x`` and 130 hex digits.

        Raises:
            ProtocolViolation: *text* has a lone surrogate.
        """
        return _hex(self._key.sign_message(_text(text)))

    def sign_typed_data(self, typed: Mapping[str, object]) -> str:
        """Sign *typed* (EIP-712 version 4, as parsed JSON): ``0x`` and 130 hex digits.

        Raises:
            ProtocolViolation: *typed* is not typed data, or shows something else than it signs
                (see `handclasp.accounts.typed_data`).
        """
        return _hex(self._key.sign_message(_typed(typed)))

    def __reduce__(self) -> NoReturn:
        raise MisuseError("a LocalAccount cannot be pickled or copied: that would write its key down")

    def __repr__(self) -> str:
        return f"LocalAccount({self.address})"


def _read_keystore(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST_KEYSTORE + 1)
    except OSError as exc:
        raise ConfigurationError(f"cannot read the keystore {path}: {exc.strerror}") from None
    if len(data) > _LARGEST_KEYSTORE:
        return None
    try:
        text = data.decode()
        content = parse_json_untrusted(text)
    except ValueError:
        return None
    if (
        not isinstance(content, dict)
        or cast("dict[str, object]", content).get("version") != _KEYSTORE_VERSION
    ):
        return None
    return text


def _hex(signed: _Signed) -> str:
    return f"0x{bytes(signed.signature).hex()}"
