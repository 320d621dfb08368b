"""`Leftovers` counts every kind of thing, and nothing that was there before."""

from __future__ import annotations

import asyncio
import os
import threading

import pytest
import trio

from handclasp.testing import Leftovers


async def test_nothing_new_is_nothing_left() -> None:
    async with Leftovers().none():
        await trio.lowlevel.checkpoint()
    assert await Leftovers().settled() == set()


async def test_files_are_counted_even_when_another_of_the_same_name_is_open() -> None:
    one = os.open(os.devnull, os.O_RDONLY)
    leftovers = Leftovers()
    other = os.open(os.devnull, os.O_RDONLY)
    (left,) = leftovers()
    os.close(other)
    assert left.startswith(f"file {os.devnull} {other} ")
    assert leftovers() == set()
    os.close(one)


async def test_a_file_in_the_place_of_one_that_was_closed_is_new() -> None:
    one = os.open(os.devnull, os.O_RDONLY)
    leftovers = Leftovers()
    os.close(one)
    ends = os.pipe()
    assert one in ends
    assert len(leftovers()) == 2
    for end in ends:
        os.close(end)


async def test_threads_are_counted() -> None:
    leftovers, may_end = Leftovers(), threading.Event()
    thread = threading.Thread(target=may_end.wait, name="the thread")
    thread.start()
    (left,) = leftovers()
    assert left.startswith("thread the thread")
    assert Leftovers()() == set()
    may_end.set()
    thread.join()
    assert leftovers() == set()


async def test_idle_workers_of_trio_do_not_count() -> None:
    async with Leftovers().none():
        await trio.to_thread.run_sync(lambda: None)


async def test_tasks_are_counted_wherever_they_run() -> None:
    leftovers = Leftovers()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever, name="the child")
        (left,) = leftovers()
        assert left.startswith("trio task the child")
        nursery.cancel_scope.cancel()
    assert leftovers() == set()


async def test_tasks_of_asyncio_are_counted() -> None:
    loop = asyncio.SelectorEventLoop()
    leftovers = Leftovers()
    task = loop.create_task(asyncio.sleep(0), name="the asyncio task")
    (left,) = leftovers()
    assert "the asyncio task" in left
    loop.run_until_complete(task)
    assert leftovers() == set()
    loop.close()


async def test_what_goes_away_by_itself_is_waited_for() -> None:
    async with trio.open_nursery() as nursery:
        async with Leftovers().none():
            nursery.start_soon(trio.sleep, 0.001)


async def test_what_may_stay_is_not_reported() -> None:
    async with trio.open_nursery() as nursery:
        leftovers = Leftovers("trio task the child", "file")
        nursery.start_soon(trio.sleep_forever, name="the child")
        assert leftovers() == set()
        with pytest.raises(AssertionError, match="left behind: trio task the other"):
            async with leftovers.none():
                nursery.start_soon(trio.sleep_forever, name="the other")
        nursery.cancel_scope.cancel()


async def test_objects_that_do_things_when_they_are_asked_what_they_are_are_not_asked() -> None:
    class Lazy:
        @property
        def __class__(self) -> type:  # type: ignore[override]
            raise RuntimeError("asked")

    lazy = Lazy()
    assert Leftovers()() == set()
    del lazy
