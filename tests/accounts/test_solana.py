from __future__ import annotations

from collections.abc import Callable

import base58
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.bindings import crypto_core_ed25519_is_valid_point

from handclasp.accounts import AccountId, ChainId, SolanaVerifier
from handclasp.accounts.solana import begins_like_transaction, decode_address_untrusted, signed_bytes
from handclasp.errors import LinkRefused, ProtocolViolation

from .ed25519 import KEY, OTHER, SMALL_ORDER, forged, malleable

MAINNET = ChainId("solana", "5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp")
ADDRESS = base58.b58encode(bytes(KEY.verify_key)).decode()
TEXT = "example.com wants you to sign in with your Solana account: …"
SIGNATURE = base58.b58encode(KEY.sign(TEXT.encode()).signature).decode()


async def verify(signature: str, text: str = TEXT, address: str = ADDRESS) -> None:
    await SolanaVerifier().verify(AccountId(MAINNET, address), text, signature)


async def refusal(signature: str, text: str = TEXT, address: str = ADDRESS) -> str:
    with pytest.raises(LinkRefused) as caught:
        await verify(signature, text, address)
    return str(caught.value)


# --- addresses


@pytest.mark.parametrize(
    "address",
    [
        # the test cases of the namespace's CAIP-10 and CAIP-122
        "7S3P4HxJpyyigGzodYwHtCxZyUQe9JiBMHyRWXArAaKv",
        "DYw8jCTfwHNRJhhmFcbXvVDTqWMEVFBX6ZKUmG5CNSKK",
        "6LmSRCiu3z6NCSpF19oz1pHXkYkN4jWbj9K1nVELpDkT",
        "GwAF45zjfyGzUbd3i3hXxzGeuchzEZXwpRYHZM5912F1",
        "1" * 32,
    ],
)
def test_an_address_is_32_bytes_in_base58(address: str) -> None:
    assert base58.b58encode(decode_address_untrusted(address)).decode() == address


@pytest.mark.parametrize(
    "address",
    [
        "",
        "1" * 31,
        "1" * 33,
        ADDRESS[:-2],
        ADDRESS + "1",
        "1" + ADDRESS,
        ADDRESS + "\n",
        ADDRESS + " ",
        " " + ADDRESS,
        "z" * 44,  # more than 32 bytes
        "z" * 10_000,
        ADDRESS[:-1] + "0",
        ADDRESS[:-1] + "O",
        ADDRESS[:-1] + "I",
        ADDRESS[:-1] + "l",
        ADDRESS[:-1] + "\u0430",  # looks like a
        ADDRESS[:-1] + "\uff11",  # a wide 1
        "0x" + "11" * 20,
    ],
)
def test_what_is_not_an_address_is_refused(address: str) -> None:
    with pytest.raises(LinkRefused, match="address: is not 32 bytes in base58"):
        decode_address_untrusted(address)


@given(st.binary(min_size=32, max_size=32))
def test_every_32_bytes_have_one_address(key: bytes) -> None:
    address = base58.b58encode(key).decode()
    assert decode_address_untrusted(address) == key


# --- signatures


async def test_what_was_signed_verifies_and_nothing_else() -> None:
    await verify(SIGNATURE)
    for other in (TEXT + " ", TEXT[:-1], "", TEXT.replace("example.com", "examp1e.com")):
        assert "signature: was not made by the key" in await refusal(SIGNATURE, other)
    other = base58.b58encode(OTHER.sign(TEXT.encode()).signature).decode()
    assert "signature: was not made by the key" in await refusal(other)
    assert "signature: was not made by the key" in await refusal(
        SIGNATURE, address=base58.b58encode(bytes(OTHER.verify_key)).decode()
    )


async def test_a_published_vector_verifies() -> None:
    # RFC 8032 §7.1, TEST 2: one byte, which is the letter r
    key = bytes.fromhex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")
    signature = bytes.fromhex(
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    )
    address = base58.b58encode(key).decode()
    await verify(base58.b58encode(signature).decode(), "r", address)


@pytest.mark.parametrize(
    "signature",
    [
        "",
        SIGNATURE[:-2],
        SIGNATURE + "1",
        "1" + SIGNATURE,
        SIGNATURE + "\n",
        " " + SIGNATURE,
        SIGNATURE[:-1] + "0",
        SIGNATURE[:-1] + "\u0430",
        "1" * 63,
        "1" * 65,
        "z" * 88,
        "z" * 100_000,
        "0x" + "00" * 64,
        base58.b58encode(KEY.sign(TEXT.encode())).decode(),  # with the text behind it
    ],
)
async def test_a_signature_that_is_not_64_bytes_of_base58_is_refused(signature: str) -> None:
    assert "signature: is not 64 bytes in base58" in await refusal(signature)


async def test_a_second_form_of_a_signature_is_refused() -> None:
    other = base58.b58encode(malleable(base58.b58decode(SIGNATURE))).decode()
    assert "signature: was not made by the key" in await refusal(other)


@pytest.mark.parametrize("key", SMALL_ORDER, ids=bytes.hex)
async def test_a_key_of_small_order_signs_in_nobody(key: bytes) -> None:
    address = base58.b58encode(key).decode()
    texts = (f"{TEXT} {number}" for number in range(100))
    text, signature = next((text, made) for text in texts if (made := forged(key, text.encode())))
    assert "address: is not the key of a person" in await refusal(
        base58.b58encode(signature).decode(), text, address
    )


async def test_the_address_of_a_program_signs_in_nobody() -> None:
    # Addresses derived for programs are chosen so that they are no points of the curve.
    keys = (bytes([number]) * 32 for number in range(256))
    key = next(key for key in keys if not crypto_core_ed25519_is_valid_point(key) and key not in SMALL_ORDER)
    address = base58.b58encode(key).decode()
    assert "address: is not the key of a person" in await refusal(SIGNATURE, address=address)


# --- transactions


def transaction(*signers: bytes, more: int = 1) -> bytes:
    """A transaction's message, legacy: a transfer of nothing by the first signer to nobody."""
    accounts = [*signers, *([bytes(32)] * more)]
    header = bytes([len(signers), 0, more])
    instruction = bytes([len(accounts) - 1, 2, 0, 0, 12]) + (2).to_bytes(4, "little") + bytes(8)
    return header + bytes([len(accounts)]) + b"".join(accounts) + b"h" * 32 + b"\1" + instruction


async def test_a_text_that_is_a_transaction_is_refused_though_it_was_signed() -> None:
    # The accounts are such that the bytes are UTF-8; that costs an attacker time, and nothing else.
    key = b"k" * 32
    data = transaction(key)
    text = data.decode()
    assert text.encode() == data
    with pytest.raises(ProtocolViolation, match="could be a transaction"):
        await verify(base58.b58encode(KEY.sign(data).signature).decode(), text)
    with pytest.raises(ProtocolViolation, match="could be a transaction"):
        signed_bytes(text)


@pytest.mark.parametrize("version", [0, 1, 2, 63, 65])
def test_a_transaction_of_any_version_is_refused(version: int) -> None:
    assert begins_like_transaction(bytes([0x80 | version]) + transaction(b"k" * 32))


def test_no_text_begins_like_a_version() -> None:
    assert min("\u0080".encode()[0], *(char.encode()[0] for char in "é…\U0010ffff")) == 0xC2


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda data: data, id="as it is"),
        pytest.param(lambda data: data[: 4 + 64 + 32], id="without instructions"),
        pytest.param(lambda data: data + b"more", id="with more behind it"),
        pytest.param(lambda data: data[:3] + b"\x82\0" + data[4:], id="a long number of accounts"),
        pytest.param(lambda data: data[:3] + b"\x82\x80\0" + data[4:], id="a longer number of accounts"),
    ],
)
def test_what_begins_like_a_transaction_is_one(change: Callable[[bytes], bytes]) -> None:
    assert begins_like_transaction(change(transaction(b"k" * 32)))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\1",
        b"\1\0\1",
        b"\1\0\1\2",
        b"\1\0\1\x82",
        b"\1\0\1\x82\x80\x80",
        transaction(b"k" * 32)[: 4 + 64 + 31],  # nothing has room for an instruction
        b"\0" + transaction(b"k" * 32)[1:],  # nobody signs
        b"\3" + transaction(b"k" * 32)[1:],  # more sign than there are
        b"\1\1" + transaction(b"k" * 32)[2:],  # nobody pays
        b"\1\0\2" + transaction(b"k" * 32)[3:],  # more read than there are
        TEXT.encode(),
        b"1" * 5000,
    ],
)
def test_what_no_transaction_begins_with_is_none(data: bytes) -> None:
    assert not begins_like_transaction(data)


@given(st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=12), st.integers(0, 40))
def test_every_transaction_is_recognised(signers: list[bytes], more: int) -> None:
    assert begins_like_transaction(transaction(*signers, more=more))


@given(st.text(st.characters(codec="utf-8", min_codepoint=32), max_size=100))
def test_a_text_for_people_that_is_short_is_never_taken_for_one(text: str) -> None:
    assert signed_bytes(text) == text.encode()


async def test_a_text_that_is_not_unicode_is_refused() -> None:
    with pytest.raises(ProtocolViolation, match="Unicode"):
        await verify(SIGNATURE, "\ud800")
