"""`cancel_everywhere` reaches every await and says where something was left."""

from __future__ import annotations

import asyncio
import gc
import math
import os
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
import trio

from handclasp.testing import cancel_everywhere


async def test_every_await_is_cancelled_once_while_it_waits_and_the_last_run_completes() -> None:
    reached: list[int] = []

    async def five_steps() -> None:
        step = 0
        try:
            for step in range(5):  # noqa: B007 - read below
                await trio.lowlevel.checkpoint()
            step = 5
        finally:
            reached.append(step)

    moments = await cancel_everywhere(five_steps)
    assert set(reached) == set(range(6))
    assert reached[-1] == 5
    assert len(reached) == moments + 1


async def test_a_task_is_cancelled_while_it_waits_and_between_its_wake_up_and_its_running() -> None:
    cancelled: list[str] = []

    async def wait_for_a_datagram() -> None:
        one, other = socket.socketpair()
        with one, other:
            other.send(b"x")
            try:
                await trio.lowlevel.wait_readable(one)
            except trio.Cancelled:
                cancelled.append("while it waited")
                raise
            too_late = trio.current_effective_deadline() == -math.inf
            cancelled.append("when it had been woken" if too_late else "not")

    await cancel_everywhere(wait_for_a_datagram)
    assert set(cancelled) == {"while it waited", "when it had been woken", "not"}


async def test_what_a_cancelled_run_leaves_is_reported_with_the_await_it_was_cancelled_at() -> None:
    pipe: list[int] = []

    async def forget_when_cancelled_in_the_second_await() -> None:
        await trio.lowlevel.checkpoint()
        pipe.extend(os.pipe())
        await trio.sleep(0.001)
        while pipe:
            os.close(pipe.pop())

    with pytest.raises(AssertionError, match=r"left behind: file .*") as caught:
        await cancel_everywhere(forget_when_cancelled_in_the_second_await)
    assert "forget_when_cancelled_in_the_second_await" in str(caught.value)
    while pipe:
        os.close(pipe.pop())


async def test_a_task_that_is_left_is_reported() -> None:
    async def start_and_stop() -> None:
        done = trio.Event()
        trio.lowlevel.spawn_system_task(done.wait, name="the forgotten one")
        await trio.sleep(0.001)
        done.set()

    with pytest.raises(AssertionError, match="the forgotten one"):
        await cancel_everywhere(start_and_stop)


async def test_a_task_of_asyncio_is_reported_when_it_is_left_and_not_when_it_was_there() -> None:
    loop = asyncio.SelectorEventLoop()
    before = loop.create_task(asyncio.sleep(0), name="the one before")
    left: list[asyncio.Task[None]] = []

    async def leave() -> None:
        await trio.lowlevel.checkpoint()
        left.append(loop.create_task(asyncio.sleep(0), name="the one that is left"))

    await cancel_everywhere(trio.lowlevel.checkpoint)
    with pytest.raises(AssertionError, match=r"left behind: asyncio task .*the one that is left") as caught:
        await cancel_everywhere(leave)
    assert "the one before" not in str(caught.value)
    loop.run_until_complete(asyncio.gather(before, *left))
    loop.close()


async def test_the_garbage_collector_looks_at_everything_again_afterwards() -> None:
    garbage: list[object] = []
    garbage.append(garbage)
    await cancel_everywhere(trio.lowlevel.checkpoint)
    assert any(thing is garbage for thing in gc.get_objects())


async def test_what_stands_around_a_run_is_not_cancelled_and_there_for_each() -> None:
    opened = closed = 0

    @asynccontextmanager
    async def around() -> AsyncGenerator[int]:
        nonlocal opened, closed
        opened += 1
        await trio.lowlevel.checkpoint()
        yield opened
        await trio.lowlevel.checkpoint()
        closed += 1

    async def use(number: int) -> None:
        assert number == opened
        await trio.lowlevel.checkpoint()

    moments = await cancel_everywhere(use, around=around)
    assert opened == closed == moments + 1


async def test_an_error_that_a_cancellation_brings_out_comes_out_and_says_where() -> None:
    async def turn_cancelled_into_something_else() -> None:
        try:
            await trio.lowlevel.checkpoint()
        except trio.Cancelled:
            raise ValueError("mine") from None

    with pytest.raises(ValueError, match="mine") as caught:
        await cancel_everywhere(turn_cancelled_into_something_else)
    (note,) = caught.value.__notes__
    assert "moment 1 (" in note
    assert "turn_cancelled_into_something_else" in note
