"""The contracts between the parts of a peer: what a transport, a signaling or a discovery backend promises.

Shaped on libp2p's, written in trio's manner. Everything here runs on trio; everything
that can be closed is an async context manager; every method may be cancelled at any
await and leaves its object usable or closed, never half done.

`handclasp.testing` holds a contract suite for each; the in-memory backends
(`handclasp.transports.memory`, `handclasp.discovery.memory`) are the smallest
implementations.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import trio

from .errors import MisuseError
from .identity import Identity, PeerId

__all__ = [
    "Connection",
    "Context",
    "Discovery",
    "DiscoveryFactory",
    "Handler",
    "IceServer",
    "Listener",
    "Path",
    "PeerRecord",
    "Signaling",
    "SignalingChannel",
    "Stream",
    "Transport",
    "TransportFactory",
]


class Stream(trio.abc.HalfCloseableStream):
    """A reliable byte stream to one peer, closable in one direction at a time.

    Beyond trio's contract: a reader that pauses loses nothing; ``send_all(b"")``
    sends nothing; the peer's end of file is ``b""`` and replies are still possible
    after it. ``aclose()`` flushes nothing more: call ``send_eof()`` first when the
    peer must see everything.
    """

    @abstractmethod
    async def reset(self) -> None:
        """End both directions at once; the peer's next call raises `trio.BrokenResourceError`."""


@dataclass(frozen=True)
class Path:
    """The way that a connection's bytes take."""

    kind: Literal["memory", "direct", "relayed"]
    """``relayed`` when a server passes the (still encrypted) bytes on."""
    local: str
    """This end as a multiaddr, for example ``/ip4/192.0.2.1/udp/50123``."""
    remote: str
    """The other end, as seen from here; empty when the engine does not tell."""


class Connection(trio.abc.AsyncResource):
    """An authenticated connection to one peer that carries many streams.

    ``aclose()`` first waits until what was sent has reached the peer, for a few seconds at
    most; cancelling it closes at once. Then both ends' streams are broken. What has arrived
    stays readable: the peer can still accept streams that were opened, and read what was sent
    on them, before they raise `trio.BrokenResourceError`, or end where they had ended.

    A stream whose reader pauses does not hold up the others. Only when it is many that pause may a transport that
    bounds what waits in the whole connection do so (WebRTC: 16 MiB), or break the stream with most of it (with the
    native engine: 64 MiB). So read what you accept.
    """

    @property
    @abstractmethod
    def peer(self) -> PeerId:
        """Who is at the other end, proved before anybody sees this object."""

    @property
    @abstractmethod
    def address(self) -> str:
        """The peer's multiaddr as text, ending in ``/p2p/<peer id>``."""

    @property
    @abstractmethod
    def streams(self) -> int:
        """How many streams are open in it now, whoever opened them."""

    @abstractmethod
    async def open_stream(self) -> Stream:
        """Open a new stream; costs no round trip. The peer can accept it before anything is sent on it.

        Raises:
            ConnectionLost: the connection broke; `__cause__` says how.
            trio.ClosedResourceError: you closed this connection.
        """

    @abstractmethod
    async def wait_closed(self) -> None:
        """Wait until the connection is over, whoever or whatever ended it."""

    @abstractmethod
    async def path(self) -> Path:
        """The way that the bytes take now.

        Raises:
            ConnectionLost: the connection broke; `__cause__` says how.
            trio.ClosedResourceError: you closed this connection.
        """

    async def wait_path_changed(self) -> None:
        """Wait until `path` has changed: forever, where it cannot."""
        await trio.sleep_forever()

    @abstractmethod
    async def accept_stream(self) -> Stream:
        """Wait for the next stream that the peer opens; cancelling loses none.

        Raises:
            ConnectionLost: the connection broke; `__cause__` says how.
            trio.ClosedResourceError: you closed this connection.
        """


class Listener(trio.abc.AsyncResource):
    """Where a transport's inbound connections turn up."""

    @property
    @abstractmethod
    def addresses(self) -> Sequence[str]:
        """The multiaddrs under which others can dial this node, each ending in ``/p2p/<peer id>``."""

    @abstractmethod
    async def accept(self) -> Connection:
        """Wait for the next inbound connection; its peer is already authenticated. Cancelling loses none."""


class Transport(ABC):
    """How bytes travel: dials and accepts connections for one kind of address."""

    @abstractmethod
    def can_dial(self, address: str) -> bool:
        """Whether `dial` understands this multiaddr; says nothing about whether anyone answers."""

    @abstractmethod
    async def dial(self, address: str, peer: PeerId) -> Connection:
        """Connect to *peer* at *address*. Has its own deadline; cancelling leaves nothing behind.

        Raises:
            InvalidAddress: `can_dial` says no to *address*.
            PeerUnreachable: nobody answered; `__cause__` says how.
            WrongPeer: somebody else answered.
        """

    @abstractmethod
    def listen(self) -> AbstractAsyncContextManager[Listener]:
        """Accept connections while the block runs; those that nobody accepted are closed at its end."""

    def can_upgrade(self, channel: SignalingChannel) -> bool:  # noqa: ARG002 - the default refuses all
        """Whether `upgrade` can turn this signaling channel into a connection."""
        return False

    async def upgrade(self, channel: SignalingChannel) -> Connection:
        """Turn a signaling channel into a direct connection with the same peer.

        The channel still belongs to the caller, who closes it. Both ends call this.

        Raises:
            ConnectionLost: the two could not reach each other; `__cause__` says how.
            FingerprintMismatch: somebody sits in between.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class IceServer:
    """A STUN or TURN server (W3C ``RTCIceServer``)."""

    url: str
    """``stun:host:port``, ``turn:host:port?transport=udp`` or ``turns:…``."""
    username: str | None = None
    credential: str | None = field(default=None, repr=False)


class SignalingChannel(trio.abc.AsyncResource):
    """Small messages to one peer before there is a connection: offer, answer, candidates.

    What is sent may ride inside the handshake that authenticates the channel, so that a
    connection costs no extra round trip: `peer` and `binding` are known once `receive` has
    returned for the first time.
    """

    #: The longest message, in bytes: an SDP of 32 KiB and its framing.
    MAX_MESSAGE = 40_000

    @property
    @abstractmethod
    def offers(self) -> bool:
        """Whether this side sends the SDP offer and the other one answers."""

    @property
    @abstractmethod
    def peer(self) -> PeerId:
        """Who is at the other end.

        Raises:
            MisuseError: nothing was received yet, so nobody is authenticated.
        """

    @property
    @abstractmethod
    def binding(self) -> bytes | None:
        """32 secret bytes that only the two ends of this very channel know, or None where there are none."""

    async def ice_servers(self) -> Sequence[IceServer]:
        """The STUN and TURN servers that come with this way of signaling, by default none; may wait for the peer."""
        await trio.lowlevel.checkpoint()
        return ()

    @abstractmethod
    async def send(self, message: bytes) -> None:
        """Send one message of at most `MAX_MESSAGE` bytes; order is kept.

        Raises:
            MisuseError: the message is longer.
            ServiceUnavailable: the way to the peer broke.
            trio.ClosedResourceError: you closed this channel.
        """

    @abstractmethod
    async def receive(self) -> bytes:
        """Wait for the next message; cancelling loses none.

        Raises:
            trio.EndOfChannel: the peer has nothing more to say.
            HandshakeFailed: what arrived was not from the peer.
            PeerLeft, ServiceUnavailable: the way to the peer broke.
            trio.ClosedResourceError: you closed this channel.
        """


class Signaling(ABC):
    """Opens signaling channels by peer id: a WebSocket service and a libp2p relay are two."""

    @property
    @abstractmethod
    def address(self) -> str:
        """The multiaddr at which others reach this node for signaling, without a peer id.

        For example ``/dns4/signal.example/tcp/443/wss``: a transport appends ``/webrtc/p2p/<peer id>``.
        """

    @abstractmethod
    def can_reach(self, address: str) -> bool:
        """Whether `open_channel` understands this multiaddr (what stands before ``/webrtc``)."""

    @abstractmethod
    async def open_channel(self, address: str, peer: PeerId) -> SignalingChannel:
        """Reach *peer* at *address*; the caller closes the channel.

        Has its own deadline; cancelling leaves nothing behind.

        Raises:
            PeerUnreachable: the peer is not there; `__cause__` says how.
        """

    @abstractmethod
    def incoming(self) -> AbstractAsyncContextManager[AsyncIterator[SignalingChannel]]:
        """Channels that others open to this node, while the block runs. The receiver closes each.

        Those that nobody has received are closed at the end of the block.
        """


@dataclass(frozen=True)
class PeerRecord:
    """A peer and where it can be dialled."""

    peer: PeerId
    addresses: tuple[str, ...] = ()


class Discovery(ABC):
    """How peers find each other by topic.

    A topic is any text, also with slashes or without any letters, of at most `MAX_TOPIC` bytes.
    """

    #: The longest topic, in bytes of UTF-8: it fits a file name and one DNS-SD text string (RFC 6763 §6.1).
    MAX_TOPIC = 255

    @classmethod
    def check_topic(cls, topic: str) -> None:
        """For backends: raise `MisuseError` where *topic* is too long."""
        size = len(topic.encode())
        if size > cls.MAX_TOPIC:
            raise MisuseError(
                f"a topic has at most {cls.MAX_TOPIC} bytes; this one has {size}: {topic[:40]!r}…"
            )

    @abstractmethod
    def advertise(self, topic: str, me: PeerRecord) -> AbstractAsyncContextManager[None]:
        """Be findable under *topic* while the block runs; whoever looks afterwards does not find *me*.

        Raises:
            MisuseError: the topic is too long.
        """

    @abstractmethod
    def find(self, topic: str) -> AbstractAsyncContextManager[AsyncIterator[PeerRecord]]:
        """Peers under *topic*: those already there, then others as they turn up, each once per change.

        A change is a peer that comes, or comes with other addresses than before; that one leaves is not
        told. What this node advertises itself is found like anything else: compare ``record.peer``.

        Raises:
            MisuseError: the topic is too long.
        """


#: Answers one inbound stream. When it returns the stream is closed; when it raises the stream is
#: reset, the error is logged, and nothing else is disturbed.
Handler: TypeAlias = Callable[[Stream, PeerId], Awaitable[None]]


@dataclass(frozen=True)
class Context:
    """What a node tells its plug-ins."""

    identity: Identity
    #: The signaling that the discovery backends brought along, in their order.
    signaling: Sequence[Signaling] = field(default=())


#: A plug-in: the node enters what it returns and leaves it when the node closes.
TransportFactory: TypeAlias = Callable[[Context], AbstractAsyncContextManager[Transport]]
#: Same for ways to find peers, ways to signal to them, and what is both in one.
DiscoveryFactory: TypeAlias = Callable[[Context], AbstractAsyncContextManager[Discovery | Signaling]]
