"""What a website demands of a sign-in message, and the one comparison for every namespace.

The signature is not looked at here: `handclasp.accounts.verify_sign_in` does all of it, in the right order.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from handclasp.errors import ConfigurationError, LinkRefused

from .caip import ChainId
from .profiles import profile_of
from .siwx import SignInMessage

MAX_LIFETIME: Final = timedelta(minutes=10)
"""The longest time from issue to expiry: long enough to find and unlock a wallet, too short to stockpile."""
MAX_LEEWAY: Final = timedelta(minutes=5)
"""The largest clock skew that may be allowed for: more would rival the lifetime itself."""


@dataclass(frozen=True, kw_only=True)
class Expectation:
    """What a verifier demands of a message; every field is compared, None means that it must be absent.

    Only `chain_ids` and `address` leave a choice: any of the set, and any account if None.

    Raises:
        ConfigurationError: no chain is allowed, or one of a namespace without sign-in text; the address is
            not in the one form of such a chain's namespace; *max_lifetime* is not between 0 and 10 minutes,
            or *leeway* not between 0 and 5 minutes.
    """

    domain: str
    uri: str
    nonce: str = field(repr=False)
    chain_ids: frozenset[ChainId]
    """CAIP-2; they may be of several namespaces."""
    request_id: str | None
    resources: tuple[str, ...]
    """Exactly these, in this order: they bind both peers and the handshake."""
    scheme: str | None = None
    """Compared where the text has one (``eip155``); in the others, the URI tells it."""
    statement: str | None = None
    address: str | None = None
    max_lifetime: timedelta = MAX_LIFETIME
    leeway: timedelta = timedelta(seconds=60)
    """How far the two clocks may be apart; phones without network time drift by seconds, not minutes."""

    def __post_init__(self) -> None:
        if not self.chain_ids:
            raise ConfigurationError("chain_ids is empty: name at least one chain that may sign in")
        refusals = [self._refusal(chain) for chain in sorted(self.chain_ids)]
        if all(refusals):  # an address is of one namespace, and the others may stay allowed
            raise ConfigurationError(f"address {refusals[0]}")
        if not timedelta(0) < self.max_lifetime <= MAX_LIFETIME:
            raise ConfigurationError(f"max_lifetime must be more than 0 and at most {MAX_LIFETIME}")
        if not timedelta(0) <= self.leeway <= MAX_LEEWAY:
            raise ConfigurationError(f"leeway must be between 0 and {MAX_LEEWAY}")

    def _refusal(self, chain: ChainId) -> str | None:
        """Why the address cannot be one of *chain*."""
        try:
            profile = profile_of(chain)
            profile.check_reference(chain.reference)
        except LinkRefused as exc:
            raise ConfigurationError(f"chain_ids: {chain} {exc.reason}") from None
        if self.address is None:
            return None
        try:
            profile.check_address(self.address)
        except LinkRefused as exc:
            return exc.reason
        return None


def check(message: SignInMessage, expectation: Expectation, *, now: datetime) -> None:
    """Compare every field of *message* with what is expected, in this order.

    scheme, domain, address, statement, uri, chain_id, nonce, issued_at, expiration_time, not_before,
    request_id, resources. The version is 1 in every message there is. The signature is not looked at
    (`handclasp.accounts.verify_sign_in`), and a nonce must have been taken from its store before.

    With ``leeway`` on both ends, a message is good while ``issued_at - leeway <= now``,
    ``not_before - leeway <= now`` and ``now < expiration_time + leeway``. An expiration time is
    mandatory, after ``issued_at`` by at most ``max_lifetime``, and after ``not_before``.

    Raises:
        LinkRefused: the first field that does not fit; ``field`` names it.
        ConfigurationError: *now* has no time zone.
    """
    if now.utcoffset() is None:
        raise ConfigurationError("now has no time zone: use datetime.now(UTC)")
    scheme = expectation.scheme if profile_of(message.chain_id).has_scheme else None
    same = (
        ("scheme", message.scheme == scheme),
        ("domain", message.domain == expectation.domain),
        ("address", expectation.address in (None, message.address)),
        ("statement", message.statement == expectation.statement),
        ("uri", message.uri == expectation.uri),
        ("chain_id", message.chain_id in expectation.chain_ids),
        ("nonce", message.nonce == expectation.nonce),
    )
    for name, holds in same:
        if not holds:
            raise LinkRefused(name, "is not the one that was asked for")
    _check_times(message, expectation, now.astimezone(UTC))
    if message.request_id != expectation.request_id:
        raise LinkRefused("request_id", "is not the one that was asked for")
    if message.resources != expectation.resources:
        raise LinkRefused("resources", "are not those that were asked for, in that order")


def _check_times(message: SignInMessage, expectation: Expectation, now: datetime) -> None:
    # Differences only: a time in the year 1 minus a leeway would overflow, and the other side chose it.
    if message.issued_at - now > expectation.leeway:
        raise LinkRefused("issued_at", "is in the future: check the clocks of both devices")
    expires = message.expiration_time
    if expires is None:
        raise LinkRefused("expiration_time", "is missing")
    lifetime = expires - message.issued_at
    if not timedelta(0) < lifetime <= expectation.max_lifetime:
        raise LinkRefused("expiration_time", f"is not within {expectation.max_lifetime} after issued_at")
    if now - expires >= expectation.leeway:
        raise LinkRefused("expiration_time", "has passed: ask for a new message")
    if message.not_before is not None:
        if message.not_before >= expires:
            raise LinkRefused("not_before", "is not before expiration_time")
        if message.not_before - now > expectation.leeway:
            raise LinkRefused("not_before", "is in the future: check the clocks of both devices")
