"""Where a signaling service is: as the URL that a person writes, and as the multiaddr that peers exchange."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from handclasp.errors import ConfigurationError, InvalidAddress
from handclasp.multiaddr import Part, at, endpoint, parse

__all__ = ["ServiceAddress"]

_PORTS = {"ws": 80, "wss": 443}
_PATH = re.compile(r"(?:/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._~-]+)*")


@dataclass(frozen=True)
class ServiceAddress:
    """A service; made by `from_url`.

    Attributes:
        url: its WebSocket URL in canonical form, without a trailing slash.
        host: its ``Host`` header: what a proof of a peer id is for.
        multiaddr: for example ``/dns4/signal.example/tcp/443/wss``; a path ``/a/b`` in the URL becomes
            ``/http-path/a%2Fb`` at its end.
    """

    url: str
    host: str
    multiaddr: str

    @classmethod
    def from_url(cls, url: str) -> ServiceAddress:
        """The service of a URL ``wss://signal.example`` or ``ws://127.0.0.1:8787/below/a/path``.

        Raises:
            ConfigurationError: it is not such a URL, or holds more.
        """
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
        except ValueError as exc:
            raise ConfigurationError(f"{url}: {exc}") from None
        path = parts.path.rstrip("/")
        if parts.scheme not in _PORTS or not host:
            raise ConfigurationError(f"{url!r} is not the URL of a signaling service: ws://… or wss://…")
        if port == 0 or "@" in parts.netloc or parts.query or parts.fragment or not _PATH.fullmatch(path):
            raise ConfigurationError(
                f"{url!r}: the URL of a signaling service holds a host, a port and a path of letters, digits and ._~-"
            )
        usual = _PORTS[parts.scheme]
        try:
            multiaddr = f"{at(host, 'tcp', port or usual)}/{parts.scheme}"
        except InvalidAddress as exc:
            raise ConfigurationError(f"{url}: {exc}") from None
        if path:
            multiaddr += f"/http-path/{quote(path[1:], safe='')}"
        netloc = f"[{host}]" if ":" in host else host
        if port not in (None, usual):
            netloc += f":{port}"
        return cls(f"{parts.scheme}://{netloc}{path}", netloc, multiaddr)

    def is_at(self, address: str) -> bool:
        """Whether a multiaddr is this service's, however it spells ``wss`` and the kind of DNS."""
        try:
            return _place(address) == _place(self.multiaddr)
        except InvalidAddress:
            return False


def _place(address: str) -> tuple[str, int, tuple[Part, ...]]:
    if parse(address)[1:2] and parse(address)[1][0] != "tcp":
        raise InvalidAddress(f"{address} is not TCP")
    place = endpoint(address)
    rest = place.rest
    if rest[:2] == (("tls", None), ("ws", None)):  # libp2p's newer spelling
        rest = (("wss", None), *rest[2:])
    return place.host.lower(), place.port, rest
