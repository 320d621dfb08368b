"""What a server checks of a link, one field at a time; and `verify_link` by itself, as a backend of its own uses it."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from handclasp.accounts import AccountId, ChainId, LocalAccount
from handclasp.errors import LinkRefused
from handclasp.identity import Identity
from handclasp.protocols.wallet import link as wallets
from handclasp.service.signin import ExpectedLink, link, verify_link

from .browser import ACCOUNT, ORIGIN, Browser, Page

NOW = datetime.now(UTC).replace(microsecond=0)
CHALLENGE = "ab" * 32
WALLET = Identity.generate().peer_id


def page() -> Page:
    return Page(Browser(None), challenge=CHALLENGE, issued_at=NOW)


def expected(of: Page) -> ExpectedLink:
    return ExpectedLink(
        origin=ORIGIN,
        mailbox=of.mailbox,
        website=str(of.identity.peer_id),
        chains=frozenset({"eip155:1"}),
        begun=NOW,
        challenge=CHALLENGE,
        nonce=hashlib.sha256(of.nonce.encode()).digest(),
    )


async def verify(
    signed: dict[str, str], by: ExpectedLink, verifier: link.SignatureVerifier | None = None
) -> link.VerifiedLink:
    proof = base64.urlsafe_b64decode(signed["proof"] + "==")
    options = {} if verifier is None else {"verifier": verifier}
    return await verify_link(signed["message"], signed["signature"], proof, by, now=NOW, **options)


async def refusal(signed: dict[str, str], by: ExpectedLink) -> str:
    with pytest.raises(LinkRefused) as caught:
        await verify(signed, by)
    return caught.value.field


async def test_a_link_proves_account_wallet_and_handshake() -> None:
    shop = page()
    verified = await verify(shop.signed(), expected(shop))
    assert str(verified.account) == f"eip155:1:{ACCOUNT.address}"
    assert verified.wallet == shop.wallet.peer_id
    assert verified.handshake == (b"h" * 32).hex()


def test_wallets_and_servers_have_the_same_statement() -> None:
    assert link.STATEMENT == wallets.STATEMENT


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("scheme", "http"),
        ("domain", "evil.example"),
        ("statement", "Give me everything."),
        ("uri", "https://shop.example/other"),
        ("chain_id", ChainId("eip155", "137")),
        ("nonce", "1" * 32),
        ("issued_at", NOW + timedelta(seconds=61)),
        ("issued_at", NOW - timedelta(seconds=61)),
        ("expiration_time", None),
        ("expiration_time", NOW + timedelta(seconds=601)),
        ("not_before", NOW + timedelta(seconds=61)),
        ("request_id", "0" * 32),
        ("resources", ()),
        ("resources", ("urn:a", "urn:b", "urn:c")),
    ],
)
async def test_every_field_is_compared(field: str, value: object) -> None:
    shop = page()
    assert await refusal(shop.signed(**{field: value}), expected(shop)) == field


def resources(website: object, wallet: object, handshake: str, kind: str = "wallet") -> tuple[str, ...]:
    return (
        f"urn:handclasp:website:{website}",
        f"urn:handclasp:{kind}:{wallet}",
        f"urn:handclasp:handshake:{handshake}",
    )


async def test_a_message_for_another_website_peer_is_refused() -> None:
    shop = page()
    other = resources(WALLET, WALLET, "00" * 32)
    assert await refusal(shop.signed(resources=other), expected(shop)) == "resources"


@pytest.mark.parametrize(
    ("wallet", "handshake", "kind"),
    [
        ("nobody", "00" * 32, "wallet"),
        (WALLET, "00" * 31, "wallet"),
        (WALLET, "AA" * 32, "wallet"),
        (WALLET, "00" * 32, "website"),
    ],
)
async def test_a_message_that_names_no_wallet_or_handshake_is_refused(
    wallet: object, handshake: str, kind: str
) -> None:
    shop = page()
    named = resources(shop.identity.peer_id, wallet, handshake, kind)
    assert await refusal(shop.signed(resources=named), expected(shop)) == "resources"


async def test_a_fourth_resource_or_another_order_is_refused() -> None:
    shop = page()
    three = resources(shop.identity.peer_id, WALLET, "00" * 32)
    for changed in ((*three, "urn:more"), three[::-1]):
        assert await refusal(shop.signed(resources=changed), expected(shop)) == "resources"


async def test_a_signature_by_another_account_is_refused() -> None:
    shop = page()
    signed = shop.signed()
    forged = LocalAccount.generate().sign_message(signed["message"])
    assert await refusal({**signed, "signature": forged}, expected(shop)) == "signature"


async def test_whoever_does_not_hold_the_websites_key_cannot_use_a_message() -> None:
    """The thief has the message, the cookie and everything that was said, but for the page's key."""
    shop, thief = page(), page()
    signed = shop.signed()
    thief.mailbox = shop.mailbox
    assert await refusal(thief.proved(signed), expected(shop)) == "proof"
    assert await refusal(shop.proved(signed, challenge="cd" * 32), expected(shop)) == "proof"
    assert await refusal(shop.proved(signed, origin="https://evil.example"), expected(shop)) == "proof"
    other = shop.signed(LocalAccount.generate())
    assert await refusal({**signed, "proof": other["proof"]}, expected(shop)) == "proof"
    assert await refusal({**signed, "proof": ""}, expected(shop)) == "proof"


async def test_without_a_nonce_of_its_own_the_server_relies_on_the_mailbox_and_the_time() -> None:
    shop = page()
    theirs = replace(expected(shop), nonce=None)
    shop.nonce = "e" * 32  # whatever the shared service gave
    assert (await verify(shop.signed(), theirs)).wallet == shop.wallet.peer_id
    assert await refusal(shop.signed(request_id="0" * 32), theirs) == "request_id"
    late = replace(theirs, begun=NOW + timedelta(seconds=61))
    assert await refusal(shop.signed(), late) == "issued_at"


async def test_the_accounts_verifier_may_be_another_one() -> None:
    class Nobody:
        asked: AccountId | None = None

        async def verify(self, account: AccountId, text: str, signature_untrusted: str) -> None:
            self.asked = account
            raise LinkRefused("signature", "is not verified here")

    shop = page()
    nobody = Nobody()
    with pytest.raises(LinkRefused, match="not verified here"):
        await verify(shop.signed(), expected(shop), nobody)
    assert str(nobody.asked) == f"eip155:1:{ACCOUNT.address}"
