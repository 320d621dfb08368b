"""Discovery and transports named by a URL, as on a command line.

A backend registers a function ``from_url(url: str)`` that returns its factory as an entry point, named
after the URL's scheme, in the group ``handclasp.discovery`` or ``handclasp.transports``. It is loaded
only when somebody writes such a URL, never because a package happens to be installed.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import cast

from handclasp.abc import DiscoveryFactory, TransportFactory
from handclasp.errors import ConfigurationError

__all__ = ["DISCOVERY_GROUP", "TRANSPORTS_GROUP", "discovery_from_url", "transport_from_url"]

DISCOVERY_GROUP = "handclasp.discovery"
TRANSPORTS_GROUP = "handclasp.transports"


def discovery_from_url(url: str) -> DiscoveryFactory:
    """The discovery backend that a URL names, for example ``wss://signal.example`` or ``mdns:``.

    Raises:
        ConfigurationError: no installed package handles its scheme, or the URL is malformed.
    """
    load = cast("Callable[[str], DiscoveryFactory]", _load(url, DISCOVERY_GROUP))
    return load(url)


def transport_from_url(url: str) -> TransportFactory:
    """The transport that a URL names, for example ``webrtc:`` or ``webrtc:?engine=native``.

    Raises:
        ConfigurationError: no installed package handles its scheme, or the URL is malformed.
    """
    load = cast("Callable[[str], TransportFactory]", _load(url, TRANSPORTS_GROUP))
    return load(url)


def _load(url: str, group: str) -> object:
    scheme, colon, _ = url.partition(":")
    installed = entry_points(group=group)
    if not colon:
        raise ConfigurationError(f"{url!r} is not a URL: it has no scheme ({_known(installed)})")
    found: dict[str, EntryPoint] = {entry.value: entry for entry in installed if entry.name == scheme}
    if not found:
        raise ConfigurationError(f"no installed package handles {scheme}: in {group} ({_known(installed)})")
    if len(found) > 1:  # which one wins would depend on the order of installation
        raise ConfigurationError(f"several packages handle {scheme}: in {group}: {', '.join(sorted(found))}")
    (entry,) = found.values()
    try:
        return entry.load()
    except ImportError as exc:
        raise ConfigurationError(f"{scheme}: needs a package that is not installed: {exc}") from exc


def _known(installed: object) -> str:
    names = sorted({entry.name for entry in cast("list[EntryPoint]", installed)})
    return "known: " + ", ".join(f"{name}:" for name in names)
