"""Discovery and signaling by a WebSocket service: peers find each other by topic and open channels by peer id.

::

    async with open_node(discovery=[signaling("wss://signal.example")], transports=[webrtc()]) as node: ...

The service is not trusted: it cannot invent peers or addresses, nor read or change what passes through a channel.
Source: docs/protocols/presence.md.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress

import trio

from handclasp.abc import Context, Discovery, DiscoveryFactory, PeerRecord, Signaling, SignalingChannel
from handclasp.discovery.records import LIFETIME, SignedRecord, hash_topic
from handclasp.discovery.secure import SecureChannel
from handclasp.errors import (
    HandclaspError,
    MisuseError,
    PeerUnreachable,
    ServiceRefused,
    ServiceUnavailable,
)
from handclasp.identity import Identity, PeerId
from handclasp.scope import open_scope

from .address import ServiceAddress
from .answers import encode, promptly
from .line import ChannelPipe, Line
from .searches import Search
from .told import Event, Refused
from .websocket import open_socket

__all__ = ["Presence", "from_url", "signaling"]

_log = logging.getLogger(__name__)

#: Seconds before the first attempt to come back after a lost connection, and at most before any. Doubles in between;
#: half of it is random, so that a service that restarts is not run over.
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 30.0
#: Seconds until a record is signed anew.
REFRESH = LIFETIME / 4
_ARRIVED = 64  # channels that wait for a slow receiver; then others are turned away
_FAREWELL = 2.0  # seconds that the end of a block waits for the service to take note
_PROLOGUE = b"handclasp/1 peers"
_FOR_GOOD = ("replaced", "unauthorized")  # why there is no use in coming back


def signaling(url: str) -> DiscoveryFactory:
    """Find peers and signal to them by the service at *url*, for `open_node`.

    Opening it connects: a service that cannot be reached is a `ServiceUnavailable` at once. Afterwards it comes back by
    itself whenever the connection is lost, and advertises, finds and listens again. One identity can be connected to a
    service once: the latest wins, and the one before is told and stays away.

    Args:
        url: ``wss://signal.example``, or ``ws://127.0.0.1:8787`` where nobody is in between; with the path below which
            the service is mounted, if any.

    Raises:
        ConfigurationError: *url* is not such a URL.
    """
    service = ServiceAddress.from_url(url)

    @asynccontextmanager
    async def open_backend(context: Context) -> AsyncGenerator[Presence]:
        async with open_scope() as scope:
            presence = Presence(service, context.identity)
            await scope.start(presence.run)
            scope.start_soon(presence.keep_fresh)
            try:
                yield presence
            finally:
                presence.close()

    return open_backend


def from_url(url: str) -> DiscoveryFactory:
    """The backend of a URL ``wss://signal.example`` or ``ws://127.0.0.1:8787``; see `signaling`.

    Raises:
        ConfigurationError: it is not such a URL.
    """
    return signaling(url)


class Presence(Discovery, Signaling):
    """This node at one service; made by `signaling`."""

    def __init__(self, service: ServiceAddress, identity: Identity) -> None:
        self._service = service
        self._identity = identity
        self._line: Line | None = None
        self._changed = trio.Event()  # set, and replaced, when `_line` or `_over` changes
        self._over: HandclaspError | None = None  # there is no coming back
        self._advertised: dict[
            str, list[PeerRecord]
        ] = {}  # topic to what is advertised there, the latest counts
        self._searches: dict[str, Search] = {}
        self._arrived: trio.MemorySendChannel[SignalingChannel] | None = None
        self._sequence = 0

    @property
    def address(self) -> str:
        """See `Signaling.address`; ``/dns4/<host>/tcp/<port>/wss``, and ``/http-path/<path>`` where the URL has one."""
        return self._service.multiaddr

    def can_reach(self, address: str) -> bool:
        """See `Signaling.can_reach`: this very service. Others are never connected to because a stranger names them."""
        return self._service.is_at(address)

    # --- Signaling ---

    async def open_channel(self, address: str, peer: PeerId) -> SignalingChannel:
        """See `Signaling.open_channel`. That *peer* is who answers turns out with the first message."""
        if not self.can_reach(address):
            raise PeerUnreachable(f"{address} is not the address of the signaling service of this node")
        try:
            line = await self._connected()
            pipe = line.open(peer)
            channel = SecureChannel(pipe, self._identity, dialed=peer, prologue=_PROLOGUE)
            try:
                await channel.greet()
                await pipe.wait_opened()
            except BaseException:
                await trio.aclose_forcefully(channel)
                raise
        except (ServiceUnavailable, ServiceRefused) as exc:
            raise PeerUnreachable(f"{peer} cannot be reached by {self._service.url}: {exc}") from exc
        return channel

    def incoming(self) -> AbstractAsyncContextManager[AsyncIterator[SignalingChannel]]:
        """See `Signaling.incoming`; one at a time. Others are turned away while 64 channels wait to be received.

        Raises:
            MisuseError: it is in use already.
        """
        return self._incoming()

    @asynccontextmanager
    async def _incoming(self) -> AsyncGenerator[AsyncIterator[SignalingChannel]]:
        if self._arrived is not None:
            raise MisuseError(
                "incoming() is in use already: one part of a program takes the channels of a service"
            )
        self._arrived, channels = trio.open_memory_channel[SignalingChannel](_ARRIVED)
        try:
            await self._ask("listen")
            yield channels
        finally:
            self._arrived = None
            await self._tell("unlisten")
            with trio.CancelScope(shield=True):  # only takes checkpoints
                try:
                    while True:  # nobody will take these: whoever opened them has to know
                        await channels.receive_nowait().aclose()
                except trio.WouldBlock:
                    channels.close()

    # --- Discovery ---

    def advertise(self, topic: str, me: PeerRecord) -> AbstractAsyncContextManager[None]:
        """See `Discovery.advertise`.

        Raises:
            MisuseError: *topic* is too long, *me* is not this node, or has too many or too long addresses.
            ServiceRefused: the service has no room for it.
            ServiceUnavailable: the service is away, and has not come back in time.
        """
        return self._advertise(topic, me)

    @asynccontextmanager
    async def _advertise(self, topic: str, me: PeerRecord) -> AsyncGenerator[None]:
        self.check_topic(topic)
        name = hash_topic(topic).hex()
        self._sign(name, me)  # raises what is wrong with it
        records = self._advertised.setdefault(name, [])
        records.append(me)
        try:
            await self._ask("advertise", name, record=self._sign(name, me))
            yield
        finally:
            records.remove(me)
            if records:
                await self._tell("advertise", name, record=self._sign(name, records[-1]))
            else:
                del self._advertised[name]
                await self._tell("withdraw", name)

    def find(self, topic: str) -> AbstractAsyncContextManager[AsyncIterator[PeerRecord]]:
        """See `Discovery.find`. While the service is away nothing is found; it goes on by itself.

        Raises:
            MisuseError: *topic* is too long.
            ServiceRefused: by the iterator, when the service will tell no more.
        """
        return self._find(topic)

    @asynccontextmanager
    async def _find(self, topic: str) -> AsyncGenerator[AsyncIterator[PeerRecord]]:
        self.check_topic(topic)
        hashed = hash_topic(topic)
        name = hashed.hex()
        search = self._searches.get(name)
        if search is None:
            search = self._searches[name] = Search(hashed)
            self._post("find", name)
        finder = search.add_finder()
        if self._over is not None:
            finder.end(self._over)
        try:
            yield finder
        finally:
            finder.end(None)
            del search.finders[finder]
            if not search.finders and self._searches.get(name) is search:
                del self._searches[name]
                self._post("unfind", name)

    # --- the connection ---

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Be connected, and come back whenever the connection is lost. Started once the service has let us in.

        Raises:
            ServiceUnavailable, ServiceRefused: it did not, the first time.
        """
        came, pause = False, FIRST_PAUSE
        while True:
            try:
                async with open_socket(self._service.url, "/peers") as socket:
                    line = Line(socket, hear=self._hear_untrusted, accept=self._accept)
                    await line.prove(self._identity, self._service.host)
                    self._attach(line)
                    if not came:
                        task_status.started()
                    came, pause = True, FIRST_PAUSE
                    try:
                        await line.run()
                    finally:
                        self._line = None
            except (ServiceUnavailable, ServiceRefused) as exc:
                if not came:
                    raise
                if isinstance(exc, ServiceRefused) and exc.code in _FOR_GOOD:
                    _log.warning("%s: %s; not coming back", self._service.url, exc)
                    self._give_up(exc)
                    return
                _log.info("%s: %s; coming back in %.1f s or less", self._service.url, exc, pause)
            await trio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
            pause = min(2 * pause, LONGEST_PAUSE)

    async def keep_fresh(self) -> None:
        """Sign again what is advertised, before it expires. Runs until it is cancelled."""
        while True:
            await trio.sleep(REFRESH)
            if self._line is not None:
                self._advertise_all(self._line)

    def close(self) -> None:
        """Nothing works any more."""
        self._give_up(ServiceUnavailable("the signaling of this node was closed"))

    # --- inside ---

    async def _connected(self) -> Line:
        with promptly(f"{self._service.url} has not come back"):
            while self._line is None:
                if self._over is not None:
                    raise self._over
                await self._changed.wait()
        return self._line

    async def _ask(self, what: str, topic: str | None = None, **fields: object) -> None:
        """Ask until there is an answer, on the next connection where this one is lost."""
        with promptly(f"{self._service.url} did not answer, or has not come back"):
            while True:
                line = await self._connected()
                with suppress(ServiceUnavailable):
                    await line.ask(what, topic, **fields).wait()
                    return

    async def _tell(self, what: str, topic: str | None = None, **fields: object) -> None:
        """Tell the service that something is over, and wait for a moment until it knows; where it is away, it does."""
        if self._line is not None:
            asked = self._line.ask(what, topic, **fields)  # is sent even when this is cancelled
            with trio.move_on_after(_FAREWELL), suppress(ServiceUnavailable, ServiceRefused):
                await asked.wait()

    def _post(self, what: str, topic: str) -> None:
        if self._line is not None:
            self._line.post({"type": what, "topic": topic})

    def _sign(self, topic: str, me: PeerRecord) -> str:
        now = time.time()
        self._sequence = max(self._sequence + 1, int(now * 1000))
        signed = SignedRecord(me, self._sequence, int(now + LIFETIME))
        return encode(signed.sign(bytes.fromhex(topic), self._identity))

    def _attach(self, line: Line) -> None:
        """Begin on a new connection where the one before has ended."""
        self._line = line
        if self._arrived is not None:
            line.ask("listen")
        for topic, search in self._searches.items():
            search.begin()
            line.post({"type": "find", "topic": topic})
        self._advertise_all(line)
        self._notify()

    def _advertise_all(self, line: Line) -> None:
        for topic, records in self._advertised.items():
            line.ask("advertise", topic, record=self._sign(topic, records[-1]))

    def _hear_untrusted(self, event: Event) -> None:
        search = self._searches.get(event.topic)
        if search is None:
            return  # nobody looks any more, and this crossed it
        if isinstance(event, Refused):
            del self._searches[event.topic]
            search.end(ServiceRefused(event.code, "the service has no room for one more to find"))
        else:
            search.hear_untrusted(event)

    def _accept(self, pipe: ChannelPipe) -> None:
        channel = SecureChannel(pipe, self._identity, dialed=None, prologue=_PROLOGUE)
        try:
            if self._arrived is not None:
                self._arrived.send_nowait(channel)
                return
        except trio.WouldBlock:
            _log.warning("a signaling channel was turned away: %d wait to be received", _ARRIVED)
        pipe.turn_away()

    def _give_up(self, why: HandclaspError) -> None:
        if self._over is None:
            self._over = why
        for search in self._searches.values():
            search.end(self._over)
        self._notify()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
