"""Multiaddrs as text: what this project uses of them, checked.

Source: multiformats/multiaddr specification and its protocol table. The package ``multiaddr`` is not
used: docs/decisions/0004-multiaddr-as-text.md.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from .errors import InvalidAddress, ProtocolViolation
from .identity import PeerId

__all__ = ["Endpoint", "Part", "at", "endpoint", "join", "parse", "peer_of", "split_peer"]

#: One component: protocol and value; None where the protocol has no value.
Part: TypeAlias = tuple[str, str | None]

_LONGEST = 1_024  # characters; a relay address with a certificate hash has about 300
_MOST_PARTS = 32
_NAME = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9_-]{1,63}(?<!-))*\.?")
_HIGHEST_PORT = 65_535


def parse(address: str) -> tuple[Part, ...]:
    """The components of a multiaddr in its canonical text form.

    Raises:
        InvalidAddress: unknown protocol, malformed value, or not a multiaddr at all; the message names it.
    """
    if not address.startswith("/") or len(address) > _LONGEST:
        raise InvalidAddress(
            f"an address begins with / and has at most {_LONGEST} characters: {address[:80]!r}"
        )
    words = iter(address[1:].split("/"))
    parts: list[Part] = []
    for protocol in words:
        if protocol not in _CHECKS:
            raise InvalidAddress(f"{address[:200]!r}: unknown protocol {protocol!r}")
        check, value = _CHECKS[protocol], None
        if check is not None:
            value = next(words, "")
            if not check(value):
                raise InvalidAddress(f"{address[:200]!r}: {value!r} is not a value of {protocol}")
        parts.append((protocol, value))
        if len(parts) > _MOST_PARTS:
            raise InvalidAddress(f"an address has at most {_MOST_PARTS} parts")
    return tuple(parts)


def join(*parts: Part) -> str:
    """The text of some components."""
    return "".join(f"/{protocol}" if value is None else f"/{protocol}/{value}" for protocol, value in parts)


def split_peer(address: str) -> tuple[str, PeerId]:
    """An address without its last component, ``/p2p/<peer id>``, and that peer.

    Raises:
        InvalidAddress: it does not end in a peer id.
    """
    parts = parse(address)
    protocol, value = parts[-1]
    if protocol != "p2p" or value is None:
        raise InvalidAddress(f"{address!r} does not end in /p2p/<peer id>")
    return join(*parts[:-1]), PeerId.from_text_untrusted(value)


def peer_of(address: str) -> PeerId:
    """The peer at the end of an address; see `split_peer`."""
    return split_peer(address)[1]


@dataclass(frozen=True)
class Endpoint:
    """The host and port that an address begins with, and what is spoken there."""

    host: str
    """An IP address or a DNS name."""
    port: int
    rest: tuple[Part, ...]
    """What follows, for example ``(("wss", None),)``."""


def endpoint(address: str) -> Endpoint:
    """Take apart an address that begins with a host and a TCP or UDP port.

    Raises:
        InvalidAddress: it begins with something else.
    """
    parts = parse(address)
    match parts[:2]:
        case (("ip4" | "ip6" | "dns" | "dns4" | "dns6", str(host)), ("tcp" | "udp", str(port))):
            return Endpoint(host, int(port), parts[2:])
        case _:
            raise InvalidAddress(f"{address!r} does not begin with a host and a port")


def at(host: str, protocol: str, port: int) -> str:
    """The address of a port, for example ``at("192.0.2.1", "tcp", 80)`` is ``/ip4/192.0.2.1/tcp/80``.

    Raises:
        InvalidAddress: *host* is neither an IP address nor a DNS name, or *port* is none.
    """
    try:
        kind = f"ip{ipaddress.ip_address(host).version}"
    except ValueError:
        kind = "dns4"
    return join(*parse(f"/{kind}/{host}/{protocol}/{port}"))


def _is_ip(version: int) -> Callable[[str], bool]:
    def check(value: str) -> bool:
        try:
            ip = ipaddress.ip_address(value)
        except ValueError:
            return False
        # Python takes any text as an IPv6 scope; multiaddr has none (its protocol ip6zone is not used here).
        return ip.version == version and str(ip) == value and "%" not in value

    return check


def _is_port(value: str) -> bool:
    return value.isascii() and value.isdigit() and str(int(value)) == value and int(value) <= _HIGHEST_PORT


def _is_name(value: str) -> bool:
    return _NAME.fullmatch(value) is not None and len(value) <= 253  # noqa: PLR2004 - RFC 1035 §3.1


def _is_peer(value: str) -> bool:
    try:
        PeerId.from_text_untrusted(value)
    except ProtocolViolation:
        return False
    return True


def _is_number(value: str) -> bool:
    return value.isascii() and value.isdigit() and str(int(value)) == value and int(value) < 2**64


def _is_multibase(value: str) -> bool:
    return re.fullmatch(r"[a-zA-Z0-9_-]{2,128}", value) is not None


#: What each protocol's value has to look like; None where it has none.
_CHECKS: dict[str, Callable[[str], bool] | None] = {
    "certhash": _is_multibase,
    "dns": _is_name,
    "dns4": _is_name,
    "dns6": _is_name,
    "dnsaddr": _is_name,
    "ip4": _is_ip(4),
    "ip6": _is_ip(6),
    "memory": _is_number,
    "p2p": _is_peer,
    "p2p-circuit": None,
    "quic-v1": None,
    "tcp": _is_port,
    "tls": None,
    "udp": _is_port,
    "webrtc": None,
    "webrtc-direct": None,
    "ws": None,
    "wss": None,
}
