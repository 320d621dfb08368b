"""The fields of a sign-in message that are alike in every namespace: what may stand in each.

Sources: EIP-4361 §ABNF, CAIP-122 §Abstract Data Model, RFC 3986, RFC 3339.

Every function raises `LinkRefused` with the field's name. None of them lets a control character, a line
feed, a carriage return or anything outside ASCII through, because each expression lists what it allows.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Final

from handclasp.errors import LinkRefused

_UNRESERVED: Final = r"A-Za-z0-9\-._~"  # RFC 3986 §2.3
_SUB_DELIMS: Final = r"!$&'()*+,;="  # RFC 3986 §2.2
_PERCENT: Final = r"%[0-9A-Fa-f]{2}"
_PCHAR: Final = rf"(?:[{_UNRESERVED}{_SUB_DELIMS}:@]|{_PERCENT})"  # RFC 3986 §3.3
_HOST: Final = rf"(?:\[(?P<ip6>[0-9A-Fa-f:.]+)\]|(?:[{_UNRESERVED}{_SUB_DELIMS}]|{_PERCENT})*)"
_SCHEME: Final = re.compile(r"[a-z][a-z0-9+.\-]*")  # RFC 3986 §3.1: produced in lower case
_URI: Final = re.compile(
    rf"{_SCHEME.pattern}:"
    rf"(?://{_HOST}(?::[0-9]{{1,5}})?(?:/{_PCHAR}*)*"  # authority without userinfo: user@host misleads people
    rf"|/(?:{_PCHAR}+(?:/{_PCHAR}*)*)?"  # path-absolute
    rf"|{_PCHAR}+(?:/{_PCHAR}*)*"  # path-rootless: urn:…, did:…
    rf")(?:\?(?:{_PCHAR}|[/?])*)?(?:#(?:{_PCHAR}|[/?])*)?"
)
_STATEMENT: Final = re.compile(rf"[{_UNRESERVED}{_SUB_DELIMS}:/?#\[\]@ ]+")
_NONCE: Final = re.compile(r"[A-Za-z0-9]{8,128}")
_REQUEST_ID: Final = re.compile(rf"{_PCHAR}+")
_TIME: Final = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})T([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{3}))?Z"
)
_DOMAIN: Final = re.compile(r"(?P<host>\[(?P<ip6>[0-9a-f:.]+)\]|[a-z0-9.\-]+)(?::(?P<port>[1-9][0-9]{0,4}))?")
_LABEL: Final = re.compile(r"[a-z0-9](?:[a-z0-9\-]{0,61}[a-z0-9])?")  # RFC 1035 §2.3.4, RFC 1123 §2.1
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")

_LONGEST_HOST: Final = 253  # RFC 1035 §2.3.4 as text, without the root's dot
_HIGHEST_PORT: Final = 2**16 - 1
_LONGEST_URI: Final = 2048  # as for the service's own URLs


def check_scheme(value: str) -> None:
    """A scheme in lower case (RFC 3986 §3.1)."""
    if _SCHEME.fullmatch(value) is None:
        raise LinkRefused("scheme", "is not a URI scheme in lower case")


def check_domain(value: str) -> None:
    """A host with an optional port, in the one form that browsers give an origin: no userinfo, lower case."""
    match = _DOMAIN.fullmatch(value)
    if match is None:
        raise LinkRefused("domain", "is not a host in lower case with an optional port")
    if match["port"] is not None and int(match["port"]) > _HIGHEST_PORT:
        raise LinkRefused("domain", "has a port above 65535")
    if match["ip6"] is not None:
        if _ip6(match["ip6"]) != match["ip6"]:
            raise LinkRefused("domain", "is not an IPv6 address in its shortest form")
        return
    host = match["host"]
    labels = host.split(".")
    if len(host) > _LONGEST_HOST or any(_LABEL.fullmatch(label) is None for label in labels):
        raise LinkRefused("domain", "is not a host name")
    # If the last label is a number, browsers read the whole as IPv4, in ways of their own (WHATWG URL §3.5).
    if _NUMBER.fullmatch(labels[-1]) is not None:
        try:
            IPv4Address(host)
        except AddressValueError:
            raise LinkRefused("domain", "is neither a host name nor an IPv4 address") from None


def check_statement(value: str) -> None:
    """One line of ``reserved / unreserved / " "``; EIP-4361 allows an empty one, which nobody could see."""
    if _STATEMENT.fullmatch(value) is None:
        raise LinkRefused("statement", "is empty or has a character that EIP-4361 does not allow")


def check_uri(name: str, value: str) -> None:
    """A URI (RFC 3986 §3) without userinfo, its scheme in lower case, of at most 2048 characters."""
    if len(value) > _LONGEST_URI:
        raise LinkRefused(name, f"has a URI of more than {_LONGEST_URI} characters")
    match = _URI.fullmatch(value)
    if match is None:
        raise LinkRefused(name, "is not a URI without userinfo (RFC 3986)")
    if match["ip6"] is not None and _ip6(match["ip6"]) is None:
        raise LinkRefused(name, "has a host that is not an IPv6 address")


def check_nonce(value: str) -> None:
    """8 to 128 letters and digits: EIP-4361 sets the lower limit, 64 bytes in hex are the upper."""
    if _NONCE.fullmatch(value) is None:
        raise LinkRefused("nonce", "is not 8 to 128 ASCII letters and digits")


def check_request_id(value: str) -> None:
    """One or more ``pchar`` (RFC 3986 §3.3)."""
    if _REQUEST_ID.fullmatch(value) is None:
        raise LinkRefused("request_id", "is empty or has a character that RFC 3986 does not allow in a path")


def check_time(name: str, value: datetime) -> datetime:
    """*value* in UTC; it must have a time zone and whole milliseconds, or it could not be printed exactly."""
    if value.utcoffset() is None:
        raise LinkRefused(name, "has no time zone")
    if value.microsecond % 1000:
        raise LinkRefused(name, "is finer than a millisecond")
    try:
        return value.astimezone(UTC)
    except OverflowError:  # the first and last hours of datetime's range
        raise LinkRefused(name, "is out of range") from None


def print_time(value: datetime) -> str:
    """RFC 3339 in UTC: ``2021-09-30T16:25:24Z``, or ``…:24.250Z`` if there are milliseconds."""
    precision = "milliseconds" if value.microsecond else "seconds"
    return value.replace(tzinfo=None).isoformat(timespec=precision) + "Z"


def parse_time(name: str, text: str) -> datetime:
    """The time that `print_time` prints as *text*, and nothing else: no offsets, no leap seconds."""
    match = _TIME.fullmatch(text)
    if match is None:
        raise LinkRefused(name, "is not an RFC 3339 time in UTC, like 2021-09-30T16:25:24Z")
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    milliseconds = int(match[7] or 0)
    if match[7] is not None and not milliseconds:
        raise LinkRefused(name, "has milliseconds that are zero: leave them out")
    try:
        return datetime(year, month, day, hour, minute, second, milliseconds * 1000, tzinfo=UTC)
    except ValueError:
        raise LinkRefused(name, "is not a time that exists") from None


def _ip6(text: str) -> str | None:
    try:
        return IPv6Address(text).compressed
    except AddressValueError:
        return None
