"""Discovery and signaling inside one process: for tests, examples and programs whose peers share a process.

::

    meeting = MemoryMeeting()
    async with open_node(discovery=[meeting.backend], transports=[webrtc()]) as node: ...
"""

from __future__ import annotations

import itertools
import math
import secrets
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import trio

from handclasp.abc import Context, Discovery, PeerRecord, Signaling, SignalingChannel
from handclasp.errors import MisuseError, PeerUnreachable
from handclasp.identity import PeerId

_QUEUE = 256  # messages or channels that wait for a slow reader
_numbers = itertools.count(1)


class MemoryMeeting:
    """The place where in-memory peers find each other. Two meetings do not see each other.

    Attributes:
        address: the multiaddr of this meeting, for example ``/memory/1``.
    """

    def __init__(self) -> None:
        self.address = f"/memory/{next(_numbers)}"
        self._records: dict[str, list[PeerRecord]] = {}
        self._watchers: dict[str, list[trio.MemorySendChannel[PeerRecord]]] = {}
        self._listening: dict[PeerId, trio.MemorySendChannel[SignalingChannel]] = {}

    @asynccontextmanager
    async def backend(self, context: Context) -> AsyncGenerator[MemoryBackend]:
        """The discovery factory for `open_node`; what it opens is a `Signaling`, too."""
        yield MemoryBackend(
            self._records, self._watchers, self._listening, self.address, context.identity.peer_id
        )


class MemoryBackend(Discovery, Signaling):
    """One peer's view of a `MemoryMeeting`."""

    def __init__(
        self,
        records: dict[str, list[PeerRecord]],
        watchers: dict[str, list[trio.MemorySendChannel[PeerRecord]]],
        listening: dict[PeerId, trio.MemorySendChannel[SignalingChannel]],
        address: str,
        me: PeerId,
    ) -> None:
        self._records = records
        self._watchers = watchers
        self._listening = listening
        self._address = address
        self._me = me

    @property
    def address(self) -> str:
        """See `Signaling.address`; ``/memory/<number of the meeting>``."""
        return self._address

    def can_reach(self, address: str) -> bool:
        """See `Signaling.can_reach`."""
        return address == self._address

    def advertise(self, topic: str, me: PeerRecord) -> AbstractAsyncContextManager[None]:
        """See `Discovery.advertise`."""
        return self._advertise(topic, me)

    @asynccontextmanager
    async def _advertise(self, topic: str, me: PeerRecord) -> AsyncGenerator[None]:
        self.check_topic(topic)
        records = self._records.setdefault(topic, [])
        records.append(me)
        for watcher in self._watchers.get(topic, []):
            try:
                watcher.send_nowait(me)
            except trio.BrokenResourceError:  # it just stopped looking
                continue
        try:
            yield
        finally:
            records.remove(me)
            if not records:
                self._records.pop(topic, None)

    def find(self, topic: str) -> AbstractAsyncContextManager[AsyncIterator[PeerRecord]]:
        """See `Discovery.find`."""
        return self._find(topic)

    @asynccontextmanager
    async def _find(self, topic: str) -> AsyncGenerator[AsyncIterator[PeerRecord]]:
        self.check_topic(topic)
        # Without a bound: one record for each peer of this process that advertises, and nobody waits for a finder.
        send, receive = trio.open_memory_channel[PeerRecord](math.inf)
        for record in self._records.get(topic, []):
            send.send_nowait(record)
        watchers = self._watchers.setdefault(topic, [])
        watchers.append(send)
        try:
            async with receive:
                yield receive
        finally:
            watchers.remove(send)
            if not watchers:
                self._watchers.pop(topic, None)

    async def open_channel(self, address: str, peer: PeerId) -> SignalingChannel:
        """See `Signaling.open_channel`."""
        await trio.lowlevel.checkpoint()
        target = self._listening.get(peer)
        if target is None or not self.can_reach(address):
            raise PeerUnreachable(f"{peer} does not listen in this meeting")
        ours, theirs = memory_channel_pair(self._me, peer)
        try:
            target.send_nowait(theirs)
        except trio.BrokenResourceError:
            raise PeerUnreachable(f"{peer} stopped listening in this meeting") from None
        except trio.WouldBlock:
            raise PeerUnreachable(f"{peer} does not take channels right now: {_QUEUE} wait for it") from None
        return ours

    def incoming(self) -> AbstractAsyncContextManager[AsyncIterator[SignalingChannel]]:
        """See `Signaling.incoming`."""
        return self._incoming()

    @asynccontextmanager
    async def _incoming(self) -> AsyncGenerator[AsyncIterator[SignalingChannel]]:
        send, receive = trio.open_memory_channel[SignalingChannel](_QUEUE)
        self._listening[self._me] = send
        try:
            yield receive
        finally:
            del self._listening[self._me]
            with trio.CancelScope(shield=True):  # only takes checkpoints
                try:
                    while True:  # nobody will take these: whoever opened them has to know
                        await receive.receive_nowait().aclose()
                except trio.WouldBlock:
                    receive.close()


def memory_channel_pair(one: PeerId, other: PeerId) -> tuple[MemoryChannel, MemoryChannel]:
    """Two ends of one signaling channel; the first is held by *one*, who offers."""
    there, back = trio.open_memory_channel[bytes](_QUEUE), trio.open_memory_channel[bytes](_QUEUE)
    binding = secrets.token_bytes(32)
    return (
        MemoryChannel(other, binding, there[0], back[1], offers=True),
        MemoryChannel(one, binding, back[0], there[1], offers=False),
    )


class MemoryChannel(SignalingChannel):
    """One end of `memory_channel_pair`."""

    def __init__(
        self,
        peer: PeerId,
        binding: bytes,
        outgoing: trio.MemorySendChannel[bytes],
        incoming: trio.MemoryReceiveChannel[bytes],
        *,
        offers: bool,
    ) -> None:
        self._peer = peer
        self._binding = binding
        self._outgoing = outgoing
        self._incoming = incoming
        self._offers = offers

    @property
    def offers(self) -> bool:
        """See `SignalingChannel.offers`."""
        return self._offers

    @property
    def peer(self) -> PeerId:
        """See `SignalingChannel.peer`."""
        return self._peer

    @property
    def binding(self) -> bytes | None:
        """See `SignalingChannel.binding`."""
        return self._binding

    async def send(self, message: bytes) -> None:
        """See `SignalingChannel.send`."""
        if len(message) > self.MAX_MESSAGE:
            raise MisuseError(f"a message has at most {self.MAX_MESSAGE} bytes; this one has {len(message)}")
        try:
            await self._outgoing.send(message)
        except trio.BrokenResourceError:
            return  # the peer needs nothing more; a mailbox would not tell either

    async def receive(self) -> bytes:
        """See `SignalingChannel.receive`."""
        return await self._incoming.receive()

    async def aclose(self) -> None:
        """Say that nothing more will come; what was sent can still be received."""
        self._outgoing.close()
        self._incoming.close()
        await trio.lowlevel.checkpoint()
