"""Who may sign in from where, and for how long; each number with its reason."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from handclasp.accounts import ChainId
from handclasp.errors import ConfigurationError, ProtocolViolation

_DAY = 24 * 60 * 60
_LONGEST_SIGN_IN = 300  # no service keeps a nonce or a waiting mailbox for longer
_COOKIE = re.compile(r"__Host-[A-Za-z0-9_-]{1,40}")
_HOST = re.compile(r"[a-z0-9.-]{1,253}")


@dataclass(frozen=True, kw_only=True)
class SignInSettings:
    """How a website's accounts sign in. Times are in seconds.

    Raises:
        ConfigurationError: a value is malformed, or contradicts another; the message names it.
    """

    origins: tuple[str, ...]
    """The website's own origins, exactly as browsers send them: ``https://shop.example``. Only pages of these may
    sign in, and only with messages for the very origin they are on."""

    wallets: tuple[str, ...] = ()
    """Origins of wallets that are web pages and may use the mailboxes here. They get no session and no cookie."""

    chains: tuple[str, ...] = ("eip155:1",)
    """The chains whose accounts may sign in (CAIP-2)."""

    cookie: str = "__Host-handclasp"
    """The name of the session cookie. The prefix makes browsers refuse it from a sibling subdomain, without TLS
    and for a part of the site; the login cookie has this name and ``-login``."""

    sign_in_life: int = _LONGEST_SIGN_IN
    """From the page's QR code to the signed message: a claimed mailbox lives as long."""

    code_life: int = 60
    """From the verified message to the redeemed code: the page does it at once."""

    idle_life: int = _DAY
    """A session that nobody uses: a day covers a night."""

    session_life: int = 7 * _DAY
    """A session in use: then the wallet is asked again."""

    sign_ins: int = 100_000
    """Sign-ins under way at once: 300 bytes each, 30 MB."""

    sessions: int = 100
    """Sessions of an account; the one that was used longest ago makes room."""

    devices: int = 100
    """Linked devices of an account; likewise."""

    body_within: float = 10.0
    """How long a request's body may take in all."""

    def __post_init__(self) -> None:
        if not self.origins:
            raise ConfigurationError("origins: name at least one, such as https://shop.example")
        for name in ("origins", "wallets"):
            for origin in getattr(self, name):
                _check_origin(name, origin)
        if not self.chains:
            raise ConfigurationError("chains: name at least one, such as eip155:1")
        for chain in self.chains:
            try:
                ChainId.from_text_untrusted(chain)
            except ProtocolViolation as exc:
                raise ConfigurationError(f"chains: {exc}") from None
        if not _COOKIE.fullmatch(self.cookie):
            raise ConfigurationError("cookie: begins with __Host- and has letters, digits, - and _ after it")
        self._check_numbers()

    def _check_numbers(self) -> None:
        for name in (
            "sign_in_life",
            "code_life",
            "idle_life",
            "session_life",
            "sign_ins",
            "sessions",
            "devices",
        ):
            value: object = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
                raise ConfigurationError(f"{name} must be a positive whole number, not {value!r}")
        if not 0 < self.body_within < float("inf"):
            raise ConfigurationError("body_within must be a positive number")
        if self.sign_in_life > _LONGEST_SIGN_IN:
            raise ConfigurationError(f"sign_in_life is at most {_LONGEST_SIGN_IN} seconds")
        if self.idle_life > self.session_life:
            raise ConfigurationError("idle_life is longer than session_life: it would never end a session")


def _check_origin(name: str, origin: str) -> None:
    try:
        url = urlsplit(origin)
        host, port = url.hostname or "", url.port
    except ValueError:
        raise ConfigurationError(f"{name}: {origin!r} is not an origin") from None
    default = {"https": 443, "http": 80}.get(url.scheme)
    written = f"[{host}]" if ":" in host else host
    canonical = f"{url.scheme}://{written}" + ("" if port in (None, default) else f":{port}")
    if default is None or canonical != origin or not (_is_address(host) or _HOST.fullmatch(host)):
        raise ConfigurationError(
            f"{name}: {origin!r} is not an origin as browsers send it: scheme, host, port"
        )
    if url.scheme == "http" and not (
        _is_loopback(host) or host == "localhost" or host.endswith(".localhost")
    ):
        raise ConfigurationError(
            f"{name}: {origin!r}: browsers keep Secure cookies for https, and for localhost"
        )


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_loopback(host: str) -> bool:
    return _is_address(host) and ipaddress.ip_address(host).is_loopback
