from __future__ import annotations

import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handclasp.accounts import AccountId, AlgorandVerifier, ChainId
from handclasp.accounts.algorand import decode_address_untrusted, signed_bytes
from handclasp.errors import LinkRefused, ProtocolViolation

from .ed25519 import KEY, OTHER, SMALL_ORDER, forged, malleable

MAINNET = ChainId("algorand", "wGHE2Pwdvd7S12BL5FaOP20EGYesN73k")
TEXT = "example.com wants you to sign in with your Algorand account: …"
ZERO = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAY5HFKQ"
# the test case of the namespace's CAIP-10
PUBLISHED = "4EWWI7JNVXSFN4YRYA5DMN53U7NUHYC5YSMF67FAXDNRLDWDIWGM5DQGBA"
PUBLISHED_KEY = "e12d647d2dade456f311c03a3637bba7db43e05dc4985f7ca0b8db158ec3458c"
APPLICATION = "XSKED5VKZZCSYNDWXZJI65JM2HP7HZFJWCOBIMOONKHTK5UVKENBNVDEYM"
LOGIC_SIGNATURE = "KI4DJG2OOFJGUERJGSWCYGFZWDNEU2KWTU56VRJHITP62PLJ5VYMBFDBFE"


def address_of(key: bytes) -> str:
    checksum = hashlib.new("sha512_256", key).digest()[-4:]
    return base64.b32encode(key + checksum).decode().rstrip("=")


ADDRESS = address_of(bytes(KEY.verify_key))
SIGNATURE = base64.b64encode(KEY.sign(b"MX" + TEXT.encode()).signature).decode()


async def verify(signature: str, text: str = TEXT, address: str = ADDRESS) -> None:
    await AlgorandVerifier().verify(AccountId(MAINNET, address), text, signature)


async def refusal(signature: str, text: str = TEXT, address: str = ADDRESS) -> str:
    with pytest.raises(LinkRefused) as caught:
        await verify(signature, text, address)
    return str(caught.value)


# --- addresses


def test_the_published_addresses_are_read() -> None:
    assert decode_address_untrusted(PUBLISHED).hex() == PUBLISHED_KEY
    assert decode_address_untrusted(ZERO) == bytes(32)
    for address in (APPLICATION, LOGIC_SIGNATURE):
        assert address_of(decode_address_untrusted(address)) == address


@pytest.mark.parametrize(
    "address",
    [
        "",
        PUBLISHED[:-1],
        PUBLISHED + "A",
        PUBLISHED + "======",
        PUBLISHED + "\n",
        " " + PUBLISHED,
        PUBLISHED.lower(),
        "4e" + PUBLISHED[2:],
        "0" + PUBLISHED[1:],
        "1" + PUBLISHED[1:],
        "8" + PUBLISHED[1:],
        PUBLISHED[:-1] + "B",  # bits that nothing reads
        "\u0410" + ZERO[1:],  # looks like A
        "\uff21" + ZERO[1:],  # a wide A
        "A" * 10_000,
    ],
)
def test_what_is_not_base32_of_that_length_is_refused(address: str) -> None:
    with pytest.raises(LinkRefused, match="address: is not 58 characters of base32"):
        decode_address_untrusted(address)


@given(st.integers(0, 57), st.sampled_from("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"))
def test_a_mistyped_letter_is_refused(position: int, letter: str) -> None:
    typed = PUBLISHED[:position] + letter + PUBLISHED[position + 1 :]
    if typed != PUBLISHED:
        with pytest.raises(LinkRefused, match="address: "):
            decode_address_untrusted(typed)


@given(st.binary(min_size=32, max_size=32))
def test_every_32_bytes_have_one_address(key: bytes) -> None:
    assert decode_address_untrusted(address_of(key)) == key


# --- signatures


async def test_what_was_signed_verifies_and_nothing_else() -> None:
    await verify(SIGNATURE)
    for other in (TEXT + " ", TEXT[:-1], "", "MX" + TEXT):
        assert "signature: was not made by the key" in await refusal(SIGNATURE, other)
    other = base64.b64encode(OTHER.sign(b"MX" + TEXT.encode()).signature).decode()
    assert "signature: was not made by the key" in await refusal(other)
    other = address_of(bytes(OTHER.verify_key))
    assert "signature: was not made by the key" in await refusal(SIGNATURE, address=other)


async def test_what_the_sdk_signs_verifies() -> None:
    # npm algosdk 3.8.0: signBytes(), with the key of 32 bytes of seven
    await verify(
        "IuyIyxxZfUF02kxV2NXhpVixrmiVM02zAdrJYKCHegc5LSK8a6f2trBMjbzyt/cvLf1mL5wvZaWcKrDAnpstBQ==",
        "example.com wants you to sign in with your Algorand account:",
        "5JFGYY7CTRJAVPXVKB5RGLWF7GKUO5VOX27HXESCD3VGSFCG2IWAKDM5YU",
    )


@pytest.mark.parametrize("prefix", [b"", b"TX", b"mx", b"Program", b"ProgData", b"MXMX", b"arc", b"MX\n"])
async def test_what_was_signed_as_something_else_is_refused(prefix: bytes) -> None:
    signature = base64.b64encode(KEY.sign(prefix + TEXT.encode()).signature).decode()
    assert "signature: was not made by the key" in await refusal(signature)


@pytest.mark.parametrize("text", ["", "TX", "TX\u0081", "Program", TEXT])
def test_no_text_is_signed_as_a_transaction(text: str) -> None:
    assert signed_bytes(text) == b"MX" + text.encode()


@pytest.mark.parametrize(
    "signature",
    [
        "",
        SIGNATURE[:-1],
        SIGNATURE.rstrip("="),
        SIGNATURE + "=",
        SIGNATURE + "\n",
        " " + SIGNATURE,
        SIGNATURE[:40] + "\n" + SIGNATURE[40:],
        SIGNATURE[:-4] + "-" + SIGNATURE[-3:],
        SIGNATURE[:-4] + "_" + SIGNATURE[-3:],
        SIGNATURE[:-4] + "\u0430" + SIGNATURE[-3:],
        SIGNATURE[:-3] + chr(ord(SIGNATURE[-3]) + 1) + "==",  # bits that nothing reads
        base64.b64encode(bytes(63)).decode(),
        base64.b64encode(bytes(65)).decode(),
        "0x" + "00" * 64,
        "A" * 100_000,
    ],
)
async def test_a_signature_that_is_not_64_bytes_of_base64_is_refused(signature: str) -> None:
    assert "signature: is not 64 bytes in base64" in await refusal(signature)


async def test_a_second_form_of_a_signature_is_refused() -> None:
    other = base64.b64encode(malleable(base64.b64decode(SIGNATURE))).decode()
    assert "signature: was not made by the key" in await refusal(other)


@pytest.mark.parametrize("key", SMALL_ORDER, ids=bytes.hex)
async def test_a_key_of_small_order_signs_in_nobody(key: bytes) -> None:
    texts = (f"{TEXT} {number}" for number in range(100))
    text, signature = next((text, made) for text in texts if (made := forged(key, b"MX" + text.encode())))
    assert "address: is not the key of a person" in await refusal(
        base64.b64encode(signature).decode(), text, address_of(key)
    )


@pytest.mark.parametrize("address", [ZERO, APPLICATION, LOGIC_SIGNATURE])
async def test_an_address_without_a_key_signs_in_nobody(address: str) -> None:
    assert "address: is not the key of a person" in await refusal(SIGNATURE, address=address)


async def test_a_text_that_is_not_unicode_is_refused() -> None:
    with pytest.raises(ProtocolViolation, match="Unicode"):
        await verify(SIGNATURE, "\ud800")
