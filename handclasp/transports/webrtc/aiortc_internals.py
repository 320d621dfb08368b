"""Everything that touches private parts of aiortc and aioice, in one place.

Each class names what it needs that has no public API. ``tests/transports/webrtc/
test_aiortc_internals.py`` fails when one of the names moves, and both packages are
pinned to a minor release in pyproject.toml for the same reason.
"""

# The point of this module is to use what is private, of packages that carry few types.
# ruff: noqa: SLF001, N802
# pyright: reportPrivateUsage=false, reportUnknownMemberType=false, reportUnknownVariableType=false
from __future__ import annotations

import asyncio
import random
import struct
from collections.abc import Sequence
from typing import Any

import aioice
import aioice.ice
import aioice.stun
import aiortc
from aiortc import rtcsctptransport as sctp
from cryptography.hazmat.primitives import hashes

from .engine import Candidate

#: Seconds between two consent checks, and without an answer until the path counts as lost. RFC 7675 asks
#: for 5 and 30, which leaves a person waiting for a killed peer; a check is one small datagram.
CONSENT_INTERVAL = 1.5
CONSENT_LOST = 7.5

_DATAGRAM = 2048  # bytes; no path carries more in one piece
_LAST_STUN_BYTE = 3  # RFC 7983 §7: what STUN begins with at most; DTLS begins with 20 to 63

#: Seconds that the first of two packets waits for its acknowledgement.
SACK_DELAY = 0.02

_STREAM_IDS = (
    65_534  # RFC 8832 §6: 65,535 is reserved; an even number, so that counting in twos keeps odd and even
)

#: Bytes of received messages that may wait unread in one connection. aiortc announces 1 MiB, too.
RECEIVE_WINDOW = 1024 * 1024


class QuietPeerConnection(aiortc.RTCPeerConnection):
    """aiortc's peer connection without its log, which would hold every SDP (candidates, passwords)."""

    def _RTCPeerConnection__log_debug(self, msg: str, *args: object) -> None: ...


class StunProtocol(aioice.ice.StunProtocol):
    """aioice's socket, deaf to strangers, and without its log of addresses and credentials.

    aioice hands whatever is not STUN to DTLS, no matter who sent it, and some malformed STUN breaks its
    parser: one empty datagram from anybody ended the connection, a flood of ClientHellos prevented it.
    """

    def datagram_received(self, data: Any, addr: tuple[Any, ...]) -> None:
        """Pass on STUN, which authenticates itself, and what comes from where STUN has led us."""
        connection: Any = self.receiver
        if not data or (data[0] > _LAST_STUN_BYTE and not connection.knows((addr[0], addr[1]))):
            return
        try:
            super().datagram_received(data, addr)
        except struct.error:
            return

    def _StunProtocol__log_debug(self, msg: str, *args: object) -> None: ...


class IceConnection(aioice.Connection):
    """aioice's connection with our manners.

    - It binds to chosen addresses only (aioice takes every interface but loopback).
    - Waiting for STUN and TURN is bounded (aioice waits 5 s when one cannot be reached).
    - Connectivity checks end when none is left to start (aioice sleeps 20 ms first).
    - Datagrams of strangers do not reach DTLS, and candidates do not reach the log.
    - A lost path is noticed within `CONSENT_LOST` seconds (aioice needs about 30).
    """

    _addresses: Sequence[str]
    _gather_timeout: float

    @classmethod
    def adopt(
        cls, peer: aiortc.RTCPeerConnection, addresses: Sequence[str], gather_timeout: float
    ) -> IceConnection:
        """Take over the ICE connection of a peer connection that has not gathered yet."""
        connection: Any = peer.sctp.transport.transport.iceGatherer._connection  # type: ignore[union-attr] # pyright: ignore[reportOptionalMemberAccess]
        connection.__class__ = cls  # aiortc offers no way to pass a connection in
        connection._addresses = addresses
        connection._gather_timeout = gather_timeout
        adopted: IceConnection = connection
        return adopted

    async def get_component_candidates(
        self,
        component: int,
        addresses: list[str],
        timeout: float = 0,  # noqa: ASYNC109, ARG002 - aioice's signature
    ) -> list[aioice.Candidate]:
        """Gather on our addresses, for our time; with the relay policy *addresses* is empty and stays so."""
        chosen = list(self._addresses) if addresses or not self._relay_only else []
        gathering = asyncio.ensure_future(
            super().get_component_candidates(component, chosen, timeout=self._gather_timeout)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
        )
        try:
            candidates = await asyncio.shield(gathering)
        except asyncio.CancelledError:
            await gathering  # stopped half way it forgets its sockets and leaves its requests running
            raise
        for protocol in self._protocols:
            protocol.__class__ = StunProtocol
            # asyncio makes room for 256 KiB before each datagram; ours have at most one MTU.
            protocol.transport.max_size = _DATAGRAM  # type: ignore[attr-defined] # pyright: ignore[reportAttributeAccessIssue]
        return candidates

    @property
    def _relay_only(self) -> bool:
        return self._transport_policy is aioice.ice.TransportPolicy.RELAY

    def knows(self, address: tuple[str, int]) -> bool:
        """Whether ICE tries this remote address, or heard an authenticated request from it."""
        return any(pair.remote_addr == address for pair in self._check_list) or any(
            source[:2] == address for _, source, _ in self._early_checks
        )

    def _check_periodic(self) -> bool:
        return super()._check_periodic() and (
            self._remote_candidates_expected() or any(pair.state in _UNSTARTED for pair in self._check_list)
        )

    async def query_consent(self) -> None:
        """Ask for consent (RFC 7675) until nobody answers any more, then close."""
        loop = asyncio.get_running_loop()
        heard = loop.time()
        while loop.time() - heard < CONSENT_LOST:
            if self._closing:
                return  # closed in the moment in which the checks succeeded: aioice asks all the same
            await asyncio.sleep(CONSENT_INTERVAL * random.uniform(0.8, 1.2))  # noqa: S311 - RFC 7675 §5.1
            for pair in list(self._nominated.values()):
                request = self.build_request(pair, nominate=False)
                key = (self.remote_password or "").encode()
                try:
                    await pair.protocol.request(
                        request, pair.remote_addr, integrity_key=key, retransmissions=0
                    )
                    heard = loop.time()
                except aioice.stun.TransactionError:
                    continue
        self._query_consent_task = None
        await self.close()

    def selected_pair(self) -> tuple[Candidate, Candidate] | None:
        """The nominated pair, local end first."""
        pair = self._nominated.get(1)
        if pair is None:
            return None
        local, remote = pair.local_candidate, pair.remote_candidate
        return Candidate(local.type, *pair.local_addr), Candidate(remote.type, *pair.remote_addr)

    def _Connection__log_info(self, msg: str, *args: object) -> None:
        """Silent: aioice would log every candidate."""


_UNSTARTED = (aioice.ice.CandidatePair.State.WAITING, aioice.ice.CandidatePair.State.FROZEN)


class SctpTransport(aiortc.RTCSctpTransport):
    """aiortc's association with flow control in both directions and delayed acknowledgements.

    aiortc announces a receive window but counts a message as read the moment it hands it
    out, and does not look at the peer's window when it sends. So a slow reader would
    collect everything in memory. Here a message counts until `consumed` says it was read,
    the sender keeps within the peer's window, and what is beyond ours is dropped (RFC 9260
    §6.2: the sender repeats it).

    aiortc acknowledges every packet at once, before the application sees what is in it. Here
    every second packet is, or the first one after `SACK_DELAY` (RFC 9260 §6.2 allows 0.2 s):
    half the datagrams, and a message that gets an answer does not wait for its acknowledgement.

    aiortc uses a stream id again the moment it is free, and ends the connection when an id is used again
    before the end of the last use was acknowledged, which one lost datagram is enough for. Here ids are
    used in turn, and a peer that is too early is not heard until it repeats itself.
    """

    _next_id: int
    _peer_window: int
    _window_closed: bool
    _sack_timer: asyncio.TimerHandle | None
    _unacknowledged: int
    _flushed: asyncio.Event

    @classmethod
    def adopt(cls, peer: aiortc.RTCPeerConnection) -> SctpTransport:
        """Take over the association of a peer connection that has not started yet."""
        association: Any = peer.sctp
        association.__class__ = cls
        association._advertised_rwnd = RECEIVE_WINDOW
        association._peer_window = RECEIVE_WINDOW
        association._window_closed = False
        association._sack_timer = None
        association._unacknowledged = 0
        association._flushed = asyncio.Event()
        adopted: SctpTransport = association
        return adopted

    @property
    def _data_channel_id(self) -> int | None:
        """The id for the next channel that is opened here; aiortc reads it once for each."""
        id_ = self._next_id
        while id_ in self._data_channels:
            id_ = (id_ + 2) % _STREAM_IDS
        self._next_id = (id_ + 2) % _STREAM_IDS
        return id_

    @_data_channel_id.setter
    def _data_channel_id(self, first: int | None) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        self._next_id = first or 0

    def received(self, size: int) -> None:
        """Count a message that was handed out as unread."""
        self._advertised_rwnd -= size
        self._window_closed = self._window_closed or self._advertised_rwnd < RECEIVE_WINDOW // 2

    def consumed(self, size: int) -> None:
        """Count bytes as read; tell the peer once a closed window is mostly open again."""
        self._advertised_rwnd += size
        if self._window_closed and self._advertised_rwnd > RECEIVE_WINDOW * 3 // 4:
            self._window_closed = False
            if self._association_state is self.State.ESTABLISHED:
                asyncio.ensure_future(self._send_sack())  # noqa: RUF006 - ends at once: it only writes a datagram

    async def flush(self) -> None:
        """Wait until everything that was sent is acknowledged, or the association is over."""
        while not self._everything_acknowledged and self._association_state is self.State.ESTABLISHED:
            self._flushed.clear()
            await self._flushed.wait()

    @property
    def _everything_acknowledged(self) -> bool:
        return not (self._data_channel_queue or self._outbound_queue or self._sent_queue)

    def _set_state(self, state: Any) -> None:
        super()._set_state(state)
        if state is self.State.CLOSED:
            self._flushed.set()

    async def _receive_data_chunk(self, chunk: sctp.DataChunk) -> None:
        beyond_window = self._advertised_rwnd <= 0 and chunk.tsn != sctp.tsn_plus_one(
            self._last_received_tsn or 0
        )
        too_early = (
            chunk.protocol == sctp.WEBRTC_DCEP
            and chunk.user_data[:1] == bytes([sctp.DATA_CHANNEL_OPEN])
            and chunk.stream_id in self._data_channel_inbound_reset
        )
        if too_early or beyond_window or self._advertised_rwnd < -sctp.USERDATA_MAX_LENGTH * 16:
            self._sack_needed = True
            return
        await super()._receive_data_chunk(chunk)

    async def _receive_sack_chunk(self, chunk: sctp.SackChunk) -> None:
        self._peer_window = chunk.advertised_rwnd
        await super()._receive_sack_chunk(chunk)
        if self._everything_acknowledged:
            self._flushed.set()

    async def _send_sack(self) -> None:
        # Duplicates and gaps mean that something was lost: the sender has to know at once.
        in_order = not self._sack_misordered and not self._sack_duplicates
        if in_order and self._unacknowledged == 0 and not self._window_closed:
            self._sack_needed = False
            self._unacknowledged = 1
            if self._sack_timer is None:
                self._sack_timer = asyncio.get_running_loop().call_later(SACK_DELAY, self._sack_is_due)
            return
        self._unacknowledged = 0
        await super()._send_sack()

    def _sack_is_due(self) -> None:
        self._sack_timer = None
        if self._unacknowledged and self._association_state is self.State.ESTABLISHED:
            asyncio.ensure_future(self._send_sack())  # noqa: RUF006 - ends at once: it only writes a datagram

    async def _transmit(self) -> None:
        congestion_window = self._cwnd
        # One chunk may always be under way: it probes a closed window (RFC 9260 §6.1 A).
        self._cwnd = min(congestion_window, max(self._peer_window, 1))
        try:
            await super()._transmit()
        finally:
            self._cwnd = congestion_window


def remote_certificate_digest(peer: aiortc.RTCPeerConnection) -> bytes:
    """SHA-256 of the certificate that DTLS received (aiortc keeps the TLS connection private)."""
    dtls: Any = peer.sctp.transport  # type: ignore[union-attr] # pyright: ignore[reportOptionalMemberAccess]
    certificate: Any = dtls._ssl.get_peer_certificate(as_cryptography=True)
    digest: bytes = certificate.fingerprint(hashes.SHA256())
    return digest
