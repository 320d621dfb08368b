"""Which ICE candidates the peer is told, and which of the peer's are tried, where the stack itself cannot be told.

Source: RFC 8839 section 5.1 (``a=candidate:foundation component protocol priority host port "typ" kind …``).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterator

_LINE = "a=candidate:"
_PROTOCOL, _HOST, _TYP, _KIND = 2, 4, 6, 7


def tell_only(sdp: str, addresses: Collection[str] | None) -> str:
    """Our description without what reveals other local addresses than these, and without TCP candidates.

    Args:
        sdp: as the stack wrote it.
        addresses: local IP addresses. None: all but loopback, or loopback when there is no other.
    """
    ours = list(_candidates(sdp))
    if addresses is None:
        hosts = [fields[_HOST] for fields in ours if fields[_KIND] == "host"]
        addresses = [host for host in hosts if not ipaddress.ip_address(host).is_loopback] or hosts
    told = [fields for fields in ours if _is_told(fields, addresses)]
    return _with_candidates(sdp, told, hide_default=True)


def try_only_addresses_untrusted(sdp: str) -> str:
    """The peer's description without candidates that would have us ask a name server for what the peer says."""
    return _with_candidates(sdp, [fields for fields in _candidates(sdp) if not _is_name(fields)])


def is_name_untrusted(candidate: str) -> bool:
    """Whether a peer's ``candidate:…`` would have us ask a name server for what the peer says."""
    return _is_name(candidate.removeprefix("candidate:").split())


def _is_told(fields: list[str], addresses: Collection[str]) -> bool:
    if fields[_PROTOCOL].lower() != "udp":
        return False  # could only call a peer that listens on TCP, which no engine here does
    if fields[_KIND] == "relay":
        return True
    # A server's view of us belongs to the local address that it was asked from.
    base = fields[fields.index("raddr") + 1] if "raddr" in fields else fields[_HOST]
    return base in addresses


def _is_name(fields: list[str]) -> bool:
    malformed = len(fields) <= _KIND or fields[_TYP] != "typ"
    if malformed or fields[_HOST].lower().endswith(".local"):
        return False  # the stack will say so; an mDNS name is not for a name server
    try:
        ipaddress.ip_address(fields[_HOST])
    except ValueError:
        return True
    return False


def _candidates(sdp: str) -> Iterator[list[str]]:
    for line in sdp.splitlines():
        if line.startswith(_LINE):
            yield line.removeprefix(_LINE).split()


def _with_candidates(sdp: str, chosen: list[list[str]], *, hide_default: bool = False) -> str:
    kept: list[str] = []
    for line in sdp.splitlines():
        if line.startswith(_LINE) and line.removeprefix(_LINE).split() not in chosen:
            continue
        kept.append(_without_default(line) if hide_default else line)
    return "".join(line + "\r\n" for line in kept)


def _without_default(line: str) -> str:
    """The lines that repeat a candidate's address, as they are before any is gathered (RFC 8840 section 4.1.1)."""
    if line.startswith("c=IN "):
        return "c=IN IP4 0.0.0.0"
    if line.startswith("m="):
        media, _, rest = line.split(" ", 2)
        return f"{media} 9 {rest}"
    return line
