from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from handclasp.errors import DeadlineExceeded
from handclasp.scope import deadline, open_scope


class Broken(Exception):
    pass


async def fail(error: BaseException) -> None:
    raise error


async def fail_when(event: trio.Event, error: BaseException) -> None:
    await event.wait()
    raise error


class Task:
    """A background task that notes what becomes of it."""

    def __init__(self) -> None:
        self.cancelled = False
        self.running = trio.Event()

    async def run(self) -> None:
        self.running.set()
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            self.cancelled = True
            raise


# --- the block ends ---


async def test_background_tasks_end_with_the_block() -> None:
    task = Task()
    async with open_scope() as scope:
        scope.start_soon(task.run)
        await task.running.wait()
        assert not task.cancelled
    assert task.cancelled


async def test_leaving_the_block_waits_until_the_tasks_have_ended(
    autojump_clock: trio.testing.MockClock,
) -> None:
    cleaned_up = False

    async def run() -> None:
        nonlocal cleaned_up
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(10)
            cleaned_up = True

    async with open_scope() as scope:
        scope.start_soon(run)
        await trio.testing.wait_all_tasks_blocked()
    assert cleaned_up
    assert autojump_clock.current_time() == pytest.approx(10)


async def test_a_task_that_ends_by_itself_does_not_end_the_block() -> None:
    async with open_scope() as scope:
        scope.start_soon(trio.lowlevel.checkpoint)
        await trio.testing.wait_all_tasks_blocked()
        reached = True
    assert reached


async def test_cancel_ends_the_block_and_its_tasks_without_an_error() -> None:
    task = Task()
    async with open_scope() as scope:
        scope.start_soon(task.run)
        await task.running.wait()
        scope.cancel()
        await trio.sleep_forever()
    assert task.cancelled


# --- the block's own error ---


async def test_the_blocks_own_error_comes_out_bare() -> None:
    error, task = Broken("mine"), Task()
    with pytest.raises(Broken) as caught:  # noqa: PT012 - the error has to pass through the scope
        async with open_scope() as scope:
            scope.start_soon(task.run)
            await task.running.wait()
            raise error
    assert caught.value is error
    assert task.cancelled


async def test_the_blocks_own_error_keeps_its_cause_and_context() -> None:
    cause = OSError("the reason")
    with pytest.raises(Broken) as caught:
        async with open_scope():
            raise Broken from cause
    assert caught.value.__cause__ is cause
    with pytest.raises(Broken) as caught:  # noqa: PT012
        async with open_scope():
            try:
                raise cause
            except OSError:
                raise Broken  # noqa: B904 - the context is the point
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is cause
    assert not caught.value.__suppress_context__


async def test_a_group_that_the_block_raises_itself_comes_out_as_it_is() -> None:
    group = ExceptionGroup("mine", [Broken("one")])
    with pytest.raises(ExceptionGroup) as caught:
        async with open_scope():
            raise group
    assert caught.value is group


async def test_the_blocks_own_error_comes_before_what_its_tasks_raise_while_they_are_cancelled() -> None:
    async def run() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise OSError("clean-up failed")

    error = Broken("mine")
    with pytest.raises(Broken) as caught:  # noqa: PT012
        async with open_scope() as scope:
            scope.start_soon(run)
            await trio.testing.wait_all_tasks_blocked()
            raise error
    assert caught.value is error


async def test_an_error_passes_bare_through_scopes_inside_scopes_and_context_managers() -> None:
    @asynccontextmanager
    async def resource() -> AsyncGenerator[None]:
        async with open_scope() as outer, open_scope() as inner:
            outer.start_soon(trio.sleep_forever)
            inner.start_soon(trio.sleep_forever)
            yield

    error = Broken("mine")
    with pytest.raises(Broken) as caught:
        async with resource(), resource():
            raise error
    assert caught.value is error


# --- errors of background tasks ---


async def test_a_background_error_cancels_the_block_and_comes_out_bare() -> None:
    error, task, reached = Broken("theirs"), Task(), False
    with pytest.raises(Broken) as caught:  # noqa: PT012
        async with open_scope() as scope:
            scope.start_soon(task.run)
            scope.start_soon(fail_when, task.running, error)
            await trio.sleep_forever()
            reached = True
    assert caught.value is error
    assert task.cancelled
    assert not reached


async def test_a_background_error_keeps_its_cause() -> None:
    cause = OSError("the reason")

    async def run() -> None:
        raise Broken from cause

    with pytest.raises(Broken) as caught:  # noqa: PT012
        async with open_scope() as scope:
            scope.start_soon(run)
            await trio.sleep_forever()
    assert caught.value.__cause__ is cause


async def test_a_background_error_comes_out_bare_of_a_block_that_was_about_to_end() -> None:
    error = Broken("theirs")
    with pytest.raises(Broken) as caught:
        async with open_scope() as scope:
            scope.start_soon(fail, error)
    assert caught.value is error


async def test_a_background_error_comes_out_bare_although_the_block_waits_in_a_nursery_of_its_own() -> None:
    # That nursery turns the cancellation of its tasks into a group, which is no error of the block.
    error = Broken("theirs")
    blocked = trio.Event()
    # BaseException: a group of Cancelled that got out would pass through the test runner unseen.
    with pytest.raises(BaseException) as caught:  # noqa: PT011, PT012
        async with open_scope() as scope:
            scope.start_soon(fail_when, blocked, error)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                nursery.start_soon(trio.sleep_forever)
                blocked.set()
                await trio.sleep_forever()
    assert caught.value is error


async def test_a_background_error_in_a_nursery_of_the_task_comes_out_bare() -> None:
    error = Broken("theirs")

    async def run() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            nursery.start_soon(fail, error)

    with pytest.raises(Broken) as caught:  # noqa: PT012
        async with open_scope() as scope:
            scope.start_soon(run)
            await trio.sleep_forever()
    assert caught.value is error


async def test_several_background_errors_come_out_as_a_group_without_cancellations() -> None:
    go = trio.Event()
    errors = [Broken("one"), OSError("two")]
    with pytest.raises(ExceptionGroup) as caught:  # noqa: PT012
        async with open_scope() as scope:
            for error in errors:
                scope.start_soon(fail_when, go, error)
            scope.start_soon(trio.sleep_forever)
            await trio.testing.wait_all_tasks_blocked()
            go.set()
            await trio.sleep_forever()
    assert set(caught.value.exceptions) == set(errors)


# --- start ---


async def test_start_waits_for_the_task_and_gives_what_it_reports() -> None:
    async def serve(greeting: str, *, task_status: trio.TaskStatus[str]) -> None:
        await trio.testing.wait_all_tasks_blocked()
        task_status.started(greeting + " there")
        await trio.sleep_forever()

    async with open_scope() as scope:
        assert await scope.start(serve, "hello") == "hello there"


async def test_an_error_before_a_task_has_started_is_raised_by_start() -> None:
    error = Broken("not started")

    async def serve(*, task_status: trio.TaskStatus[None]) -> None:
        raise error

    async with open_scope() as scope:
        with pytest.raises(Broken) as caught:
            await scope.start(serve)
        assert caught.value is error
        await trio.lowlevel.checkpoint()  # the block goes on


# --- cancellation from outside ---


async def test_cancellation_from_outside_passes_through() -> None:
    task, reached = Task(), False
    with trio.CancelScope() as outside:
        async with open_scope() as scope:
            scope.start_soon(task.run)
            await task.running.wait()
            outside.cancel()
            await trio.sleep_forever()
        reached = True
    assert outside.cancelled_caught
    assert task.cancelled
    assert not reached


async def test_cancellation_from_outside_passes_a_block_that_waits_in_a_nursery_of_its_own() -> None:
    reached = False
    with trio.CancelScope() as outside:
        async with open_scope() as scope:
            scope.start_soon(trio.sleep_forever)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                await trio.testing.wait_all_tasks_blocked()
                outside.cancel()
        reached = True
    assert outside.cancelled_caught
    assert not reached


async def test_an_error_of_a_task_that_is_cancelled_from_outside_comes_out_bare() -> None:
    error = Broken("clean-up failed")

    async def run() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise error

    with pytest.raises(BaseException) as caught, trio.CancelScope() as outside:  # noqa: PT011, PT012
        async with open_scope() as scope:
            scope.start_soon(run)
            await trio.testing.wait_all_tasks_blocked()
            outside.cancel()
            await trio.sleep_forever()
    assert caught.value is error


async def test_a_timeout_around_a_scope_is_a_timeout(autojump_clock: trio.testing.MockClock) -> None:
    with pytest.raises(trio.TooSlowError), trio.fail_after(5):  # noqa: PT012
        async with open_scope() as scope:
            scope.start_soon(trio.sleep_forever)
            await trio.sleep_forever()
    assert autojump_clock.current_time() == pytest.approx(5)


# --- deadlines ---


async def test_a_deadline_that_passes_says_what_took_too_long(autojump_clock: trio.testing.MockClock) -> None:
    with pytest.raises(DeadlineExceeded, match="nobody came within 7 s"), deadline(7, "nobody came"):
        await trio.sleep_forever()
    assert autojump_clock.current_time() == pytest.approx(7)


async def test_a_deadline_that_is_kept_changes_nothing(autojump_clock: trio.testing.MockClock) -> None:
    error = Broken("mine")
    with deadline(7, "nobody came"):
        await trio.sleep(6)
    with pytest.raises(Broken) as caught, deadline(7, "nobody came"):
        raise error
    assert caught.value is error
    assert autojump_clock.current_time() == pytest.approx(6)


async def test_cancellation_from_outside_is_no_missed_deadline() -> None:
    with trio.CancelScope() as outside:
        outside.cancel()
        with deadline(7, "nobody came"):
            await trio.sleep_forever()
    assert outside.cancelled_caught
