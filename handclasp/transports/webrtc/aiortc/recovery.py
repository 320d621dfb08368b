"""What an SCTP association does about acknowledgements and losses: its windows, its timers, what it repeats.

Like `internals`, this touches what is private; the same canary test watches both.

Source: RFC 9260 §6 and §7.
"""

# The point of this module is to use what is private, of a package that carries few types.
# ruff: noqa: SLF001
# pyright: reportPrivateUsage=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false
from __future__ import annotations

import asyncio
import bisect
import math
import operator
import time
from abc import abstractmethod
from collections.abc import Coroutine
from typing import Any

import aiortc
from aiortc import rtcsctptransport as sctp
from aiortc.utils import uint32_gt, uint32_gte

#: Bytes of data in one packet, the "PMDCS" of RFC 9260.
MTU = sctp.USERDATA_MAX_LENGTH

#: Seconds that an acknowledgement may take before its packet counts as lost: at first, at least, at most.
#: RFC 9260 recommends 1, 1 and 60. The minimum is from a time of coarse clocks; Chromium and Linux's TCP take
#: 0.12 and 0.2. After the maximum a path that is back again is found; ICE gives it up after 7.5.
RTO_INITIAL, RTO_MIN, RTO_MAX = 1.0, 0.1, 5.0

#: Seconds that the first of two packets waits for its acknowledgement.
SACK_DELAY = 0.02

_TSNS = sctp.SCTP_TSN_MODULO
_MISSES = 3  # later chunks that have arrived make one lost (RFC 9260 §7.2.4)


class LossRecovery(aiortc.RTCSctpTransport):
    """The half of the association that sends again.

    Three differences to aiortc. Its timer does not back off. It waits for its timer, a second at least, where
    acknowledgements are lost, too, or a repetition is. And its timer sends again what has arrived out of order.
    """

    _clock: asyncio.AbstractEventLoop
    _some_lost: bool  # there may be chunks to repeat
    _order: int  # of the last chunk that was sent, counting repetitions
    _arrived: list[Any]  # what the acknowledgement at hand is the first to tell of
    _partially_reliable: bool
    _peer_window: int
    _flushed: asyncio.Event
    _next_measurement: float
    _t3_due: float
    _probe_due: float

    def _start_recovery(self) -> None:
        self._clock = asyncio.get_running_loop()
        self._some_lost = False
        self._order = 0
        self._partially_reliable = False
        self._next_measurement = 0.0
        self._flushed = asyncio.Event()
        self._rto = RTO_INITIAL
        self._t3_due = self._probe_due = math.inf

    @property
    def _t3_runs(self) -> bool:
        return self._t3_due is not math.inf

    @abstractmethod
    def _transmit_now(self) -> None: ...

    @abstractmethod
    def _put(self, chunks: bytes) -> None: ...

    @property
    def _everything_acknowledged(self) -> bool:
        return not (self._data_channel_queue or self._outbound_queue or self._sent_queue)

    def _repeat_lost(self, window: int) -> bool:
        """Send again what was lost; False when the window does not allow all of it."""
        earliest = True
        for chunk in self._sent_queue:
            if chunk._retransmit:
                if self._fast_recovery_transmit:
                    self._fast_recovery_transmit = False
                elif self._flight_size >= window:
                    return False
                chunk._misses = 0
                chunk._retransmit = False
                self._put(self._dispatch(chunk))
                if earliest:
                    # restart the T3 timer as the earliest outstanding TSN is being retransmitted
                    self._t3_restart()
            earliest = False
        self._some_lost = False
        return True

    def _dispatch(self, chunk: Any) -> bytes:
        """Count a chunk as under way; returns it as bytes."""
        if not chunk._in_flight:
            chunk._in_flight = True
            self._flight_size += chunk._book_size
        chunk._sent_count += 1
        self._order += 1
        chunk._order = self._order
        return bytes(chunk)

    # --- acknowledgements of the peer ---

    async def _receive_sack_chunk(self, chunk: sctp.SackChunk) -> None:
        cumulative = chunk.cumulative_tsn
        if uint32_gt(self._last_sacked_tsn, cumulative) or uint32_gte(cumulative, self._local_tsn):
            return  # an older one that was overtaken, or for what was never sent
        self._last_sacked_tsn = cumulative
        self._peer_window = chunk.advertised_rwnd
        fully_used = self._flight_size >= self._cwnd
        self._arrived = []
        done = 0  # bytes that are acknowledged for the first time
        sent = self._sent_queue
        advanced = False
        while sent and uint32_gte(cumulative, sent[0].tsn):
            advanced = True
            done += self._acknowledge(sent.popleft())
        lost = False
        if chunk.gaps:
            in_gaps, lost = self._receive_gaps(chunk)
            done += in_gaps
        self._measure_round_trip()
        self._adjust_window(cumulative, done if fully_used and advanced else 0, lost=lost)
        if not sent:
            self._t3_due = self._probe_due = math.inf  # what _t3_cancel() would do, at less cost
        elif advanced:
            self._t3_restart()
        if self._partially_reliable:
            self._update_advanced_peer_ack_point()
        self._transmit_now()
        if not self._outbound_queue:
            await self._data_channel_flush()
        if self._everything_acknowledged:
            self._flushed.set()

    def _measure_round_trip(self) -> None:
        """Take the time of one chunk, about once a round trip (RFC 9260 §6.3.1 C4)."""
        now = time.monotonic()
        if now < self._next_measurement or not self._arrived:
            return
        # Of the last one sent: those before it may have waited for a lost one. Not of a repetition, whose
        # acknowledgement may be that of the first (C5).
        newest = max(self._arrived, key=_order)
        if newest._sent_count == 1:
            self._update_rto(now - newest._sent_time)
            self._next_measurement = now + (self._srtt or 0)

    def _acknowledge(self, chunk: Any) -> int:
        """Take one chunk as arrived; returns how many bytes nobody knew of before."""
        self._flight_size_decrease(chunk)
        if chunk._acked:
            return 0
        chunk._acked = True
        chunk._retransmit = False
        self._arrived.append(chunk)
        size: int = chunk._book_size
        return size

    def _receive_gaps(self, chunk: sctp.SackChunk) -> tuple[int, bool]:
        """Take what arrived out of order; returns its bytes, and whether something before it was lost.

        A chunk is lost when three that were sent after it have arrived. RFC 9260 §7.2.4 counts the
        acknowledgements that say so, which are lost themselves where chunks are; and it never takes a repeated
        chunk for lost again, which leaves that to the timer. Counting like RFC 6675 and 8985 do for TCP is no
        hastier: a chunk still has to be overtaken by three others.
        """
        done, lost = 0, False
        blocks: list[tuple[int, int]] = chunk.gaps
        gaps = iter(sorted(blocks))
        start, end = next(gaps)
        missing: list[Any] = []
        for one in self._sent_queue:
            offset = (one.tsn - chunk.cumulative_tsn) % _TSNS
            while offset > end:
                start, end = next(gaps, (_TSNS, _TSNS))
            if offset >= start:
                done += self._acknowledge(one)
            else:
                one._acked = False  # a receiver may change its mind (RFC 9260 §6.2.1)
                missing.append(one)
        arrived = sorted(map(_order, self._arrived))
        for one in missing:
            if one._retransmit or one._abandoned:
                continue
            one._misses += len(arrived) - bisect.bisect(arrived, one._order)
            if one._misses >= _MISSES:
                if not self._maybe_abandon(one):
                    one._retransmit = self._some_lost = True
                self._flight_size_decrease(one)
                lost = True
        return done, lost

    def _adjust_window(self, cumulative: int, done: int, *, lost: bool) -> None:
        """Congestion control of RFC 9260 §7.2.1, §7.2.2 and §7.2.4."""
        exit_point: Any = self._fast_recovery_exit
        if exit_point is not None:
            if uint32_gte(cumulative, exit_point):
                self._fast_recovery_exit = None
            return
        if done:
            if self._cwnd <= self._ssthresh:
                self._cwnd += min(done, MTU)
            else:
                self._partial_bytes_acked += done
                if self._partial_bytes_acked >= self._cwnd:
                    self._partial_bytes_acked -= self._cwnd
                    self._cwnd += MTU
        if lost:
            self._ssthresh = max(self._cwnd // 2, 4 * MTU)
            self._cwnd = self._ssthresh
            self._partial_bytes_acked = 0
            self._fast_recovery_exit = self._sent_queue[-1].tsn
            self._fast_recovery_transmit = True

    # --- timers ---

    def _update_rto(self, R: float) -> None:  # noqa: N803 - aiortc's signature
        super()._update_rto(R)
        assert self._srtt is not None  # noqa: S101 - super() sets both
        assert self._rttvar is not None  # noqa: S101
        self._rto = min(max(self._srtt + 4 * self._rttvar, RTO_MIN), RTO_MAX)

    def _t3_start(self) -> None:
        self._t3_restart()

    def _t3_restart(self) -> None:
        now = self._clock.time()
        self._t3_due = now + self._rto
        # Where the round trip is far below RTO_MIN: RFC 8985 §7 (tail loss probe).
        self._probe_due = now + 2 * self._srtt + SACK_DELAY if self._srtt is not None else math.inf
        self._t3_arm()

    def _t3_arm(self) -> None:
        # A timer that is put off stays as it is: it looks at the clock when it ends.
        due = min(self._t3_due, self._probe_due)
        if self._t3_handle is not None and self._t3_handle.when() > due:
            self._t3_cancel()
        if self._t3_handle is None:
            self._t3_handle = self._clock.call_at(due, self._t3_ends)

    def _t3_ends(self) -> None:
        self._t3_handle = None
        now = self._clock.time()
        if not self._t3_runs:
            return
        if now >= self._t3_due:
            self._t3_expired()
            return
        if now >= self._probe_due:
            self._probe_due = math.inf
            self._probe()
        self._t3_arm()

    def _probe(self) -> None:
        """Send the oldest chunk again, once before the timer ends; what it is answered tells what is missing."""
        oldest: Any = self._sent_queue[0] if self._sent_queue else None
        if oldest is not None and oldest._in_flight:
            self._put(self._dispatch(oldest))

    def _t3_expired(self) -> None:
        self._t3_due = math.inf
        super()._t3_expired()
        for chunk in self._sent_queue:
            # aiortc repeats those as well that have arrived out of order (RFC 9260 §6.3.3 E3: the outstanding ones).
            chunk._retransmit = chunk._retransmit and not chunk._acked
        self._some_lost = True
        self._rto = min(self._rto * 2, RTO_MAX)  # RFC 9260 §6.3.3 E2; aiortc does not


_order = operator.attrgetter("_order")  # of chunks, in which they were last sent


def at_once(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine that does not wait for anything."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    coroutine.close()
    raise RuntimeError("aiortc waits where it did not: see aiortc/recovery.py")
