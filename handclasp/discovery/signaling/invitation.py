"""The invitation: what the QR code or link holds.

The wire form, its rules and test vectors are in docs/protocols/invitation.md.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
import secrets
from dataclasses import dataclass
from urllib.parse import urlsplit

from handclasp.errors import ConfigurationError, InvitationRefused, ProtocolViolation
from handclasp.identity import PeerId

__all__ = ["LIFETIME", "LONGEST_LIFETIME", "POLICIES", "SECRET_LENGTH", "Invitation"]

#: Seconds that an invitation is good for unless told otherwise: time to take out a phone, and no more.
LIFETIME = 120
#: Seconds that it can be good for at most: no service keeps a mailbox that nobody claimed for longer.
LONGEST_LIFETIME = 300
#: Bytes of the secret; 128 bits cannot be guessed by a service that sees the mailbox id.
SECRET_LENGTH = 16
#: The locality policies that an invitation may demand at least (docs/protocols/invitation.md).
POLICIES = ("open", "same-egress", "same-lan", "passkey", "same-lan-or-passkey")

_SCHEME = "handclasp:1?"
_FIELDS = ("service", "origin", "peer", "secret", "expires", "policy")
_LONGEST = 600  # characters; a QR code of this size can still be scanned from a screen
_LATEST = 2**40  # seconds since 1970; keeps arithmetic on hostile numbers small
# The last label must not be a number: browsers read 127.1 and 0x7f.1 as spellings of an IPv4 address.
_HOST = re.compile(
    r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*"
    r"(?!(?:[0-9]+|0x[0-9a-f]*)\Z)[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
)
# No "." or ".." segments: HTTP clients resolve them, and then two texts name one place.
_PATH = re.compile(r"(?:/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._~-]+)*")
_SECRET = re.compile(r"[A-Za-z0-9_-]{22}")


@dataclass(frozen=True)
class Invitation:
    """An offer to meet in a mailbox. ``str(invitation)`` is its one canonical text form.

    Attributes:
        service: WebSocket URL of the signaling service, without ``/ws`` and without a trailing slash.
        origin: web origin of the website, as *claimed* by it.
        peer: the website's peer id; the wallet talks to nobody else.
        secret: 16 random bytes that the service never sees.
        expires: Unix time in seconds from which on the wallet refuses it.
        policy: the least locality policy that the wallet has to apply; one of `POLICIES`.
    """

    service: str
    origin: str
    peer: PeerId
    secret: bytes
    expires: int
    policy: str = "open"

    @classmethod
    def create(
        cls,
        *,
        service: str,
        origin: str,
        peer: PeerId,
        now: float,
        lifetime: float = LIFETIME,
        policy: str = "open",
    ) -> Invitation:
        """A new invitation with a fresh secret.

        Raises:
            ConfigurationError: *service*, *origin*, *lifetime* or *policy* cannot stand in an invitation.
        """
        if not 0 < lifetime <= LONGEST_LIFETIME:
            raise ConfigurationError(f"lifetime: more than 0 and at most {LONGEST_LIFETIME} s")
        invitation = cls(
            service, origin, peer, secrets.token_bytes(SECRET_LENGTH), int(now + lifetime), policy
        )
        try:
            cls.from_text_untrusted(str(invitation), now=now)
        except InvitationRefused as exc:
            raise ConfigurationError(f"{exc.field}: {exc.reason}") from None
        return invitation

    @classmethod
    def from_text_untrusted(cls, text: str, *, now: float) -> Invitation:
        """Parse what was scanned or pasted. Exactly one text stands for an invitation.

        Raises:
            InvitationRefused: with the field at fault.
        """
        invitation = cls._parse_untrusted(text)
        if invitation.expires <= now:
            raise InvitationRefused(
                "expires", f"it expired {now - invitation.expires:.0f} s ago: ask the website for a new one"
            )
        return invitation

    @classmethod
    def _parse_untrusted(cls, text: str) -> Invitation:
        if len(text) > _LONGEST:
            raise InvitationRefused("invitation", f"longer than {_LONGEST} characters")
        if not text.startswith(_SCHEME):
            raise InvitationRefused(
                "version", f"an invitation begins with {_SCHEME!r}: update the older of the two programs"
            )
        values: dict[str, str] = {}
        for part in text.removeprefix(_SCHEME).split("&"):
            name, separator, value = part.partition("=")
            if not separator:
                raise InvitationRefused("invitation", "a field without '='")  # may be the secret: not shown
            if name not in _FIELDS:
                raise InvitationRefused("invitation", f"unknown field {name[:20]!r}")
            if name in values:
                raise InvitationRefused(name, "given twice")
            values[name] = value
        for name in _FIELDS[:-1]:
            if name not in values:
                raise InvitationRefused(name, "missing")
        invitation = cls(
            service=_url_untrusted("service", values["service"], ("wss", "ws")),
            origin=_url_untrusted("origin", values["origin"], ("https", "http")),
            peer=_peer_untrusted(values["peer"]),
            secret=_secret_untrusted(values["secret"]),
            expires=_expires_untrusted(values["expires"]),
            policy=_policy_untrusted(values.get("policy")),
        )
        if str(invitation) != text:  # fields out of order, or another spelling of the same value
            raise InvitationRefused("invitation", "not in canonical form")
        return invitation

    def __str__(self) -> str:
        text = (
            f"{_SCHEME}service={self.service}&origin={self.origin}&peer={self.peer}"
            f"&secret={_base64url(self.secret)}&expires={self.expires}"
        )
        return text if self.policy == "open" else f"{text}&policy={self.policy}"

    def __repr__(self) -> str:
        return f"<Invitation from {self.origin} by {self.service}, peer {self.peer}>"  # never the secret

    @property
    def mailbox(self) -> str:
        """The mailbox id: 32 hexadecimal digits that tell the service nothing about the secret."""
        return _derive(self.secret, b"handclasp/1 mailbox").hex()

    @property
    def prologue(self) -> bytes:
        """What both sides hash into the handshake, so that an edit of any field makes it fail."""
        return b"handclasp/1 invitation" + hashlib.sha256(str(self).encode()).digest()


def _derive(secret: bytes, info: bytes) -> bytes:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return HKDF(hashes.SHA256(), 16, salt=b"", info=info).derive(secret)


def _base64url(data: bytes) -> str:
    import base64

    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _url_untrusted(field: str, text: str, schemes: tuple[str, str]) -> str:
    """Check a URL made of scheme, host, optional port and, for the service, a path."""
    try:
        url = urlsplit(text)
        host, port = url.hostname or "", url.port
    except ValueError:
        raise InvitationRefused(field, "not a URL") from None
    secure, plain = schemes
    if url.scheme not in schemes:
        raise InvitationRefused(field, f"begins with neither {secure}:// nor {plain}://")
    private = _is_private(field, host)
    if url.scheme == plain and not private:
        raise InvitationRefused(
            field, f"{plain}:// is for this machine and private networks; use {secure}://"
        )
    if url.path and not (field == "service" and _PATH.fullmatch(url.path)):
        raise InvitationRefused(field, "has a path that is not allowed")
    default = {"wss": 443, "https": 443, "ws": 80, "http": 80}[url.scheme]
    written_host = f"[{host}]" if ":" in host else host
    canonical = f"{url.scheme}://{written_host}{'' if port in (None, default) else f':{port}'}{url.path}"
    if canonical != text:
        raise InvitationRefused(field, f"not in canonical form (that would be {canonical})")
    return text


def _is_private(field: str, host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        if not host or len(host) > 253 or not _HOST.fullmatch(host):  # noqa: PLR2004 - RFC 1035 §2.3.4
            raise InvitationRefused(field, "has no valid host name") from None
        return host == "localhost" or host.endswith(".localhost")
    if isinstance(address, ipaddress.IPv6Address) and (address.scope_id or address.ipv4_mapped):
        # A zone means something on one machine only, and may hold any character; an IPv4-mapped address
        # is spelt in two ways, depending on the version of Python.
        raise InvitationRefused(field, "has an IPv6 address with a zone, or one that is mapped from IPv4")
    if str(address) != host:
        raise InvitationRefused(field, f"not in canonical form (that would be {address})")
    return address.is_private


def _peer_untrusted(text: str) -> PeerId:
    try:
        return PeerId.from_text_untrusted(text)
    except ProtocolViolation as exc:
        raise InvitationRefused("peer", str(exc)) from None


def _secret_untrusted(text: str) -> bytes:
    import base64

    if not _SECRET.fullmatch(text):
        raise InvitationRefused("secret", "not 22 characters of base64url")
    return base64.urlsafe_b64decode(text + "==")


def _expires_untrusted(text: str) -> int:
    if not re.fullmatch(r"[1-9][0-9]{0,12}", text) or int(text) > _LATEST:
        raise InvitationRefused("expires", "not a Unix time in whole seconds")
    return int(text)


def _policy_untrusted(text: str | None) -> str:
    if text is None:
        return "open"
    if text not in POLICIES:
        raise InvitationRefused("policy", f"unknown; it is one of {', '.join(POLICIES)}")
    return text
