"""Sign-In with Ethereum: the text an account signs to sign in (EIP-4361), in one canonical form.

Shape, with line feeds only and none at the end; brackets mark what may be absent::

    [scheme://]domain wants you to sign in with your Ethereum account:
    0xAddress (EIP-55)
    <empty>
    [statement]
    [<empty>, only after a statement]
    URI: …
    Version: 1
    Chain ID: …
    Nonce: …
    Issued At: …
    [Expiration Time: …]
    [Not Before: …]
    [Request ID: …]
    [Resources:
    - …]

Where EIP-4361 leaves a choice, one form is accepted, so that printing what was parsed gives the
same text again and two programs cannot read one signed text in two ways:

- times are RFC 3339 in UTC with ``T`` and ``Z``, with three digits of milliseconds unless those are zero;
- the chain id has no leading zeros; the scheme and the domain are lower case, the domain has no userinfo;
- an empty statement, an empty request id and an empty list of resources are refused: leave them out.

Every refusal is a `LinkRefused` whose ``field`` is the attribute at fault, or ``"message"`` for the text as a
whole. Reasons never quote what the other side sent, nor the nonce.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from handclasp.errors import ConfigurationError, LinkRefused

from . import siwe_fields as fields
from .eip155 import checksum_address
from .siwe_lines import LABELS, WANTS, Lines

MAX_TEXT: Final = 8 * 1024
"""Characters in a message; all are ASCII, so bytes too. A person has to read it: some screens are enough."""
MAX_RESOURCES: Final = 32
"""Resources in a message. A link needs three (both peers, the handshake); the rest is for the application."""
MAX_LIFETIME: Final = timedelta(minutes=10)
"""The longest time from issue to expiry: long enough to find and unlock a wallet, too short to stockpile."""
MAX_LEEWAY: Final = timedelta(minutes=5)
"""The largest clock skew that may be allowed for: more would rival the lifetime itself."""


@dataclass(frozen=True, kw_only=True)
class SignInMessage:
    """One sign-in message (EIP-4361); ``str()`` gives the text to sign.

    Construction checks every field, so whatever can be printed can be parsed, and a line feed in one
    field cannot forge another. At most 8 KiB of text, 32 resources, 2 KiB for one URI.

    Raises:
        LinkRefused: a field cannot stand in such a message; ``field`` names it.
    """

    scheme: str | None = None
    """The scheme of the asking origin in lower case; None means ``https``."""
    domain: str
    """The asking origin's host and optional port as a browser shows them: ``example.com:8443``, ``[::1]``."""
    address: str
    """The signing account in EIP-55 form."""
    statement: str | None = None
    """What the person agrees to: one line of ASCII without ``"%<>\\^`{|}``."""
    uri: str
    """What the signature is about (RFC 3986, without userinfo)."""
    version: str = "1"
    chain_id: int
    """The EIP-155 chain id, from 1 to 9223372036854775771 (EIP-2294)."""
    nonce: str = field(repr=False)
    """8 to 128 ASCII letters and digits; kept out of ``repr`` because that ends up in logs."""
    issued_at: datetime
    """With a time zone, whole milliseconds; kept in UTC. The same holds for the other two."""
    expiration_time: datetime | None = None
    """From then on the message is void."""
    not_before: datetime | None = None
    """Until then the message is void."""
    request_id: str | None = None
    """One or more ``pchar`` of RFC 3986."""
    resources: tuple[str, ...] = ()
    """URIs (RFC 3986, without userinfo) in the order in which they are printed."""

    def __post_init__(self) -> None:
        if self.scheme is not None:
            fields.check_scheme(self.scheme)
        fields.check_domain(self.domain)
        if checksum_address(self.address) != self.address:
            raise LinkRefused("address", "is not in EIP-55 form")
        if self.statement is not None:
            fields.check_statement(self.statement)
        fields.check_uri("uri", self.uri)
        if self.version != "1":
            raise LinkRefused("version", "is not 1")
        fields.check_chain_id(self.chain_id)
        fields.check_nonce(self.nonce)
        self._keep_times_in_utc()
        if self.request_id is not None:
            fields.check_request_id(self.request_id)
        self._check_resources()
        if len(str(self)) > MAX_TEXT:
            raise LinkRefused("message", f"is longer than {MAX_TEXT} characters")

    def _keep_times_in_utc(self) -> None:
        # One zone for all: datetimes of two zones compare unequal in a repeated hour.
        for name in ("issued_at", "expiration_time", "not_before"):
            value: datetime | None = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, fields.check_time(name, value))

    def _check_resources(self) -> None:
        if len(self.resources) > MAX_RESOURCES:
            raise LinkRefused("resources", f"are more than {MAX_RESOURCES}")
        for resource in self.resources:
            fields.check_uri("resources", resource)

    @classmethod
    def from_text_untrusted(cls, text: str) -> SignInMessage:
        """Parse the text of a message: printing the result gives *text* again, or there is no result.

        Raises:
            LinkRefused: not the canonical text of a message; ``field`` names the first field at fault.
        """
        if len(text) > MAX_TEXT:
            raise LinkRefused("message", f"is longer than {MAX_TEXT} characters")
        lines = Lines(text)
        scheme, domain = lines.take_origin()
        address = lines.take("address")
        statement = lines.take_statement()
        message = cls(
            scheme=scheme,
            domain=domain,
            address=address,
            statement=statement,
            uri=lines.take_labelled("uri"),
            version=lines.take_labelled("version"),
            chain_id=fields.parse_chain_id(lines.take_labelled("chain_id")),
            nonce=lines.take_labelled("nonce"),
            issued_at=fields.parse_time("issued_at", lines.take_labelled("issued_at")),
            expiration_time=lines.take_time("expiration_time"),
            not_before=lines.take_time("not_before"),
            request_id=lines.take_optional("request_id"),
            resources=lines.take_resources(),
        )
        lines.end()
        # Follows from the checks above; stands here so that no later edit of them can undo it.
        if str(message) != text:
            raise LinkRefused("message", "is not in canonical form")
        return message

    def __str__(self) -> str:
        origin = self.domain if self.scheme is None else f"{self.scheme}://{self.domain}"
        lines = [origin + WANTS, self.address, ""]
        if self.statement is not None:
            lines.append(self.statement)
        lines += ["", LABELS["uri"] + self.uri, LABELS["version"] + self.version]
        lines += [f"{LABELS['chain_id']}{self.chain_id}", LABELS["nonce"] + self.nonce]
        lines.append(LABELS["issued_at"] + fields.print_time(self.issued_at))
        if self.expiration_time is not None:
            lines.append(LABELS["expiration_time"] + fields.print_time(self.expiration_time))
        if self.not_before is not None:
            lines.append(LABELS["not_before"] + fields.print_time(self.not_before))
        if self.request_id is not None:
            lines.append(LABELS["request_id"] + self.request_id)
        if self.resources:
            lines.append(LABELS["resources"])
            lines += [f"- {resource}" for resource in self.resources]
        return "\n".join(lines)


@dataclass(frozen=True, kw_only=True)
class Expectation:
    """What a verifier demands of a message; every field is compared, None means that it must be absent.

    Only `chain_ids` and `address` leave a choice: any of the set, and any account if None.

    Raises:
        ConfigurationError: no chain is allowed, the address is not in EIP-55 form, *max_lifetime* is not
            between 0 and 10 minutes, or *leeway* not between 0 and 5 minutes.
    """

    domain: str
    uri: str
    nonce: str = field(repr=False)
    chain_ids: frozenset[int]
    request_id: str | None
    resources: tuple[str, ...]
    """Exactly these, in this order: they bind both peers and the handshake."""
    scheme: str | None = None
    statement: str | None = None
    address: str | None = None
    max_lifetime: timedelta = MAX_LIFETIME
    leeway: timedelta = timedelta(seconds=60)
    """How far the two clocks may be apart; phones without network time drift by seconds, not minutes."""

    def __post_init__(self) -> None:
        if not self.chain_ids:
            raise ConfigurationError("chain_ids is empty: name at least one chain that may sign in")
        if not timedelta(0) < self.max_lifetime <= MAX_LIFETIME:
            raise ConfigurationError(f"max_lifetime must be more than 0 and at most {MAX_LIFETIME}")
        if not timedelta(0) <= self.leeway <= MAX_LEEWAY:
            raise ConfigurationError(f"leeway must be between 0 and {MAX_LEEWAY}")
        if self.address is not None:
            try:
                canonical = checksum_address(self.address)
            except LinkRefused as exc:
                raise ConfigurationError(f"address {exc.reason}") from None
            if canonical != self.address:
                raise ConfigurationError("address is not in EIP-55 form: pass it through checksum_address()")


def check(message: SignInMessage, expectation: Expectation, *, now: datetime) -> None:
    """Compare every field of *message* with what is expected, in the order in which they are printed.

    scheme, domain, address, statement, uri, chain_id, nonce, issued_at, expiration_time, not_before,
    request_id, resources. The version is 1 in every message there is. The signature is not looked at
    (`handclasp.accounts.verify_message`), and a nonce must have been taken from its store before.

    With ``leeway`` on both ends, a message is good while ``issued_at - leeway <= now``,
    ``not_before - leeway <= now`` and ``now < expiration_time + leeway``. An expiration time is
    mandatory, after ``issued_at`` by at most ``max_lifetime``, and after ``not_before``.

    Raises:
        LinkRefused: the first field that does not fit; ``field`` names it.
        ConfigurationError: *now* has no time zone.
    """
    if now.utcoffset() is None:
        raise ConfigurationError("now has no time zone: use datetime.now(UTC)")
    same = (
        ("scheme", message.scheme == expectation.scheme),
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
