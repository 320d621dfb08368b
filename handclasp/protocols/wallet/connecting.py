"""The direct connection of a pairing, made in the background while people read and decide."""

from __future__ import annotations

from collections.abc import Callable

import trio

from handclasp.abc import Connection, SignalingChannel
from handclasp.errors import ConnectionLost, HandclaspError
from handclasp.node import Node
from handclasp.scope import deadline

#: Seconds to wait for it in the end. Usually it is there long before; a person may also have agreed long after
#: both descriptions were there.
_CONNECT_TIMEOUT = 30.0
#: Seconds between a connection that is lost and giving up for it: whoever declines or refuses says so through the
#: service and leaves, and the word takes longer than the end of the connection.
_LAST_WORDS = 2.0


class Connecting:
    """A connection that is being made; `run` makes it.

    Args:
        node: whose connection it will be.
        channel: how to signal to the peer.
        on_open: is called once it is there.
    """

    def __init__(self, node: Node, channel: SignalingChannel, on_open: Callable[[], None]) -> None:
        self._node = node
        self._channel = channel
        self._on_open = on_open
        self._outcome: Connection | HandclaspError | None = None
        self._done = trio.Event()

    async def run(self) -> None:
        """Make the connection; its errors are for those who ask. Gathers candidates at once."""
        try:
            self._outcome = await self._node.connect_over(self._channel)
            self._on_open()
        except HandclaspError as exc:
            self._outcome = exc
        self._done.set()

    async def get(self) -> Connection:
        """Wait for the connection.

        Raises:
            DeadlineExceeded: it takes too long.
            ConnectionLost, FingerprintMismatch, PeerFault: see `Node.connect_over`.
        """
        with deadline(_CONNECT_TIMEOUT, "there is no direct connection"):
            await self._done.wait()
        if isinstance(self._outcome, HandclaspError):
            raise self._outcome
        assert self._outcome is not None  # noqa: S101 - set before the event
        return self._outcome

    async def watch(self) -> None:
        """Raise what the connection fails with, as soon as nothing else can explain it. Ends when it is there."""
        await self._done.wait()
        if isinstance(self._outcome, ConnectionLost):
            await trio.sleep(_LAST_WORDS)
        if isinstance(self._outcome, HandclaspError):
            raise self._outcome
