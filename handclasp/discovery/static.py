"""Peers at addresses that are known beforehand: a list instead of a way to look.

::

    async with open_node(discovery=[static("/dns4/signal.example/tcp/443/wss/webrtc/p2p/12D3KooW…")], …) as node: ...
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import trio

from handclasp.abc import Context, Discovery, DiscoveryFactory, PeerRecord
from handclasp.errors import ConfigurationError, InvalidAddress, ProtocolViolation
from handclasp.identity import PeerId
from handclasp.multiaddr import split_peer

__all__ = ["StaticDiscovery", "from_url", "static"]


def static(*addresses: str) -> DiscoveryFactory:
    """Know some peers, for `open_node`.

    Args:
        addresses: multiaddrs that end in ``/p2p/<peer id>``; a peer may have several, tried in this order.

    Raises:
        ConfigurationError: one of them is no such address; the message names it.
    """
    peers: dict[PeerId, list[str]] = {}
    for address in addresses:
        try:
            _, peer = split_peer(address)
        except InvalidAddress as exc:
            raise ConfigurationError(f"a static peer: {exc}") from None
        peers.setdefault(peer, []).append(address)
    records = {peer: PeerRecord(peer, tuple(known)) for peer, known in peers.items()}

    @asynccontextmanager
    async def open_backend(context: Context) -> AsyncGenerator[Discovery]:  # noqa: ARG001 - says nothing of itself
        yield StaticDiscovery(records)

    return open_backend


def from_url(url: str) -> DiscoveryFactory:
    """The list of a URL ``static:/ip4/192.0.2.1/tcp/4001/webrtc/p2p/12D3KooW…,/ip4/…``.

    Raises:
        ConfigurationError: it names no address, or something that is none.
    """
    addresses = url.removeprefix("static:")
    if not addresses:
        raise ConfigurationError(f"{url!r} names no address: static:<address>,<address>,…")
    return static(*addresses.split(","))


class StaticDiscovery(Discovery):
    """The list; made by `static`.

    It knows peers and no topics. Under a peer id it finds that peer, if it is listed. Under any other topic
    it finds all: whoever wrote the list means these peers, whatever a program calls what they have in common.
    """

    def __init__(self, records: Mapping[PeerId, PeerRecord]) -> None:
        self._records = records

    def advertise(self, topic: str, me: PeerRecord) -> AbstractAsyncContextManager[None]:  # noqa: ARG002
        """Does nothing: who knows this node has it on a list of his own."""
        self.check_topic(topic)
        return _nothing()

    def find(self, topic: str) -> AbstractAsyncContextManager[AsyncIterator[PeerRecord]]:
        """See `Discovery.find`. The iterator ends after the last peer: nobody else will turn up."""
        self.check_topic(topic)
        try:
            listed = self._records.get(PeerId.from_text_untrusted(topic))
        except ProtocolViolation:
            return _each(*self._records.values())
        return _each(*([listed] if listed else []))


@asynccontextmanager
async def _nothing() -> AsyncGenerator[None]:
    yield


@asynccontextmanager
async def _each(*records: PeerRecord) -> AsyncGenerator[AsyncIterator[PeerRecord]]:
    send, receive = trio.open_memory_channel[PeerRecord](len(records))
    with send:
        for record in records:
            send.send_nowait(record)
    with receive:
        yield receive
