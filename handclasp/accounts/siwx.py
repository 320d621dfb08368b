"""The text that an account signs to sign in, in one canonical form: EIP-4361 for Ethereum, CAIP-122 elsewhere.

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

The text for an account of Solana or Algorand has no scheme before the domain, an address and a chain in the
form of that namespace, and for Algorand ``Chain ID:`` stands after the request id: CAIP-122's own template,
as no profile says otherwise. Without a statement Solana's has one empty line less. `PROFILES` in
`handclasp.accounts.profiles` is that as a table.

Where the standards leave a choice, one form is accepted, so that printing what was parsed gives the
same text again and two programs cannot read one signed text in two ways:

- times are RFC 3339 in UTC with ``T`` and ``Z``, with three digits of milliseconds unless those are zero;
- the chain is a CAIP-2 reference in its one form; the scheme and the domain are lower case, the domain has
  no userinfo; the nonce and the time of issue, which CAIP-122 leaves open, are there;
- an empty statement, an empty request id and an empty list of resources are refused: leave them out.

Every refusal is a `LinkRefused` whose ``field`` is the attribute at fault, or ``"message"`` for the text as a
whole. Reasons never quote what the other side sent, nor the nonce.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from handclasp.errors import LinkRefused

from . import siwx_fields as fields
from .caip import AccountId, ChainId
from .profiles import Profile, profile_of
from .siwx_lines import LABELS, Lines, first_line

MAX_TEXT: Final = 8 * 1024
"""Characters in a message; all are ASCII, so bytes too. A person has to read it: some screens are enough."""
MAX_RESOURCES: Final = 32
"""Resources in a message. A link needs three (both peers, the handshake); the rest is for the application."""


@dataclass(frozen=True, kw_only=True)
class SignInMessage:
    """One sign-in message (EIP-4361, CAIP-122); ``str()`` gives the text to sign.

    Construction checks every field, so whatever can be printed can be parsed, and a line feed in one
    field cannot forge another. At most 8 KiB of text, 32 resources, 2 KiB for one URI.

    Raises:
        LinkRefused: a field cannot stand in such a message; ``field`` names it.
    """

    scheme: str | None = None
    """The scheme of the asking origin in lower case; None means ``https``. For ``eip155`` only."""
    domain: str
    """The asking origin's host and optional port as a browser shows them: ``example.com:8443``, ``[::1]``."""
    address: str
    """The signing account, in the one form of its namespace: EIP-55, base58, base32 with a checksum."""
    statement: str | None = None
    """What the person agrees to: one line of ASCII without ``"%<>\\^`{|}``."""
    uri: str
    """What the signature is about (RFC 3986, without userinfo)."""
    version: str = "1"
    chain_id: ChainId
    """The account's chain (CAIP-2), of the namespace ``eip155``, ``solana`` or ``algorand``."""
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
        profile = profile_of(self.chain_id)
        if self.scheme is not None:
            if not profile.has_scheme:
                raise LinkRefused("scheme", f"has no place in a message for {profile.blockchain}")
            fields.check_scheme(self.scheme)
        fields.check_domain(self.domain)
        profile.check_address(self.address)
        self._check_statement(profile)
        fields.check_uri("uri", self.uri)
        if self.version != "1":
            raise LinkRefused("version", "is not 1")
        profile.check_reference(self.chain_id.reference)
        fields.check_nonce(self.nonce)
        self._keep_times_in_utc()
        if self.request_id is not None:
            fields.check_request_id(self.request_id)
        self._check_resources()
        if len(str(self)) > MAX_TEXT:
            raise LinkRefused("message", f"is longer than {MAX_TEXT} characters")

    def _check_statement(self, profile: Profile) -> None:
        if self.statement is None:
            return
        fields.check_statement(self.statement)
        # Only an empty line would tell such a statement from the field, and this layout leaves that line out.
        if profile.empty_lines == 1 and self.statement.startswith(LABELS["uri"]):
            raise LinkRefused("statement", "begins like the next field")

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

    @property
    def account(self) -> AccountId:
        """The signing account (CAIP-10)."""
        return AccountId(self.chain_id, self.address)

    @classmethod
    def from_text_untrusted(cls, text: str) -> SignInMessage:
        """Parse the text of a message: printing the result gives *text* again, or there is no result.

        Raises:
            LinkRefused: not the canonical text of a message; ``field`` names the first field at fault.
        """
        if len(text) > MAX_TEXT:
            raise LinkRefused("message", f"is longer than {MAX_TEXT} characters")
        lines = Lines(text)
        profile, scheme, domain = lines.take_origin()
        address = lines.take("address")
        statement = lines.take_statement(profile)
        labelled = lines.take_fields(profile.order)
        resources = lines.take_resources()
        times = {
            name: fields.parse_time(name, labelled[name])
            for name in ("issued_at", "expiration_time", "not_before")
            if name in labelled
        }
        message = cls(
            scheme=scheme,
            domain=domain,
            address=address,
            statement=statement,
            uri=labelled["uri"],
            version=labelled["version"],
            chain_id=profile.parse_chain(labelled["chain_id"]),
            nonce=labelled["nonce"],
            issued_at=times["issued_at"],
            expiration_time=times.get("expiration_time"),
            not_before=times.get("not_before"),
            request_id=labelled.get("request_id"),
            resources=resources,
        )
        lines.end()
        # Follows from the checks above; stands here so that no later edit of them can undo it.
        if str(message) != text:
            raise LinkRefused("message", "is not in canonical form")
        return message

    def __str__(self) -> str:
        profile = profile_of(self.chain_id)
        origin = self.domain if self.scheme is None else f"{self.scheme}://{self.domain}"
        lines = [first_line(origin, profile), self.address]
        lines += [""] * profile.empty_lines if self.statement is None else ["", self.statement, ""]
        printed = self._printed_fields()
        lines += [LABELS[name] + printed[name] for name in profile.order if name in printed]
        if self.resources:
            lines.append(LABELS["resources"])
            lines += [f"- {resource}" for resource in self.resources]
        return "\n".join(lines)

    def _printed_fields(self) -> dict[str, str]:
        printed = {
            "uri": self.uri,
            "version": self.version,
            "chain_id": self.chain_id.reference,
            "nonce": self.nonce,
            "issued_at": fields.print_time(self.issued_at),
        }
        if self.expiration_time is not None:
            printed["expiration_time"] = fields.print_time(self.expiration_time)
        if self.not_before is not None:
            printed["not_before"] = fields.print_time(self.not_before)
        if self.request_id is not None:
            printed["request_id"] = self.request_id
        return printed
