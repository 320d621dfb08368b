"""Signaling straight over TCP between peers that can reach each other: on one machine, one network, the open internet.

No service is involved: what stands in for it is a port that the node opens. Source: docs/protocols/direct-signaling.md.
"""

from __future__ import annotations

import errno
import ipaddress
import logging
import socket
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from urllib.parse import urlsplit

import ifaddr
import trio

from handclasp.abc import Context, DiscoveryFactory, Signaling, SignalingChannel
from handclasp.errors import (
    ConfigurationError,
    DeadlineExceeded,
    InvalidAddress,
    MisuseError,
    PeerUnreachable,
    ServiceUnavailable,
)
from handclasp.identity import Identity, PeerId
from handclasp.multiaddr import at, endpoint, parse
from handclasp.scope import deadline, open_scope

from .secure import Pipe, SecureChannel

__all__ = ["DIAL_TIMEOUT", "MAX_INBOUND", "DirectSignaling", "direct", "from_url"]

_log = logging.getLogger(__name__)

#: Seconds for the TCP connection. The handshake has its own: `handclasp.discovery.secure.HANDSHAKE_TIMEOUT`.
DIAL_TIMEOUT = 10.0
#: Inbound sockets at the same time. Each lasts as long as a connection is being made, seconds at most; when there are
#: more, the oldest whose peer has not proved who it is gives way. An honest one needs well under a second.
MAX_INBOUND = 64
_BACKLOG = 64  # connections that the system accepts before we do
_PROLOGUE = b"handclasp/1 direct"
_MAX_MESSAGE = 65_535  # bytes; what two bytes of length can say, and Noise's limit
_PAUSE = 0.1  # seconds, when the system has no more file descriptors: some of ours are closed soon


def direct(host: str = "127.0.0.1", port: int = 0) -> DiscoveryFactory:
    """Signal over TCP, for `open_node`: listen here, and reach others where they do.

    Args:
        host: the IP address to listen on. Behind ``0.0.0.0`` or ``::`` the node's address is that of the first
            network interface but loopback; where another one is right, listen on that by name.
        port: default one that is free.

    Raises:
        ConfigurationError: *host* is not an IP address, or *port* is none.
    """
    try:
        at(str(ipaddress.ip_address(host)), "tcp", port)
    except (ValueError, InvalidAddress):
        raise ConfigurationError(
            f"signaling over TCP: {host!r}, {port!r} is not an IP address and a port"
        ) from None

    @asynccontextmanager
    async def open_backend(context: Context) -> AsyncGenerator[Signaling]:
        with _bind(host, port) as bound:
            yield DirectSignaling(context.identity, bound)

    return open_backend


def from_url(url: str) -> DiscoveryFactory:
    """The backend of a URL ``tcp://127.0.0.1:4001`` or ``tcp://[::1]``; without a port, one that is free.

    Raises:
        ConfigurationError: it names no IP address, or something besides it and a port.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or 0
    except ValueError as exc:
        raise ConfigurationError(f"{url}: {exc}") from None
    if "@" in parts.netloc or parts.path.strip("/") or parts.query or parts.fragment:
        raise ConfigurationError(f"{url}: there is no more than an address and a port in a tcp: URL")
    return direct(host, port)


class DirectSignaling(Signaling):
    """Listens on a TCP port and dials others'; made by `direct`."""

    def __init__(self, identity: Identity, bound: trio.socket.SocketType) -> None:
        self._identity = identity
        self._bound = bound  # reserves the port until `incoming` listens on it
        self._at: tuple[str, int] = bound.getsockname()[:2]
        self._inbound: dict[_Inbound, None] = {}  # in the order in which they came

    @property
    def address(self) -> str:
        """See `Signaling.address`; ``/ip4/<address>/tcp/<port>``."""
        host, port = self._at
        return at(_reachable(host), "tcp", port)

    def can_reach(self, address: str) -> bool:
        """See `Signaling.can_reach`: a host and a TCP port, and nothing besides."""
        try:
            return not endpoint(address).rest and parse(address)[1][0] == "tcp"
        except InvalidAddress:
            return False

    async def open_channel(self, address: str, peer: PeerId) -> SignalingChannel:
        """See `Signaling.open_channel`. That *peer* is who answers turns out with the first message."""
        if not self.can_reach(address):
            raise PeerUnreachable(f"{address} is not the address of a TCP port")
        place = endpoint(address)
        try:
            with deadline(DIAL_TIMEOUT, f"{address} did not answer"):
                stream = await trio.open_tcp_stream(place.host, place.port)
        except (OSError, DeadlineExceeded) as exc:
            raise PeerUnreachable(f"{peer} is not at {address}") from exc
        channel = SecureChannel(_TcpPipe(stream), self._identity, dialed=peer, prologue=_PROLOGUE)
        try:
            await channel.greet()
        except BaseException:
            await trio.aclose_forcefully(channel)
            raise
        return channel

    def incoming(self) -> AbstractAsyncContextManager[AsyncIterator[SignalingChannel]]:
        """See `Signaling.incoming`. Outside of the block whoever dials is refused at once."""
        return self._incoming()

    @asynccontextmanager
    async def _incoming(self) -> AsyncGenerator[AsyncIterator[SignalingChannel]]:
        arrived, channels = trio.open_memory_channel[SignalingChannel](0)
        with self._bound if self._bound.fileno() >= 0 else _bind(*self._at) as listening:
            listening.listen(_BACKLOG)
            with channels:
                async with open_scope() as scope:
                    scope.start_soon(self._accept, trio.SocketListener(listening), arrived)
                    yield channels

    async def _accept(
        self, listener: trio.SocketListener, arrived: trio.MemorySendChannel[SignalingChannel]
    ) -> None:
        while True:
            try:
                stream = await listener.accept()
            except OSError as exc:
                if exc.errno not in {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}:
                    raise
                _log.warning("an inbound signaling connection has to wait: %s", exc)
                await trio.sleep(_PAUSE)
                continue
            if not self._has_room():
                await trio.aclose_forcefully(stream)
                continue
            channel = _Inbound(_TcpPipe(stream), self._identity, self._inbound)
            try:
                await arrived.send(channel)
            except BaseException:
                await trio.aclose_forcefully(channel)
                raise

    def _has_room(self) -> bool:
        if len(self._inbound) < MAX_INBOUND:
            return True
        for channel in self._inbound:
            if not channel.proved:
                channel.give_way()
                return True
        _log.info("an inbound signaling connection was refused: there are %d", len(self._inbound))
        return False


class _Inbound(SecureChannel):
    """A channel that somebody opened to us; it stands in *siblings* until it is closed."""

    def __init__(self, pipe: _TcpPipe, identity: Identity, siblings: dict[_Inbound, None]) -> None:
        super().__init__(pipe, identity, dialed=None, prologue=_PROLOGUE)
        self._tcp = pipe
        self._siblings = siblings
        siblings[self] = None

    @property
    def proved(self) -> bool:
        """Whether that somebody has proved who it is."""
        try:
            return bool(self.binding)
        except MisuseError:
            return False

    def give_way(self) -> None:
        """End it for want of room; whoever receives is told."""
        del self._siblings[self]
        self._tcp.cut("too many others want to connect, and the peer was slow to prove who it is")

    async def aclose(self) -> None:
        """See `SecureChannel`."""
        self._siblings.pop(self, None)
        await super().aclose()


class _TcpPipe(Pipe):
    """Messages on a TCP connection, each after its length in two bytes."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._received = bytearray()  # at most one message and what came with its end
        self._cut: str | None = None

    async def send(self, message: bytes) -> None:
        """See `Pipe.send`."""
        try:
            await self._stream.send_all(len(message).to_bytes(2, "big") + message)
        except trio.BrokenResourceError:
            return  # TCP does not say whether the other end broke or has closed; whoever receives will see

    async def receive(self) -> bytes:
        """See `Pipe.receive`."""
        while True:
            end = 2 + int.from_bytes(self._received[:2], "big")
            if len(self._received) >= end:
                message = bytes(self._received[2:end])
                del self._received[:end]
                return message
            try:
                data = await self._stream.receive_some(_MAX_MESSAGE)
            except trio.BrokenResourceError:
                data = b""
            if self._cut is not None:
                raise ServiceUnavailable(self._cut)
            if not data and self._received:
                raise ServiceUnavailable("the connection broke in the middle of a message")
            if not data:
                raise trio.EndOfChannel
            self._received += data

    def cut(self, reason: str) -> None:
        """End the connection; whoever receives is told *reason*."""
        self._cut = reason
        with suppress(OSError):  # it is over already
            self._stream.socket.shutdown(trio.socket.SHUT_RDWR)

    async def aclose(self) -> None:
        """See `Pipe`."""
        await self._stream.aclose()


def _bind(host: str, port: int) -> trio.socket.SocketType:
    """A socket that holds the port and does not listen yet."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        if sys.platform != "win32":  # there it would let others take the port over
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
    except OSError as exc:
        sock.close()
        raise ConfigurationError(f"signaling over TCP: cannot listen on {host} port {port}: {exc}") from exc
    return trio.socket.from_stdlib_socket(sock)


def _reachable(host: str) -> str:
    """Where others find who listens on *host*."""
    listening = ipaddress.ip_address(host)
    if not listening.is_unspecified:
        return host
    for adapter in ifaddr.get_adapters():
        for ip in adapter.ips:
            own = ipaddress.ip_address(ip.ip if isinstance(ip.ip, str) else ip.ip[0])
            if own.version == listening.version and not (own.is_loopback or own.is_link_local):
                return str(own)
    return "127.0.0.1" if listening.version == 4 else "::1"  # noqa: PLR2004 - a machine without a network
