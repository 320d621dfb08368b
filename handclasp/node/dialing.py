"""Finding a peer through every discovery backend at once and dialling its addresses until one works.

Attempts overlap in the manner of RFC 8305 ("happy eyeballs"): the next address is tried when one has
failed or `STAGGER` seconds have gone by, and the first connection wins.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import trio

from handclasp.abc import Connection, Discovery, Transport
from handclasp.errors import HandclaspError, InvalidAddress, PeerUnreachable, WorldFault
from handclasp.identity import PeerId

__all__ = ["Dialer", "find_addresses"]

_log = logging.getLogger(__name__)

#: Seconds after which the next address is tried although the one before has not failed (RFC 8305 §8).
STAGGER = 0.25
#: Seconds to wait for the first address of a peer.
FIND_TIMEOUT = 10.0
#: Seconds to wait for one more address, once all that are known have failed: backends answer at different speed.
SETTLE_TIMEOUT = 1.0
#: Addresses that are tried for one peer: what discovery says is not to be trusted.
MAX_ADDRESSES = 32


class Dialer:
    """Dials one peer at the addresses it is given.

    Args:
        peer: who has to answer.
        transports: what can dial; the first that understands an address is used.
        searching: whether addresses may come while it runs; otherwise only those that were added before.
    """

    def __init__(self, peer: PeerId, transports: Sequence[Transport], *, searching: bool) -> None:
        self._peer = peer
        self._transports = transports
        self._searching = searching
        self._send, self._addresses = trio.open_memory_channel[str](MAX_ADDRESSES)
        self._seen: set[str] = set()
        self._running = 0
        self._patience = trio.CancelScope()  # of waiting for one more address while nothing runs
        self._connections: list[Connection] = []
        self._failures: list[tuple[str, HandclaspError]] = []

    def add(self, address: str) -> None:
        """Try one more address; one that is known already, or is too many, is passed over."""
        if address not in self._seen and len(self._seen) < MAX_ADDRESSES:
            self._seen.add(address)
            self._send.send_nowait(address)

    def no_more(self) -> None:
        """No more addresses will be added."""
        self._send.close()

    async def run(self) -> Connection:
        """Dial until an address works, or all have failed. Cancelling leaves no connection behind.

        Raises:
            InvalidAddress, WrongPeer, PeerFault, WorldFault: what went wrong at the only address there was.
            PeerUnreachable: nobody was found, or no address works; the message and `__cause__` tell every attempt.
        """
        try:
            async with trio.open_nursery() as nursery:
                if self._searching:
                    self._patience.deadline = trio.current_time() + FIND_TIMEOUT
                else:
                    self.no_more()
                with self._patience:
                    async for address in self._addresses:
                        self._patience.deadline = math.inf
                        self._running += 1
                        ended = trio.Event()
                        nursery.start_soon(self._attempt, address, ended, nursery.cancel_scope)
                        with trio.move_on_after(STAGGER):
                            await ended.wait()
        except BaseException:
            await _close(self._connections)
            raise
        if not self._connections:
            raise self._failure()
        best, *others = self._connections
        await _close(others)
        return best

    async def _attempt(self, address: str, ended: trio.Event, everything: trio.CancelScope) -> None:
        try:
            self._connections.append(await self._dial(address))
            everything.cancel()
        except HandclaspError as exc:
            _log.debug("dialling %s failed: %s", address, exc)
            self._failures.append((address, exc))
        finally:
            self._running -= 1
            if not self._running:
                self._patience.deadline = trio.current_time() + SETTLE_TIMEOUT
            ended.set()

    async def _dial(self, address: str) -> Connection:
        for transport in self._transports:
            if transport.can_dial(address):
                return await transport.dial(address, self._peer)
        await trio.lowlevel.checkpoint()
        raise InvalidAddress(f"no transport of this node can dial {address}")

    def _failure(self) -> HandclaspError:
        if not self._failures:
            why = (
                ""
                if self._searching
                else ": this node has no discovery that finds peers, so give it an address"
            )
            return PeerUnreachable(f"{self._peer} is nowhere to be found{why}")
        if len(self._failures) == 1 and not self._searching:
            return self._failures[0][1]
        told = "".join(f"\n  {address}: {exc}" for address, exc in self._failures)
        error = PeerUnreachable(f"no address of {self._peer} works:{told}")
        error.__cause__ = ExceptionGroup("every attempt", [exc for _, exc in self._failures])
        return error


async def _close(connections: Sequence[Connection]) -> None:
    with trio.CancelScope(shield=True):  # they are nobody's, and closing forcefully takes no time
        for connection in connections:
            await trio.aclose_forcefully(connection)


async def find_addresses(peer: PeerId, backends: Sequence[Discovery], dialer: Dialer) -> None:
    """Feed the addresses that *backends* have for *peer* to *dialer*, until they have no more or this is cancelled."""

    async def look(backend: Discovery) -> None:
        try:
            async with backend.find(str(peer)) as records:
                async for record in records:
                    if record.peer == peer:
                        for address in record.addresses:
                            dialer.add(address)
        except WorldFault as exc:  # the others may still find the peer
            _log.warning("looking for %s with %s failed: %s", peer, type(backend).__name__, exc)

    async with trio.open_nursery() as nursery:
        for backend in backends:
            nursery.start_soon(look, backend)
    dialer.no_more()
