"""What `benchmarks.stream` measures over a link, the same for every contender.

A contender is a module ``link_NAME`` with a `Link`, and a process for each end: ``python -m benchmarks.link_NAME
dial`` and ``… listen``. They stay alive between repetitions, so that no figure contains an import.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import statistics
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

#: Bytes that a program hands to a stream at a time.
PIECE = 64 * 1024
REQUEST = b"r" * 1024
LOOPBACK = "127.0.0.1"


def tell(**fields: object) -> None:
    print(json.dumps({"at": time.monotonic(), **fields}), flush=True)


class Orders(ABC):
    """The lines that the driver sends."""

    def __init__(self) -> None:
        self._buffer = b""

    async def next(self) -> dict[str, Any]:
        while b"\n" not in self._buffer:
            data = await self.read()
            if not data:
                raise SystemExit
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        order: dict[str, Any] = json.loads(line)
        return order

    @abstractmethod
    async def read(self) -> bytes: ...


class Link(ABC):
    """One connection with one stream on it."""

    #: Bytes that may be under way unread, where the contender itself has no backpressure.
    window: int | None = None

    @abstractmethod
    async def connect(self, orders: Orders, *, dials: bool) -> None: ...

    @abstractmethod
    async def send(self, data: bytes) -> None:
        """Send, and wait while the peer does not keep up."""

    @abstractmethod
    async def receive(self) -> bytes: ...

    @abstractmethod
    async def close(self) -> None: ...


async def serve(new_link: Callable[[], Link], orders: Orders, *, dials: bool) -> None:
    tell(ready=True)
    link: Link | None = None
    while True:
        order = await orders.next()
        if "connect" in order:
            link = new_link()
            await link.connect(orders, dials=dials)
            if dials:
                await link.send(b"!")
            else:
                assert await link.receive() == b"!"
            tell(open=True)
            continue
        assert link is not None
        if "trips" in order:
            await (ask if dials else answer)(link, order["trips"])
        elif "bulk" in order:
            await (pour if dials else drain)(link, order["bulk"])
        elif "close" in order:
            await link.close()
            tell(closed=True)


async def ask(link: Link, trips: int) -> None:
    times = []
    for _ in range(trips):
        start = time.perf_counter()
        await link.send(REQUEST)
        await receive_exactly(link, len(REQUEST))
        times.append((time.perf_counter() - start) * 1000)
    tell(round_trip=statistics.median(times))


async def answer(link: Link, trips: int) -> None:
    for _ in range(trips):
        await link.send(await receive_exactly(link, len(REQUEST)))


async def receive_exactly(link: Link, size: int) -> bytes:
    data = await link.receive()
    while len(data) < size:
        more = await link.receive()
        assert more, "the stream ended early"
        data += more
    return data


async def pour(link: Link, size: int) -> None:
    data = random.Random(size).randbytes(size)  # noqa: S311 - both ends make the same
    step = link.window and link.window // 2
    allowed = link.window or size
    tell(pouring=True)
    for start in range(0, size, PIECE):
        while start + PIECE > allowed and allowed < size:
            allowed += len(await link.receive()) * (step or 0)
        await link.send(data[start : start + PIECE])


async def drain(link: Link, size: int) -> None:
    expected = hashlib.sha256(random.Random(size).randbytes(size)).digest()  # noqa: S311
    seen, received, told = hashlib.sha256(), 0, 0
    step = link.window and link.window // 2
    tell(draining=True)
    last, longest = None, 0.0
    while received < size:
        data = await link.receive()
        assert data, "the stream ended early"
        now = time.perf_counter()
        longest, last = max(longest, now - (last or now)), now
        seen.update(data)
        received += len(data)
        if step and received - told >= step and received < size:
            told += step
            await link.send(b".")
    tell(received=received, longest_pause=longest * 1000)
    assert seen.digest() == expected, "other bytes arrived than were sent"


def trio_orders() -> Orders:
    import trio

    class Lines(Orders):
        def __init__(self) -> None:
            super().__init__()
            self._stdin = trio.lowlevel.FdStream(os.dup(sys.stdin.fileno()))

        async def read(self) -> bytes:
            return await self._stdin.receive_some()

    return Lines()


def gather_on_loopback() -> None:
    """Contenders that cannot be told bind to the same address as those that can."""
    import aioice.ice

    aioice.ice.get_host_addresses = lambda use_ipv4, use_ipv6: [LOOPBACK]
