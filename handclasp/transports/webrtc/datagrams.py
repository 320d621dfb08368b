"""UDP for an asyncio loop, many datagrams at a time.

asyncio reads one datagram for each round of its loop and sends one for each system call. Here what has arrived
is handed over in one batch, and a run of datagrams of one size leaves with one call where the kernel can cut
it up (Linux: UDP_SEGMENT, and UDP_GRO the other way).
"""

# The base class has no public name; test_datagrams.py watches what is used of it.
# pyright: reportPrivateUsage=false, reportUnknownMemberType=false, reportAttributeAccessIssue=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
from __future__ import annotations

import asyncio
import errno
import socket
import struct
import sys
import time
from asyncio import selector_events
from collections.abc import Sequence
from typing import Any

Address = tuple[Any, ...]
Batch = list[tuple[bytes, Address]]

#: Datagrams that are read in one go at most, before others have their turn.
_BATCH = 64
#: Seconds between two reads within which more than one datagram is expected to be there.
_TOGETHER = 0.0002
#: Linux, include/uapi/linux/udp.h; Python has no names for them.
_UDP_SEGMENT, _UDP_GRO = 103, 104
#: Bytes that one read returns at most.
LARGEST = 65_535
#: UDP_MAX_SEGMENTS of Linux; and their sum has to fit an IPv6 packet.
_MOST_SEGMENTS, _MOST_BYTES = 64, 65_000
#: What a kernel or a network card answers when it cannot cut segments, or not of this size.
_NO_SEGMENTS = {errno.EINVAL, errno.EIO, errno.EMSGSIZE, errno.ENOPROTOOPT, errno.EOPNOTSUPP}


class DatagramTransport(selector_events._SelectorDatagramTransport):  # type: ignore[name-defined,misc] # noqa: SLF001
    """asyncio's, reading and writing batches.

    A protocol that has ``datagrams_received(batch)`` gets what arrived in one go in one piece.

    Args:
        loop: the loop it runs on.
        into: `LARGEST` bytes to read into, for all transports of a loop together.
        arguments: what asyncio passes on.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, into: memoryview, *arguments: Any) -> None:
        super().__init__(loop, *arguments)
        self._into = into
        self._last_read = 0.0
        self._cuts = sys.platform == "linux"  # whether the kernel cuts a run of datagrams up
        if self._cuts:
            try:
                self._sock.setsockopt(socket.IPPROTO_UDP, _UDP_GRO, 1)
            except OSError:  # before Linux 5.0
                self._cuts = False

    def _read_ready(self) -> None:
        if self._conn_lost:
            return
        batch: Batch = []
        try:
            self._read_into(batch)
            # Where one came alone, and the last some time ago, asking for another costs more than it saves.
            now = time.monotonic()
            many, self._last_read = len(batch) > 1 or now - self._last_read < _TOGETHER, now
            while many and len(batch) < _BATCH:
                self._read_into(batch)
        except (BlockingIOError, InterruptedError):
            pass
        except OSError as exc:  # the answer to something sent earlier: nobody listens there
            self._protocol.error_received(exc)
        take_all = getattr(self._protocol, "datagrams_received", None)
        if take_all is not None:
            take_all(batch)
        else:
            for data, address in batch:
                self._protocol.datagram_received(data, address)

    def _read_into(self, batch: Batch) -> None:
        size, control, _, address = self._sock.recvmsg_into([self._into], socket.CMSG_SPACE(4))
        segment = size
        for level, kind, data in control:
            if level == socket.IPPROTO_UDP and kind == _UDP_GRO:
                segment = int.from_bytes(data, sys.byteorder)
        if segment == size:
            batch.append((bytes(self._into[:size]), address))
        else:
            batch += [
                (bytes(self._into[start : min(start + segment, size)]), address)
                for start in range(0, size, segment)
            ]

    def send_all(self, datagrams: Sequence[bytes], address: Address) -> None:
        """Send some datagrams to one address, in order; what the network does not take is lost."""
        start = 0
        while start < len(datagrams):
            end = self._run_end(datagrams, start)
            if end - start == 1 or not self._send_run(datagrams[start:end], address):
                for datagram in datagrams[start:end]:
                    self.sendto(datagram, address)
            start = end

    def _run_end(self, datagrams: Sequence[bytes], start: int) -> int:
        """The end of a run that one call can send: all of one size but the last, which may be shorter."""
        size = len(datagrams[start])
        if not self._cuts or self._buffer:
            return start + 1
        most = min(len(datagrams), start + _MOST_SEGMENTS, start + _MOST_BYTES // max(size, 1))
        end = start + 1
        while end < most:
            following = len(datagrams[end])
            if following > size:
                break
            end += 1
            if following < size:
                break
        return end

    def _send_run(self, run: Sequence[bytes], address: Address) -> bool:
        size = struct.pack("=H", len(run[0]))
        try:
            self._sock.sendmsg(run, [(socket.IPPROTO_UDP, _UDP_SEGMENT, size)], 0, address)
        except (BlockingIOError, InterruptedError):
            return False  # sendto() waits for room
        except OSError as exc:
            if exc.errno in _NO_SEGMENTS:
                self._cuts = False
                return False
            self._protocol.error_received(exc)
        return True
