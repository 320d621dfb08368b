"""A connection over WebRTC: one data channel for each stream."""

from __future__ import annotations

import ipaddress
from collections import deque

import trio

from handclasp.abc import Connection, Path, Stream
from handclasp.errors import ConnectionLost
from handclasp.identity import PeerId

from .engine import INIT, Candidate, DataChannel, PeerConnection
from .stream import DataChannelStream

#: Streams that the peer may open before anyone accepts them; more are reset. A node accepts at once.
MAX_UNACCEPTED = 1_024
#: Streams open at the same time, both directions together. SCTP has 65,534 ids (RFC 8832 §6).
MAX_STREAMS = 8_192
#: Seconds that `aclose` waits for the peer to acknowledge what was sent. A few round trips of a bad path.
FLUSH_TIMEOUT = 5.0


class WebRTCConnection(Connection):
    """Streams over one peer connection; made by the transport once the peer is authenticated."""

    def __init__(
        self, peer_connection: PeerConnection, peer: PeerId, address: str, peer_window: int | None = None
    ) -> None:
        self._peer_window = peer_window
        self._peer_connection = peer_connection
        self._peer = peer
        self._address = address
        self._streams: set[DataChannelStream] = set()
        self._unaccepted: deque[DataChannelStream] = deque()
        self._wake_acceptors = trio.Event()
        self._over = trio.Event()
        self._path_changed = trio.Event()
        self._lost: str | None = None
        self._closed = False

    @property
    def peer(self) -> PeerId:
        """See `Connection.peer`."""
        return self._peer

    @property
    def address(self) -> str:
        """See `Connection.address`."""
        return self._address

    async def selected_pair(self) -> tuple[Candidate, Candidate]:
        """The local and the remote end of the path in use (RFC 8445)."""
        self._check_usable()
        return await self._peer_connection.selected_pair()

    async def path(self) -> Path:
        """See `Connection.path`."""
        local, remote = await self.selected_pair()
        relayed = "relay" in {local.kind, remote.kind}
        return Path("relayed" if relayed else "direct", _multiaddr(local), _multiaddr(remote))

    async def wait_path_changed(self) -> None:
        """See `Connection.wait_path_changed`."""
        await self._path_changed.wait()

    def path_changed(self) -> None:
        """The engine uses another pair."""
        self._path_changed.set()
        self._path_changed = trio.Event()

    @property
    def streams(self) -> int:
        """See `Connection.streams`."""
        return len(self._streams)

    async def open_stream(self) -> Stream:
        """See `Connection.open_stream`."""
        await trio.lowlevel.checkpoint()
        self._check_usable()
        if len(self._streams) >= MAX_STREAMS:
            raise trio.BusyResourceError(
                f"this connection already has {MAX_STREAMS} streams: close some first"
            )
        return self._add(self._peer_connection.open_channel())

    async def accept_stream(self) -> Stream:
        """See `Connection.accept_stream`."""
        await trio.lowlevel.checkpoint()
        while self._closed or not self._unaccepted:
            self._check_usable()
            await self._wake_acceptors.wait()
        return self._unaccepted.popleft()

    async def wait_closed(self) -> None:
        """See `Connection.wait_closed`."""
        await self._over.wait()

    async def aclose(self) -> None:
        """See `Connection`; waits at most `FLUSH_TIMEOUT` for a peer that does not take what was sent."""
        try:
            if not self._closed and self._lost is None:
                self._closed = True  # no new streams
                with trio.move_on_after(FLUSH_TIMEOUT):
                    await self._peer_connection.flush()
        finally:
            self._closed = True
            self.break_off("this connection was closed")
            await self._peer_connection.close()

    def _check_usable(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this connection is closed")
        if self._lost is not None:
            raise ConnectionLost(self._lost)

    def channel_opened(self, channel: DataChannel) -> None:
        """The peer opened a channel: it becomes a stream to accept, or is reset when there are too many."""
        if channel.label == INIT:
            return  # nobody's stream: an engine uses one to learn what has arrived, and closes it
        stream = self._add(channel)
        if len(self._unaccepted) >= MAX_UNACCEPTED or len(self._streams) > MAX_STREAMS:
            stream.refuse()
            return
        self._unaccepted.append(stream)
        self._wake_acceptors.set()
        self._wake_acceptors = trio.Event()

    def _add(self, channel: DataChannel) -> DataChannelStream:
        stream = DataChannelStream(channel, self._streams.discard, self._peer_window)
        self._streams.add(stream)
        return stream

    def break_off(self, reason: str) -> None:
        """The engine lost the connection: end every stream and tell whoever waits."""
        if self._lost is None:
            self._lost = reason
            for stream in list(self._streams):
                stream.break_off(reason)
            self._over.set()
            self._wake_acceptors.set()


def _multiaddr(candidate: Candidate) -> str:
    if not candidate.host:
        return ""
    try:
        protocol = f"ip{ipaddress.ip_address(candidate.host).version}"
    except ValueError:
        protocol = "dns"
    return f"/{protocol}/{candidate.host}/udp/{candidate.port}"
