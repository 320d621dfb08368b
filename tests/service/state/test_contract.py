"""What every backend of the service's state promises, on trio and on asyncio."""

from __future__ import annotations

import functools
import os
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path

import anyio
import pytest
import trio

from handclasp.service.state import LEASE, MOST_ROWS, Created, Row, State, StateUnavailable, Sync, from_url
from handclasp.service.state.memory import MemoryState, MemoryStore

from .servers import redis_server

HANG = 20
MakeStates = Callable[[], State]


class Watching:
    """A follower that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, int, Row]] = []
        self.times_lost = 0
        self._news = anyio.Event()

    def follow(self, log: str, start: int, rows: Sequence[Row]) -> None:
        self.told += [(log, start + index, row) for index, row in enumerate(rows)]
        self._news.set()

    def lost_track(self) -> None:
        self.times_lost += 1
        self._news.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        with anyio.fail_after(HANG):
            while not condition():
                self._news = anyio.Event()
                await self._news.wait()


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server.url


@pytest.fixture(params=["memory", "sqlite", "redis"])
def make_state(request: pytest.FixtureRequest, tmp_path: Path) -> MakeStates:
    """Makes instances that share one state."""
    match request.param:
        case "memory":
            return functools.partial(MemoryState, MemoryStore())
        case "sqlite":
            return lambda: from_url(f"sqlite:{tmp_path / 'state'}")
        case _:
            url = request.getfixturevalue("redis_url")
            return lambda: from_url(url)


def new_key() -> str:
    return os.urandom(16).hex()


async def again_until(condition: Callable[[], Awaitable[bool]], within: float = HANG) -> None:
    """Ask until it is so: a state tells nobody that a connection or a life is over."""
    with anyio.fail_after(within):
        while not await condition():  # noqa: ASYNC110
            await anyio.sleep(0.01)


async def up(state: State) -> None:
    """Connected: it begins to connect when it is opened, and says nothing."""

    async def answers() -> bool:
        try:
            await state.find("nothing")
        except StateUnavailable:
            return False
        return True

    await again_until(answers)


Scenario = Callable[[State, State, Watching, Watching], Awaitable[None]]


async def play(make_state: MakeStates, scenario: Scenario) -> None:
    """With two instances."""
    one, other = make_state(), make_state()
    watching, watching_other = Watching(), Watching()
    async with one.open(watching), other.open(watching_other):
        await up(one)
        await up(other)
        await scenario(one, other, watching, watching_other)


@pytest.fixture(params=["trio", "asyncio"])
def play_on(request: pytest.FixtureRequest, make_state: MakeStates) -> Callable[[Scenario], None]:
    return lambda scenario: anyio.run(play, make_state, scenario, backend=request.param)


Play = Callable[[Scenario], None]


def test_what_one_instance_adds_others_read_and_are_told(play_on: Play) -> None:
    async def scenario(one: State, other: State, watching: Watching, watching_other: Watching) -> None:
        log, name = new_key(), new_key()
        assert await one.create(log, name, ["first", 1], life=60, most=10_000) is Created.DONE
        assert await other.find(name) == log
        assert await other.sync([Sync(log, 0)]) == [[["first", 1]]]
        assert await one.sync([Sync(log, 1, [["second"], ["third"]], 60)]) == [[]]
        await watching_other.until(lambda: len(watching_other.told) == 2)
        assert watching_other.told == [(log, 1, ["second"]), (log, 2, ["third"])]
        assert await other.sync([Sync(log, 3, [["fourth"]], 60)]) == [[]]
        await watching.until(lambda: bool(watching.told))
        assert watching.told == [(log, 3, ["fourth"])]

    play_on(scenario)


def test_whoever_adds_learns_what_others_have_added_before(play_on: Play) -> None:
    async def scenario(one: State, other: State, watching: Watching, watching_other: Watching) -> None:
        log = new_key()
        await one.create(log, new_key(), [0], life=60, most=10_000)
        await one.sync([Sync(log, 1, [[1], [2]], 60)])
        assert await other.sync([Sync(log, 1, [[3]], 60)]) == [[[1], [2]]]
        assert await one.sync([Sync(log, 3)]) == [[[3]]]

    play_on(scenario)


def test_of_many_who_add_at_once_all_see_the_same_order(play_on: Play) -> None:
    async def scenario(one: State, other: State, watching: Watching, watching_other: Watching) -> None:
        log = new_key()
        await one.create(log, new_key(), ["begin"], life=60, most=10_000)

        async def add(state: State, who: str) -> None:
            for number in range(20):
                assert await state.sync([Sync(log, 0, [[who, number]], 60)]) != [None]

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(add, one, "one")
            tasks.start_soon(add, other, "other")
        (seen,) = await one.sync([Sync(log, 0)])
        assert [seen] == list(await other.sync([Sync(log, 0)]))
        assert seen is not None
        for who in ("one", "other"):
            assert [row for row in seen if row[0] == who] == [[who, number] for number in range(20)]

    play_on(scenario)


def test_a_batch_is_for_many_logs_and_one_that_is_not_there_harms_no_other(play_on: Play) -> None:
    async def scenario(one: State, other: State, watching: Watching, watching_other: Watching) -> None:
        logs = [new_key() for _ in range(3)]
        for log in (logs[0], logs[2]):
            await one.create(log, new_key(), [log], life=60, most=10_000)
        batch = [Sync(log, 0, [["more"]], 60) for log in logs]
        assert await other.sync(batch) == [[[logs[0]]], None, [[logs[2]]]]

    play_on(scenario)


def test_a_name_is_taken_until_its_log_is_erased(play_on: Play) -> None:
    async def scenario(one: State, other: State, watching: Watching, watching_other: Watching) -> None:
        log, name = new_key(), new_key()
        assert await one.create(log, name, [1], life=60, most=10_000) is Created.DONE
        assert await other.create(new_key(), name, [2], life=60, most=10_000) is Created.TAKEN
        await other.delete([(log, name)])
        assert await one.find(name) is None
        assert await one.sync([Sync(log, 1, [[3]], 60)]) == [None]
        await other.delete([(log, name)])
        assert await other.create(new_key(), name, [2], life=60, most=10_000) is Created.DONE

    play_on(scenario)


def test_of_many_who_want_a_name_one_gets_it(play_on: Play) -> None:
    async def scenario(one: State, other: State, watching: Watching, watching_other: Watching) -> None:
        name = new_key()
        answers: list[Created] = []

        async def want(state: State) -> None:
            answers.append(await state.create(new_key(), name, [1], life=60, most=10_000))

        async with anyio.create_task_group() as tasks:
            for state in [one, other] * 10:
                tasks.start_soon(want, state)
        assert answers.count(Created.DONE) == 1
        assert answers.count(Created.TAKEN) == 19

    play_on(scenario)


def test_there_are_no_more_logs_than_there_may_be(play_on: Play) -> None:
    async def scenario(one: State, other: State, watching: Watching, watching_other: Watching) -> None:
        taken = [(new_key(), new_key()) for _ in range(3)]
        for log, name in taken[:2]:
            assert await one.create(log, name, [1], life=60, most=10_000) is Created.DONE
        most = 2
        while await other.create(*taken[2], [1], life=60, most=most) is Created.FULL:
            most += 1  # other tests have left some in the same Redis
        await other.delete([taken[2]])
        assert await other.create(*taken[2], [1], life=60, most=most - 1) is Created.FULL
        await one.delete([taken[0]])
        assert await other.create(*taken[2], [1], life=60, most=most - 1) is Created.DONE

    play_on(scenario)


def test_a_log_is_gone_when_its_life_is_over_and_lives_on_with_what_is_added(play_on: Play) -> None:
    async def scenario(one: State, other: State, watching: Watching, watching_other: Watching) -> None:
        short, long = (new_key(), new_key()), (new_key(), new_key())
        for log, name in (short, long):
            await one.create(log, name, [1], life=0.3, most=10_000)
        assert await one.sync([Sync(long[0], 1, [[2]], 60)]) == [[]]

        async def short_is_gone() -> bool:
            return await one.sync([Sync(short[0], 0)]) == [None]

        await again_until(short_is_gone)
        assert await other.create(new_key(), short[1], [3], life=60, most=10_000) is Created.DONE
        assert await other.sync([Sync(long[0], 0)]) == [[[1], [2]]]

    play_on(scenario)


def test_a_log_that_grows_without_end_is_erased(play_on: Play) -> None:
    async def scenario(one: State, other: State, watching: Watching, watching_other: Watching) -> None:
        log = new_key()
        await one.create(log, new_key(), [0], life=60, most=10_000)
        rows: list[Row] = [[number] for number in range(MOST_ROWS // 2)]
        assert await one.sync([Sync(log, 1, rows[1:], 60)]) == [[]]
        assert await one.sync([Sync(log, len(rows), rows, 60)]) == [[]]
        assert await one.sync([Sync(log, MOST_ROWS, [["one more"]], 60)]) == [None]
        assert await other.sync([Sync(log, 0)]) == [None]

    play_on(scenario)


def test_whoever_knows_more_than_there_is_does_not_go_on(play_on: Play) -> None:
    """A state that was put back to an earlier time has forgotten what it acknowledged."""

    async def scenario(one: State, other: State, watching: Watching, watching_other: Watching) -> None:
        log = new_key()
        await one.create(log, new_key(), [0], life=60, most=10_000)
        assert await other.sync([Sync(log, 2, [[1]], 60)]) == [None]

    play_on(scenario)


def test_rows_come_back_as_they_went(play_on: Play) -> None:
    async def scenario(one: State, other: State, watching: Watching, watching_other: Watching) -> None:
        log = new_key()
        row: Row = [
            1.5,
            "",
            'a "quote"\nand lines\n\n',
            "ü\U0001f600",
            True,
            None,
            ["nested", 2],
            "x" * 90_000,
        ]
        await one.create(log, new_key(), row, life=60, most=10_000)
        await other.sync([Sync(log, 0)])
        assert await one.sync([Sync(log, 0, [row], 60)]) == [[row]]
        await watching_other.until(lambda: bool(watching_other.told))
        assert watching_other.told == [(log, 1, row)]

    play_on(scenario)


def test_an_instance_lives_while_it_is_open(play_on: Play, make_state: MakeStates) -> None:
    async def scenario(one: State, other: State, watching: Watching, watching_other: Watching) -> None:
        third = make_state()
        async with third.open(Watching()):
            await up(third)
            assert await one.living([third.instance, other.instance]) == {third.instance, other.instance}

        async def third_is_gone() -> bool:
            return await one.living([third.instance, other.instance]) == {other.instance}

        await again_until(third_is_gone, LEASE + HANG)

    play_on(scenario)


def test_all_instances_have_one_clock(play_on: Play) -> None:
    async def scenario(one: State, other: State, watching: Watching, watching_other: Watching) -> None:
        before = one.clock()
        between = other.clock()
        assert abs(between - before) < 0.25
        assert one.clock() >= before

    play_on(scenario)


async def test_cancelling_a_request_leaves_it_usable(make_state: MakeStates) -> None:
    state = make_state()
    async with state.open(Watching()):
        await up(state)
        log = new_key()
        await state.create(log, new_key(), [0], life=60, most=10_000)
        for _ in range(5):
            with trio.move_on_after(0):
                await state.sync([Sync(log, 0, [["cancelled"]], 60)])
            with trio.move_on_after(0.0005):
                await state.sync([Sync(log, 0, [["perhaps"]], 60)])
        (rows,) = await state.sync([Sync(log, 0, [["last"]], 60)])
        assert rows is not None
        assert await state.sync([Sync(log, len(rows))]) == [[["last"]]]
