"""A transport inside one process: for tests, examples and programs whose peers share a process.

::

    network = MemoryNetwork()
    async with open_node(transports=[network.transport]) as alice, open_node(transports=[network.transport]) as bob:
        connection = await alice.connect(f"{network.address}/p2p/{bob.peer_id}")
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager

import trio

from handclasp.abc import Connection, Context, Listener, Path, Stream, Transport
from handclasp.errors import ConnectionLost, InvalidAddress, PeerUnreachable, ProtocolViolation
from handclasp.identity import PeerId
from handclasp.multiaddr import split_peer

#: Bytes that may wait between writer and reader before the writer waits.
WINDOW = 64 * 1024
_BACKLOG = 64  # connections and streams that wait to be accepted
_numbers = itertools.count(1)


class MemoryNetwork:
    """The place where in-memory nodes meet. Two networks do not see each other.

    Attributes:
        address: the multiaddr of this network, for example ``/memory/1``.
    """

    def __init__(self) -> None:
        self.address = f"/memory/{next(_numbers)}"
        self._listening: dict[PeerId, trio.MemorySendChannel[Connection]] = {}

    @asynccontextmanager
    async def transport(self, context: Context) -> AsyncGenerator[Transport]:
        """The transport factory for `open_node`."""
        yield _MemoryTransport(self._listening, self.address, context.identity.peer_id)


class _MemoryTransport(Transport):
    def __init__(
        self, listening: dict[PeerId, trio.MemorySendChannel[Connection]], network: str, me: PeerId
    ) -> None:
        self._listening = listening
        self._network = network
        self._me = me

    def can_dial(self, address: str) -> bool:
        try:
            network, _ = split_peer(address)
        except (InvalidAddress, ProtocolViolation):
            return False
        return network == self._network

    async def dial(self, address: str, peer: PeerId) -> Connection:
        await trio.lowlevel.checkpoint()
        if not self.can_dial(address):
            raise InvalidAddress(f"{address} is not an address of {self._network}")
        target = self._listening.get(peer)
        if address != f"{self._network}/p2p/{peer}" or target is None:
            raise PeerUnreachable(f"nobody listens at {address}")
        ours, theirs = memory_connection_pair(self._me, peer, network=self._network)
        try:
            target.send_nowait(theirs)
        except (trio.WouldBlock, trio.BrokenResourceError):
            raise PeerUnreachable(f"{address} does not accept connections right now") from None
        return ours

    def listen(self) -> AbstractAsyncContextManager[Listener]:
        return self._listen()

    @asynccontextmanager
    async def _listen(self) -> AsyncGenerator[Listener]:
        send, receive = trio.open_memory_channel[Connection](_BACKLOG)
        self._listening[self._me] = send
        try:
            async with _MemoryListener(receive, f"{self._network}/p2p/{self._me}") as listener:
                yield listener
        finally:
            del self._listening[self._me]


class _MemoryListener(Listener):
    def __init__(self, incoming: trio.MemoryReceiveChannel[Connection], address: str) -> None:
        self._incoming = incoming
        self._address = address

    @property
    def addresses(self) -> Sequence[str]:
        return (self._address,)

    async def accept(self) -> Connection:
        return await self._incoming.receive()

    async def aclose(self) -> None:
        with trio.CancelScope(shield=True):  # only takes checkpoints
            try:
                while True:  # nobody will accept these: their dialers have to know
                    await self._incoming.receive_nowait().aclose()
            except (trio.WouldBlock, trio.ClosedResourceError):
                self._incoming.close()
        await trio.lowlevel.checkpoint()


def memory_connection_pair(
    one: PeerId, other: PeerId, *, network: str = "/memory/0"
) -> tuple[Connection, Connection]:
    """Two ends of one connection: the first is held by *one* and leads to *other*."""
    there, back = trio.open_memory_channel[Stream](_BACKLOG), trio.open_memory_channel[Stream](_BACKLOG)
    life = _Life(network)
    return _MemoryConnection(other, life, there[0], back[1]), _MemoryConnection(one, life, back[0], there[1])


class _Life:
    """What both ends of a connection share: its streams, until one end closes it."""

    def __init__(self, network: str) -> None:
        self.network = network
        self.over = trio.Event()
        self._pairs: list[tuple[_Pipe, _Pipe]] = []

    @property
    def streams(self) -> int:
        """How many streams are open."""
        self._pairs = [pair for pair in self._pairs if not all(pipe.over for pipe in pair)]
        return len(self._pairs)

    def add(self, *pair: *tuple[_Pipe, _Pipe]) -> None:
        if len(self._pairs) % _BACKLOG == 0:  # forget those that are over, now and then
            _ = self.streams
        self._pairs.append(pair)

    def end(self, reason: str) -> None:
        """Break every stream."""
        self.over.set()
        for pair in self._pairs:
            for pipe in pair:
                pipe.break_off(reason)
        self._pairs.clear()


class _MemoryConnection(Connection):
    def __init__(
        self,
        peer: PeerId,
        life: _Life,
        opened: trio.MemorySendChannel[Stream],
        incoming: trio.MemoryReceiveChannel[Stream],
    ) -> None:
        self._peer = peer
        self._life = life
        self._opened = opened
        self._incoming = incoming
        self._closed = False

    @property
    def peer(self) -> PeerId:
        return self._peer

    @property
    def address(self) -> str:
        return f"{self._life.network}/p2p/{self._peer}"

    async def path(self) -> Path:
        await trio.lowlevel.checkpoint()
        if self._closed:
            raise trio.ClosedResourceError("this connection is closed")
        if self._life.over.is_set():
            raise ConnectionLost("the peer closed the connection")
        return Path("memory", self._life.network, self._life.network)

    @property
    def streams(self) -> int:
        return self._life.streams

    async def open_stream(self) -> Stream:
        await trio.lowlevel.checkpoint()
        if self._closed:
            raise trio.ClosedResourceError("this connection is closed")
        ours, theirs = memory_stream_pair(self._life)
        try:
            await self._opened.send(theirs)
        except trio.BrokenResourceError:
            raise ConnectionLost("the peer closed the connection") from None
        return ours

    async def accept_stream(self) -> Stream:
        if self._closed:
            raise trio.ClosedResourceError("this connection is closed")
        try:
            return await self._incoming.receive()
        except trio.EndOfChannel:
            raise ConnectionLost("the peer closed the connection") from None

    async def wait_closed(self) -> None:
        await self._life.over.wait()

    async def aclose(self) -> None:
        self._closed = True
        self._opened.close()
        self._incoming.close()
        self._life.end("the connection was closed")
        await trio.lowlevel.checkpoint()


class _Pipe:
    """Bytes on their way in one direction."""

    def __init__(self) -> None:
        self.buffer = bytearray()
        self.eof = False
        self.unread = False  # the reader closed its end
        self.broken: str | None = None
        self._changed = trio.Event()

    @property
    def over(self) -> bool:
        return self.eof or self.unread or self.broken is not None

    async def wait_change(self) -> None:
        await self._changed.wait()

    def change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    def break_off(self, reason: str) -> None:
        if self.broken is None and not self.eof:  # after an end of file nothing can get lost any more
            self.broken = reason
        self.change()


def memory_stream_pair(life: _Life | None = None) -> tuple[Stream, Stream]:
    """Two ends of one stream with a window of `WINDOW` bytes each way."""
    there, back = _Pipe(), _Pipe()
    if life is not None:
        life.add(there, back)
    return _MemoryStream(there, back), _MemoryStream(back, there)


class _MemoryStream(Stream):
    def __init__(self, outgoing: _Pipe, incoming: _Pipe) -> None:
        self._outgoing = outgoing
        self._incoming = incoming
        self._closed = False
        self._busy: set[str] = set()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        with self._alone("sending"):
            await trio.lowlevel.checkpoint()
            rest = memoryview(data)
            while True:
                self._check_writable()
                if not rest:
                    return
                room = WINDOW - len(self._outgoing.buffer)
                if room > 0:
                    self._outgoing.buffer += rest[:room]
                    rest = rest[room:]
                    self._outgoing.change()
                else:
                    await self._outgoing.wait_change()

    async def wait_send_all_might_not_block(self) -> None:
        with self._alone("sending"):
            await trio.lowlevel.checkpoint()
            while not self._closed and not self._outgoing.unread and self._outgoing.broken is None:
                if len(self._outgoing.buffer) < WINDOW:
                    return
                await self._outgoing.wait_change()
            if self._closed:
                raise trio.ClosedResourceError("this stream is closed")

    async def send_eof(self) -> None:
        with self._alone("sending"):
            await trio.lowlevel.checkpoint()
            if self._closed:
                raise trio.ClosedResourceError("this stream is closed")
            self._outgoing.eof = True
            self._outgoing.change()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if max_bytes is not None and operator.index(max_bytes) < 1:
            raise ValueError("max_bytes must be at least 1")
        with self._alone("receiving"):
            await trio.lowlevel.checkpoint()
            while True:
                if self._closed:
                    raise trio.ClosedResourceError("this stream is closed")
                if self._incoming.buffer:
                    data = bytes(self._incoming.buffer[: max_bytes or WINDOW])
                    del self._incoming.buffer[: len(data)]
                    self._incoming.change()
                    return data
                if self._incoming.broken is not None:
                    raise trio.BrokenResourceError(self._incoming.broken)
                if self._incoming.eof:
                    return b""
                await self._incoming.wait_change()

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            self._outgoing.eof = True
            self._incoming.unread = True
            self._incoming.buffer.clear()
            self._outgoing.change()
            self._incoming.change()
        await trio.lowlevel.checkpoint()

    async def reset(self) -> None:
        if not self._closed:
            self._closed = True
            for pipe in (self._outgoing, self._incoming):
                pipe.buffer.clear()
                pipe.broken = "the peer reset the stream"
                pipe.change()
        await trio.lowlevel.checkpoint()

    def _check_writable(self) -> None:
        if self._closed or self._outgoing.eof:
            raise trio.ClosedResourceError("this stream is closed for sending")
        if self._outgoing.broken is not None:
            raise trio.BrokenResourceError(self._outgoing.broken)
        if self._outgoing.unread:
            raise trio.BrokenResourceError("the peer stopped reading")

    @contextmanager
    def _alone(self, doing: str) -> Generator[None]:
        if doing in self._busy:
            raise trio.BusyResourceError(f"another task is {doing} on this stream")
        self._busy.add(doing)
        try:
            yield
        finally:
            self._busy.discard(doing)
