"""Multiaddrs: what this project uses of them, checked. Everywhere but in libp2p's own messages they are text.

Source: multiformats/multiaddr specification and its protocol table. The package ``multiaddr`` is not
used: docs/decisions/0004-multiaddr-as-text.md.
"""

from __future__ import annotations

import base64
import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import TypeAlias
from urllib.parse import quote, unquote

from .errors import InvalidAddress, ProtocolViolation
from .identity import PeerId
from .protobuf import decode_uvarint_untrusted, encode_uvarint

__all__ = [
    "Endpoint",
    "Part",
    "at",
    "endpoint",
    "from_bytes_untrusted",
    "join",
    "parse",
    "peer_of",
    "split_peer",
    "to_bytes",
]

#: One component: protocol and value; None where the protocol has no value.
Part: TypeAlias = tuple[str, str | None]

_LONGEST = 1_024  # characters; a relay address with a certificate hash has about 300
_MOST_PARTS = 32
_NAME = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9_-]{1,63}(?<!-))*\.?")


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
        if protocol not in _PROTOCOLS:
            raise InvalidAddress(f"{address[:200]!r}: unknown protocol {protocol!r}")
        kind, value = _PROTOCOLS[protocol][1], None
        if kind is not None:
            value = next(words, "")
            if not kind.accepts(value):
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
        ip = ipaddress.ip_address(host)
    except ValueError:
        return join(*parse(f"/dns4/{host}/{protocol}/{port}"))
    return join(*parse(f"/ip{ip.version}/{ip}/{protocol}/{port}"))


def to_bytes(address: str) -> bytes:
    """The binary form, which libp2p's identify and peer records hold.

    Raises:
        InvalidAddress: see `parse`.
    """
    encoded = bytearray()
    for protocol, text in parse(address):
        code, kind = _PROTOCOLS[protocol]
        encoded += encode_uvarint(code)
        if kind is not None and text is not None:
            value = kind.encode(text)
            encoded += value if kind.size else encode_uvarint(len(value)) + value
    return bytes(encoded)


def from_bytes_untrusted(data: bytes) -> str:
    """The text of a multiaddr in binary form.

    Raises:
        ProtocolViolation: malformed, or with a protocol that this module does not know.
    """
    parts: list[Part] = []
    offset = 0
    while offset < len(data):
        code, offset = _read_uvarint(data, offset)
        if code not in _NAMES or len(parts) >= _MOST_PARTS:
            raise ProtocolViolation(f"a multiaddr has the unknown protocol {code}, or too many parts")
        protocol = _NAMES[code]
        kind = _PROTOCOLS[protocol][1]
        value = None
        if kind is not None:
            size, offset = (kind.size, offset) if kind.size else _read_uvarint(data, offset)
            value, offset = data[offset : offset + size], offset + size
            if offset > len(data):
                raise ProtocolViolation("a multiaddr was cut short")
        parts.append((protocol, None if kind is None or value is None else _decode(kind, value)))
    text = join(*parts)
    try:
        parse(text)
    except InvalidAddress as exc:
        raise ProtocolViolation(f"a multiaddr is malformed: {exc}") from None
    return text


def _decode(kind: _Value, value: bytes) -> str:
    try:
        return kind.decode(value)
    except ValueError:
        raise ProtocolViolation("a multiaddr holds a malformed value") from None


def _read_uvarint(data: bytes, offset: int) -> tuple[int, int]:
    decoded = decode_uvarint_untrusted(data, offset)
    if decoded is None:
        raise ProtocolViolation("a multiaddr was cut short")
    return decoded


# --- what a component's value looks like ---


@dataclass(frozen=True)
class _Value:
    """One kind of value, as text and as bytes."""

    size: int  # bytes of the binary form; 0 where a length stands before it
    encode: Callable[[str], bytes]  # raises ValueError where the text is no such value
    decode: Callable[[bytes], str]  # raises ValueError

    def accepts(self, text: str) -> bool:
        """Whether *text* is such a value, in its canonical form."""
        try:
            return self.decode(self.encode(text)) == text
        except (ValueError, ProtocolViolation):
            return False


def _number(size: int) -> _Value:
    def encode(text: str) -> bytes:
        if not text.isascii() or not text.isdigit() or len(text) > 20:  # noqa: PLR2004 - digits of 2**64
            raise ValueError("not a number")
        try:
            return int(text).to_bytes(size, "big")
        except OverflowError:
            raise ValueError("too high") from None

    return _Value(size, encode, lambda data: str(int.from_bytes(data, "big")))


def _encode_name(text: str) -> bytes:
    if _NAME.fullmatch(text) is None or len(text) > 253:  # noqa: PLR2004 - RFC 1035 §3.1
        raise ValueError("not a DNS name")
    return text.encode()


def _encode_path(text: str) -> bytes:
    if not text:
        raise ValueError("not a path")
    return unquote(text, errors="strict").encode()


def _encode_hash(text: str) -> bytes:
    # multibase base64url without padding: the only one that WebRTC and WebTransport addresses use
    if not text.startswith("u") or len(text) > 128:  # noqa: PLR2004 - a SHA-512 multihash has 90
        raise ValueError("not multibase base64url")
    hashed = base64.b64decode(text[1:] + "=" * (-len(text[1:]) % 4), altchars=b"-_", validate=True)
    if len(hashed) <= 2 or hashed[1] != len(hashed) - 2:  # noqa: PLR2004 - code, length, digest
        raise ValueError("not a multihash")
    return hashed


def _decode_hash(data: bytes) -> str:
    return "u" + base64.urlsafe_b64encode(data).rstrip(b"=").decode()


_IP4 = _Value(4, lambda text: IPv4Address(text).packed, lambda data: str(IPv4Address(data)))
_IP6 = _Value(16, lambda text: IPv6Address(text).packed, lambda data: str(IPv6Address(data)))
_NAME_VALUE = _Value(0, _encode_name, lambda data: data.decode())
_PEER = _Value(
    0,
    lambda text: bytes(PeerId.from_text_untrusted(text)),
    lambda data: str(PeerId.from_bytes_untrusted(data)),
)
_HASH = _Value(0, _encode_hash, _decode_hash)
_PATH = _Value(0, _encode_path, lambda data: quote(data.decode(), safe=""))
_PORT = _number(2)

#: Code (multicodec table) and kind of value; None where there is none.
_PROTOCOLS: dict[str, tuple[int, _Value | None]] = {
    "certhash": (466, _HASH),
    "dns": (53, _NAME_VALUE),
    "dns4": (54, _NAME_VALUE),
    "dns6": (55, _NAME_VALUE),
    "dnsaddr": (56, _NAME_VALUE),
    "http-path": (481, _PATH),
    "ip4": (4, _IP4),
    "ip6": (41, _IP6),
    "memory": (777, _number(8)),
    "p2p": (421, _PEER),
    "p2p-circuit": (290, None),
    "quic-v1": (461, None),
    "tcp": (6, _PORT),
    "tls": (448, None),
    "udp": (273, _PORT),
    "webrtc": (281, None),
    "webrtc-direct": (280, None),
    "ws": (477, None),
    "wss": (478, None),
}
_NAMES = {code: name for name, (code, _) in _PROTOCOLS.items()}
