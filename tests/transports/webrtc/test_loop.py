"""asyncio inside trio: what crosses keeps its order, its result and its errors, and nothing stays behind."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncGenerator, Callable

import pytest
import trio
import trio.testing

from handclasp.transports.webrtc.loop import InlineLoop, open_inline_loop


@pytest.fixture
async def loop() -> AsyncGenerator[InlineLoop]:
    async with open_inline_loop() as opened:
        yield opened


async def nothing() -> None:
    """A coroutine that is done at once."""


# --- results ---


async def test_a_coroutine_gives_its_result_and_takes_its_arguments(loop: InlineLoop) -> None:
    async def add(one: int, other: int) -> int:
        await asyncio.sleep(0)
        return one + other

    assert await loop.run(add, 1, 2) == 3


async def test_a_coroutine_gives_its_error_as_it_is(loop: InlineLoop) -> None:
    async def fail() -> None:
        await asyncio.sleep(0)
        raise ValueError("mine")

    with pytest.raises(ValueError, match=r"^mine$"):
        await loop.run(fail)


async def test_many_coroutines_at_once_each_get_their_own_result(loop: InlineLoop) -> None:
    async def work(number: int) -> int:
        await asyncio.sleep(0.001 * (number % 7))
        return number

    async def check(number: int) -> None:
        assert await loop.run(work, number) == number

    async with trio.open_nursery() as nursery:
        for number in range(500):
            nursery.start_soon(check, number)


async def test_a_coroutine_runs_on_a_loop_that_asyncio_knows(loop: InlineLoop) -> None:
    async def running() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    assert isinstance(await loop.run(running), asyncio.AbstractEventLoop)
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()  # outside of its rounds nobody sees it


async def test_running_is_a_checkpoint(loop: InlineLoop) -> None:
    with trio.testing.assert_checkpoints():
        await loop.run(nothing)
    with trio.CancelScope() as scope:
        scope.cancel()
        await loop.run(pytest.fail, "a cancelled caller starts nothing")  # type: ignore[arg-type]
    assert scope.cancelled_caught


# --- order ---


async def test_what_is_posted_for_soon_waits_for_the_caller_and_for_nobody_else(loop: InlineLoop) -> None:
    done: list[str] = []
    loop.post_soon(lambda: done.append("one"))
    assert not done
    loop.post(lambda: done.append("two"))
    assert done == ["one", "two"]
    ran = trio.Event()
    loop.post_soon(ran.set)
    assert not ran.is_set()
    await ran.wait()


async def test_calls_keep_their_order_in_both_directions(loop: InlineLoop) -> None:
    seen: list[str] = []
    for number in range(100):
        loop.post(lambda number=number: seen.append(f"post {number}"))  # type: ignore[misc]
    await loop.run(nothing)
    for number in range(100):
        loop.post(lambda number=number: loop.deliver(lambda: seen.append(f"deliver {number}")))  # type: ignore[misc]
    await loop.run(nothing)
    assert seen == [f"post {n}" for n in range(100)] + [f"deliver {n}" for n in range(100)]


async def test_a_call_from_within_a_call_comes_after_those_before_it(loop: InlineLoop) -> None:
    seen: list[int] = []

    def first() -> None:
        loop.post(lambda: seen.append(3))
        seen.append(1)

    async def both() -> None:
        loop.post(first)
        loop.post(lambda: seen.append(2))

    await loop.run(both)
    await loop.run(nothing)
    assert seen == [1, 2, 3]


async def test_what_was_posted_before_a_coroutine_happens_before_it(loop: InlineLoop) -> None:
    seen: list[str] = []

    async def look() -> list[str]:
        return list(seen)

    loop.post(lambda: seen.append("posted"))
    assert await loop.run(look) == ["posted"]


async def test_a_broken_callback_loses_nothing_behind_it(
    loop: InlineLoop, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[int] = []

    def broken() -> None:
        raise ValueError("broken")

    async def deliver() -> None:
        loop.deliver(broken)
        loop.deliver(lambda: seen.append(2))

    with caplog.at_level(logging.ERROR):
        loop.post(broken)
        loop.post(lambda: seen.append(1))
        await loop.run(deliver)
    assert seen == [1, 2]
    assert len([record for record in caplog.records if record.levelno >= logging.ERROR]) == 2


# --- cancellation ---


async def test_cancelling_cancels_the_coroutine_and_waits_for_its_cleanup(loop: InlineLoop) -> None:
    seen: list[str] = []

    async def hold() -> None:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            seen.append("cancelled")
            await asyncio.sleep(0.01)
            seen.append("cleaned up")
            raise

    async with trio.open_nursery() as nursery:
        nursery.start_soon(loop.run, hold)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert seen == ["cancelled", "cleaned up"]


async def test_a_coroutine_that_ends_in_spite_of_being_cancelled_keeps_its_result(loop: InlineLoop) -> None:
    results: list[str] = []

    async def stubborn() -> str:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            return "done all the same"
        return "never"

    async def run() -> None:
        results.append(await loop.run(stubborn))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert results == ["done all the same"]


async def test_an_error_while_cleaning_up_is_not_swallowed(loop: InlineLoop) -> None:
    async def fail() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            raise ValueError("while cleaning up")

    async def run() -> None:
        with pytest.raises(ValueError, match="while cleaning up"):
            await loop.run(fail)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


# --- time, sockets, and everyone else ---


async def test_timers_go_off_in_their_order_while_nobody_calls(loop: InlineLoop) -> None:
    seen: list[float] = []
    done = trio.Event()

    def start() -> None:
        running = asyncio.get_running_loop()
        for delay in (0.03, 0.01, 0.02):
            running.call_later(delay, seen.append, delay)
        running.call_later(0.04, done.set)

    loop.post(start)
    await done.wait()
    assert seen == [0.01, 0.02, 0.03]


async def test_a_timer_that_is_set_while_a_later_one_is_waited_for_goes_off_first(loop: InlineLoop) -> None:
    seen: list[str] = []
    done = trio.Event()
    loop.post(lambda: asyncio.get_running_loop().call_later(3600, seen.append, "late"))
    await trio.testing.wait_all_tasks_blocked()
    loop.post(lambda: asyncio.get_running_loop().call_later(0.01, done.set))
    await done.wait()
    assert not seen


async def test_datagrams_arrive_while_nobody_calls(loop: InlineLoop) -> None:
    received: list[bytes] = []
    enough = trio.Event()

    class Protocol(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, addr: object) -> None:
            received.append(data)
            if len(received) == 100:
                enough.set()

    async def open_socket() -> tuple[asyncio.DatagramTransport, Protocol]:
        running = asyncio.get_running_loop()
        return await running.create_datagram_endpoint(Protocol, local_addr=("127.0.0.1", 0))

    transport, _ = await loop.run(open_socket)
    await trio.testing.wait_all_tasks_blocked()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for number in range(100):
            sender.sendto(b"%d" % number, transport.get_extra_info("sockname"))
    await enough.wait()
    assert received == [b"%d" % number for number in range(100)]
    loop.post(transport.close)
    await loop.run(nothing)


async def test_a_loop_that_is_always_busy_leaves_time_for_others(loop: InlineLoop) -> None:
    rounds = 0

    async def spin() -> None:
        nonlocal rounds
        while True:
            rounds += 1
            await asyncio.sleep(0)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(loop.run, spin)
        for _ in range(20):
            await trio.lowlevel.checkpoint()
        between = rounds
        for _ in range(20):
            await trio.lowlevel.checkpoint()
        assert rounds > between > 0
        nursery.cancel_scope.cancel()


def test_it_runs_in_a_trio_that_is_itself_a_guest_of_asyncio() -> None:
    async def guest() -> int:
        async def work() -> int:
            await asyncio.sleep(0.01)
            return 7

        async with open_inline_loop() as loop:
            return await loop.run(work)

    async def host() -> int:
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        trio.lowlevel.start_guest_run(
            guest,
            run_sync_soon_threadsafe=asyncio.get_running_loop().call_soon_threadsafe,
            done_callback=lambda result: done.set_result(result.unwrap()),
        )
        return await done

    assert asyncio.run(host()) == 7


# --- the end ---


async def test_the_end_cancels_what_still_runs_and_leaves_nothing_behind(leftovers: Callable) -> None:
    ended: list[str] = []

    async def background() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0)
            ended.append("background")

    async def start() -> None:
        tasks.append(asyncio.ensure_future(background()))
        await asyncio.sleep(0)

    tasks: list[asyncio.Future[None]] = []
    async with leftovers().none():
        async with open_inline_loop() as loop:
            await loop.run(start)
        assert ended == ["background"]


async def test_after_the_end_a_farewell_does_no_harm() -> None:
    async with open_inline_loop() as loop:
        pass
    loop.post(lambda: pytest.fail("called after the end"))


async def test_the_error_of_the_block_comes_out_bare() -> None:
    with pytest.raises(ValueError, match="mine"):
        async with open_inline_loop():
            raise ValueError("mine")


async def test_no_thread_is_needed(loop: InlineLoop, leftovers: Callable) -> None:
    new = leftovers()
    await loop.run(asyncio.sleep, 0.001)
    assert not [name for name in new() if name.startswith("thread")]


@pytest.mark.parametrize(
    "name", ["_ready", "_scheduled", "_stopping", "_run_once", "_make_datagram_transport"]
)
def test_asyncios_loop_still_has_the_private_parts_that_are_used(name: str) -> None:
    loop = asyncio.SelectorEventLoop()
    try:
        assert hasattr(loop, name), (
            f"asyncio's loop has no {name} any more: see handclasp.transports.webrtc.loop"
        )
    finally:
        loop.close()


def test_asyncio_still_has_the_functions_that_let_two_loops_run_in_one_thread() -> None:
    assert callable(asyncio._get_running_loop)
    assert callable(asyncio._set_running_loop)
