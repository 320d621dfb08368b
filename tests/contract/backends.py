"""Every backend of ours, in one table: the contract suites and the matrix run on each line of it.

A new backend is one function that opens its place (a network, a service, a folder) and one line below.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

import pytest

from handclasp.abc import Context, DiscoveryFactory, Signaling, SignalingChannel, TransportFactory
from handclasp.discovery.direct import direct
from handclasp.discovery.mdns import mdns
from handclasp.discovery.memory import MemoryMeeting
from handclasp.discovery.signaling import signaling
from handclasp.testing import open_service
from handclasp.testing.stream import MIB
from handclasp.transports.memory import WINDOW, MemoryNetwork
from handclasp.transports.webrtc import transport as webrtc_transport
from handclasp.transports.webrtc import webrtc
from handclasp.transports.webrtc.aiortc import AiortcEngine
from handclasp.transports.webrtc.credit import WINDOW as READ_WINDOW
from handclasp.transports.webrtc.native import NativeEngine
from handclasp.transports.webrtc.stream import SEND_WINDOW

F = TypeVar("F")
#: Opens a place where peers of one backend can meet; each peer enters the factory that it yields.
Place: TypeAlias = Callable[[], AbstractAsyncContextManager[F]]


@dataclass(frozen=True)
class DiscoveryBackend:
    """A way to find peers, to signal to them, or both."""

    name: str
    open: Place[DiscoveryFactory]
    options: dict[str, Any] = field(default_factory=dict)
    """What its suite is told, for example how long a change may take."""


@dataclass(frozen=True)
class TransportBackend:
    """A way to travel."""

    name: str
    open: Place[TransportFactory]
    most_buffered: int
    """Bytes of one stream that may wait between its ends."""
    signaling: Place[DiscoveryFactory] | None = None
    """What it needs to reach others."""
    dial_timeout: tuple[object, str] | None = None
    """Module and name of its deadline, which the tests of hanging dials shorten."""
    quiet: float = 0.02
    """Seconds of stillness after which what is left counts as forgotten; more where threads clean up."""
    defects: dict[str, str] = field(default_factory=dict)
    """What is known to be wrong, by suite. A suite that passes all the same fails the test run."""


# --- places ---


@asynccontextmanager
async def memory_network() -> AsyncGenerator[TransportFactory]:
    yield MemoryNetwork().transport


@asynccontextmanager
async def memory_meeting() -> AsyncGenerator[DiscoveryFactory]:
    yield MemoryMeeting().backend


@asynccontextmanager
async def webrtc_on_loopback() -> AsyncGenerator[TransportFactory]:
    yield webrtc(engine=AiortcEngine(addresses=["127.0.0.1"]))


@asynccontextmanager
async def native_on_loopback() -> AsyncGenerator[TransportFactory]:
    yield webrtc(engine=NativeEngine(addresses=["127.0.0.1"]))


@asynccontextmanager
async def tcp_on_loopback() -> AsyncGenerator[DiscoveryFactory]:
    yield direct()


@asynccontextmanager
async def mdns_on_loopback() -> AsyncGenerator[DiscoveryFactory]:
    yield mdns(interfaces=["127.0.0.1"])


@asynccontextmanager
async def a_service() -> AsyncGenerator[DiscoveryFactory]:
    async with open_service() as url:
        yield signaling(url)


# --- the table ---

# The queue to send from, the window of what is unread, and what was read and not yet reported.
_WEBRTC_BUFFERS = SEND_WINDOW + READ_WINDOW + MIB // 4

# `static` has no line here: in a list that is fixed beforehand nobody comes, changes or leaves, and under every topic
# there are all. The suite is about just that; what the list promises instead is in tests/discovery/test_static.py.
DISCOVERY: Sequence[DiscoveryBackend] = [
    DiscoveryBackend("memory", memory_meeting),
    DiscoveryBackend("mdns", mdns_on_loopback),
    DiscoveryBackend("signaling", a_service),
]

SIGNALING: Sequence[DiscoveryBackend] = [
    DiscoveryBackend("memory", memory_meeting),
    DiscoveryBackend("direct", tcp_on_loopback),
    DiscoveryBackend("signaling", a_service),
]

TRANSPORTS: Sequence[TransportBackend] = [
    TransportBackend("memory", memory_network, most_buffered=WINDOW),
    TransportBackend(
        "webrtc-aiortc",
        webrtc_on_loopback,
        most_buffered=_WEBRTC_BUFFERS,
        signaling=memory_meeting,
        dial_timeout=(webrtc_transport, "DIAL_TIMEOUT"),
    ),
    TransportBackend(
        "webrtc-native",
        native_on_loopback,
        most_buffered=_WEBRTC_BUFFERS,
        signaling=memory_meeting,
        dial_timeout=(webrtc_transport, "DIAL_TIMEOUT"),
    ),
]


def cases(
    backends: Sequence[TransportBackend] | Sequence[DiscoveryBackend], suite: str
) -> pytest.MarkDecorator:
    """Run a test on each backend; where *suite* has a known defect, it has to fail."""
    params = []
    for backend in backends:
        defect = backend.defects.get(suite) if isinstance(backend, TransportBackend) else None
        marks = [pytest.mark.xfail(reason=defect, strict=True)] if defect else []
        params.append(pytest.param(backend, id=backend.name, marks=marks))
    return pytest.mark.parametrize("backend", params)


@asynccontextmanager
async def open_transport(
    backend: TransportBackend,
) -> AsyncGenerator[tuple[TransportFactory, DiscoveryFactory | None]]:
    """A place for peers of this transport: its factory, and that of the signaling it needs."""
    async with backend.open() as factory:
        if backend.signaling is None:
            yield factory, None
        else:
            async with backend.signaling() as signaling:
                yield factory, only_signaling(signaling)


def only_signaling(factory: DiscoveryFactory) -> DiscoveryFactory:
    """The signaling of a backend that is a discovery, too: so that peers find each other elsewhere."""

    @asynccontextmanager
    async def open_signaling(context: Context) -> AsyncGenerator[Signaling]:
        async with factory(context) as backend:
            assert isinstance(backend, Signaling)
            yield _OnlySignaling(backend)

    return open_signaling


class _OnlySignaling(Signaling):
    def __init__(self, backend: Signaling) -> None:
        self._backend = backend

    @property
    def address(self) -> str:
        return self._backend.address

    def can_reach(self, address: str) -> bool:
        return self._backend.can_reach(address)

    async def open_channel(self, address: str, peer: Any) -> SignalingChannel:
        return await self._backend.open_channel(address, peer)

    def incoming(self) -> AbstractAsyncContextManager[Any]:
        return self._backend.incoming()
