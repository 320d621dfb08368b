"""The WebRTC transport: turns a signaling channel into a direct, encrypted connection.

Source: libp2p webrtc specification (private to private). SDP travels over a channel that is
already authenticated, so the DTLS fingerprints in it are, too. On top of that both ends prove
to each other, over the connection itself, that they see the same two certificates.
"""

from __future__ import annotations

import hmac
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, nullcontext
from urllib.parse import parse_qs, urlsplit

import trio

from handclasp.abc import (
    Connection,
    Context,
    Listener,
    Signaling,
    SignalingChannel,
    Transport,
    TransportFactory,
)
from handclasp.errors import (
    ConfigurationError,
    ConnectionLost,
    FingerprintMismatch,
    HandclaspError,
    InvalidAddress,
    PeerUnreachable,
    ProtocolViolation,
    WrongPeer,
)
from handclasp.identity import PeerId
from handclasp.multiaddr import join, parse, split_peer
from handclasp.scope import open_scope

from .connection import WebRTCConnection
from .credit import declare, window_untrusted
from .engine import INIT, DataChannel, Engine, EngineSession, IceServer, PeerConnection
from .sdp import MAX_CANDIDATES, Kind, SignalingMessage, candidate_from_json_untrusted

_log = logging.getLogger(__name__)

#: Seconds from having both descriptions until the connection must be confirmed. ICE over TURN/TLS on a
#: slow mobile network takes 3 to 8.
CONNECT_TIMEOUT = 20.0
#: Seconds for the whole of a dial, or of an inbound one: gathering and the peer's description come before that.
DIAL_TIMEOUT = 30.0
#: Inbound attempts under way at the same time; more signaling channels wait. Each holds sockets and a timer, and
#: whoever may signal to this node can begin one.
MAX_INBOUND = 64
_ROOM = nullcontext()  # without end
_CONFIRMATION_LENGTH = 32


def webrtc(
    *, engine: Engine | None = None, ice_servers: Sequence[IceServer] = (), take_offered: bool = True
) -> TransportFactory:
    """The WebRTC transport for `open_node`.

    Args:
        engine: the WebRTC stack; default `AiortcEngine()`.
        ice_servers: STUN and TURN servers; none unless you name some.
        take_offered: use those, too, that come with the signaling, such as a service's. They learn your address.
    """

    @asynccontextmanager
    async def open_transport(context: Context) -> AsyncGenerator[Transport]:
        async with (engine or _default_engine()).open() as session:
            yield WebRTCTransport(session, tuple(ice_servers), context, take_offered=take_offered)

    return open_transport


def from_url(url: str) -> TransportFactory:
    """The transport of a URL ``webrtc:?engine=native&ice=stun:host:3478&address=127.0.0.1&relay-only``.

    ``engine`` is ``aiortc`` (default) or ``native``; ``ice``, a STUN server, and ``address``, a local IP
    address to bind to, may be repeated.

    Raises:
        ConfigurationError: an unknown or malformed option; the message names it.
    """
    options = parse_qs(urlsplit(url).query, keep_blank_values=True)
    unknown = options.keys() - {"engine", "ice", "address", "relay-only"}
    if unknown:
        raise ConfigurationError(f"{url}: unknown option {min(unknown)!r}")
    addresses, relay_only = options.get("address"), "relay-only" in options
    engine: Engine
    match options.get("engine", ["aiortc"])[-1]:
        case "aiortc":
            from .aiortc import AiortcEngine

            engine = AiortcEngine(addresses=addresses, relay_only=relay_only)
        case "native":
            try:
                from .native import NativeEngine
            except ImportError as exc:
                raise ConfigurationError(f"{url}: {exc}") from exc
            engine = NativeEngine(addresses=addresses, relay_only=relay_only)
        case other:
            raise ConfigurationError(f"{url}: unknown engine {other!r} (aiortc, native)")
    return webrtc(engine=engine, ice_servers=[IceServer(url) for url in options.get("ice", ())])


def _default_engine() -> Engine:
    from .aiortc import AiortcEngine  # takes 0.3 s to import, so only when it is used

    return AiortcEngine()


class WebRTCTransport(Transport):
    """Dials and accepts through the node's signaling; made by `webrtc`."""

    def __init__(
        self,
        session: EngineSession,
        ice_servers: Sequence[IceServer],
        context: Context,
        *,
        take_offered: bool,
    ) -> None:
        self._session = session
        self._take_offered = take_offered
        self._ice_servers = ice_servers
        self._signaling = context.signaling
        self._me = context.identity.peer_id

    def can_dial(self, address: str) -> bool:
        """Whether this is a ``/…/webrtc/p2p/<id>`` address and there is signaling to reach it by."""
        return self._route(address) is not None

    async def dial(self, address: str, peer: PeerId) -> Connection:
        """See `Transport.dial`."""
        route = self._route(address)
        if route is None:
            raise InvalidAddress(f"{address} is not a /webrtc address that this node has signaling for")
        signaling, prefix = route
        try:
            with _deadline(DIAL_TIMEOUT):
                connection = await self._connect_and_close(await signaling.open_channel(prefix, peer), prefix)
        except ConnectionLost as exc:
            raise PeerUnreachable(f"{peer} could not be reached over WebRTC: {exc}") from exc
        if connection.peer != peer:
            await trio.aclose_forcefully(connection)
            raise WrongPeer(f"{connection.peer} answered in the place of {peer}")
        return connection

    def _route(self, address: str) -> tuple[Signaling, str] | None:
        """The signaling that reaches this address, and the part of the address that concerns it."""
        try:
            *prefix, last = parse(split_peer(address)[0])
        except InvalidAddress:
            return None
        if last != ("webrtc", None):
            return None
        for signaling in self._signaling:
            if signaling.can_reach(join(*prefix)):
                return signaling, join(*prefix)
        return None

    def listen(self) -> AbstractAsyncContextManager[Listener]:
        """Accept connections from peers that open signaling channels to this node."""
        addresses = [_address(signaling.address, self._me) for signaling in self._signaling]
        return _open_listener(self._connect_and_close, self._signaling, addresses)

    def can_upgrade(self, channel: SignalingChannel) -> bool:  # noqa: ARG002 - any channel will do
        """Any signaling channel can become a WebRTC connection."""
        return True

    async def upgrade(self, channel: SignalingChannel) -> Connection:
        """See `Transport.upgrade`. Waits for the peer's first message as long as the caller lets it."""
        return await self._connect(channel, "")

    async def _connect_and_close(
        self, channel: SignalingChannel, prefix: str, room: AbstractAsyncContextManager[object] = _ROOM
    ) -> Connection:
        """Connect once there is room, and close the channel; an error or cancellation leaves neither behind."""
        connection = None
        try:
            async with channel, room:
                connection = await self._connect(channel, prefix)
        except BaseException:
            if connection is not None:
                await trio.aclose_forcefully(connection)
            raise
        return connection

    async def _connect(self, channel: SignalingChannel, prefix: str) -> Connection:
        offered = await channel.ice_servers() if self._take_offered else ()
        peer_connection = await self._session.create_peer((*self._ice_servers, *offered))
        try:
            attempt = _Attempt(peer_connection, channel, prefix)
            connection = await (attempt.offer() if channel.offers else attempt.answer())
        except BaseException:
            await peer_connection.close()
            raise
        return connection


class _Attempt:
    """The exchange of descriptions, candidates and confirmations that makes one connection."""

    def __init__(self, peer_connection: PeerConnection, channel: SignalingChannel, prefix: str) -> None:
        self._peer_connection = peer_connection
        self._channel = channel
        self._prefix = prefix
        self._connection: WebRTCConnection | None = None
        self._init: DataChannel | None = None
        self._candidates: list[str | None] = []  # came before the description they belong to
        self._init_open = trio.Event()
        self._confirmed = trio.Event()
        self._confirmation = b""
        self._lost: str | None = None
        peer_connection.on_lost = self._connection_lost
        peer_connection.on_channel = self._channel_opened

    async def offer(self) -> WebRTCConnection:
        init = self._peer_connection.open_channel(INIT)
        self._watch(init)
        await self._send_description(Kind.SDP_OFFER, await self._peer_connection.create_offer())
        answer = await self._receive_description(Kind.SDP_ANSWER)
        with _deadline(CONNECT_TIMEOUT):
            self._connection = self._new_connection(answer)
            await self._peer_connection.accept_answer(answer)
            await self._finish(offers=True)
        init.close()
        return self._connection

    async def answer(self) -> WebRTCConnection:
        offer = await self._receive_description(Kind.SDP_OFFER)
        with _deadline(CONNECT_TIMEOUT):
            self._connection = self._new_connection(offer)
            await self._send_description(Kind.SDP_ANSWER, await self._peer_connection.create_answer(offer))
            await self._finish(offers=False)
        return self._connection

    def _new_connection(self, description: str) -> WebRTCConnection:
        peer = self._channel.peer
        address = _address(self._prefix, peer)
        return WebRTCConnection(self._peer_connection, peer, address, window_untrusted(description))

    # --- signaling ---

    async def _send_description(self, kind: Kind, sdp: str) -> None:
        await self._channel.send(bytes(SignalingMessage(kind, declare(sdp))))

    async def _receive_description(self, kind: Kind) -> str:
        while True:
            try:
                message = SignalingMessage.from_bytes_untrusted(await self._channel.receive())
            except trio.EndOfChannel:
                raise ConnectionLost(f"the peer ended the signaling before its {kind.name}") from None
            if message.kind is kind:
                return message.data
            if message.kind is not Kind.ICE_CANDIDATE:
                raise ProtocolViolation(f"the peer sent {message.kind.name} where {kind.name} was due")
            self._candidates.append(candidate_from_json_untrusted(message.data))
            if len(self._candidates) > MAX_CANDIDATES:
                raise ProtocolViolation(f"the peer sent more than {MAX_CANDIDATES} candidates")

    async def _feed_candidates(self) -> None:
        for candidate in self._candidates:
            await self._peer_connection.add_candidate(candidate)
        for _ in range(MAX_CANDIDATES - len(self._candidates)):
            try:
                message = SignalingMessage.from_bytes_untrusted(await self._channel.receive())
            except (trio.EndOfChannel, HandclaspError) as exc:
                _log.debug("no more candidates: %s", type(exc).__name__)
                return  # what we have may be enough; the deadline decides
            if message.kind is Kind.ICE_CANDIDATE:
                await self._peer_connection.add_candidate(candidate_from_json_untrusted(message.data))

    # --- confirmation ---

    async def _finish(self, *, offers: bool) -> None:
        """Wait until the connection is open and both ends have confirmed its certificates."""
        async with open_scope() as scope:
            scope.start_soon(self._feed_candidates)
            await self._wait(self._init_open)
        key = self._channel.binding
        if key is not None and self._init is not None:
            seen = await self._peer_connection.fingerprints()
            pair = (seen.local, seen.remote) if offers else (seen.remote, seen.local)
            self._init.send(_confirmation(key, *pair, by_offerer=offers))
            await self._wait(self._confirmed)
            if not hmac.compare_digest(self._confirmation, _confirmation(key, *pair, by_offerer=not offers)):
                raise FingerprintMismatch("the two ends do not see the same DTLS certificates")
        connection = self._connection
        assert connection is not None  # noqa: S101 - made by both callers
        self._peer_connection.on_lost = connection.break_off
        self._peer_connection.on_channel = connection.channel_opened
        self._peer_connection.on_path_changed = connection.path_changed

    async def _wait(self, event: trio.Event) -> None:
        await event.wait()
        if self._lost is not None:
            raise ConnectionLost(self._lost)

    def _watch(self, init: DataChannel) -> None:
        self._init = init
        init.on_open = self._init_open.set
        init.on_message = self._confirmation_received

    def _confirmation_received(self, message: bytes) -> None:
        self._confirmation = self._confirmation or message[: _CONFIRMATION_LENGTH + 1]
        self._confirmed.set()

    def _channel_opened(self, channel: DataChannel) -> None:
        if channel.label == INIT:
            if self._init is None:
                self._watch(channel)
                self._init_open.set()
        elif self._connection is not None:
            # The peer confirmed first and already speaks; nobody sees this before we have confirmed, too.
            self._connection.channel_opened(channel)

    def _connection_lost(self, reason: str) -> None:
        self._lost = reason
        self._init_open.set()
        self._confirmed.set()


def _confirmation(key: bytes, offerer: bytes, answerer: bytes, *, by_offerer: bool) -> bytes:
    """What one end says about the certificates it sees: only the two ends of the signaling can say it.

    HMAC-SHA-256 over ``handclasp/1 fingerprints``, the speaker's role and both SHA-256 fingerprints.
    """
    role = b"offerer" if by_offerer else b"answerer"
    return hmac.digest(key, b"handclasp/1 fingerprints " + role + offerer + answerer, "sha256")


def _address(prefix: str, peer: PeerId) -> str:
    return f"{prefix}/webrtc/p2p/{peer}"


@contextmanager
def _deadline(seconds: float) -> Generator[None]:
    try:
        with trio.fail_after(seconds):
            yield
    except trio.TooSlowError:
        raise ConnectionLost(
            f"no direct connection within {seconds:.0f} s: a firewall may block UDP; a TURN server would help"
        ) from None


class _WebRTCListener(Listener):
    def __init__(self, connections: trio.MemoryReceiveChannel[Connection], addresses: Sequence[str]) -> None:
        self._connections = connections
        self._addresses = addresses

    @property
    def addresses(self) -> Sequence[str]:
        return self._addresses

    async def accept(self) -> Connection:
        return await self._connections.receive()

    async def aclose(self) -> None:
        self._connections.close()
        await trio.lowlevel.checkpoint()


@asynccontextmanager
async def _open_listener(
    connect: Callable[[SignalingChannel, str, AbstractAsyncContextManager[object]], Awaitable[Connection]],
    signaling: Sequence[Signaling],
    addresses: Sequence[str],
) -> AsyncGenerator[Listener]:
    found, connections = trio.open_memory_channel[Connection](0)
    room = trio.CapacityLimiter(MAX_INBOUND)

    async def accept_one(channel: SignalingChannel, prefix: str) -> None:
        try:
            with _deadline(DIAL_TIMEOUT):
                connection = await connect(channel, prefix, room)
        except HandclaspError as exc:
            _log.info("an inbound WebRTC connection failed: %s", exc)
            return
        try:
            await found.send(connection)
        except trio.BrokenResourceError:  # the listener was closed meanwhile
            await connection.aclose()
        except BaseException:
            await connection.aclose()
            raise

    async def accept_from(
        source: Signaling, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        async with source.incoming() as channels, trio.open_nursery() as nursery:
            task_status.started()
            async for channel in channels:
                nursery.start_soon(accept_one, channel, source.address)

    async with open_scope() as scope, _WebRTCListener(connections, addresses) as listener:
        for source in signaling:
            await scope.start(accept_from, source)
        yield listener
