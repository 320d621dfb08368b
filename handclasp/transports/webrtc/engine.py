"""What the transport needs from a WebRTC stack.

An engine is an object that the application passes in: ``webrtc(engine=AiortcEngine())``.
Everything here is called from the trio thread, and callbacks arrive in it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from handclasp.abc import IceServer

__all__ = [
    "INIT",
    "Candidate",
    "DataChannel",
    "Engine",
    "EngineSession",
    "Fingerprints",
    "IceServer",
    "PeerConnection",
]

#: The label of channels that are nobody's stream: they only set something up (libp2p webrtc, "init").
INIT = "init"


@dataclass(frozen=True)
class Fingerprints:
    """SHA-256 digests (32 bytes each) of the two DTLS certificates in use."""

    local: bytes
    remote: bytes


@dataclass(frozen=True)
class Candidate:
    """One end of the selected ICE pair."""

    kind: str
    """``host``, ``srflx``, ``prflx`` or ``relay`` (RFC 8445)."""
    host: str
    """An IP address, an mDNS name (``….local``), or empty when the stack keeps it to itself."""
    port: int


class DataChannel(ABC):
    """One ordered, reliable data channel. Callbacks run in the trio thread and must not block."""

    def __init__(self) -> None:
        self.on_open: Callable[[], None] = _ignore
        self.on_message: Callable[[bytes], None] = _ignore_message
        self.on_drain: Callable[[], None] = _ignore
        self.on_close: Callable[[], None] = _ignore

    @property
    @abstractmethod
    def label(self) -> str:
        """The label the opener gave it."""

    @property
    @abstractmethod
    def buffered(self) -> int:
        """Bytes handed to `send` that the engine has not put on the wire yet; `on_drain` tells when it shrinks."""

    @abstractmethod
    def send(self, message: bytes) -> None:
        """Queue one message; never blocks, so mind `buffered`. Works before the channel is open."""

    @abstractmethod
    def consumed(self, size: int) -> None:
        """Tell that *size* bytes of received messages were read: what waits unread in a connection has a bound."""

    @abstractmethod
    def close(self) -> None:
        """Close both directions once what was sent is on the wire; harmless when repeated."""


class PeerConnection(ABC):
    """One ``RTCPeerConnection``. Callbacks run in the trio thread and must not block."""

    def __init__(self) -> None:
        #: A channel that the peer opened. Set its callbacks before returning: messages follow at once.
        self.on_channel: Callable[[DataChannel], None] = _ignore_channel
        #: The connection is over; the text says why. Called once, never after `close`.
        self.on_lost: Callable[[str], None] = _ignore_text
        #: Another ICE pair than before carries the connection; `selected_pair` tells which.
        self.on_path_changed: Callable[[], None] = _ignore

    @abstractmethod
    def open_channel(self, label: str = "") -> DataChannel:
        """Open an ordered, reliable channel, announced in-band (RFC 8832)."""

    @abstractmethod
    async def create_offer(self) -> str:
        """Gather candidates and return the SDP offer. A channel must have been opened before."""

    @abstractmethod
    async def create_answer(self, offer: str) -> str:
        """Take the peer's SDP offer and return the SDP answer.

        Raises:
            ProtocolViolation: the offer is not usable.
        """

    @abstractmethod
    async def accept_answer(self, answer: str) -> None:
        """Take the peer's SDP answer.

        Raises:
            ProtocolViolation: the answer is not usable.
        """

    @abstractmethod
    async def add_candidate(self, candidate: str | None) -> None:
        """Take a trickled candidate: an SDP ``candidate:…`` attribute value, or None for the end of them.

        Raises:
            ProtocolViolation: malformed.
        """

    @abstractmethod
    async def fingerprints(self) -> Fingerprints:
        """The certificates that DTLS actually used, once a channel is open."""

    @abstractmethod
    async def selected_pair(self) -> tuple[Candidate, Candidate]:
        """The local and remote end of the path in use, once a channel is open."""

    @abstractmethod
    async def flush(self) -> None:
        """Wait until the peer has acknowledged all that was sent, or the connection is over.

        Has no deadline: a peer that is gone, or does not read, is the caller's to wait for or not.
        """

    @abstractmethod
    async def close(self) -> None:
        """Close the connection at once and free its sockets; harmless when repeated."""


class EngineSession(ABC):
    """A running engine."""

    @abstractmethod
    async def create_peer(self, ice_servers: Sequence[IceServer]) -> PeerConnection:
        """A new peer connection with a fresh certificate; the caller closes it."""


class Engine(ABC):
    """A WebRTC stack and its settings; `open` runs it."""

    @abstractmethod
    def open(self) -> AbstractAsyncContextManager[EngineSession]:
        """Run the engine while the block runs; one per node."""


def _ignore() -> None: ...


def _ignore_text(text: str) -> None: ...


def _ignore_message(message: bytes) -> None: ...


def _ignore_channel(channel: DataChannel) -> None: ...
