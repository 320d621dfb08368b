"""Signing in as a whole, for each namespace: parse, compare, verify; and the table of verifiers."""

from __future__ import annotations

import base64
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import base58
import pytest
import trio
import trio.testing
from eth_account import Account

from handclasp.accounts import (
    AccountId,
    AlgorandVerifier,
    ChainId,
    Eip155Verifier,
    Expectation,
    LocalAccount,
    SignInMessage,
    SolanaVerifier,
    Verifiers,
    verify_sign_in,
)
from handclasp.errors import ConfigurationError, DeadlineExceeded, LinkRefused, ProtocolViolation

from .ed25519 import KEY
from .test_algorand import ADDRESS as ALGORAND_ADDRESS
from .test_solana import ADDRESS as SOLANA_ADDRESS

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ETHEREUM = LocalAccount(Account.from_key(b"\1" * 32))
VERIFIERS = Verifiers(
    {"eip155": Eip155Verifier(), "solana": SolanaVerifier(), "algorand": AlgorandVerifier()}
)


@dataclass(frozen=True)
class Wallet:
    """An account and what its wallet does with a text."""

    account: AccountId
    sign: Callable[[str], str]


WALLETS = {
    "eip155": Wallet(AccountId(ChainId("eip155", "1"), ETHEREUM.address), ETHEREUM.sign_message),
    "solana": Wallet(
        AccountId(ChainId("solana", "5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp"), SOLANA_ADDRESS),
        lambda text: base58.b58encode(KEY.sign(text.encode()).signature).decode(),
    ),
    "algorand": Wallet(
        AccountId(ChainId("algorand", "wGHE2Pwdvd7S12BL5FaOP20EGYesN73k"), ALGORAND_ADDRESS),
        lambda text: base64.b64encode(KEY.sign(b"MX" + text.encode()).signature).decode(),
    ),
}
EXPECTATION = Expectation(
    domain="example.com",
    statement="Sign in to Example",
    uri="https://example.com/login",
    chain_ids=frozenset(wallet.account.chain for wallet in WALLETS.values()),
    nonce="abcdefgh12345678",
    request_id="mailbox-7",
    resources=("urn:peer:website", "urn:peer:wallet"),
)


@pytest.fixture(params=WALLETS)
def wallet(request: pytest.FixtureRequest) -> Wallet:
    return WALLETS[request.param]


def message_for(wallet: Wallet, **changes: object) -> SignInMessage:
    message = SignInMessage(
        domain="example.com",
        address=wallet.account.address,
        statement="Sign in to Example",
        uri="https://example.com/login",
        chain_id=wallet.account.chain,
        nonce="abcdefgh12345678",
        issued_at=NOW,
        expiration_time=NOW + timedelta(minutes=10),
        request_id="mailbox-7",
        resources=("urn:peer:website", "urn:peer:wallet"),
    )
    return replace(message, **changes)


async def refused_field(text: str, signature: str, expectation: Expectation = EXPECTATION) -> str:
    with pytest.raises(LinkRefused) as caught:
        await verify_sign_in(text, signature, expectation, VERIFIERS, now=NOW)
    return caught.value.field


# --- signing in


async def test_who_signed_what_was_asked_for_is_signed_in(wallet: Wallet) -> None:
    text = str(message_for(wallet))
    account = await verify_sign_in(text, wallet.sign(text), EXPECTATION, VERIFIERS, now=NOW)
    assert account == wallet.account


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("domain", "example.org"),
        ("domain", "example.com:8443"),
        ("statement", None),
        ("statement", "Give everything away"),
        ("uri", "https://example.com/logout"),
        ("uri", "http://example.com/login"),
        ("nonce", "abcdefgh12345679"),
        ("nonce", "ABCDEFGH12345678"),
        ("issued_at", NOW + timedelta(seconds=61)),
        ("issued_at", NOW - timedelta(seconds=1)),  # too long a life
        ("expiration_time", None),
        ("expiration_time", NOW),
        ("expiration_time", NOW + timedelta(minutes=10, milliseconds=1)),
        ("not_before", NOW + timedelta(seconds=61)),
        ("request_id", None),
        ("request_id", "mailbox-8"),
        ("resources", ()),
        ("resources", ("urn:peer:wallet", "urn:peer:website")),
        ("resources", ("urn:peer:website", "urn:peer:thief")),
    ],
)
async def test_every_field_is_compared_in_every_namespace(wallet: Wallet, name: str, value: object) -> None:
    text = str(message_for(wallet, **{name: value}))
    expected = "expiration_time" if (name, value) == ("issued_at", NOW - timedelta(seconds=1)) else name
    assert await refused_field(text, wallet.sign(text)) == expected


async def test_another_chain_and_another_account_are_refused(wallet: Wallet) -> None:
    text = str(message_for(wallet))
    others = EXPECTATION.chain_ids - {wallet.account.chain}
    assert await refused_field(text, wallet.sign(text), replace(EXPECTATION, chain_ids=others)) == "chain_id"
    only = replace(EXPECTATION, address=wallet.account.address)
    await verify_sign_in(text, wallet.sign(text), only, VERIFIERS, now=NOW)
    for other in WALLETS.values():
        if other != wallet:
            text = str(message_for(other))
            assert await refused_field(text, other.sign(text), only) == "address"


async def test_no_character_of_the_text_can_be_changed(wallet: Wallet) -> None:
    text = str(message_for(wallet))
    signature = wallet.sign(text)
    for at, old in enumerate(text):
        for new in {"", old + old, "\u0430", "\r", old.swapcase()} - {old}:
            await refused_field(text[:at] + new + text[at + 1 :], signature)


async def test_a_signature_of_another_namespace_is_refused(wallet: Wallet) -> None:
    text = str(message_for(wallet))
    for other in WALLETS.values():
        if other != wallet:
            assert await refused_field(text, other.sign(text)) == "signature"


async def test_a_text_of_one_namespace_is_none_of_another(wallet: Wallet) -> None:
    text = str(message_for(wallet))
    for kind in ("Ethereum", "Solana", "Algorand"):
        if f"your {kind} account" not in text:
            for old in ("Ethereum", "Solana", "Algorand"):
                changed = text.replace(f"your {old} account", f"your {kind} account")
                if changed != text:
                    await refused_field(changed, wallet.sign(changed))


async def test_the_scheme_of_the_origin_is_compared_where_the_text_has_one() -> None:
    plain = replace(EXPECTATION, scheme="http", domain="localhost:3000", uri="http://localhost:3000")
    for namespace, wallet in WALLETS.items():
        scheme = "http" if namespace == "eip155" else None
        message = message_for(wallet, scheme=scheme, domain="localhost:3000", uri="http://localhost:3000")
        text = str(message)
        await verify_sign_in(text, wallet.sign(text), plain, VERIFIERS, now=NOW)
        if scheme is not None:
            text = str(replace(message, scheme=None))
            assert await refused_field(text, wallet.sign(text), plain) == "scheme"
        else:
            with pytest.raises(LinkRefused, match="scheme: has no place"):
                replace(message, scheme="http")


# --- what may be expected


@pytest.mark.parametrize(
    ("chain", "reason"),
    [
        (ChainId("cosmos", "cosmoshub-3"), "namespaces eip155, solana, algorand"),
        (ChainId("eip155", "mainnet"), "decimal number"),
        (ChainId("eip155", "01"), "leading zeros"),
        (ChainId("solana", "mainnet"), "genesis hash in base58"),
        (ChainId("solana", "0" * 32), "genesis hash in base58"),
        (ChainId("algorand", "mainnet"), "genesis hash in base64url"),
    ],
)
def test_a_chain_that_nobody_could_sign_for_cannot_be_expected(chain: ChainId, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        replace(EXPECTATION, chain_ids=EXPECTATION.chain_ids | {chain})


@pytest.mark.parametrize("address", ["0x", SOLANA_ADDRESS + "1", ALGORAND_ADDRESS.lower(), ""])
def test_an_address_that_is_of_none_of_the_chains_cannot_be_expected(address: str) -> None:
    with pytest.raises(ConfigurationError, match="address "):
        replace(EXPECTATION, address=address)
    with pytest.raises(ConfigurationError, match="address "):
        replace(EXPECTATION, address=SOLANA_ADDRESS, chain_ids=frozenset({ChainId("eip155", "1")}))


# --- the table


async def test_a_namespace_without_a_verifier_is_refused() -> None:
    wallet = WALLETS["solana"]
    text = str(message_for(wallet))
    ethereum = Verifiers({"eip155": Eip155Verifier()})
    with pytest.raises(LinkRefused, match="chain_id: is of a namespace whose signatures are not verified"):
        await verify_sign_in(text, wallet.sign(text), EXPECTATION, ethereum, now=NOW)


def test_a_table_without_verifiers_cannot_be_made() -> None:
    with pytest.raises(ConfigurationError, match="name at least one namespace"):
        Verifiers({})


@dataclass
class Recording:
    """A verifier of somebody else."""

    seen: list[tuple[AccountId, str, str]] = field(default_factory=list)

    async def verify(self, account: AccountId, text: str, signature_untrusted: str) -> None:
        self.seen.append((account, text, signature_untrusted))


async def test_a_verifier_of_your_own_gets_its_namespace_and_changes_of_the_mapping_change_nothing() -> None:
    mine = Recording()
    mapping = {"mine": mine}
    table = Verifiers(mapping)
    mapping.clear()
    account = AccountId(ChainId("mine", "1"), "me")
    await table.verify(account, "text", "signature")
    assert mine.seen == [(account, "text", "signature")]


# --- eip155 without a node, and with one that does not answer


@pytest.mark.parametrize(
    ("signature", "reason"),
    [
        ("", "is not 0x and the hex digits"),
        ("0x0", "is not 0x and the hex digits"),
        ("0X00", "is not 0x and the hex digits"),
        ("0xgg", "is not 0x and the hex digits"),
        ("0x00\n", "is not 0x and the hex digits"),
        ("0x" + "\u0661" * 130, "is not 0x and the hex digits"),
        ("0x" + "00" * 16385, "is not 0x and the hex digits"),
        ("0x", "no node is asked"),
        ("0x" + "00" * 64, "no node is asked"),
        ("0x" + "00" * 66, "no node is asked"),
        ("0x" + "6492" * 16, "has the mark of ERC-6492"),
        ("0x" + "00" * 33 + "6492" * 16, "has the mark of ERC-6492"),
        (
            "0x" + "".join(f"{word:064x}" for word in (1, 96, 128, 0, 0)) + "6492" * 16,
            "no node is asked",
        ),
        ("0x" + "00" * 65, "out of range"),
    ],
)
async def test_without_a_node_only_signatures_of_keys_are_taken(signature: str, reason: str) -> None:
    account = WALLETS["eip155"].account
    with pytest.raises(LinkRefused, match=reason) as caught:
        await Eip155Verifier().verify(account, "text", signature)
    assert caught.value.field == "signature"


async def test_an_account_of_a_key_signs_in_on_any_chain_without_a_node() -> None:
    account = AccountId(ChainId("eip155", "424242"), ETHEREUM.address.lower())
    await Eip155Verifier().verify(account, "text", ETHEREUM.sign_message("text"))
    with pytest.raises(LinkRefused, match="address: "):
        await Eip155Verifier().verify(replace(account, address="0x"), "text", ETHEREUM.sign_message("text"))
    with pytest.raises(ProtocolViolation, match="Unicode"):
        await Eip155Verifier().verify(account, "\ud800", ETHEREUM.sign_message("text"))


@dataclass
class Chain:
    """A chain as some node tells it; a question that is not listed is never answered."""

    codes: dict[str, bytes]
    answers: list[bytes | None]
    asked: list[str | None] = field(default_factory=list)

    async def code(self, chain: ChainId, address: str) -> bytes:
        if address not in self.codes:
            await trio.sleep_forever()
        return self.codes[address]

    async def call(self, chain: ChainId, to: str | None, data: bytes) -> bytes | None:
        self.asked.append(to)
        if not self.answers:
            await trio.sleep_forever()
        return self.answers.pop(0)


YES = bytes.fromhex("1626ba7e") + bytes(28)
PREPARED_YES = bytes(31) + b"\1" + bytes(31) + b"\1" + bytes(31) + b"\x20" + YES
WRAPPED = "0x" + "".join(f"{word:064x}" for word in (1, 96, 128, 0, 0)) + "6492" * 16


@pytest.mark.parametrize(
    ("code", "answers", "signature", "asked"),
    [
        (b"\x60", [YES], "0x", ["it"]),
        (b"\x60", [YES], WRAPPED, ["it"]),
        (b"\x60", [bytes(32), PREPARED_YES], WRAPPED, ["it", None]),
        (b"\x60", [None, PREPARED_YES], WRAPPED, ["it", None]),
        (b"", [PREPARED_YES], WRAPPED, [None]),
        (b"", [], "by the key", []),
    ],
)
async def test_a_chain_is_asked_in_the_order_of_the_standard_and_no_more_than_needed(
    code: bytes, answers: list[bytes | None], signature: str, asked: list[str | None]
) -> None:
    account = WALLETS["eip155"].account
    chain = Chain({account.address: code}, answers)
    if signature == "by the key":
        signature = ETHEREUM.sign_message("text")
    await Eip155Verifier(chain).verify(account, "text", signature)
    assert chain.asked == [account.address if to == "it" else to for to in asked]


@pytest.mark.parametrize(
    "chain", [Chain({}, []), Chain({ETHEREUM.address: b"\x60"}, [])], ids=["code", "call"]
)
async def test_a_chain_that_does_not_answer_is_waited_for_ten_seconds(
    chain: Chain, autojump_clock: trio.testing.MockClock
) -> None:
    with pytest.raises(DeadlineExceeded, match="the node for eip155:1 did not answer in 10 seconds"):
        await Eip155Verifier(chain).verify(WALLETS["eip155"].account, "text", ETHEREUM.sign_message("text"))
    assert trio.current_time() == pytest.approx(10)


# --- the extra


@pytest.mark.parametrize("name", ["SolanaVerifier", "AlgorandVerifier"])
def test_without_the_extra_one_sentence_says_what_to_install(name: str) -> None:
    script = f"""
import sys
sys.modules["nacl"] = None
from handclasp import accounts, errors
try:
    accounts.{name}()
except errors.ConfigurationError as exc:
    print(exc)
"""
    run = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert "need PyNaCl: pip install 'handclasp[ed25519]'" in run.stdout
    assert run.stdout.count("\n") == 1
