"""Staying connected with a peer that the application holds on to."""

from __future__ import annotations

import logging
import random
from typing import TYPE_CHECKING

import trio

from handclasp.errors import HandclaspError
from handclasp.identity import PeerId
from handclasp.scope import open_scope

if TYPE_CHECKING:
    from .node import Node

__all__ = ["keep_connected"]

_log = logging.getLogger(__name__)

#: Seconds before the second attempt; each further pause is twice as long, up to the longest.
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 60.0
#: Seconds that a connection has to last for the pauses to start over.
STABLE = 10.0


async def keep_connected(node: Node, peer: PeerId, target: PeerId | str) -> None:
    """Connect to *target*, and again whenever the connection with *peer* is gone, until cancelled."""
    async with open_scope() as scope:
        sighting = _Sighting()
        scope.start_soon(sighting.watch, node, peer)
        pause = FIRST_PAUSE
        while True:
            sighting.forget()
            try:
                connection = await node.connect(target)
            except HandclaspError as exc:
                _log.info("no connection with %s: %s", peer, exc)
            else:
                began = trio.current_time()
                await connection.wait_closed()
                while (other := node.connections.get(peer)) not in (None, connection):
                    connection = other
                    await connection.wait_closed()
                if trio.current_time() - began > STABLE:
                    pause = FIRST_PAUSE
            # Both ends may hold on to each other: different pauses keep them from dialling at the same time.
            await trio.sleep(FIRST_PAUSE * random.uniform(0.1, 1))  # noqa: S311 - no secret
            with trio.move_on_after(pause):
                await sighting.wait()
            pause = min(pause * 2, LONGEST_PAUSE)


class _Sighting:
    """Whether discovery told of the peer since the last attempt."""

    def __init__(self) -> None:
        self._seen = trio.Event()

    def forget(self) -> None:
        self._seen = trio.Event()

    async def wait(self) -> None:
        await self._seen.wait()

    async def watch(self, node: Node, peer: PeerId) -> None:
        async with node.find(str(peer)) as records:
            async for record in records:
                if record.peer == peer:
                    self._seen.set()
