"""Datagrams in batches: each arrives as it was sent, in order, whether or not the kernel cuts runs."""

from __future__ import annotations

import asyncio
import math
import random
import socket
import sys
from asyncio import selector_events
from collections.abc import Iterator

import pytest

from handclasp.transports.webrtc import datagrams
from handclasp.transports.webrtc.datagrams import LARGEST, Batch, DatagramTransport

NO_CHECKSUM = 11  # SO_NO_CHECK: Linux cuts no runs without it


class Keeper(asyncio.DatagramProtocol):
    """Keeps what it gets."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.errors: list[Exception] = []

    def datagrams_received(self, batch: Batch) -> None:
        self.batches.append(batch)

    def error_received(self, exc: Exception) -> None:
        self.errors.append(exc)

    @property
    def data(self) -> list[bytes]:
        return [data for batch in self.batches for data, _ in batch]


class OneByOne(asyncio.DatagramProtocol):
    """Knows of no batches, as most protocols."""

    def __init__(self) -> None:
        self.data: list[bytes] = []

    def datagram_received(self, data: bytes, addr: object) -> None:
        self.data.append(data)


class Loop(asyncio.SelectorEventLoop):
    """asyncio's loop with our transport."""

    def _make_datagram_transport(
        self,
        sock: socket.socket,
        protocol: object,
        address: object = None,
        waiter: object = None,
        extra: object = None,
    ) -> DatagramTransport:
        into = memoryview(bytearray(LARGEST))
        return DatagramTransport(self, into, sock, protocol, address, waiter, extra)


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner(loop_factory=Loop) as made:
        yield made


async def opened(protocol: asyncio.DatagramProtocol) -> DatagramTransport:
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: protocol, local_addr=("127.0.0.1", 0)
    )
    assert isinstance(transport, DatagramTransport)
    return transport


async def until(condition: object, *, rounds: int = 2_000) -> None:
    for _ in range(rounds):
        if condition():  # type: ignore[operator]
            return
        await asyncio.sleep(0.001)
    pytest.fail("what was sent does not arrive")


def some_datagrams() -> list[bytes]:
    chance = random.Random(2)  # noqa: S311
    sizes = [1_226] * 14 + [412] + [70] * 3 + [1_226, 90, 1_226, 1_400] + [33] * 30 + [1] + [1_226] * 20
    return [chance.randbytes(size) for size in sizes]


@pytest.mark.parametrize("cut_by", ["the kernel", "nobody"])
@pytest.mark.parametrize("keeper", [Keeper, OneByOne])
def test_runs_of_many_sizes_arrive_as_they_were_sent(
    runner: asyncio.Runner, keeper: type, cut_by: str
) -> None:
    async def exchange() -> None:
        kept = keeper()
        receiver, sender = await opened(kept), await opened(Keeper())
        if cut_by == "nobody":  # a real refusal, which the first run meets
            sender.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, NO_CHECKSUM, 1)
        sent = some_datagrams()
        for _ in range(2):
            kept.__init__()
            sender.send_all(sent, receiver.get_extra_info("sockname"))
            await until(lambda: len(kept.data) >= len(sent))
            assert kept.data == sent
        receiver.close()
        sender.close()

    if cut_by == "nobody" and sys.platform != "linux":
        pytest.skip("only Linux cuts runs, and can be kept from it")
    runner.run(exchange())


@pytest.mark.parametrize("together", [math.inf, 0.0], ids=["in quick succession", "far between"])
def test_what_arrived_is_handed_over_with_its_sender_however_it_is_read(
    runner: asyncio.Runner, monkeypatch: pytest.MonkeyPatch, together: float
) -> None:
    monkeypatch.setattr(datagrams, "_TOGETHER", together)

    async def exchange() -> None:
        kept = Keeper()
        receiver, sender = await opened(kept), await opened(Keeper())
        for number in range(10):
            sender.sendto(b"%d" % number, receiver.get_extra_info("sockname"))
        await until(lambda: len(kept.data) == 10)
        assert kept.data == [b"%d" % number for number in range(10)]
        assert len(kept.batches) == (1 if together else 10)
        for batch in kept.batches:
            assert {address for _, address in batch} == {sender.get_extra_info("sockname")}
        receiver.close()
        sender.close()

    runner.run(exchange())


def test_an_answer_that_nobody_listens_reaches_the_protocol(runner: asyncio.Runner) -> None:
    async def send_to_nobody() -> None:
        with socket.socket(type=socket.SOCK_DGRAM) as gone:
            gone.bind(("127.0.0.1", 0))
            address = gone.getsockname()
        kept = Keeper()
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: kept, remote_addr=address
        )
        transport.sendto(b"hello?")
        await until(lambda: kept.errors)
        assert isinstance(kept.errors[0], ConnectionRefusedError)
        transport.close()

    runner.run(send_to_nobody())


@pytest.mark.parametrize("name", ["_sock", "_protocol", "_buffer", "_conn_lost", "_read_ready", "sendto"])
def test_what_is_used_of_asyncios_transport_is_still_there(runner: asyncio.Runner, name: str) -> None:
    async def look() -> None:
        transport = await opened(Keeper())
        assert isinstance(transport, selector_events._SelectorDatagramTransport)  # type: ignore[attr-defined]
        assert hasattr(transport, name)
        transport.close()

    assert hasattr(asyncio.SelectorEventLoop, "_make_datagram_transport")
    runner.run(look())
