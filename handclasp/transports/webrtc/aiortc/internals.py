"""Everything that touches private parts of aiortc and aioice, in one place.

Each class names what it needs that has no public API. ``tests/transports/webrtc/
test_internals.py`` fails when one of the names moves, and both packages are
pinned to a minor release in pyproject.toml for the same reason.
"""

# The point of this module is to use what is private, of packages that carry few types.
# ruff: noqa: SLF001, N802
# pyright: reportPrivateUsage=false, reportUnknownMemberType=false, reportUnknownVariableType=false
from __future__ import annotations

import asyncio
import logging
import random
import struct
from collections.abc import Callable, Sequence
from typing import Any

import aioice
import aioice.ice
import aioice.stun
import aiortc
from aiortc import rtcdtlstransport
from cryptography.hazmat.primitives import hashes
from OpenSSL import SSL

from handclasp.transports.webrtc.datagrams import Batch, DatagramTransport
from handclasp.transports.webrtc.engine import Candidate

_log = logging.getLogger(__name__)
_CONNECTED = rtcdtlstransport.State.CONNECTED

#: Seconds between two consent checks, and without an answer until the path counts as lost. RFC 7675 asks
#: for 5 and 30, which leaves a person waiting for a killed peer; a check is one small datagram.
CONSENT_INTERVAL = 1.5
CONSENT_LOST = 7.5

#: RFC 7983 §7: what STUN begins with at most, and what DTLS begins with.
_LAST_STUN_BYTE, _FIRST_DTLS_BYTE, _LAST_DTLS_BYTE = 3, 20, 63
_WAITING = 256  # datagrams that may wait for the DTLS handshake; it needs about ten
_RECORD = 1500  # bytes of a DTLS record at most, as in aiortc


class QuietPeerConnection(aiortc.RTCPeerConnection):
    """aiortc's peer connection without its log, which would hold every SDP (candidates, passwords)."""

    def _RTCPeerConnection__log_debug(self, msg: str, *args: object) -> None: ...


class StunProtocol(aioice.ice.StunProtocol):
    """aioice's socket, deaf to strangers, and without its log of addresses and credentials.

    aioice hands whatever is not STUN to DTLS, no matter who sent it, and some malformed STUN breaks its
    parser: one empty datagram from anybody ended the connection, a flood of ClientHellos prevented it.
    """

    def datagrams_received(self, batch: Batch) -> None:
        """Take what arrived in one go; what it makes us send leaves in one go, too."""
        connection: Any = self.receiver
        with connection.flight:
            for data, address in batch:
                self.datagram_received(data, address)

    def datagram_received(self, data: Any, addr: tuple[Any, ...]) -> None:
        """Pass on STUN, which authenticates itself, and what comes from where STUN has led us."""
        connection: Any = self.receiver
        if data and _FIRST_DTLS_BYTE <= data[0] <= _LAST_DTLS_BYTE:
            # aioice would try to read it as STUN first.
            if connection.knows((addr[0], addr[1])):
                connection.data_received(data, self.local_candidate.component)
            return
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
    _dtls: DtlsTransport
    _known: set[tuple[str, int]]

    @classmethod
    def adopt(
        cls, peer: aiortc.RTCPeerConnection, addresses: Sequence[str], gather_timeout: float
    ) -> IceConnection:
        """Take over the ICE connection of a peer connection that has not gathered yet."""
        connection: Any = peer.sctp.transport.transport.iceGatherer._connection  # type: ignore[union-attr] # pyright: ignore[reportOptionalMemberAccess]
        connection.__class__ = cls  # aiortc offers no way to pass a connection in
        connection._addresses = addresses
        connection._gather_timeout = gather_timeout
        connection._dtls = DtlsTransport.adopt(peer)
        connection._known = set()
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
        return candidates

    @property
    def _relay_only(self) -> bool:
        return self._transport_policy is aioice.ice.TransportPolicy.RELAY

    def knows(self, address: tuple[str, int]) -> bool:
        """Whether ICE tries this remote address, or heard an authenticated request from it."""
        if address in self._known:
            return True
        if any(pair.remote_addr == address for pair in self._check_list):
            self._known.add(address)  # for good: nothing is ever taken off that list
            return True
        return any(source[:2] == address for _, source, _ in self._early_checks)

    def data_received(self, data: bytes, component: int) -> None:
        """Hand data to DTLS at once when it is ready; aiortc would wake a task for it."""
        if self._dtls.ready and self._queue.empty():
            if not self._dtls.receive_untrusted(data):
                self._queue.put_nowait(None)  # how aiortc learns that the connection ends
        elif self._queue.qsize() < _WAITING:
            super().data_received(data, component)

    @property
    def flight(self) -> Flight:
        """See `DtlsTransport`."""
        return self._dtls.flight

    def send_all(self, datagrams: Sequence[bytes]) -> None:
        """Send some datagrams over the selected pair; without one they are lost."""
        pair = self._nominated.get(1)
        if pair is None:
            return
        transport: Any = pair.protocol.transport
        if isinstance(transport, DatagramTransport):
            transport.send_all(datagrams, pair.remote_addr)
            return
        for datagram in datagrams:  # through a TURN server
            transport.sendto(datagram, pair.remote_addr)

    def _check_periodic(self) -> bool:
        return super()._check_periodic() and (
            self._remote_candidates_expected() or any(pair.state in _UNSTARTED for pair in self._check_list)
        )

    async def query_consent(self) -> None:
        """Ask for consent (RFC 7675) until nobody answers any more, then close.

        What is not answered within STUN's half second is asked again at once: a path that loses one datagram in
        five would else be given up every few minutes.
        """
        loop = asyncio.get_running_loop()
        heard = loop.time()
        answered = True
        while loop.time() - heard < CONSENT_LOST:
            if self._closing:
                return  # closed in the moment in which the checks succeeded: aioice asks all the same
            if answered:
                await asyncio.sleep(CONSENT_INTERVAL * random.uniform(0.8, 1.2))  # noqa: S311 - RFC 7675 §5.1
            answered = not self._nominated
            for pair in list(self._nominated.values()):
                request = self.build_request(pair, nominate=False)
                key = (self.remote_password or "").encode()
                try:
                    await pair.protocol.request(
                        request, pair.remote_addr, integrity_key=key, retransmissions=0
                    )
                    heard, answered = loop.time(), True
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


class Flight:
    """Packets that leave together: those sent while a ``with`` block of this object lasts, the outermost one."""

    def __init__(self, send: Callable[[list[bytes]], None]) -> None:
        self._send = send
        self.packets: list[bytes] = []
        self.depth = 0

    def __enter__(self) -> None:
        self.depth += 1

    def __exit__(self, *_: object) -> None:
        self.depth -= 1
        if not self.depth and self.packets:
            packets, self.packets = self.packets, []
            self._send(packets)


class DtlsTransport(aiortc.RTCDtlsTransport):
    """aiortc's DTLS without a task switch for each datagram.

    aiortc hands each datagram through a queue to a task, and each packet through four coroutines to the
    socket. None of them ever waits. Here both ways are plain calls, and packets that are sent together leave
    together.

    Attributes:
        flight: collects what is sent together.
    """

    flight: Flight

    @classmethod
    def adopt(cls, peer: aiortc.RTCPeerConnection) -> DtlsTransport:
        """Take over the DTLS transport of a peer connection that has not started yet."""
        dtls: Any = peer.sctp.transport  # type: ignore[union-attr] # pyright: ignore[reportOptionalMemberAccess]
        dtls.__class__ = cls
        dtls.flight = Flight(dtls._send_packets)
        adopted: DtlsTransport = dtls
        return adopted

    @property
    def ready(self) -> bool:
        """Whether the handshake is over, with all its repetitions, and the end has not come."""
        return self._RTCDtlsTransport__handshake_done and self._state is _CONNECTED  # type: ignore[attr-defined] # pyright: ignore[reportAttributeAccessIssue]

    def receive_untrusted(self, datagram: bytes) -> bool:
        """Take one datagram; False when the peer has ended the connection, or breaks its protocols."""
        ssl: Any = self._ssl
        try:
            ssl.bio_write(datagram)
            data = ssl.recv(_RECORD)
        except SSL.ZeroReturnError:
            return False
        except SSL.Error:  # not from the peer, or a repetition
            self._flush_records()
            return True
        receiver: Any = self._data_receiver
        if receiver is not None:
            try:
                receiver.receive_packet_untrusted(data)
            except Exception as exc:  # noqa: BLE001 - aiortc's parsers trip over what is malformed
                _log.debug("a peer sent a malformed SCTP packet: %s", type(exc).__name__)
                return False
        return True

    def send_packet(self, packet: bytes) -> None:
        """Send one packet, or lose it when there is no connection."""
        if self.flight.depth:
            self.flight.packets.append(packet)
        else:
            self._send_packets([packet])

    def _send_packets(self, packets: list[bytes]) -> None:
        if self._state is not _CONNECTED:
            return
        ssl: Any = self._ssl
        records: list[bytes] = []
        try:
            for packet in packets:
                ssl.send(packet)
                records.append(ssl.bio_read(_RECORD))
        except SSL.Error:  # DTLS has failed, and says so where it receives
            return
        self._ice.send_all(records)

    def _flush_records(self) -> None:
        """Send what DTLS itself has to say: an alert, a repetition of its last words."""
        ssl: Any = self._ssl
        try:
            self._ice.send_all([ssl.bio_read(_RECORD)])
        except SSL.Error:
            return

    @property
    def _ice(self) -> IceConnection:
        connection: Any = self.transport._connection
        ice: IceConnection = connection
        return ice


def remote_certificate_digest(peer: aiortc.RTCPeerConnection) -> bytes:
    """SHA-256 of the certificate that DTLS received (aiortc keeps the TLS connection private)."""
    dtls: Any = peer.sctp.transport  # type: ignore[union-attr] # pyright: ignore[reportOptionalMemberAccess]
    certificate: Any = dtls._ssl.get_peer_certificate(as_cryptography=True)
    digest: bytes = certificate.fingerprint(hashes.SHA256())
    return digest
