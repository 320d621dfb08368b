"""The columns of the matrix: every way to find a peer, with every way to connect to it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import TypeAlias

from handclasp.abc import DiscoveryFactory, TransportFactory
from handclasp.discovery.direct import direct
from handclasp.discovery.mdns import mdns
from handclasp.discovery.memory import MemoryMeeting
from handclasp.discovery.signaling import signaling
from handclasp.discovery.static import static
from handclasp.testing import open_service
from handclasp.transports.memory import MemoryNetwork
from handclasp.transports.webrtc import webrtc
from handclasp.transports.webrtc.aiortc import AiortcEngine
from handclasp.transports.webrtc.native import NativeEngine

#: The discovery of the server, and that of the client, who is told the server's addresses.
Sides: TypeAlias = tuple[Sequence[DiscoveryFactory], Callable[[Sequence[str]], Sequence[DiscoveryFactory]]]


@dataclass(frozen=True)
class Discovery:
    """A way to find peers, and to signal to them."""

    name: str
    open: Callable[[], AbstractAsyncContextManager[Sides]]


@dataclass(frozen=True)
class Transport:
    """A way to connect."""

    name: str
    open: Callable[[], TransportFactory]
    """One for both peers."""


@asynccontextmanager
async def in_memory() -> AsyncGenerator[Sides]:
    meeting = MemoryMeeting()
    yield [meeting.backend], lambda _: [meeting.backend]


@asynccontextmanager
async def through_a_service() -> AsyncGenerator[Sides]:
    async with open_service() as url:
        yield [signaling(url)], lambda _: [signaling(url)]


@asynccontextmanager
async def on_the_local_network() -> AsyncGenerator[Sides]:
    backends = [mdns(interfaces=["127.0.0.1"]), direct()]
    yield backends, lambda _: backends


@asynccontextmanager
async def at_known_addresses() -> AsyncGenerator[Sides]:
    yield [direct()], lambda addresses: [static(*addresses), direct()]


DISCOVERY = [
    Discovery("memory", in_memory),
    Discovery("signaling service", through_a_service),
    Discovery("mDNS + direct", on_the_local_network),
    Discovery("static + direct", at_known_addresses),
]
TRANSPORTS = [
    Transport("memory", lambda: MemoryNetwork().transport),
    Transport("WebRTC, aiortc", lambda: webrtc(engine=AiortcEngine(addresses=["127.0.0.1"]))),
    Transport("WebRTC, native", lambda: webrtc(engine=NativeEngine(addresses=["127.0.0.1"]))),
]
