"""Contract accounts on a real Ethereum node: ERC-1271, and ERC-6492 before they are deployed."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass

import pytest
from eth_abi import encode

from handclasp.accounts import AccountId, ChainId, ChainReader, Eip155Verifier, LocalAccount, open_json_rpc
from handclasp.errors import ConfigurationError, LinkRefused, ServiceUnavailable

from .chain import (
    ALWAYS,
    CHAIN,
    COMPILED,
    HUGE,
    MISBEHAVING,
    NEXT_OWNER,
    OWNER,
    SETTLE,
    STRANGER,
    Node,
    address_of_wallet,
    creation_of_wallet,
    make_wallet,
)

TEXT = "example.com wants you to sign in with your Ethereum account: …"
MARK = "6492" * 16
NOT_ACCEPTED = "signature: is not accepted by the contract"


@dataclass
class Website:
    """What a website does with signatures."""

    reader: ChainReader
    text: str = TEXT

    async def verify(self, address: str, signature: str) -> None:
        await Eip155Verifier(self.reader).verify(AccountId(CHAIN, address), self.text, signature)

    async def refusal(self, address: str, signature: str) -> str:
        with pytest.raises(LinkRefused) as caught:
            await self.verify(address, signature)
        return str(caught.value)


@pytest.fixture
async def website(node: Node) -> AsyncGenerator[Website]:
    async with open_json_rpc({CHAIN: node.url}) as reader:
        yield Website(reader)


def signed(owner: LocalAccount = OWNER, text: str = TEXT) -> str:
    return owner.sign_message(text)


def wrapped(factory: str, data: bytes, signature: str) -> str:
    inner = bytes.fromhex(signature[2:])
    return f"0x{encode(['address', 'bytes', 'bytes'], [factory, data, inner]).hex()}{MARK}"


# --- accounts that are keys


async def test_an_account_without_code_signs_with_its_key(website: Website) -> None:
    await website.verify(OWNER.address, signed())
    await website.verify(OWNER.address, signed()[:-2] + f"{int(signed()[-2:], 16) - 27:02x}")
    assert "was not made by the key" in await website.refusal(OWNER.address, signed(STRANGER))
    assert "was not made by the key" in await website.refusal(OWNER.address, signed(text="other"))
    assert "is not 0x and 130 hex digits" in await website.refusal(OWNER.address, signed() + "00")
    assert "is not 0x and 130 hex digits" in await website.refusal(OWNER.address, "0x")


async def test_an_account_that_borrows_code_signs_with_its_key_or_as_the_code_says(
    node: Node, website: Website
) -> None:
    account = LocalAccount.generate()
    for code, accepts_anybody in ((ALWAYS, True), (bytes.fromhex(MISBEHAVING["a revert"]), False)):
        contract = node.place(code)
        node.set_code(account.address, bytes.fromhex(f"ef0100{contract[2:]}"))
        await website.verify(account.address, signed(account))
        if accepts_anybody:
            await website.verify(account.address, signed(STRANGER))
        else:
            assert "was not made by the key" in await website.refusal(account.address, signed(STRANGER))


# --- ERC-1271


async def test_a_contract_accepts_what_its_owner_signed_and_nothing_else(
    node: Node, website: Website
) -> None:
    wallet = node.create(creation_of_wallet(OWNER.address))
    await website.verify(wallet, signed())
    await website.verify(wallet.lower(), signed())
    for signature in (
        signed(STRANGER),
        signed(text="other"),
        signed()[:-2],
        signed() + "00",
        "0x",
        OWNER.sign_message(TEXT.encode() + b" "),
    ):
        assert NOT_ACCEPTED in await website.refusal(wallet, signature)


@pytest.mark.parametrize("misbehaviour", MISBEHAVING)
async def test_a_contract_that_answers_anything_but_yes_refuses(
    node: Node, website: Website, misbehaviour: str
) -> None:
    contract = node.place(bytes.fromhex(MISBEHAVING[misbehaviour]))
    assert NOT_ACCEPTED in await website.refusal(contract, signed())


async def test_a_signature_may_be_as_long_as_the_limit_and_empty(node: Node, website: Website) -> None:
    contract = node.place(ALWAYS)
    await website.verify(contract, "0x")
    await website.verify(contract, "0x" + "ab" * 16384)
    assert "at most 16384 bytes" in await website.refusal(contract, "0x" + "ab" * 16385)


async def test_an_answer_without_end_is_not_read(node: Node, website: Website) -> None:
    contract = node.place(HUGE)
    with pytest.raises(ServiceUnavailable, match="more than 1048576 bytes"):
        await website.verify(contract, signed())


# --- ERC-6492


@pytest.fixture(scope="session")
def factory(node: Node) -> str:
    return node.create(bytes.fromhex(COMPILED["Factory"]))


async def test_an_account_that_is_not_deployed_yet_accepts_what_its_owner_signed(
    node: Node, website: Website, factory: str
) -> None:
    address = address_of_wallet(factory, OWNER.address)
    make = make_wallet(OWNER.address)
    await website.verify(address, wrapped(factory, make, signed()))
    for signature in (signed(STRANGER), signed(text="other"), "0x", signed() + "00"):
        assert NOT_ACCEPTED in await website.refusal(address, wrapped(factory, make, signature))
    assert node.code(address) == "0x"  # it was only asked what would be


async def test_a_signature_of_the_owner_is_worth_nothing_without_the_wrapper(
    website: Website, factory: str
) -> None:
    address = address_of_wallet(factory, OWNER.address)
    assert "was not made by the key" in await website.refusal(address, signed())


@pytest.mark.parametrize("owner", [STRANGER, NEXT_OWNER], ids=["stranger", "next owner"])
async def test_another_account_than_the_factory_makes_is_refused(
    website: Website, factory: str, owner: LocalAccount
) -> None:
    address = address_of_wallet(factory, OWNER.address)
    make = make_wallet(owner.address)
    assert NOT_ACCEPTED in await website.refusal(address, wrapped(factory, make, signed(owner)))


@pytest.mark.parametrize("code", [ALWAYS, *(bytes.fromhex(code) for code in MISBEHAVING.values()), b""])
async def test_a_factory_that_does_not_make_the_account_proves_nothing(
    node: Node, website: Website, factory: str, code: bytes
) -> None:
    other = node.place(code) if code else "0x" + "12" * 20
    address = address_of_wallet(factory, OWNER.address)
    assert NOT_ACCEPTED in await website.refusal(
        address, wrapped(other, make_wallet(OWNER.address), signed())
    )


async def test_a_wrapper_does_not_take_over_the_account_of_a_key(node: Node, website: Website) -> None:
    always = node.place(ALWAYS)
    for signature in ("0x", signed(STRANGER), signed()):
        assert NOT_ACCEPTED in await website.refusal(OWNER.address, wrapped(always, b"", signature))


@pytest.mark.parametrize("number", range(1, 18))
async def test_a_contract_that_comes_with_the_chain_signs_in_nobody(
    website: Website, factory: str, number: int
) -> None:
    # Some of them return what they are given, or 32 bytes of something.
    address = f"0x{number:040x}"
    for signature in ("0x", signed(), wrapped(factory, b"", signed()), wrapped(address, b"", "0x")):
        assert "signature: " in await website.refusal(address, signature)


async def test_an_account_that_was_deployed_meanwhile_decides_by_itself(
    node: Node, website: Website, factory: str
) -> None:
    address = address_of_wallet(factory, NEXT_OWNER.address)
    make = make_wallet(NEXT_OWNER.address)
    before = wrapped(factory, make, signed(NEXT_OWNER))
    await website.verify(address, before)
    node.send(factory, make)
    assert node.code(address) != "0x"
    await website.verify(address, before)
    await website.verify(address, signed(NEXT_OWNER))
    assert NOT_ACCEPTED in await website.refusal(address, wrapped(factory, make, signed(STRANGER)))
    node.send(address, SETTLE)  # its owner is the stranger now
    assert NOT_ACCEPTED in await website.refusal(address, before)
    await website.verify(address, wrapped(factory, make, signed(STRANGER)))


async def test_an_account_that_has_to_be_brought_up_to_date_is_asked_again_afterwards(
    node: Node, website: Website
) -> None:
    wallet = node.create(creation_of_wallet(OWNER.address, NEXT_OWNER.address))
    assert NOT_ACCEPTED in await website.refusal(wallet, signed(NEXT_OWNER))
    await website.verify(wallet, wrapped(wallet, SETTLE, signed(NEXT_OWNER)))
    assert NOT_ACCEPTED in await website.refusal(wallet, signed(NEXT_OWNER))  # nothing was changed
    # The order of ERC-6492: as the account is comes first.
    await website.verify(wallet, wrapped(wallet, SETTLE, signed(OWNER)))
    assert NOT_ACCEPTED in await website.refusal(wallet, wrapped(wallet, SETTLE, signed(STRANGER)))


@pytest.mark.parametrize("misbehaviour", MISBEHAVING)
async def test_a_preparation_does_not_make_a_misbehaving_contract_say_yes(
    node: Node, website: Website, factory: str, misbehaviour: str
) -> None:
    contract = node.place(bytes.fromhex(MISBEHAVING[misbehaviour]))
    wrapper = wrapped(factory, make_wallet(OWNER.address, contract), signed())
    assert NOT_ACCEPTED in await website.refusal(contract, wrapper)


# --- the chain


async def test_a_node_that_serves_another_chain_is_not_believed(node: Node) -> None:
    other = ChainId("eip155", "1")
    async with open_json_rpc({other: node.url}) as reader:
        with pytest.raises(ConfigurationError, match="serves eip155:31337"):
            await Eip155Verifier(reader).verify(AccountId(other, OWNER.address), TEXT, signed())


async def test_a_chain_without_a_node_is_said_to_have_none(website: Website) -> None:
    account = AccountId(ChainId("eip155", "10"), OWNER.address)
    with pytest.raises(ConfigurationError, match="no node is named for eip155:10"):
        await Eip155Verifier(website.reader).verify(account, TEXT, signed())
