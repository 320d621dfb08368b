"""A peer: one identity, its connections, and the protocols it speaks."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

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
    PeerUnreachable,
    ProtocolRefused,
    ProtocolViolation,
)
from handclasp.identity import Identity, PeerId
from handclasp.multiaddr import peer_of
from handclasp.scope import Scope, open_scope

from . import multistream

_log = logging.getLogger(__name__)

#: Seconds that a peer may take to agree on a protocol for a stream that it opened.
NEGOTIATION_TIMEOUT = 10.0
#: Seconds that `Node.connect` looks for addresses of a peer.
FIND_TIMEOUT = 10.0


class Node:
    """A running peer; made by `open_node`."""

    def __init__(
        self,
        identity: Identity,
        transports: Sequence[Transport],
        discovery: Sequence[Discovery],
        protocols: Mapping[str, Handler],
        scope: Scope,
    ) -> None:
        self.identity = identity
        self._transports = transports
        self._discovery = discovery
        self._protocols = protocols
        self._scope = scope
        self._connections: dict[PeerId, Connection] = {}

    @property
    def peer_id(self) -> PeerId:
        """Who this node is."""
        return self.identity.peer_id

    @property
    def connections(self) -> Mapping[PeerId, Connection]:
        """The connections that are up, by peer."""
        return self._connections

    async def connect(self, target: PeerId | str) -> Connection:
        """Connect to a peer by its id (found through discovery) or by a multiaddr that ends in ``/p2p/<id>``.

        A connection that is up already is returned as it is. The node closes it when it ends; you may earlier.

        Raises:
            InvalidAddress: no transport of this node can dial it.
            PeerUnreachable: nobody answered.
            WrongPeer: somebody else answered.
        """
        peer = target if isinstance(target, PeerId) else peer_of(target)
        existing = self._connections.get(peer)
        if existing is not None:
            await trio.lowlevel.checkpoint()
            return existing
        if isinstance(target, str):
            return await self._dial(target, peer)
        failures: list[HandclaspError] = []
        for address in await self._find(peer):
            try:
                return await self._dial(address, peer)
            except (PeerUnreachable, ConnectionLost, InvalidAddress) as exc:
                failures.append(exc)
        cause = ExceptionGroup("every attempt", failures) if failures else None
        raise PeerUnreachable(
            f"{peer} is nowhere to be found" if cause is None else f"no address of {peer} works"
        ) from cause

    async def connect_over(self, channel: SignalingChannel) -> Connection:
        """Turn a signaling channel into a connection; both ends call this. The channel stays the caller's.

        Raises:
            InvalidAddress: no transport of this node can use a signaling channel.
            ConnectionLost, FingerprintMismatch, PeerFault: see `Transport.upgrade`.
        """
        for transport in self._transports:
            if transport.can_upgrade(channel):
                return self._adopt(await transport.upgrade(channel))
        raise InvalidAddress("no transport of this node uses signaling: add webrtc() to its transports")

    async def open_stream(self, peer: PeerId, protocol: str) -> Stream:
        """Open a stream that speaks *protocol* with *peer*, connecting first if need be; the caller closes it.

        Cancelling leaves the connection usable; the peer may or may not have seen the request.

        Raises:
            ProtocolRefused: the peer has no handler for *protocol*.
            ConnectionLost: the link broke; `__cause__` says how.
            PeerUnreachable, WrongPeer: see `connect`.
        """
        connection = await self.connect(peer)
        stream = await connection.open_stream()
        try:
            await multistream.propose(stream, protocol)
        except BaseException as exc:
            with trio.CancelScope(shield=True):
                await stream.reset()
            if isinstance(exc, trio.BrokenResourceError):
                raise ConnectionLost(f"the stream broke before {protocol} was agreed on") from exc
            raise
        return stream

    # --- inside ---

    async def _dial(self, address: str, peer: PeerId) -> Connection:
        for transport in self._transports:
            if transport.can_dial(address):
                return self._adopt(await transport.dial(address, peer))
        raise InvalidAddress(f"no transport of this node can dial {address}")

    async def _find(self, peer: PeerId) -> list[str]:
        """The addresses in the first record that any backend has for *peer* and that holds some."""
        found: list[str] = []

        async def look(backend: Discovery) -> None:
            async with backend.find(str(peer)) as records:
                async for record in records:
                    if record.peer == peer and record.addresses:
                        found.extend(record.addresses)
                        nursery.cancel_scope.cancel()
                        return

        with trio.move_on_after(FIND_TIMEOUT):
            async with trio.open_nursery() as nursery:
                for backend in self._discovery:
                    nursery.start_soon(look, backend)
        return found

    def _adopt(self, connection: Connection) -> Connection:
        self._connections[connection.peer] = connection
        self._scope.start_soon(self._serve, connection)
        return connection

    async def listen(
        self, transport: Transport, *, task_status: trio.TaskStatus[Listener] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Adopt a transport's inbound connections until the node closes."""
        async with transport.listen() as listener:
            task_status.started(listener)
            while True:
                self._adopt(await listener.accept())

    async def _serve(self, connection: Connection) -> None:
        """Answer the peer's streams until the connection is over."""
        try:
            async with trio.open_nursery() as nursery:
                try:
                    while True:
                        nursery.start_soon(self._answer, await connection.accept_stream(), connection.peer)
                except (ConnectionLost, trio.ClosedResourceError) as exc:
                    _log.debug("connection with %s is over: %s", connection.peer, exc)
                    nursery.cancel_scope.cancel()
        finally:
            if self._connections.get(connection.peer) is connection:
                del self._connections[connection.peer]
            with trio.CancelScope(shield=True):
                await connection.aclose()

    async def _answer(self, stream: Stream, peer: PeerId) -> None:
        try:
            with trio.fail_after(NEGOTIATION_TIMEOUT):
                protocol = await multistream.choose_untrusted(stream, self._protocols)
        except (ProtocolRefused, ProtocolViolation, trio.TooSlowError, trio.BrokenResourceError) as exc:
            _log.info("a stream from %s was refused: %s", peer, str(exc) or "it took too long")
            await stream.reset()
            return
        try:
            await self._protocols[protocol](stream, peer)
        except Exception:  # noqa: BLE001 - a handler's error is its own: it ends its stream and nothing else
            _log.exception("the handler of %s failed", protocol)
            await stream.reset()
        else:
            await stream.aclose()


@asynccontextmanager
async def open_node(
    *,
    identity: Identity | None = None,
    discovery: Sequence[DiscoveryFactory] = (),
    transports: Sequence[TransportFactory] = (),
    protocols: Mapping[str, Handler] | None = None,
) -> AsyncGenerator[Node]:
    """Run a peer while the block runs; afterwards its connections are closed and its tasks have ended.

    Args:
        identity: who the node is; default a new one for this run.
        discovery: how it finds others. Backends that are a `Signaling` serve the transports, too.
        transports: how it connects.
        protocols: what it answers: protocol id to handler.

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
        opened = [await stack.enter_async_context(open_transport(context)) for open_transport in transports]
        finders = [backend for backend in backends if isinstance(backend, Discovery)]
        scope = await stack.enter_async_context(open_scope())
        node = Node(identity, opened, finders, dict(protocols or {}), scope)
        addresses: list[str] = []
        for transport in opened:
            listener: Listener = await scope.start(node.listen, transport)
            addresses.extend(listener.addresses)
        me = PeerRecord(identity.peer_id, tuple(addresses))
        for backend in finders:
            await stack.enter_async_context(backend.advertise(str(identity.peer_id), me))
        yield node
