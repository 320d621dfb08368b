"""What is asked of an account that is a contract, as bytes: ERC-1271, and ERC-6492 before it is deployed.

No input or output here: `Eip155Verifier` asks, and these functions write its questions and read the answers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from handclasp.errors import LinkRefused

from .keccak import keccak256

MAX_SIGNATURE: Final = 16 * 1024
"""Bytes. Those of a dozen owners with passkeys have 8 KiB, and a call that deploys an account some hundred."""

_WORD: Final = 32
_MAGIC: Final = bytes.fromhex(
    "1626ba7e"
)  # ERC-1271: the selector of isValidSignature(bytes32,bytes), and its yes
_YES: Final = _MAGIC + bytes(28)  # a bytes4, as the ABI pads it
_SUFFIX: Final = bytes.fromhex("6492" * 16)  # ERC-6492
_DELEGATED: Final = bytes.fromhex("ef0100")  # EIP-7702: the code of a key's account that borrows a contract's
_DELEGATED_BYTES: Final = 23

# Runs as the creation of a contract, in one call that changes nothing: lets a factory prepare the account, then
# puts the question to it. Behind it stand four words (factory, account, length of the factory's data, length of
# the question), then both of these. Its answer is four words: the preparation went through, the question went
# through, the length of the answer, the answer's first word. It stands in memory where the four words were.
# ERC-6492 has a contract of some 1,700 bytes that decides by itself; this one leaves that to us.
_PREPARE_AND_ASK: Final = bytes.fromhex(
    "603a 38 03 603a 6000 39"  # CODECOPY(0, 0x3a, CODESIZE - 0x3a)
    "6000 6000 6040 51 6080 6000 6000 51 5a f1"  # CALL(GAS, factory, no value, 0x80, its length, nowhere)
    "6000 52"  # the first word: did it go through
    "6020 6060 6060 51 6040 51 6080 01 6020 51 5a fa"  # STATICCALL(GAS, account, the question, answer to 0x60)
    "6020 52"  # the second word
    "3d 6040 52"  # the third word: RETURNDATASIZE
    "6080 6000 f3"  # RETURN(0, 0x80)
)


@dataclass(frozen=True)
class Prepared:
    """A signature with what has to happen before the account can judge it (ERC-6492)."""

    factory: str
    """The contract that deploys the account, or brings it up to date; whoever signs chooses it."""
    data: bytes
    signature: bytes


def unwrap_untrusted(signature: bytes) -> Prepared | None:
    """What an ERC-6492 signature holds, or None if *signature* does not end in the mark of one.

    Raises:
        LinkRefused: ``signature``: it has the mark, but is not the ABI's one encoding of its three parts.
    """
    if not signature.endswith(_SUFFIX):
        return None
    body = signature.removesuffix(_SUFFIX)
    factory, start = body[12:_WORD], 3 * _WORD
    data = _bytes_at(body, start)
    inner = b"" if data is None else _bytes_at(body, start + _WORD + _padded(len(data)))
    if data is None or inner is None or _wrapped(factory, data, inner) != body:
        raise LinkRefused("signature", "has the mark of ERC-6492 and is not encoded as it says")
    return Prepared(f"0x{factory.hex()}", data, inner)


def question(digest: bytes, signature: bytes) -> bytes:
    """The call of ``isValidSignature(digest, signature)`` (ERC-1271)."""
    return _MAGIC + digest + _number(2 * _WORD) + _encoded(signature)


def is_yes(answer: bytes) -> bool:
    """Whether that call was answered with yes: 32 bytes, exactly those of the standard."""
    return answer == _YES


def prepare_and_ask(address: str, prepared: Prepared, asked: bytes) -> bytes:
    """The code of a contract whose creation prepares the account at *address* and puts *asked* to it."""
    words = (_address(prepared.factory), _address(address), _number(len(prepared.data)), _number(len(asked)))
    return b"".join((_PREPARE_AND_ASK, *words, prepared.data, asked))


def is_prepared_yes(answer: bytes) -> bool:
    """Whether the answer of that code says that the account said yes.

    That the preparation failed alone decides nothing: a factory may refuse to deploy what is there already.
    """
    return answer[_WORD:] == _number(1) + _number(_WORD) + _YES


def is_delegated(code: bytes) -> bool:
    """Whether *code* is that of an account which a key still controls (EIP-7702)."""
    return len(code) == _DELEGATED_BYTES and code.startswith(_DELEGATED)


def text_digest(data: bytes) -> bytes:
    """The hash that a contract judges for a text (EIP-191 version ``E``)."""
    return keccak256(b"\x19Ethereum Signed Message:\n%d%b" % (len(data), data))


def _number(value: int) -> bytes:
    return value.to_bytes(_WORD, "big")


def _address(text: str) -> bytes:
    return bytes(12) + bytes.fromhex(text[2:])


def _padded(length: int) -> int:
    return -(-length // _WORD) * _WORD


def _encoded(data: bytes) -> bytes:
    return _number(len(data)) + data.ljust(_padded(len(data)), b"\0")


def _wrapped(factory: bytes, data: bytes, signature: bytes) -> bytes:
    first, second = _encoded(data), _encoded(signature)
    head = bytes(12) + factory + _number(3 * _WORD) + _number(3 * _WORD + len(first))
    return head + first + second


def _bytes_at(body: bytes, start: int) -> bytes | None:
    length = int.from_bytes(body[start : start + _WORD], "big")
    data = body[start + _WORD : start + _WORD + length] if length <= len(body) else b""
    return data if len(data) == length else None
