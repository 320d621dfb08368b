"""The link: the wallet's account signs a sign-in message that is good for this pairing only.

The message (EIP-4361) names the website's domain, the service's nonce and the mailbox, and its
resources bind both peer ids and the handshake, so it is worth nothing anywhere else.
Source: docs/protocols/invitation.md, "The link".
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import cast
from urllib.parse import urlsplit

from handclasp.accounts import (
    AccountId,
    ChainId,
    Expectation,
    LocalAccount,
    SignInMessage,
    check,
    verify_message,
)
from handclasp.discovery.signaling import Invitation
from handclasp.errors import LinkRefused
from handclasp.identity import PeerId
from handclasp.jsontext import parse_json_untrusted

__all__ = ["STATEMENT", "Pairing", "sign_link", "verify_link_untrusted"]

#: What the person reads in the wallet, and the only statement that a website accepts.
STATEMENT = "Link this wallet to the website. This does not send a transaction and costs nothing."
#: How long a signed link is good for; signing happens at once after the person agreed.
LIFETIME = timedelta(minutes=5)


@dataclass(frozen=True)
class Pairing:
    """What both sides know of one pairing and the signature has to cover."""

    invitation: Invitation
    wallet: PeerId
    nonce: str
    handshake_hash: bytes

    @property
    def _resources(self) -> tuple[str, ...]:
        return (
            f"urn:handclasp:website:{self.invitation.peer}",
            f"urn:handclasp:wallet:{self.wallet}",
            f"urn:handclasp:handshake:{self.handshake_hash.hex()}",
        )

    @property
    def _scheme(self) -> str | None:
        scheme = urlsplit(self.invitation.origin).scheme
        return None if scheme == "https" else scheme

    def message(self, address: str, chain: int, now: datetime) -> SignInMessage:
        """What the wallet signs."""
        return SignInMessage(
            scheme=self._scheme,
            domain=urlsplit(self.invitation.origin).netloc,
            address=address,
            statement=STATEMENT,
            uri=self.invitation.origin,
            chain_id=ChainId("eip155", str(chain)),
            nonce=self.nonce,
            issued_at=now,
            expiration_time=now + LIFETIME,
            request_id=self.invitation.mailbox,
            resources=self._resources,
        )

    def expectation(self, chains: frozenset[int]) -> Expectation:
        """What the website demands."""
        return Expectation(
            scheme=self._scheme,
            domain=urlsplit(self.invitation.origin).netloc,
            statement=STATEMENT,
            uri=self.invitation.origin,
            nonce=self.nonce,
            chain_ids=frozenset(ChainId("eip155", str(chain)) for chain in chains),
            request_id=self.invitation.mailbox,
            resources=self._resources,
        )


def sign_link(pairing: Pairing, account: LocalAccount, chain: int) -> bytes:
    """The wallet's link: JSON ``{"message", "signature"}``."""
    text = str(pairing.message(account.address, chain, datetime.now(UTC).replace(microsecond=0)))
    return json.dumps({"message": text, "signature": account.sign_message(text)}).encode()


def verify_link_untrusted(link: bytes, pairing: Pairing, chains: frozenset[int]) -> AccountId:
    """Check a link from every side and return the account that it proves.

    Raises:
        LinkRefused: with the field at fault.
    """
    message, signature = _parse_untrusted(link)
    signed = SignInMessage.from_text_untrusted(message)
    check(signed, pairing.expectation(chains), now=datetime.now(UTC))
    verify_message(message, signature, signed.address)
    return signed.account


def _parse_untrusted(link: bytes) -> tuple[str, str]:
    try:
        value = parse_json_untrusted(link)
    except ValueError:
        raise LinkRefused("link", "is not JSON") from None
    fields = cast("dict[str, object]", value) if isinstance(value, dict) else {}
    if fields.get("refused") == "by the person":
        raise LinkRefused("approval", "the person at the wallet declined")
    message, signature = fields.get("message"), fields.get("signature")
    if not isinstance(message, str) or not isinstance(signature, str):
        raise LinkRefused("link", "has no message or no signature")
    return message, signature


#: What the wallet sends instead of a link when its person says no.
DECLINED = json.dumps({"refused": "by the person"}).encode()


def verdict(refusal: LinkRefused | None) -> bytes:
    """The website's answer to a link: JSON ``{"linked": true}`` or ``{"linked": false, "field", "reason"}``."""
    if refusal is None:
        return json.dumps({"linked": True}).encode()
    return json.dumps({"linked": False, "field": refusal.field, "reason": refusal.reason}).encode()


def check_verdict_untrusted(text: bytes) -> None:
    """Read the website's answer.

    Raises:
        LinkRefused: it did not accept the link, or answered something else.
    """
    try:
        value = parse_json_untrusted(text)
    except ValueError:
        raise LinkRefused("verdict", "the website answered with something that is not JSON") from None
    fields = cast("dict[str, object]", value) if isinstance(value, dict) else {}
    if fields.get("linked") is not True:
        raise LinkRefused(str(fields.get("field"))[:40], str(fields.get("reason"))[:200])
