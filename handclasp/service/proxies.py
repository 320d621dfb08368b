"""Whom a request comes from when there is a proxy in front: a header counts only when a proxy of ours has sent it.

Source: ``X-Forwarded-For`` as nginx and Caddy write it, each adding at the end the address that it saw.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import TypeAlias, cast

from handclasp.errors import ConfigurationError

from .asgi import Scope

_Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
_UNIX = "unix"
_MOST_HOPS = 16  # proxies of ours in a row; the rest of the header is anybody's


class Proxies:
    """The proxies that are ours, as networks; ``unix`` stands for whoever comes by a Unix socket.

    Raises:
        ConfigurationError: one of them is no network; the message names it.
    """

    def __init__(self, networks: Iterable[str]) -> None:
        self._networks: list[_Network] = []
        self._unix = False
        for text in networks:
            if text == _UNIX:
                self._unix = True
                continue
            try:
                self._networks.append(ipaddress.ip_network(text))
            except ValueError as exc:
                raise ConfigurationError(f"proxies: {exc} (a network such as 10.0.0.0/8, or unix)") from None

    def client_untrusted(self, scope: Scope) -> str:
        """The address of the client of a request: the last in the chain that is no proxy of ours.

        Nothing is raised: where a proxy wrote something that is no address, the client is that proxy.
        """
        client = cast("tuple[str, int] | None", scope.get("client"))
        address = client[0] if client else ""
        if not self._is_ours(address):
            return address
        lines = [
            value
            for name, value in cast("Iterable[tuple[bytes, bytes]]", scope["headers"])
            if name == b"x-forwarded-for"
        ]
        hops = b",".join(lines).decode("latin-1").rsplit(",", _MOST_HOPS)
        for hop in reversed(hops):
            told = _address_untrusted(hop.strip())
            if told is None:
                break
            address = told
            if not self._is_ours(address):
                break
        return address

    def _is_ours(self, address: str) -> bool:
        if not address:
            return self._unix
        if not self._networks:
            return False
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
            parsed = parsed.ipv4_mapped
        return any(parsed in network for network in self._networks)


def _address_untrusted(text: str) -> str | None:
    """The address in a hop, some proxies add the port; None when there is none."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return None
