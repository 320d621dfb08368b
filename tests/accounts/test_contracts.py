"""What contract accounts are asked, as bytes. That real contracts understand it: test_chain.py."""

from __future__ import annotations

import pytest
from eth_abi import encode
from hypothesis import given
from hypothesis import strategies as st

from handclasp.accounts.contracts import (
    Prepared,
    is_delegated,
    is_prepared_yes,
    is_yes,
    question,
    text_digest,
    unwrap_untrusted,
)
from handclasp.accounts.keccak import keccak256
from handclasp.errors import LinkRefused

MARK = bytes.fromhex("6492" * 16)
FACTORY = "0x" + "ab" * 20
YES = bytes.fromhex("1626ba7e") + bytes(28)
ONE = bytes(31) + b"\1"
LENGTH = bytes(31) + b"\x20"


def wrapped(factory: str = FACTORY, data: bytes = b"data", signature: bytes = b"signature") -> bytes:
    """As another encoder of the ABI does it."""
    return encode(["address", "bytes", "bytes"], [factory, data, signature]) + MARK


@given(st.binary(min_size=20, max_size=20), st.binary(max_size=100), st.binary(max_size=100))
def test_what_another_encoder_wrapped_is_unwrapped(factory: bytes, data: bytes, signature: bytes) -> None:
    address = f"0x{factory.hex()}"
    assert unwrap_untrusted(wrapped(address, data, signature)) == Prepared(address, data, signature)


def test_what_a_library_of_wallets_wrapped_is_unwrapped() -> None:
    # npm viem 2.57.20: serializeErc6492Signature()
    words = [
        "000000000000000000000000cafebabecafebabecafebabecafebabecafebabe",
        "0000000000000000000000000000000000000000000000000000000000000060",
        "00000000000000000000000000000000000000000000000000000000000000a0",
        "0000000000000000000000000000000000000000000000000000000000000004",
        "deadbeef00000000000000000000000000000000000000000000000000000000",
        "0000000000000000000000000000000000000000000000000000000000000002",
        "1234000000000000000000000000000000000000000000000000000000000000",
        "6492649264926492649264926492649264926492649264926492649264926492",
    ]
    assert unwrap_untrusted(bytes.fromhex("".join(words))) == Prepared(
        "0x" + "cafebabe" * 5, bytes.fromhex("deadbeef"), bytes.fromhex("1234")
    )


@pytest.mark.parametrize("signature", [b"", b"\x64\x92", MARK[:-1], MARK + b"\0", b"\0" * 65])
def test_a_signature_without_the_mark_at_its_end_is_not_unwrapped(signature: bytes) -> None:
    assert unwrap_untrusted(signature) is None


def _word(at: int, value: bytes) -> bytes:
    good = wrapped()
    return good[: at * 32] + value + good[at * 32 + 32 :]


@pytest.mark.parametrize(
    "signature",
    [
        pytest.param(MARK, id="nothing but the mark"),
        pytest.param(MARK + MARK, id="the mark twice"),
        pytest.param(bytes(96) + MARK, id="zeros"),
        pytest.param(b"\xff" * 96 + MARK, id="ones"),
        pytest.param(wrapped()[:-33] + MARK, id="a byte less"),
        pytest.param(wrapped()[:-64] + MARK, id="a word less"),
        pytest.param(wrapped()[:-32] + b"\0" + MARK, id="a byte more"),
        pytest.param(wrapped()[:-32] + bytes(32) + MARK, id="a word more"),
        pytest.param(_word(0, b"\1" + bytes(11) + b"\xab" * 20), id="more than an address"),
        pytest.param(_word(1, bytes(31) + b"\x61"), id="the data elsewhere"),
        pytest.param(_word(1, b"\xff" * 32), id="the data far away"),
        pytest.param(_word(2, bytes(31) + b"\x60"), id="the signature in place of the data"),
        pytest.param(_word(3, b"\xff" * 32), id="endless data"),
        pytest.param(_word(3, bytes(31) + b"\x03"), id="data that leaves something over"),
        pytest.param(_word(4, b"data" + bytes(27) + b"\1"), id="something behind the data"),
        pytest.param(_word(5, bytes(31) + b"\xff"), id="a signature longer than there is"),
        pytest.param(_word(6, b"signature" + bytes(22) + b"\1"), id="something behind the signature"),
    ],
)
def test_a_wrapper_that_is_not_the_one_encoding_is_refused(signature: bytes) -> None:
    with pytest.raises(LinkRefused, match="signature: has the mark of ERC-6492"):
        unwrap_untrusted(signature)


@given(st.binary(max_size=300))
def test_any_bytes_before_the_mark_are_refused_or_are_the_one_encoding(body: bytes) -> None:
    try:
        prepared = unwrap_untrusted(body + MARK)
    except LinkRefused:
        return
    assert prepared is not None
    assert wrapped(prepared.factory, prepared.data, prepared.signature) == body + MARK


@given(st.binary(min_size=32, max_size=32), st.binary(max_size=100))
def test_the_question_is_what_another_encoder_makes_of_it(digest: bytes, signature: bytes) -> None:
    selector = keccak256(b"isValidSignature(bytes32,bytes)")[:4]
    assert question(digest, signature) == selector + encode(["bytes32", "bytes"], [digest, signature])


@pytest.mark.parametrize(
    "answer",
    [b"", YES[:4], YES[:31], YES + b"\0", YES + bytes(32), bytes(32), ONE, YES[::-1], YES[:31] + b"\1"],
)
def test_only_the_magic_in_32_bytes_is_a_yes(answer: bytes) -> None:
    assert is_yes(YES)
    assert not is_yes(answer)


@pytest.mark.parametrize("prepared", [ONE, bytes(32)], ids=["prepared", "not prepared"])
def test_a_prepared_account_has_to_say_yes_whatever_became_of_the_preparation(prepared: bytes) -> None:
    assert is_prepared_yes(prepared + ONE + LENGTH + YES)
    for answer in (
        b"",
        prepared,
        YES,
        prepared + bytes(32) + LENGTH + YES,  # it failed, with the magic
        prepared + ONE + bytes(32) + YES,  # it returned nothing, and the memory is not what it said
        prepared + ONE + bytes(31) + b"\x1f" + YES,
        prepared + ONE + LENGTH + bytes(32),
        prepared + ONE + LENGTH + YES + b"\0",
    ):
        assert not is_prepared_yes(answer)


def test_the_digest_of_a_text_is_that_of_eip_191() -> None:
    # The documentation of web3.js: hashMessage("Hello world")
    assert (
        text_digest(b"Hello world").hex()
        == "8144a6fa26be252b86456491fbcd43c1de7e022241845ffea1c3df066f7cfede"
    )


def test_only_code_of_eip_7702_is_delegated() -> None:
    assert is_delegated(bytes.fromhex("ef0100") + bytes(20))
    for code in ("", "ef0100", "ef0100" + "00" * 19, "ef0100" + "00" * 21, "ef0101" + "00" * 20, "60" * 23):
        assert not is_delegated(bytes.fromhex(code))
