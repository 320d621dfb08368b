"""Who verifies signatures of which namespace: a small interface, and a table that a website makes itself.

::

    verifiers = Verifiers({"eip155": Eip155Verifier(), "solana": SolanaVerifier()})
    account = await verify_sign_in(text, signature, expectation, verifiers, now=datetime.now(UTC))
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Protocol

from handclasp.errors import ConfigurationError, LinkRefused

from .caip import AccountId
from .siwx import SignInMessage
from .siwx_check import Expectation, check


class Verifier(Protocol):
    """Verifies the signatures of one namespace's accounts.

    Yours belongs in `Verifiers` under its namespace. What it takes has to be separated from everything else
    that the account's key signs, transactions first.
    """

    async def verify(self, account: AccountId, text: str, signature_untrusted: str) -> None:
        """Check that *account* signed *text*; returning is the only sign that it did.

        Cancelling leaves nothing behind.

        Raises:
            LinkRefused: ``signature`` or ``address``: it did not, or cannot be known to have.
            ProtocolViolation: *text* is none that this namespace signs.
            WorldFault: a node had to be asked and did not answer; nothing is known.
        """
        ...


class Verifiers:
    """One verifier for each namespace that may sign in; itself a `Verifier`.

    Raises:
        ConfigurationError: *by_namespace* is empty.
    """

    def __init__(self, by_namespace: Mapping[str, Verifier]) -> None:
        if not by_namespace:
            raise ConfigurationError("name at least one namespace whose accounts may sign in")
        self._by_namespace = dict(by_namespace)

    async def verify(self, account: AccountId, text: str, signature_untrusted: str) -> None:
        """Check that *account* signed *text*, by the verifier for its namespace.

        Raises:
            LinkRefused: ``chain_id``: no verifier for this namespace; or what the verifier says.
            ProtocolViolation, WorldFault: as the verifier says.
        """
        verifier = self._by_namespace.get(account.chain.namespace)
        if verifier is None:
            raise LinkRefused("chain_id", "is of a namespace whose signatures are not verified here")
        await verifier.verify(account, text, signature_untrusted)


async def verify_sign_in(
    text_untrusted: str,
    signature_untrusted: str,
    expectation: Expectation,
    verifiers: Verifier,
    *,
    now: datetime,
) -> AccountId:
    """Read a signed sign-in message, compare every field, verify the signature; the account that signed in.

    The signature comes last: it may cost questions to a node. Take the nonce from its store before, so that
    it is good for one attempt.

    Raises:
        LinkRefused: with the field at fault.
        WorldFault: a node had to be asked and did not answer.
        ConfigurationError: *now* has no time zone.
    """
    message = SignInMessage.from_text_untrusted(text_untrusted)
    check(message, expectation, now=now)
    await verifiers.verify(message.account, text_untrusted, signature_untrusted)
    return message.account
