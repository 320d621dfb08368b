"""A WebSocket to the signaling service that leaves nothing open, however it ends."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Self, cast
from urllib.parse import SplitResult, urlsplit

import trio

from handclasp.errors import ServiceUnavailable
from handclasp.scope import Scope, open_scope

from .answers import LONGEST_ANSWER, promptly

if TYPE_CHECKING:
    import trio_websocket

__all__ = ["CLOSE_TIMEOUT", "ServiceSocket", "open_socket"]

#: Seconds for a farewell: nothing depends on it.
CLOSE_TIMEOUT = 0.5


class ServiceSocket:
    """Frames to the service and from it; made by `open_socket`."""

    def __init__(self, socket: trio_websocket.WebSocketConnection) -> None:
        self._socket = socket

    async def send(self, frame: Mapping[str, object]) -> None:
        """Send one frame. Cancelled halfway, it leaves a socket that is good for nothing but closing.

        Raises:
            trio.BrokenResourceError: the connection is over.
            ServiceUnavailable: the service does not read.
        """
        from trio_websocket import ConnectionClosed

        try:
            with promptly("the service does not take messages"):
                await self._socket.send_message(json.dumps(frame))
        except ConnectionClosed:
            raise trio.BrokenResourceError from None

    async def receive(self) -> str | bytes:
        """Wait for the next frame, at most `LONGEST_ANSWER` bytes.

        Raises:
            trio.BrokenResourceError: the connection is over.
        """
        from trio_websocket import ConnectionClosed

        try:
            return await self._socket.get_message()
        except ConnectionClosed:
            raise trio.BrokenResourceError from None

    async def check_alive(self) -> None:
        """Return once the service has answered a ping.

        Raises:
            trio.BrokenResourceError: the connection is over.
            ServiceUnavailable: no answer came in time.
        """
        from trio_websocket import ConnectionClosed

        try:
            with promptly("the signaling service did not answer"):
                await self._socket.ping()
        except ConnectionClosed:
            raise trio.BrokenResourceError from None

    async def aclose(self) -> None:
        """Say goodbye, for `CLOSE_TIMEOUT` at most; harmless when repeated. Cancelled before, it says nothing."""
        if trio.current_effective_deadline() == -math.inf:
            return  # nobody reads the answer any more, and the end of the stream says as much
        with trio.move_on_after(CLOSE_TIMEOUT, shield=True):
            await self._socket.aclose()


@asynccontextmanager
async def open_socket(service: str, path: str) -> AsyncGenerator[ServiceSocket]:
    """Connect to *path* of the service at the URL *service* while the block runs.

    Raises:
        ServiceUnavailable: it cannot be reached.
    """
    import trio_websocket

    url = urlsplit(service)
    connecting = True
    try:
        # Our own stream: trio-websocket leaves its own open when it is cancelled after the server's farewell.
        async with await _connect(url) as stream, open_scope() as scope:
            with _Readers(scope, stream) as readers:
                connection: trio_websocket.WebSocketConnection | None = None
                with promptly("the signaling service did not answer"), readers.opening:
                    connection = await trio_websocket.wrap_client_stream(
                        cast("trio.Nursery", readers),
                        stream,
                        url.netloc,
                        f"{url.path}{path}",
                        max_message_size=LONGEST_ANSWER,
                    )
                if connection is None:
                    raise ServiceUnavailable(f"the signaling service at {service} hung up before it answered")
                connecting = False
                socket = ServiceSocket(connection)
                try:
                    yield socket
                finally:
                    await socket.aclose()
    except (OSError, trio_websocket.HandshakeError) as exc:
        if not connecting:
            raise
        why = str(exc) or "it does not speak WebSocket there"
        raise ServiceUnavailable(f"the signaling service at {service} cannot be reached: {why}") from exc


class _Readers:
    """The nursery of trio-websocket's reader, which trips over a message that is too long and goes on.

    Being cancelled does not end the reader: the service's farewell is still to come, and waiting for it
    without a reader would take all of `CLOSE_TIMEOUT`. The end of the block does.

    Attributes:
        opening: around the opening handshake, whose end trio-websocket awaits even after its reader found that the
            connection is closed.
    """

    def __init__(self, scope: Scope, stream: trio.abc.AsyncResource) -> None:
        self._scope = scope
        self._stream = stream
        self._reading = trio.CancelScope(shield=True)
        self.opening = trio.CancelScope()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._reading.cancel()

    def start_soon(self, reader: Callable[[], Awaitable[object]]) -> None:
        self._scope.start_soon(self._read, reader)

    async def _read(self, reader: Callable[[], Awaitable[object]]) -> None:
        from wsproto.utilities import LocalProtocolError

        with self._reading:
            try:
                await reader()
            except LocalProtocolError:  # whoever waits for a message is told that the connection is over
                await trio.aclose_forcefully(self._stream)
            finally:
                self.opening.cancel()


async def _connect(url: SplitResult) -> trio.SocketStream | trio.SSLStream[trio.SocketStream]:
    host, secure = url.hostname or "", url.scheme == "wss"
    port = url.port or (443 if secure else 80)
    with promptly("the signaling service did not answer"):
        if not secure:
            return await trio.open_tcp_stream(host, port)
        stream = await trio.open_ssl_over_tcp_stream(host, port, https_compatible=True)
        try:
            await stream.do_handshake()  # left to trio-websocket, its failure would look like silence
        except trio.BrokenResourceError as exc:
            await trio.aclose_forcefully(stream)
            raise ServiceUnavailable(f"no TLS connection to {url.netloc}: {exc.__cause__ or exc}") from exc
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        return stream
