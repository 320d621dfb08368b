"""A peer: one identity, its connections, and the protocols it speaks."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

import trio

from handclasp.abc import (
    Connection,
    Context,
    Discovery,
    DiscoveryFactory,
    Handler,
    Listener,
    PeerRecord,
    Signaling,
    SignalingChannel,
    Stream,
    Transport,
    TransportFactory,
)
from handclasp.errors import (
    ConnectionLost,
    HandclaspError,
    InvalidAddress,
    LimitReached,
    MisuseError,
    PeerNotAllowed,
    WorldFault,
)
from handclasp.identity import Identity, PeerId
from handclasp.multiaddr import peer_of
from handclasp.scope import Scope, open_scope

from . import identify, multistream, ping
from .connections import Connections, Limits, Rules
from .dialing import Dialer, find_addresses
from .events import Event, Events
from .holding import keep_connected
from .serving import Server

_log = logging.getLogger(__name__)

#: Seconds that a peer may take to agree on a protocol for a stream that this node opens.
NEGOTIATION_TIMEOUT = 10.0
_FOUND = 64  # records that wait for whoever iterates over `find`


class Node:
    """A running peer; made by `open_node`."""

    def __init__(
        self,
        identity: Identity,
        plugins: Plugins,
        protocols: Mapping[str, Handler],
        rules: Rules,
        scope: Scope,
    ) -> None:
        self.identity = identity
        self._plugins = plugins
        self._protocols = {ping.PROTOCOL: ping.answer, identify.PROTOCOL: self._tell, **protocols}
        self._events = Events()
        self._connections = Connections(identity.peer_id, rules, self._events, scope)
        self._server = Server(self._protocols, self._connections, streams=rules.limits.streams)
        self._scope = scope
        self._dials: dict[tuple[PeerId, str | None], _Dial] = {}

    @property
    def peer_id(self) -> PeerId:
        """Who this node is."""
        return self.identity.peer_id

    @property
    def addresses(self) -> Sequence[str]:
        """The multiaddrs under which others can dial this node, each ending in ``/p2p/<peer id>``."""
        return tuple(self._plugins.addresses)

    @property
    def connections(self) -> Mapping[PeerId, Connection]:
        """The connections that are up, one for each peer; a live view."""
        return self._connections.current

    def events(self) -> AbstractAsyncContextManager[AsyncIterator[Event]]:
        """What happens to the connections while the block runs.

        First a `PeerConnected` for each peer that is connected already, then `PeerConnected`, `PathChanged` and
        `PeerLost` as they happen. Whoever lets 2,048 of them wait gets a `MisuseError`.
        """
        return self._events.watch(self._connections.snapshot())

    # --- peers ---

    async def connect(self, target: PeerId | str) -> Connection:
        """Connect to a peer by its id (found through discovery) or by a multiaddr that ends in ``/p2p/<id>``.

        A connection that is up already is returned as it is, and however many ask at once, one is made. The node
        closes it when it ends; you may earlier. When both ends dial at the same moment, two connections are made
        and the node settles on one: `open_stream` always takes the right one.

        Raises:
            InvalidAddress: no transport of this node can dial it.
            PeerUnreachable: nobody answered; the message and `__cause__` tell every attempt.
            WrongPeer: somebody else answered.
            ConnectionLost: the peer closed the connection at once: it does not want one, or no more.
            PeerNotAllowed, LimitReached: this node itself refuses.
        """
        peer = target if isinstance(target, PeerId) else peer_of(target)
        existing = self.connections.get(peer)
        if existing is not None:
            await trio.lowlevel.checkpoint()
            return existing
        if peer == self.peer_id:
            raise MisuseError("a node does not connect to itself")
        self._connections.check_allowed(peer)
        key = (peer, target if isinstance(target, str) else None)
        dial = self._dials.get(key)
        if dial is None:
            dial = self._dials[key] = _Dial()
            self._scope.start_soon(self._dial, key, dial)
        return await dial.wait()

    async def connect_over(self, channel: SignalingChannel) -> Connection:
        """Turn a signaling channel into a connection; both ends call this. The channel stays the caller's.

        Raises:
            InvalidAddress: no transport of this node can use a signaling channel.
            ConnectionLost, FingerprintMismatch, PeerFault: see `Transport.upgrade`.
            PeerNotAllowed, LimitReached: this node itself refuses.
        """
        for transport in self._plugins.transports:
            if transport.can_upgrade(channel):
                return await self._adopt(await transport.upgrade(channel), dialed=channel.offers)
        raise InvalidAddress("no transport of this node uses signaling: add webrtc() to its transports")

    async def open_stream(self, peer: PeerId, protocol: str) -> Stream:
        """Open a stream that speaks *protocol* with *peer*, connecting first if need be; the caller closes it.

        Cancelling leaves the connection usable; the peer may or may not have seen the request.

        Raises:
            ProtocolRefused: the peer has no handler for *protocol*.
            ConnectionLost: the link broke; `__cause__` says how.
            PeerUnreachable, WrongPeer, PeerNotAllowed, LimitReached: see `connect`.
        """
        while True:
            connection = await self.connect(peer)
            try:
                stream = await connection.open_stream()
            except (ConnectionLost, trio.ClosedResourceError):  # over, and about to be taken out
                await self._connections.wait_removed(connection)
                continue
            try:
                await _agree(stream, protocol)
            except ConnectionLost:
                # When both ends dial at once, one connection of two goes; nothing was said on it yet.
                if self.connections.get(peer) in (None, connection):
                    raise
            else:
                return stream

    def hold(self, target: PeerId | str) -> AbstractAsyncContextManager[None]:
        """Keep a connection with this peer while the block runs.

        Connects in the background, and again whenever the connection is lost: at once when discovery tells of the
        peer, else after a pause that grows from half a second to a minute. `events` tells how it goes.

        Raises:
            InvalidAddress: *target* is no address that ends in ``/p2p/<id>``.
        """
        peer = target if isinstance(target, PeerId) else peer_of(target)
        return self._hold(peer, target)

    @asynccontextmanager
    async def _hold(self, peer: PeerId, target: PeerId | str) -> AsyncGenerator[None]:
        async with open_scope() as scope:
            scope.start_soon(keep_connected, self, peer, target)
            yield

    async def ping(self, peer: PeerId) -> float:
        """Seconds for one round trip to *peer* and back, connecting first if need be.

        Raises:
            DeadlineExceeded: no answer within 10 s.
            ConnectionLost, PeerUnreachable, ProtocolRefused: see `open_stream`.
        """
        async with await self.open_stream(peer, ping.PROTOCOL) as stream:
            return await ping.measure(stream)

    async def identify(self, peer: PeerId) -> identify.PeerInfo:
        """What *peer* says about itself: its software, protocols and addresses.

        Raises:
            ProtocolViolation: it does not keep to the protocol.
            ConnectionLost, PeerUnreachable, ProtocolRefused: see `open_stream`.
        """
        async with await self.open_stream(peer, identify.PROTOCOL) as stream:
            return await identify.ask(stream, peer)

    # --- topics ---

    @asynccontextmanager
    async def advertise(self, topic: str) -> AsyncGenerator[None]:
        """Be findable under *topic*, through every discovery backend, while the block runs."""
        me = PeerRecord(self.peer_id, tuple(self.addresses))
        async with AsyncExitStack() as stack:
            for backend in self._plugins.discovery:
                await stack.enter_async_context(backend.advertise(topic, me))
            yield

    @asynccontextmanager
    async def find(self, topic: str) -> AsyncGenerator[AsyncIterator[PeerRecord]]:
        """Other peers under *topic*, of every discovery backend, as they turn up; each once per change and backend."""
        send, receive = trio.open_memory_channel[PeerRecord](_FOUND)

        async def look(backend: Discovery) -> None:
            try:
                async with backend.find(topic) as records:
                    async for record in records:
                        if record.peer != self.peer_id:
                            await send.send(record)
            except WorldFault as exc:  # the others go on
                _log.warning("looking for %r with %s failed: %s", topic, type(backend).__name__, exc)

        async with open_scope() as scope, receive:
            for backend in self._plugins.discovery:
                scope.start_soon(look, backend)
            yield receive

    # --- inside ---

    async def _dial(self, key: tuple[PeerId, str | None], dial: _Dial) -> None:
        """Dial until there is a connection, this way or another, or the dial failed, or nobody waits any more."""
        peer, address = key
        try:
            with dial.scope:
                async with open_scope() as scope:
                    scope.start_soon(self._finish_when_connected, peer, dial)
                    searching = address is None and bool(self._plugins.discovery)
                    dialer = Dialer(peer, self._plugins.transports, searching=searching)
                    if address is None:
                        scope.start_soon(find_addresses, peer, self._plugins.discovery, dialer)
                    else:
                        dialer.add(address)
                    dial.finish(await self._adopt(await dialer.run(), dialed=True))
        except HandclaspError as exc:
            dial.finish(exc)
        finally:
            del self._dials[key]
            dial.finish(ConnectionLost("the node was closed"))

    async def _finish_when_connected(self, peer: PeerId, dial: _Dial) -> None:
        """Whoever waits may go on; the dial itself goes on, too.

        Were it broken off, the peer could already have chosen that connection.
        """
        dial.finish(await self._connections.wait_for(peer))

    async def _adopt(self, connection: Connection, *, dialed: bool) -> Connection:
        await self._connections.add(connection, dialed=dialed)
        self._scope.start_soon(self._server.serve, connection)
        return self.connections.get(connection.peer, connection)

    async def _tell(self, stream: Stream, peer: PeerId) -> None:
        """The handler of identify."""
        path = self._connections.path(peer)
        observed = None if path is None else path.remote or None  # an engine may not tell
        await identify.tell(stream, self.peer_id, list(self._protocols), self.addresses, observed)

    async def listen(
        self, transport: Transport, *, task_status: trio.TaskStatus[Listener] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Adopt a transport's inbound connections until the node closes."""
        async with transport.listen() as listener:
            task_status.started(listener)
            while True:
                connection = await listener.accept()
                try:
                    await self._adopt(connection, dialed=False)
                except (PeerNotAllowed, LimitReached, ConnectionLost) as exc:
                    _log.info("an inbound connection of %s was closed: %s", connection.peer, exc)


class Plugins:
    """What a node was given to find others and to reach them."""

    def __init__(self, transports: Sequence[Transport], discovery: Sequence[Discovery]) -> None:
        self.transports = transports
        self.discovery = discovery
        self.addresses: list[str] = []


class _Dial:
    """A dial under way and those who wait for it; without any it is broken off."""

    def __init__(self) -> None:
        self.scope = trio.CancelScope()
        self._waiting = 0
        self._done = trio.Event()
        self._outcome: Connection | HandclaspError | None = None

    def finish(self, outcome: Connection | HandclaspError) -> None:
        """Tell whoever waits; the first outcome stays."""
        if self._outcome is None:
            self._outcome = outcome
            self._done.set()

    async def wait(self) -> Connection:
        self._waiting += 1
        try:
            await self._done.wait()
        finally:
            self._waiting -= 1
            if not self._waiting and self._outcome is None:
                self.scope.cancel()
        if isinstance(self._outcome, HandclaspError):
            raise self._outcome
        assert self._outcome is not None  # noqa: S101 - set before the event
        return self._outcome


async def _agree(stream: Stream, protocol: str) -> None:
    try:
        with trio.fail_after(NEGOTIATION_TIMEOUT):
            await multistream.propose(stream, protocol)
    except BaseException as exc:
        with trio.CancelScope(shield=True):
            await stream.reset()
        if isinstance(exc, trio.BrokenResourceError):
            raise ConnectionLost(f"the stream broke before {protocol} was agreed on") from exc
        if isinstance(exc, trio.TooSlowError):
            raise ConnectionLost(
                f"the peer did not agree on {protocol} within {NEGOTIATION_TIMEOUT:.0f} s"
            ) from exc
        raise


@asynccontextmanager
async def open_node(
    *,
    identity: Identity | None = None,
    discovery: Sequence[DiscoveryFactory] = (),
    transports: Sequence[TransportFactory] = (),
    protocols: Mapping[str, Handler] | None = None,
    limits: Limits | None = None,
    allow: Callable[[PeerId], bool] = lambda _: True,
) -> AsyncGenerator[Node]:
    """Run a peer while the block runs; afterwards its connections are closed and its tasks have ended.

    At the end handlers are cancelled, and what was sent before still reaches the peers: for that each connection
    waits some seconds at most.

    Args:
        identity: who the node is; default a new one for this run.
        discovery: how it finds others, and how it signals to them.
        transports: how it connects.
        protocols: what it answers: protocol id to handler. Ping and identify are answered anyway.
        limits: how many connections and streams it takes from others.
        allow: is asked before each connection, in and out, whether this node talks to a peer; must not block.

    ::

        async with open_node(transports=[webrtc()], protocols={"/echo/1.0.0": echo}) as node:
            ...
    """
    identity = identity or Identity.generate()
    async with AsyncExitStack() as stack:
        backends = [
            await stack.enter_async_context(open_backend(Context(identity))) for open_backend in discovery
        ]
        context = Context(identity, tuple(backend for backend in backends if isinstance(backend, Signaling)))
        plugins = Plugins(
            [await stack.enter_async_context(open_transport(context)) for open_transport in transports],
            [backend for backend in backends if isinstance(backend, Discovery)],
        )
        scope = await stack.enter_async_context(open_scope())
        node = Node(identity, plugins, protocols or {}, Rules(limits or Limits(), allow), scope)
        for transport in plugins.transports:
            listener: Listener = await scope.start(node.listen, transport)
            plugins.addresses.extend(listener.addresses)
        await stack.enter_async_context(node.advertise(str(identity.peer_id)))
        yield node
