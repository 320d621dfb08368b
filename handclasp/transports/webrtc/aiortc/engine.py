"""The default engine: aiortc, on an asyncio loop that runs inside trio."""

# aiortc carries few types; this module is the seam where they end.
# pyright: reportUnknownMemberType=false
from __future__ import annotations

import binascii
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager

import aiortc
import aiortc.sdp
import ifaddr
import trio
from aiortc.rtcicetransport import connection_kwargs

from handclasp.errors import ConfigurationError, ConnectionLost, ProtocolViolation
from handclasp.transports.webrtc.engine import (
    Candidate,
    DataChannel,
    Engine,
    EngineSession,
    Fingerprints,
    IceServer,
    PeerConnection,
)
from handclasp.transports.webrtc.loop import InlineLoop, open_inline_loop

from .internals import IceConnection, QuietPeerConnection, remote_certificate_digest
from .mdns import resolving
from .sctp import SctpTransport

_log = logging.getLogger(__name__)

#: Bytes in aiortc's queue at which a channel reports that it drained.
_LOW_WATER = 64 * 1024


class AiortcEngine(Engine):
    """WebRTC by aiortc.

    Args:
        addresses: local IP addresses to bind to. Default: all but loopback, or loopback when there is no other.
        gather_timeout: seconds to wait for STUN and TURN servers before going on without them.
        relay_only: use TURN relays only, so that the peer never learns this machine's addresses.
    """

    def __init__(
        self, *, addresses: Sequence[str] | None = None, gather_timeout: float = 0.3, relay_only: bool = False
    ) -> None:
        self._addresses = addresses
        self._gather_timeout = gather_timeout
        self._relay_only = relay_only

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[EngineSession]:
        """Run the asyncio loop while the block runs."""
        async with open_inline_loop() as loop:
            yield _Session(loop, self._addresses, self._gather_timeout, relay_only=self._relay_only)


class _Session(EngineSession):
    def __init__(
        self, loop: InlineLoop, addresses: Sequence[str] | None, gather_timeout: float, *, relay_only: bool
    ) -> None:
        self._loop = loop
        self._addresses = addresses
        self._gather_timeout = gather_timeout
        self._policy = aiortc.RTCIceTransportPolicy.RELAY if relay_only else aiortc.RTCIceTransportPolicy.ALL

    async def create_peer(self, ice_servers: Sequence[IceServer]) -> PeerConnection:
        servers = [aiortc.RTCIceServer(s.url, s.username, s.credential) for s in ice_servers]
        try:
            connection_kwargs(servers)  # where aiortc reads the URLs; by itself it does so later, on its loop
        except ValueError as exc:
            raise ConfigurationError(f"ice_servers: {exc}") from None
        # Always explicit, even when empty: aiortc's default is a public STUN server.
        configuration = aiortc.RTCConfiguration(iceServers=servers, iceTransportPolicy=self._policy)
        addresses = self._addresses if self._addresses is not None else local_addresses()

        async def create() -> _Peer:
            return _Peer(self._loop, QuietPeerConnection(configuration), addresses, self._gather_timeout)

        return await self._loop.run(create)


class _Peer(PeerConnection):
    def __init__(
        self,
        loop: InlineLoop,
        peer: aiortc.RTCPeerConnection,
        addresses: Sequence[str],
        gather_timeout: float,
    ) -> None:
        super().__init__()
        self._loop = loop
        self._peer = peer
        self._addresses = addresses
        self._gather_timeout = gather_timeout
        self._ice: IceConnection | None = None
        self._sctp: SctpTransport | None = None
        self._closed = False
        self._unreported = 0  # trio side: bytes that were read and not yet counted by the loop
        peer.on("datachannel", self._channel_opened_by_peer)
        peer.on("connectionstatechange", self._state_changed)

    # --- trio side ---

    def open_channel(self, label: str = "") -> DataChannel:
        channel = _Channel(self._loop, label, self._consumed)

        def open_in_loop() -> None:
            if self._peer.connectionState == "closed":
                self._loop.deliver(lambda: channel.on_close())  # noqa: PLW0108 - set meanwhile
                return
            opened = self._peer.createDataChannel(label)
            self._adopt_internals()
            channel.attach(opened, self._sctp)

        self._loop.post_soon(open_in_loop)
        return channel

    async def create_offer(self) -> str:
        async def create() -> str:
            await self._peer.setLocalDescription(await self._peer.createOffer())
            return self._peer.localDescription.sdp

        return await self._loop.run(create)

    async def create_answer(self, offer: str) -> str:
        async def create() -> str:
            await self._set_remote_untrusted(offer, "offer")
            self._adopt_internals()
            await self._peer.setLocalDescription(await self._peer.createAnswer())
            return self._peer.localDescription.sdp

        return await self._loop.run(create)

    async def accept_answer(self, answer: str) -> None:
        await self._loop.run(self._set_remote_untrusted, answer, "answer")

    async def add_candidate(self, candidate: str | None) -> None:
        async def add() -> None:
            if candidate is None:
                await self._peer.addIceCandidate(None)
                return
            try:
                parsed = aiortc.sdp.candidate_from_sdp(candidate.removeprefix("candidate:"))
            except (ValueError, AssertionError, IndexError):
                raise ProtocolViolation("a candidate is malformed") from None
            parsed.sdpMid, parsed.sdpMLineIndex = "0", 0
            async with resolving(candidate):
                await self._peer.addIceCandidate(parsed)

        await self._loop.run(add)

    async def fingerprints(self) -> Fingerprints:
        async def read() -> Fingerprints:
            assert self._sctp is not None  # noqa: S101 - a channel is open
            local = next(
                f for f in self._sctp.transport.getLocalParameters().fingerprints if f.algorithm == "sha-256"
            )
            return Fingerprints(
                local=binascii.unhexlify(local.value.replace(":", "")),
                remote=remote_certificate_digest(self._peer),
            )

        return await self._loop.run(read)

    async def selected_pair(self) -> tuple[Candidate, Candidate]:
        async def read() -> tuple[Candidate, Candidate]:
            pair = self._ice.selected_pair() if self._ice is not None else None
            if pair is None:
                raise ConnectionLost("there is no selected ICE pair")
            return pair

        return await self._loop.run(read)

    async def flush(self) -> None:
        async def flush() -> None:
            if self._sctp is not None:
                await self._sctp.flush()

        await self._loop.run(flush)

    async def close(self) -> None:
        self._closed = True
        with trio.CancelScope(shield=True):  # sockets must not outlive a cancelled owner; takes milliseconds
            await self._loop.run(self._peer.close)

    def _consumed(self, size: int) -> None:
        # For all channels together and in steps: a wake-up of the loop for every read would double the round trip.
        self._unreported += size
        if self._unreported >= _LOW_WATER:
            read, self._unreported = self._unreported, 0
            self._loop.post(lambda: self._count_as_read(read))

    # --- asyncio side ---

    def _count_as_read(self, size: int) -> None:
        if self._sctp is not None:
            self._sctp.consumed(size)

    async def _set_remote_untrusted(self, text: str, kind: str) -> None:
        try:
            async with resolving(text):
                await self._peer.setRemoteDescription(aiortc.RTCSessionDescription(text, kind))
        except Exception as exc:  # noqa: BLE001 - aiortc answers a malformed SDP with whatever its parser trips over
            _log.debug("an SDP %s was refused: %s", kind, type(exc).__name__)
            raise ProtocolViolation(f"the SDP {kind} is not usable ({type(exc).__name__})") from None

    def _adopt_internals(self) -> None:
        if self._sctp is None:
            self._ice = IceConnection.adopt(self._peer, self._addresses, self._gather_timeout)
            self._sctp = SctpTransport.adopt(self._peer)

    def _channel_opened_by_peer(self, opened: aiortc.RTCDataChannel) -> None:
        channel = _Channel(self._loop, opened.label, self._consumed)
        # First on_channel, where the owner sets the channel's callbacks, then what they receive: order is kept.
        self._loop.deliver(lambda: self.on_channel(channel))
        channel.attach(opened, self._sctp)

    def _state_changed(self) -> None:
        state = self._peer.connectionState
        if state in {"failed", "closed"} and not self._closed:
            self._closed = True
            self._loop.deliver(lambda: self.on_lost(f"the WebRTC connection {state}"))


class _Channel(DataChannel):
    def __init__(self, loop: InlineLoop, label: str, on_consumed: Callable[[int], None]) -> None:
        super().__init__()
        self._loop = loop
        self._label = label
        self._on_consumed = on_consumed
        self._channel: aiortc.RTCDataChannel | None = None
        self._sctp: SctpTransport | None = None
        self._waiting: list[bytes] = []  # loop side: sent before the channel opened
        self._posted = 0  # trio side: bytes given to send()
        self._sent = 0  # trio side: of those, how many left aiortc's queue
        self._taken = 0  # loop side: bytes given to aiortc
        self._reported = 0  # loop side: the last value told to the trio side
        self._closing = False

    # --- trio side ---

    @property
    def label(self) -> str:
        return self._label

    @property
    def buffered(self) -> int:
        return self._posted - self._sent

    def send(self, message: bytes) -> None:
        self._posted += len(message)
        self._loop.post(lambda: self._send_in_loop(message))

    def consumed(self, size: int) -> None:
        self._on_consumed(size)

    def close(self) -> None:
        self._loop.post(self._close_in_loop)

    # --- asyncio side ---

    def attach(self, channel: aiortc.RTCDataChannel, association: SctpTransport | None) -> None:
        self._channel = channel
        self._sctp = association
        channel.bufferedAmountLowThreshold = _LOW_WATER
        channel.on("open", self._opened)
        channel.on("message", self._received)
        channel.on("bufferedamountlow", self._report)
        channel.on("close", self._closed)
        if channel.readyState == "open":
            self._opened()

    def _opened(self) -> None:
        self._loop.deliver(lambda: self.on_open())  # noqa: PLW0108 - read in the trio thread
        waiting, self._waiting = self._waiting, []
        for message in waiting:
            self._send_in_loop(message)
        if self._closing and self._channel is not None:
            self._channel.close()

    def _send_in_loop(self, message: bytes) -> None:
        if self._channel is None or self._channel.readyState == "connecting":
            self._waiting.append(message)
        elif self._channel.readyState == "open":
            self._taken += len(message)
            self._channel.send(message)
            self._report()

    def _report(self) -> None:
        """Tell the trio side how much left the queue, in steps that keep the wake-ups few."""
        assert self._channel is not None  # noqa: S101 - attached before anything is sent
        sent = self._taken - self._channel.bufferedAmount
        if sent - self._reported >= _LOW_WATER // 2:
            self._reported = sent
            self._loop.deliver(lambda: self._drained(sent))

    def _drained(self, sent: int) -> None:
        self._sent = sent
        self.on_drain()

    def _received(self, message: bytes | str) -> None:
        data = message.encode() if isinstance(message, str) else message
        if self._sctp is not None:
            self._sctp.received(len(data))
        self._loop.deliver(lambda: self.on_message(data))

    def _close_in_loop(self) -> None:
        self._closing = True
        if self._channel is not None and self._channel.readyState == "open":
            self._channel.close()

    def _closed(self) -> None:
        self._loop.deliver(lambda: self.on_close())  # noqa: PLW0108 - read in the trio thread


def local_addresses() -> list[str]:
    """The addresses to gather host candidates on: all but loopback, or loopback when there is no other."""
    found = [ip for adapter in ifaddr.get_adapters() for ip in adapter.ips]
    ipv4 = [ip.ip for ip in found if isinstance(ip.ip, str)]
    ipv6 = [ip.ip[0] for ip in found if not isinstance(ip.ip, str) and ip.ip[2] == 0]  # no link-local scopes
    every = ipv4 + ipv6
    loopback = [address for address in every if address == "::1" or address.startswith("127.")]
    return [address for address in every if address not in loopback] or loopback
