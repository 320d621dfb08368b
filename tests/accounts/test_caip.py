import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handclasp.accounts import AccountId, ChainId
from handclasp.errors import ProtocolViolation

ADDRESS = "0xab16a96D359eC26a11e2C2b3d8f8B8942d5Bfcdb"


@pytest.mark.parametrize(
    ("text", "namespace", "reference"),
    [
        # the test cases of CAIP-2
        ("eip155:1", "eip155", "1"),
        ("bip122:000000000019d6689c085ae165831e93", "bip122", "000000000019d6689c085ae165831e93"),
        ("cosmos:cosmoshub-3", "cosmos", "cosmoshub-3"),
        ("cosmos:iov-mainnet", "cosmos", "iov-mainnet"),
        ("starknet:SN_GOERLI", "starknet", "SN_GOERLI"),
        ("chainstd:8c3444cf8970a9e41a706fab93e7a6c4", "chainstd", "8c3444cf8970a9e41a706fab93e7a6c4"),
        ("abc:" + "x" * 32, "abc", "x" * 32),
    ],
)
def test_a_chain_id_is_read_and_printed_as_it_was(text: str, namespace: str, reference: str) -> None:
    chain = ChainId.from_text_untrusted(text)
    assert (chain.namespace, chain.reference) == (namespace, reference)
    assert str(chain) == text


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "form namespace:reference"),
        ("eip155", "form namespace:reference"),
        ("eip155:1:2", "form namespace:reference"),
        (":1", "namespace"),
        ("ab:1", "namespace"),
        ("ninechars:1", "namespace"),
        ("EIP155:1", "namespace"),
        ("eip 155:1", "namespace"),
        ("eip_155:1", "namespace"),
        ("eip155\n:1", "namespace"),
        ("éip155:1", "namespace"),
        ("eip155:", "reference"),
        ("eip155:1\n", "reference"),
        ("eip155: 1", "reference"),
        ("eip155:1.0", "reference"),
        ("eip155:\u0661", "reference"),
        ("eip155:" + "1" * 33, "reference"),
        ("eip155:" + "1" * 1000, "more than 41"),
    ],
)
def test_a_malformed_chain_id_is_refused_with_the_part_at_fault(text: str, fault: str) -> None:
    with pytest.raises(ProtocolViolation, match=rf"^chain id: .*{re.escape(fault)}"):
        ChainId.from_text_untrusted(text)


@pytest.mark.parametrize(
    "text",
    [
        # the test cases of CAIP-10
        f"eip155:1:{ADDRESS}",
        "bip122:000000000019d6689c085ae165831e93:128Lkh3S7CkDTBZ8W7BbpsN3YYizJMp8p6",
        "cosmos:cosmoshub-3:cosmos1t2uflqwqe0fsj0shcfkrvpukewcw40yjj6hdc0",
        "polkadot:b0a8d493285c2df73290dfb7e61f870f:5hmuyxw9xdgbpptgypokw4thfyoe3ryenebr381z9iaegmfy",
        "starknet:SN_GOERLI:0x02dd1b492765c064eac4039e3841aa5f382773b598097a40073bd8b48170ab57",
        "hedera:mainnet:0.0.1234567890-zbhlt",
        "abc:1:a%2Fb." + "x" * 122,
    ],
)
def test_an_account_id_is_read_and_printed_as_it_was(text: str) -> None:
    account = AccountId.from_text_untrusted(text)
    assert str(account) == text
    assert str(account.chain) == text.rpartition(":")[0]
    assert account.address == text.rpartition(":")[2]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "form namespace:reference:address"),
        ("eip155:1", "form namespace:reference:address"),
        (f"eip155:1:{ADDRESS}:", "form namespace:reference:address"),
        (f"eip155:{ADDRESS}", "form namespace:reference:address"),
        (f"E:1:{ADDRESS}", "namespace"),
        (f"eip155::{ADDRESS}", "reference"),
        ("eip155:1:", "address"),
        ("eip155:1:0x_", "address"),
        (f"eip155:1:{ADDRESS}\n", "address"),
        (f"eip155:1: {ADDRESS}", "address"),
        ("eip155:1:0xé", "address"),
        ("eip155:1:" + "a" * 129, "address"),
        ("eip155:1:" + "a" * 1000, "more than 170"),
    ],
)
def test_a_malformed_account_id_is_refused_with_the_part_at_fault(text: str, fault: str) -> None:
    with pytest.raises(ProtocolViolation, match=rf"^(account|chain) id: .*{re.escape(fault)}"):
        AccountId.from_text_untrusted(text)


def test_ids_cannot_be_built_from_malformed_parts() -> None:
    with pytest.raises(ProtocolViolation, match="namespace"):
        ChainId("eip155:1", "1")
    with pytest.raises(ProtocolViolation, match="address"):
        AccountId(ChainId("eip155", "1"), "0x:1")


@given(st.text(max_size=60) | st.from_regex(r"[a-z]{1,9}:[A-Z0-9]{0,3}(:[a-f.%]{0,3})?", fullmatch=True))
def test_any_text_is_refused_or_comes_back_unchanged(text: str) -> None:
    for kind in (ChainId, AccountId):
        try:
            parsed = kind.from_text_untrusted(text)
        except ProtocolViolation:
            continue
        assert str(parsed) == text
