"""The STUN and TURN servers that a signaling service names: bounded, checked, and nothing in the local network.

The service is not trusted. A server of its choice learns what it knows already, the address of whoever asks; it must
not make a peer knock at doors behind the peer's own firewall.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import cast
from urllib.parse import urlsplit

from handclasp.abc import IceServer
from handclasp.errors import ProtocolViolation

__all__ = ["Offered", "offered_untrusted"]

_MOST_SERVERS = 8  # URLs; each costs sockets and time on every interface
_LONGEST = 512  # characters of a user name or password
_URL = re.compile(
    r"(?:stuns?|turns?):(?P<host>[A-Za-z0-9.-]{1,253}|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?(?:\?transport=(?:udp|tcp))?"
)


@dataclass(frozen=True)
class Offered:
    """What a service has to offer.

    Attributes:
        servers: one for each URL.
        more: TURN servers will be there once the mailbox is claimed.
    """

    servers: tuple[IceServer, ...] = ()
    more: bool = False


def offered_untrusted(answer: dict[str, object], service: str) -> Offered:
    """The servers in an answer to ``GET /ice`` of the service at the URL *service*.

    Those at a private IP address count only when the service itself is at one: then it is somebody's own network.

    Raises:
        ProtocolViolation: it is no such answer.
    """
    entries, more = answer.get("ice_servers"), answer.get("more")
    if not isinstance(entries, list) or not isinstance(more, bool):
        raise ProtocolViolation("no list in 'ice_servers', or no 'more'")
    servers = [server for entry in cast("list[object]", entries) for server in _servers_untrusted(entry)]
    if len(servers) > _MOST_SERVERS:
        raise ProtocolViolation(f"more than {_MOST_SERVERS} ICE servers")
    at_home = _is_private(urlsplit(service).hostname or "")
    return Offered(tuple(each for each in servers if at_home or not _is_private(_host_of(each.url))), more)


def _servers_untrusted(entry: object) -> list[IceServer]:
    fields = cast("dict[str, object]", entry) if isinstance(entry, dict) else {}
    urls, username, credential = fields.get("urls"), fields.get("username"), fields.get("credential")
    if not isinstance(urls, list) or not (_is_short(username) and _is_short(credential)):
        raise ProtocolViolation("an ICE server that is none")
    servers: list[IceServer] = []
    for url in cast("list[object]", urls):
        if not isinstance(url, str) or not _URL.fullmatch(url):
            raise ProtocolViolation("an ICE server without a URL of STUN or TURN")
        servers.append(IceServer(url, cast("str | None", username), cast("str | None", credential)))
    return servers


def _is_short(value: object) -> bool:
    return value is None or (isinstance(value, str) and len(value) <= _LONGEST)


def _host_of(url: str) -> str:
    match = _URL.fullmatch(url)
    return "" if match is None else match["host"].strip("[]")


def _is_private(host: str) -> bool:
    try:
        return not ipaddress.ip_address(host).is_global
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
