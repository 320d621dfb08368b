"""The fast engine: libwebrtc by way of ``wrtc``, on an asyncio loop that runs inside trio.

Why this package, and what it costs: docs/decisions/0005-native-engine.md.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from handclasp.errors import ConfigurationError, ConnectionLost, ProtocolViolation
from handclasp.scope import Scope, open_scope
from handclasp.transports.webrtc.engine import (
    INIT,
    Candidate,
    DataChannel,
    Engine,
    EngineSession,
    Fingerprints,
    IceServer,
    PeerConnection,
)
from handclasp.transports.webrtc.loop import InlineLoop, open_inline_loop

from .candidates import is_name_untrusted, tell_only, try_only_addresses_untrusted

try:
    import webrtc  # wrtc's module, not ours of the same name

    from .channel import LOW_WATER, NativeChannel
except ImportError as exc:
    raise ImportError(f"the native engine is missing: pip install 'handclasp[native]' ({exc})") from exc

_log = logging.getLogger(__name__)

#: Seconds until a path counts as lost once libwebrtc has noticed that it is silent, which takes it about 5.
LOST_AFTER = 2.5
#: Bytes of received messages that may wait unread in one connection; see `NativeEngine`.
MAX_UNREAD = 64 * 1024 * 1024

#: Bytes that a peer must take in one message: libp2p's framing needs that many.
_LEAST_MESSAGE_SIZE = 16 * 1024


class NativeEngine(Engine):
    """WebRTC by libwebrtc, the stack of Chromium; comes with ``pip install handclasp[native]``.

    Several times as fast as the default engine. What it does not do as well:

    - *A slow reader does not slow down a peer that does not know our flow control* (credit.py): libwebrtc
      acknowledges a message before anyone has read it. What such a peer sends waits in this process; when
      that is more than `MAX_UNREAD`, the channel with most of it is closed.
    - *addresses* decides only what the peer is told. libwebrtc uses every interface, so the peer may see, as
      the source of a connectivity check, an address that it was not told; *relay_only* keeps all of them.
    - Of a peer that was met by its connectivity checks, `PeerConnection.selected_pair` knows no address.
    - A peer's ``.local`` candidates are looked up by the operating system, which may know no mDNS.

    Args:
        addresses: local IP addresses to tell. Default: all but loopback, or loopback when there is no other.
        gather_timeout: seconds to wait for STUN and TURN servers before going on without them.
        relay_only: use TURN relays only, so that the peer never learns this machine's addresses.
    """

    def __init__(
        self, *, addresses: Sequence[str] | None = None, gather_timeout: float = 0.3, relay_only: bool = False
    ) -> None:
        self._settings = _Settings(addresses, gather_timeout, relay_only)

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[EngineSession]:
        """Run libwebrtc's threads, and the asyncio loop that hears them, while the block runs."""
        try:
            # Whether the peer is told of loopback is ours to decide, for each connection.
            webrtc.allow_loopback()
        except webrtc.InvalidStateError:
            _log.debug("libwebrtc has run before in this process and keeps to what it was told then")
        async with open_inline_loop() as loop, open_scope() as scope:
            session = _Session(loop, scope, self._settings)
            try:
                await session.start()
                yield session
            finally:
                session.close()


@dataclass(frozen=True)
class _Settings:
    addresses: Sequence[str] | None
    gather_timeout: float
    relay_only: bool


class _Session(EngineSession):
    def __init__(self, loop: InlineLoop, scope: Scope, settings: _Settings) -> None:
        self.loop = loop
        self.scope = scope
        self.settings = settings
        self._open: set[webrtc.RTCPeerConnection] = set()

    async def start(self) -> None:
        """Start libwebrtc: its threads live as long as there is a connection, so one that does nothing keeps them."""

        async def start() -> None:
            self._open.add(idle := webrtc.RTCPeerConnection(webrtc.RTCConfiguration(ice_servers=[])))
            await idle.create_offer()

        await self.loop.run(start)

    async def create_peer(self, ice_servers: Sequence[IceServer]) -> PeerConnection:
        policy = webrtc.RTCIceTransportPolicy
        configuration = webrtc.RTCConfiguration(
            ice_servers=[webrtc.RTCIceServer(s.url, s.username, s.credential) for s in ice_servers],
            ice_transport_policy=policy.relay if self.settings.relay_only else policy.all,
        )

        async def create() -> _Peer:
            self._open.add(peer := webrtc.RTCPeerConnection(configuration))
            return _Peer(self, peer)

        try:
            return await self.loop.run(create)
        except (webrtc.InvalidSyntaxError, webrtc.InvalidAccessError) as exc:
            raise ConfigurationError(f"ice_servers: {exc}") from None

    def close_peer(self, peer: webrtc.RTCPeerConnection) -> None:
        """Free a connection's sockets."""
        peer.close()
        self._open.discard(peer)

    def close(self) -> None:
        """Free everything."""
        for peer in list(self._open):
            self.close_peer(peer)


class _Peer(PeerConnection):
    def __init__(self, session: _Session, peer: webrtc.RTCPeerConnection) -> None:
        super().__init__()
        self._session = session
        self._loop = session.loop
        self._peer = peer
        self._gathered = trio.Event()
        self._early: (
            list[str] | None
        ) = []  # candidates that came before the description; None once that is here
        self._sctp: webrtc.RTCSctpTransport | None = None
        self._channels: set[NativeChannel] = set()
        self._unread = 0
        self._silence = trio.CancelScope()  # of the wait for a path that is silent
        self._over = False  # lost or closed
        self._stirred = trio.Event()  # something that `flush` waits for may have happened
        peer.on("datachannel", self._channel_opened_by_peer)
        peer.on("connectionstatechange", self._state_changed)
        peer.on("icegatheringstatechange", self._gathering_changed)

    # --- trio side ---

    def open_channel(self, label: str = "") -> DataChannel:
        channel = NativeChannel(self._loop, self, label)

        def open_in_loop() -> None:
            try:
                channel.attach(self._peer.create_data_channel(label))
            except webrtc.RTCException:  # the connection is over
                channel.over()

        with channel.callbacks_held():
            self._loop.post(open_in_loop)
        return channel

    async def create_offer(self) -> str:
        async def create() -> None:
            await self._peer.set_local_description(await self._peer.create_offer())

        await self._loop.run(create)
        return await self._local_description()

    async def create_answer(self, offer: str) -> str:
        async def create() -> None:
            await self._set_remote_untrusted(offer, webrtc.RTCSdpType.offer)
            await self._peer.set_local_description(await self._peer.create_answer())
            self._adopt_association_untrusted()

        await self._loop.run(create)
        return await self._local_description()

    async def accept_answer(self, answer: str) -> None:
        async def accept() -> None:
            await self._set_remote_untrusted(answer, webrtc.RTCSdpType.answer)
            self._adopt_association_untrusted()

        await self._loop.run(accept)

    async def add_candidate(self, candidate: str | None) -> None:
        await trio.lowlevel.checkpoint()
        if candidate is None:
            return  # libwebrtc does without
        if self._early is not None:
            self._early.append(candidate)
        else:
            await self._loop.run(self._add_untrusted, candidate)

    async def fingerprints(self) -> Fingerprints:
        await trio.lowlevel.checkpoint()
        local = self._peer.local_description
        certificates = self._sctp.transport.get_remote_certificates() if self._sctp is not None else []
        if local is None or not certificates:
            raise ConnectionLost("there is no DTLS connection")
        return Fingerprints(_fingerprint(local.sdp), hashlib.sha256(certificates[0]).digest())

    async def selected_pair(self) -> tuple[Candidate, Candidate]:
        await trio.lowlevel.checkpoint()
        usable = self._sctp is not None and not self._over
        pair = (
            self._sctp.transport.ice_transport.get_selected_candidate_pair()
            if self._sctp and usable
            else None
        )
        if pair is None:
            raise ConnectionLost("there is no selected ICE pair")
        return _candidate(pair.local), _candidate(pair.remote)

    async def flush(self) -> None:
        if self._sctp is None:
            return  # nothing has been sent
        try:
            for channel in self._channels:
                channel.report_drained_at(0)
            await self._wait_until(lambda: not any(channel.buffered for channel in self._channels))
        finally:
            for channel in self._channels:
                channel.report_drained_at(LOW_WATER)
        # libwebrtc does not tell what was acknowledged. But the peer agrees to the end of a channel only when it
        # has all that was sent before, on any of them (RFC 6525 section 5.2.2).
        last = self.open_channel(INIT)
        last.close()
        await self._wait_until(lambda: last not in self._channels)

    async def close(self) -> None:
        self._end()
        self._session.close_peer(self._peer)
        await trio.lowlevel.cancel_shielded_checkpoint()

    async def _local_description(self) -> str:
        with trio.move_on_after(self._session.settings.gather_timeout):
            await self._gathered.wait()
        description = self._peer.local_description
        if description is None:
            raise ConnectionLost("the WebRTC connection was closed")
        return tell_only(description.sdp, self._session.settings.addresses)

    async def _wait_until(self, done: Callable[[], bool]) -> None:
        while not (self._over or done()):
            self._stirred = trio.Event()
            await self._stirred.wait()

    async def _wait_for_path(self) -> None:
        with trio.CancelScope() as self._silence:
            await trio.sleep(LOST_AFTER)
            self._lose("the peer is silent")

    def _lose(self, reason: str) -> None:
        if not self._over:
            self._end()
            self.on_lost(reason)

    def _end(self) -> None:
        self._over = True
        self._silence.cancel()
        self.stir()

    # --- what the channels tell ---

    def stir(self) -> None:
        """Something left a queue."""
        self._stirred.set()

    def opened(self, channel: NativeChannel) -> None:
        """A channel came to be."""
        self._channels.add(channel)

    def closed(self, channel: NativeChannel) -> None:
        """A channel is no more."""
        self._channels.discard(channel)
        self.stir()

    def received(self, size: int) -> None:
        """Bytes arrived, and wait for a reader."""
        self._unread += size
        if self._unread > MAX_UNREAD:
            most = max(self._channels, key=lambda channel: channel.unread)
            most.give_up(f"of more than {MAX_UNREAD} bytes that nobody has read, most are in it")

    def consumed(self, size: int) -> None:
        """Bytes were read."""
        self._unread -= size

    # --- asyncio side ---

    async def _set_remote_untrusted(self, text: str, kind: webrtc.RTCSdpType) -> None:
        description = webrtc.RTCSessionDescriptionInit(kind, try_only_addresses_untrusted(text))
        try:
            await self._peer.set_remote_description(description)
        except (webrtc.RTCException, ValueError) as exc:
            raise ProtocolViolation(f"the SDP {kind.value} is not usable ({type(exc).__name__})") from None
        early, self._early = self._early or [], None
        for candidate in early:
            await self._add_untrusted(candidate)

    async def _add_untrusted(self, candidate: str) -> None:
        if is_name_untrusted(candidate):
            return
        try:
            await self._peer.add_ice_candidate(webrtc.RTCIceCandidateInit(candidate, sdp_m_line_index=0))
        except webrtc.InvalidStateError:
            return  # closed meanwhile
        except (webrtc.RTCException, ValueError):
            raise ProtocolViolation("a candidate is malformed") from None

    def _adopt_association_untrusted(self) -> None:
        sctp = self._peer.sctp
        if sctp is None:
            raise ProtocolViolation("the peer takes no data channels")
        if (sctp.max_message_size or 0) < _LEAST_MESSAGE_SIZE:
            raise ProtocolViolation(f"the peer takes no messages of {_LEAST_MESSAGE_SIZE} bytes")
        self._sctp = sctp
        sctp.on("statechange", lambda _: self._association_changed(sctp))
        ice = sctp.transport.ice_transport
        ice.on("selectedcandidatepairchange", lambda _: self._loop.deliver(self.on_path_changed))

    def _association_changed(self, sctp: webrtc.RTCSctpTransport) -> None:
        if sctp.state is webrtc.RTCSctpTransportState.closed:
            self._loop.deliver(lambda: self._lose("the peer closed the WebRTC connection"))

    def _channel_opened_by_peer(self, event: webrtc.RTCDataChannelEvent) -> None:
        channel = NativeChannel(self._loop, self, event.channel.label)
        channel.attach(event.channel)
        self._loop.deliver(lambda: self.on_channel(channel))

    def _gathering_changed(self, _: webrtc.Event) -> None:
        if self._peer.ice_gathering_state is webrtc.RTCIceGatheringState.complete:
            self._gathered.set()

    def _state_changed(self, _: webrtc.Event) -> None:
        state = self._peer.connection_state
        if state in {webrtc.RTCPeerConnectionState.failed, webrtc.RTCPeerConnectionState.closed}:
            self._loop.deliver(lambda: self._lose(f"the WebRTC connection {state.value}"))
        elif state is webrtc.RTCPeerConnectionState.disconnected:
            self._session.scope.start_soon(self._wait_for_path)
        else:
            self._silence.cancel()


def _candidate(found: webrtc.RTCIceCandidate) -> Candidate:
    # Without an address when the peer was met by its checks: libwebrtc keeps that from a page, and so from us.
    return Candidate(found.type.value if found.type else "", found.address or "", found.port or 0)


def _fingerprint(sdp: str) -> bytes:
    found = next(line for line in sdp.splitlines() if line.startswith("a=fingerprint:sha-256 "))
    return bytes.fromhex(found.split(" ", 1)[1].replace(":", ""))
