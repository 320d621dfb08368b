"""Peers on the same local network, found by multicast DNS: no service, no configuration. Extra: ``handclasp[mdns]``.

Source: libp2p mDNS discovery specification (service ``_p2p._udp.local``, one TXT string ``dnsaddr=<multiaddr>``
for each address), RFC 6762 and RFC 6763. libp2p peers see ours and ours see them. What libp2p does not have is
topics: a record of ours may hold ``topic=<hash>`` beside its addresses.

Everybody on the network can read, forge and end these records. A forged one costs a dial that fails:
whoever dials checks the peer id. And it tells all who are near which peers are here; a topic only
to those who can guess it.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import logging
import re
import secrets
import socket
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import TypeVarTuple
from urllib.parse import parse_qs, urlsplit

import trio
from zeroconf import Error as ZeroconfError
from zeroconf import InterfaceChoice, ServiceBrowser, ServiceInfo, ServiceStateChange, Zeroconf

from handclasp.abc import Context, Discovery, DiscoveryFactory, PeerRecord
from handclasp.errors import ConfigurationError, InvalidAddress
from handclasp.identity import PeerId
from handclasp.multiaddr import endpoint, split_peer
from handclasp.scope import open_scope

__all__ = ["MAX_ADDRESSES", "MAX_RECORDS", "MdnsDiscovery", "from_url", "mdns"]

_log = logging.getLogger(__name__)
Args = TypeVarTuple("Args")

#: Addresses of one peer that are kept. A node with four interfaces and three transports has twelve.
MAX_ADDRESSES = 16
#: Records of others that are remembered; more are not heard until one of them ends. A full /22 network.
MAX_RECORDS = 1_024
#: Topics in one record that are read; ours have one.
MAX_TOPICS = 16
#: Bytes of a TXT record that we send: it fits into one Ethernet packet (RFC 6763 §6.2).
MAX_TXT = 1_300
_LONGEST_TXT = 8_192  # bytes that are read; no mDNS message has more than 9,000 (RFC 6762 §17)
_LONGEST_STRING = 255  # bytes (RFC 6763 §6.1)
#: Seconds that others remember a record whose peer ended without a goodbye (RFC 6762 §10 has 120 for hosts).
TTL = 120
#: Seconds until the second announcement, in case the first one was lost (RFC 6762 §8.3).
_AGAIN = 1.0

_SERVICE = "_p2p._udp.local."
_DNSADDR = re.compile(rb"dnsaddr[0-9]{0,3}")  # py-libp2p numbers them: dnsaddr, dnsaddr2, …


def mdns(*, interfaces: Sequence[str] | None = None) -> DiscoveryFactory:
    """Find and be found on the local network, for `open_node`.

    Args:
        interfaces: IP addresses of this machine whose networks to use; default every IPv4 address.

    Raises:
        ConfigurationError: one of them is no IP address.
    """
    for interface in interfaces or ():
        try:
            ipaddress.ip_address(interface)
        except ValueError:
            raise ConfigurationError(f"mdns: the interface {interface!r} is not an IP address") from None
    chosen = list(interfaces) if interfaces is not None else InterfaceChoice.All

    @asynccontextmanager
    async def open_backend(context: Context) -> AsyncGenerator[Discovery]:  # noqa: ARG001 - advertise says who
        responder = await trio.to_thread.run_sync(_open_responder, chosen)
        try:
            backend = MdnsDiscovery(responder, trio.lowlevel.current_trio_token())
            browser = ServiceBrowser(responder, _SERVICE, handlers=[backend.heard])
            try:
                yield backend
            finally:
                with trio.CancelScope(
                    shield=True
                ):  # threads must not outlive a cancelled owner; milliseconds
                    await trio.to_thread.run_sync(browser.cancel)
        finally:
            with trio.CancelScope(shield=True):  # same
                await trio.to_thread.run_sync(responder.close)

    return open_backend


def from_url(url: str) -> DiscoveryFactory:
    """The backend of a URL ``mdns:`` or ``mdns:?interface=192.0.2.7``; ``interface`` may be repeated.

    Raises:
        ConfigurationError: an unknown or malformed option; the message names it.
    """
    options = parse_qs(urlsplit(url).query, keep_blank_values=True)
    unknown = options.keys() - {"interface"}
    if unknown:
        raise ConfigurationError(f"{url}: unknown option {min(unknown)!r}")
    return mdns(interfaces=options.get("interface"))


class MdnsDiscovery(Discovery):
    """The local network as one sees it by mDNS; made by `mdns`.

    A peer of another libp2p implementation has no topics and is found under its peer id only.
    A node hears itself, too.
    """

    def __init__(self, responder: Zeroconf, token: trio.lowlevel.TrioToken) -> None:
        self._responder = responder
        self._token = token
        self._records: dict[str, _Record] = {}  # by name; guarded by the lock
        self._lock = threading.Lock()
        self._changed = trio.Event()  # set, and replaced, when it changes

    def advertise(self, topic: str, me: PeerRecord) -> AbstractAsyncContextManager[None]:
        """See `Discovery.advertise`. Others hear of it within a tenth of a second, and once more after one second.

        Addresses that do not fit into a TXT record (247 bytes each, 1,300 in all) are left out.
        """
        return self._advertise(topic, me)

    @asynccontextmanager
    async def _advertise(self, topic: str, me: PeerRecord) -> AsyncGenerator[None]:
        self.check_topic(topic)
        service = _service_info(topic, me)
        self._in_responder(self._responder.registry.async_add, service)
        try:
            async with open_scope() as scope:
                scope.start_soon(self._announce, service)
                yield
        finally:  # only once no announcement can follow
            self._in_responder(self._responder.registry.async_remove, service)
            self._in_responder(self._multicast, service, 0)

    async def _announce(self, service: ServiceInfo) -> None:
        self._in_responder(self._multicast, service, TTL)
        await trio.sleep(_AGAIN)
        self._in_responder(self._multicast, service, TTL)

    def find(self, topic: str) -> AbstractAsyncContextManager[AsyncIterator[PeerRecord]]:
        """See `Discovery.find`. Who has other addresses, or left and is back, is reported again."""
        return self._find(topic)

    @asynccontextmanager
    async def _find(self, topic: str) -> AsyncGenerator[AsyncIterator[PeerRecord]]:
        self.check_topic(topic)
        yield _Found(self, topic)

    @property
    def changed(self) -> trio.Event:
        """Is set when `under` has changed since this was read."""
        return self._changed

    def under(self, topic: str) -> dict[PeerId, PeerRecord]:
        """The peers under a topic now, each with the addresses of all its records there."""
        hashed, found = _hash(topic), dict[PeerId, dict[str, None]]()
        with self._lock:
            for record in self._records.values():
                if hashed in record.topics or record.peer_text == topic:
                    found.setdefault(record.peer, {}).update(dict.fromkeys(record.addresses))
        return {peer: PeerRecord(peer, tuple(known)[:MAX_ADDRESSES]) for peer, known in found.items()}

    # --- in the responder's threads ---

    def heard(
        self,
        zeroconf: Zeroconf,
        service_type: str,
        name: str,
        state_change: ServiceStateChange,
    ) -> None:
        """A record came, changed or ended: what ``zeroconf.ServiceBrowser`` calls, in a thread of its own."""
        record = None
        if state_change is not ServiceStateChange.Removed:
            record = _read_untrusted(_txt_untrusted(zeroconf, service_type, name))
        with self._lock:
            if record is None:
                self._records.pop(name, None)
            elif name in self._records or len(self._records) < MAX_RECORDS:
                self._records[name] = record
        self._token.run_sync_soon(self._tell, idempotent=True)

    def _in_responder(self, function: Callable[[*Args], object], *args: *Args) -> None:
        assert self._responder.loop is not None  # noqa: S101 - it runs from the first moment on
        self._responder.loop.call_soon_threadsafe(function, *args)

    def _multicast(self, service: ServiceInfo, ttl: int) -> None:
        self._responder.async_send(self._responder.generate_service_broadcast(service, ttl))

    # --- in the trio thread ---

    def _tell(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


def _open_responder(interfaces: list[str] | InterfaceChoice) -> Zeroconf:
    try:
        for interface in interfaces if isinstance(interfaces, list) else ():
            _check_is_local(interface)  # zeroconf would forget to close its sockets
        return Zeroconf(interfaces=interfaces, use_asyncio=False)
    except (OSError, RuntimeError) as exc:  # no such address, no multicast, port 5353 not to be shared
        raise ConfigurationError(f"mdns: the network cannot be used: {exc}") from exc


def _check_is_local(interface: str) -> None:
    family = socket.AF_INET6 if ":" in interface else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.bind((interface, 0))


class _Found(AsyncIterator[PeerRecord]):
    """The peers under a topic as they turn up; may be cancelled and asked again."""

    def __init__(self, backend: MdnsDiscovery, topic: str) -> None:
        self._backend = backend
        self._topic = topic
        self._told: dict[PeerId, PeerRecord] = {}

    async def __anext__(self) -> PeerRecord:
        await trio.lowlevel.checkpoint()
        while True:
            changed, here = self._backend.changed, self._backend.under(self._topic)
            self._told = {peer: record for peer, record in self._told.items() if peer in here}
            for peer, record in here.items():
                if self._told.get(peer) != record:
                    self._told[peer] = record
                    return record
            await changed.wait()


# --- what is in a record ---


@dataclass(frozen=True)
class _Record:
    """What a TXT record says."""

    peer: PeerId
    peer_text: str
    addresses: tuple[str, ...]
    topics: frozenset[bytes]


def _service_info(topic: str, me: PeerRecord) -> ServiceInfo:
    addresses = [_with_peer(address, me.peer) for address in me.addresses]
    # A random name for each: the specification wants no peer id in it. Records are compared by name.
    name = secrets.token_hex(16)
    ips, port = _hosts(addresses)
    return ServiceInfo(
        _SERVICE,
        f"{name}.{_SERVICE}",
        port=port,
        server=f"{name}.local.",
        parsed_addresses=ips,
        properties=_txt(topic, me.peer, addresses),
        host_ttl=TTL,
        other_ttl=TTL,
    )


def _txt(topic: str, peer: PeerId, addresses: Sequence[str]) -> bytes:
    strings = [] if topic == str(peer) else [b"topic=" + _hash(topic)]
    strings += [b"dnsaddr=" + address.encode() for address in addresses or [f"/p2p/{peer}"]]
    txt = b""
    for string in strings:
        if len(string) > _LONGEST_STRING or len(txt) + 1 + len(string) > MAX_TXT:
            _log.info("an address does not fit into an mDNS record and is left out: %s", string)
            continue
        txt += bytes([len(string)]) + string
    return txt


def _hash(topic: str) -> bytes:
    """A topic as it stands in a record: any text has the same length then."""
    return base64.urlsafe_b64encode(hashlib.sha256(b"handclasp/1 topic " + topic.encode()).digest()).rstrip(
        b"="
    )


def _with_peer(address: str, peer: PeerId) -> str:
    end = f"/p2p/{peer}"
    return address if address.endswith(end) else address + end


def _hosts(addresses: Sequence[str]) -> tuple[list[str], int]:
    """What DNS-SD wants besides, for those who look with its tools: our IP addresses and a port."""
    ips, ports = dict[str, None](), list[int]()
    for address in addresses:
        try:
            place = endpoint(address)
            ips[str(ipaddress.ip_address(place.host))] = None
        except (InvalidAddress, ValueError):  # a memory address, a DNS name
            continue
        ports.append(place.port)
    return list(ips), ports[0] if ports else 0


def _txt_untrusted(responder: Zeroconf, service_type: str, name: str) -> bytes:
    try:
        service = ServiceInfo(service_type, name)
    except ZeroconfError:  # a pointer to something of another type
        return b""
    service.load_from_cache(responder)
    return service.text


def _read_untrusted(txt: bytes) -> _Record | None:
    """What a TXT record says; None when it names no peer. Strings that are malformed are passed over."""
    peer: PeerId | None = None
    addresses, topics = dict[str, None](), set[bytes]()
    for key, value in _pairs_untrusted(txt):
        if key == b"topic" and len(topics) < MAX_TOPICS:
            topics.add(value)
        elif _DNSADDR.fullmatch(key):
            try:
                address = value.decode("ascii")
                route, named = split_peer(address)
            except (UnicodeDecodeError, InvalidAddress):
                continue  # also a protocol that we do not speak
            peer = peer or named
            if peer == named and route and len(addresses) < MAX_ADDRESSES:
                addresses[address] = None
    return None if peer is None else _Record(peer, str(peer), tuple(addresses), frozenset(topics))


def _pairs_untrusted(txt: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The strings of a TXT record, each after its length in one byte (RFC 1035 §3.3.14), as ``key=value``."""
    position = 0
    while position < min(len(txt), _LONGEST_TXT):
        end = position + 1 + txt[position]
        key, _, value = txt[position + 1 : end].partition(b"=")
        yield key.lower(), value
        position = end
