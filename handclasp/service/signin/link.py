"""What a website's own server checks of a link: the signed message, and that the page holds the website's key.

The page has opened the sealed link in its channel with the wallet and hands it on; nothing that the page says is
believed. Source: docs/protocols/sign-in.md, docs/protocols/invitation.md, "The link".
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Protocol
from urllib.parse import urlsplit

import anyio.to_thread

from handclasp.accounts import AccountId, ChainId, Expectation, SignInMessage, check, verify_message
from handclasp.errors import ConfigurationError, LinkRefused, ProtocolViolation
from handclasp.identity import PeerId

__all__ = ["STATEMENT", "ExpectedLink", "SignatureVerifier", "VerifiedLink", "proof_text", "verify_link"]

#: The only statement that is accepted (docs/protocols/invitation.md).
STATEMENT = "Link this wallet to the website. This does not send a transaction and costs nothing."

_LEEWAY = timedelta(seconds=60)  # between the clocks of wallet and server
_RESOURCES = 3
_HANDSHAKE = re.compile(r"[0-9a-f]{64}")


class SignatureVerifier(Protocol):
    """Verifies signatures of accounts; `handclasp.accounts` has them."""

    async def verify(self, account: AccountId, text: str, signature_untrusted: str) -> None:
        """Check that *account* signed *text*.

        Raises:
            LinkRefused: it did not.
        """
        ...


class Eip155:
    """Ethereum accounts that are keys (EIP-191)."""

    async def verify(self, account: AccountId, text: str, signature_untrusted: str) -> None:
        """See `SignatureVerifier.verify`. In a worker thread: it takes milliseconds, the first time half a second."""
        await anyio.to_thread.run_sync(verify_message, text, signature_untrusted, account.address)


@dataclass(frozen=True, kw_only=True)
class ExpectedLink:
    """What a server knows of a sign-in from the time before the wallet signed."""

    origin: str
    """The website's origin."""

    mailbox: str
    """The mailbox id of the page's invitation: 32 hexadecimal digits."""

    website: str
    """The page's peer id."""

    chains: frozenset[str]
    """The chains whose accounts may sign in (CAIP-2)."""

    begun: datetime
    """When the page told the server of *mailbox* and *website*: an older message is a replay."""

    challenge: str = field(repr=False)
    """What the page has to sign with its peer key: 64 hexadecimal digits of the server's, for this sign-in only."""

    nonce: bytes | None = field(default=None, repr=False)
    """SHA-256 of the nonce. None where a shared service gave it; then *mailbox* stands for it."""


@dataclass(frozen=True)
class VerifiedLink:
    """What was proved."""

    account: AccountId
    wallet: PeerId
    handshake: str
    """The handshake hash, 64 hexadecimal digits: names the channel between page and wallet."""


_EIP155 = Eip155()


async def verify_link(
    message_untrusted: str,
    signature_untrusted: str,
    proof_untrusted: bytes,
    expected: ExpectedLink,
    *,
    verifier: SignatureVerifier = _EIP155,
    now: datetime | None = None,
) -> VerifiedLink:
    """Check a link that a page hands to its server; the account that signed in.

    Remember what you expect before the page shows its invitation, tied to the browser by a cookie, and forget it
    *before* you call this: it is good for one attempt, and *mailbox* must not be used again for 15 minutes.

    Args:
        message_untrusted: the sign-in message, as the wallet signed it.
        signature_untrusted: the account's signature.
        proof_untrusted: the page's signature over `proof_text`, by its peer key.
        expected: what was remembered.
        verifier: of the account's signature.
        now: the time; default is the clock's.

    Raises:
        LinkRefused: with the field at fault; ``proof``: the page does not hold the website's key.
    """
    now = datetime.now(UTC) if now is None else now
    signed = SignInMessage.from_text_untrusted(message_untrusted)
    if expected.nonce is not None and not hmac.compare_digest(_sha256(signed.nonce), expected.nonce):
        raise LinkRefused("nonce", "is not the one that was asked for")
    wallet, handshake = _bound_untrusted(signed.resources)
    parts = urlsplit(expected.origin)
    expectation = Expectation(
        scheme=None if parts.scheme == "https" else parts.scheme,
        domain=parts.netloc,
        statement=STATEMENT,
        uri=expected.origin,
        nonce=signed.nonce,
        chain_ids=_eip155(expected.chains),
        request_id=expected.mailbox,
        resources=(
            f"urn:handclasp:website:{expected.website}",
            f"urn:handclasp:wallet:{wallet}",
            f"urn:handclasp:handshake:{handshake}",
        ),
        leeway=_LEEWAY,
    )
    check(signed, expectation, now=now)
    if expected.begun - signed.issued_at > _LEEWAY:
        raise LinkRefused("issued_at", "is older than the sign-in")
    text = proof_text(expected.origin, expected.challenge, message_untrusted)
    if not PeerId.from_text_untrusted(expected.website).verify(proof_untrusted, text):
        raise LinkRefused("proof", "was not made by the key of this website's peer id")
    await verifier.verify(signed.account, message_untrusted, signature_untrusted)
    return VerifiedLink(signed.account, wallet, handshake)


def proof_text(origin: str, challenge: str, message: str) -> bytes:
    """What the page signs with its peer key."""
    return f"handclasp/1 sign-in\n{origin}\n{challenge}\n{_sha256(message).hex()}".encode()


def _bound_untrusted(resources: tuple[str, ...]) -> tuple[PeerId, str]:
    """The wallet and the handshake that a message names; that it names the website, too, is compared later."""
    if len(resources) != _RESOURCES:
        raise LinkRefused("resources", "are not website, wallet and handshake")
    wallet = resources[1].removeprefix("urn:handclasp:wallet:")
    handshake = resources[2].removeprefix("urn:handclasp:handshake:")
    if not _HANDSHAKE.fullmatch(handshake):
        raise LinkRefused("resources", "name no handshake")
    try:
        return PeerId.from_text_untrusted(wallet), handshake
    except ProtocolViolation:
        raise LinkRefused("resources", "name no wallet") from None


def _eip155(chains: frozenset[str]) -> frozenset[ChainId]:
    ids = [ChainId.from_text_untrusted(chain) for chain in chains]
    if any(chain.namespace == "eip155" and not chain.reference.isdecimal() for chain in ids):
        raise ConfigurationError("chains: an eip155 chain is named by its decimal id")
    return frozenset(chain for chain in ids if chain.namespace == "eip155")


def _sha256(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
