"""What every backend promises."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from pathlib import Path

import anyio
import pytest
import trio

from handclasp.service.records import (
    Code,
    Linked,
    Outcome,
    PostgresRecords,
    Records,
    Session,
    SignIn,
    SqliteRecords,
)
from handclasp.service.records.contract import NewSession

NOW = 1_000_000
ALICE, BOB = "eip155:1:0xA11CE", "eip155:1:0xB0B"
PHONE, TABLET = "12D3phone", "12D3tablet"
BACKENDS = ["memory", "sqlite", "postgres"]


def digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


@pytest.fixture(params=BACKENDS)
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Records]:
    if request.param == "memory":
        return lambda: SqliteRecords(None)
    if request.param == "sqlite":
        return lambda: SqliteRecords(tmp_path / "records.db")
    url = request.getfixturevalue("postgres_url")
    return lambda: PostgresRecords(url)


@pytest.fixture
async def records(make: Callable[[], Records]) -> AsyncGenerator[Records]:
    made = make()
    yield made
    await made.aclose()


def sign_in(name: str = "a", *, until: int = NOW + 300) -> SignIn:
    return SignIn(
        f"mailbox {name}", digest(name), f"peer {name}", "https://shop.example", digest("n"), NOW, until
    )


def code(name: str, account: str = ALICE, device: str = PHONE, *, until: int = NOW + 60) -> Code:
    return Code(digest(name), digest("holder"), Linked(account, device, "ab" * 32), until)


def new(name: str, *, idle_until: int = NOW + 100, expires: int = NOW + 1000) -> NewSession:
    return NewSession(digest(name), name, idle_until, expires)


async def signed_in(
    records: Records, name: str, account: str = ALICE, device: str = PHONE, *, now: int = NOW
) -> Session:
    await records.link(code(f"code {name}", account, device, until=now + 60), now=now, most_devices=100)
    session = await records.redeem(
        digest(f"code {name}"),
        digest("holder"),
        new(name, idle_until=now + 100, expires=now + 1000),
        ends=None,
        now=now,
        most_sessions=100,
    )
    assert session is not None
    return session


# Sign-ins


async def test_a_sign_in_is_taken_once(records: Records) -> None:
    assert await records.add_sign_in(sign_in(), now=NOW, most=10) is Outcome.ADDED
    assert (
        await records.take_sign_in("mailbox a", digest("a"), now=NOW + 299, keep_until=NOW + 900) == sign_in()
    )
    assert await records.take_sign_in("mailbox a", digest("a"), now=NOW + 299, keep_until=NOW + 900) is None


async def test_of_many_who_take_a_sign_in_at_once_one_gets_it(records: Records) -> None:
    await records.add_sign_in(sign_in(), now=NOW, most=10)
    taken: list[SignIn | None] = []

    async def take() -> None:
        taken.append(await records.take_sign_in("mailbox a", digest("a"), now=NOW, keep_until=NOW + 900))

    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(take)
    assert [each for each in taken if each is not None] == [sign_in()]
    assert len(taken) == 100


async def test_a_sign_in_without_a_nonce_has_none(records: Records) -> None:
    await records.add_sign_in(replace(sign_in(), nonce=None), now=NOW, most=10)
    taken = await records.take_sign_in("mailbox a", digest("a"), now=NOW, keep_until=NOW + 900)
    assert taken is not None
    assert taken.nonce is None


async def test_a_sign_in_that_is_over_or_unknown_is_not_there(records: Records) -> None:
    await records.add_sign_in(sign_in(), now=NOW, most=10)
    assert await records.take_sign_in("mailbox b", digest("b"), now=NOW, keep_until=NOW + 900) is None
    assert await records.take_sign_in("mailbox a", digest("a"), now=NOW + 300, keep_until=NOW + 900) is None


async def test_a_mailbox_begins_one_sign_in_and_a_login_several(records: Records) -> None:
    await records.add_sign_in(sign_in("a"), now=NOW, most=10)
    other_login = replace(sign_in("b"), mailbox="mailbox a")
    assert await records.add_sign_in(other_login, now=NOW, most=10) is Outcome.EXISTS
    same_login = replace(sign_in("b"), login=digest("a"))
    assert await records.add_sign_in(same_login, now=NOW, most=10) is Outcome.ADDED


async def test_a_sign_in_is_taken_by_the_login_that_began_it(records: Records) -> None:
    await records.add_sign_in(sign_in("a"), now=NOW, most=10)
    assert await records.take_sign_in("mailbox a", digest("thief"), now=NOW, keep_until=NOW + 900) is None
    assert await records.has_sign_in(digest("a"), now=NOW)
    assert not await records.has_sign_in(digest("thief"), now=NOW)
    assert not await records.has_sign_in(digest("a"), now=NOW + 300)
    assert await records.take_sign_in("mailbox a", digest("a"), now=NOW, keep_until=NOW + 900) is not None
    assert not await records.has_sign_in(digest("a"), now=NOW)


async def test_the_mailbox_of_a_taken_sign_in_cannot_be_used_again_for_as_long_as_was_said(
    records: Records,
) -> None:
    await records.add_sign_in(sign_in("a"), now=NOW, most=10)
    await records.take_sign_in("mailbox a", digest("a"), now=NOW, keep_until=NOW + 900)
    again = replace(sign_in("b"), mailbox="mailbox a", begun=NOW + 899, expires=NOW + 1200)
    assert await records.add_sign_in(again, now=NOW + 899, most=10) is Outcome.EXISTS
    assert await records.add_sign_in(again, now=NOW + 900, most=10) is Outcome.ADDED


async def test_sign_ins_are_bounded_and_those_that_are_over_make_room(records: Records) -> None:
    for name in "abc":
        assert await records.add_sign_in(sign_in(name), now=NOW, most=3) is Outcome.ADDED
    assert await records.add_sign_in(sign_in("d"), now=NOW + 299, most=3) is Outcome.FULL
    assert await records.add_sign_in(sign_in("d", until=NOW + 600), now=NOW + 300, most=3) is Outcome.ADDED


async def test_a_page_is_signing_in_until_it_has_or_its_time_is_over(records: Records) -> None:
    await records.add_sign_in(sign_in(), now=NOW, most=10)

    assert await records.origin_of("peer a", now=NOW) == "https://shop.example"
    assert await records.origin_of("peer b", now=NOW) is None
    assert await records.origin_of("peer a", now=NOW + 300) is None
    await records.take_sign_in("mailbox a", digest("a"), now=NOW, keep_until=NOW + 900)
    assert await records.origin_of("peer a", now=NOW) is None


# Codes


async def test_a_code_is_worth_one_session(records: Records) -> None:
    session = await signed_in(records, "one")
    assert session == Session(
        digest("one"), "one", Linked(ALICE, PHONE, "ab" * 32), NOW, NOW, NOW + 100, NOW + 1000
    )
    assert await records.session(digest("one"), now=NOW) == session
    assert (
        await records.redeem(
            digest("code one"), digest("holder"), new("two"), ends=None, now=NOW, most_sessions=9
        )
        is None
    )
    assert await records.session(digest("two"), now=NOW) is None


async def test_of_many_who_redeem_a_code_at_once_one_gets_a_session(records: Records) -> None:
    await records.link(code("code"), now=NOW, most_devices=9)
    sessions: list[Session | None] = []

    async def redeem(number: int) -> None:
        made = new(f"session {number}")
        sessions.append(
            await records.redeem(digest("code"), digest("holder"), made, ends=None, now=NOW, most_sessions=9)
        )

    async with trio.open_nursery() as nursery:
        for number in range(100):
            nursery.start_soon(redeem, number)
    assert len([session for session in sessions if session is not None]) == 1
    assert len(await records.sessions_of(ALICE, now=NOW)) == 1


@pytest.mark.parametrize(
    ("presented", "holder", "now"),
    [("other", "holder", NOW), ("code", "thief", NOW), ("code", "holder", NOW + 60)],
    ids=["unknown", "another holder", "expired"],
)
async def test_a_code_that_does_not_hold_changes_nothing(
    records: Records, presented: str, holder: str, now: int
) -> None:
    await signed_in(records, "old")
    await records.link(code("code"), now=NOW, most_devices=9)
    refused = await records.redeem(
        digest(presented), digest(holder), new("new"), ends=digest("old"), now=now, most_sessions=9
    )
    assert refused is None
    assert await records.session(digest("old"), now=now) is not None
    assert await records.session(digest("new"), now=now) is None


async def test_a_code_ends_the_session_that_it_replaces(records: Records) -> None:
    await signed_in(records, "old", BOB)
    await records.link(code("code"), now=NOW, most_devices=9)
    await records.redeem(
        digest("code"), digest("holder"), new("new"), ends=digest("old"), now=NOW, most_sessions=9
    )
    assert await records.session(digest("old"), now=NOW) is None
    assert await records.session(digest("new"), now=NOW) is not None


# Sessions


async def test_a_session_ends_when_it_is_idle_or_old_and_being_used_keeps_it(records: Records) -> None:
    await signed_in(records, "one")
    assert await records.session(digest("one"), now=NOW + 99) is not None
    assert await records.session(digest("one"), now=NOW + 100) is None
    await records.touch(digest("one"), now=NOW + 99, idle_until=NOW + 5000)
    found = await records.session(digest("one"), now=NOW + 999)
    assert found is not None
    assert found.seen == NOW + 99
    assert await records.session(digest("one"), now=NOW + 1000) is None


async def test_a_session_that_is_over_is_not_brought_back(records: Records) -> None:
    await signed_in(records, "one")
    await records.touch(digest("one"), now=NOW + 100, idle_until=NOW + 900)
    assert await records.rotate(digest("one"), digest("two"), now=NOW + 100, idle_until=NOW + 900) is None
    assert await records.session(digest("one"), now=NOW + 100) is None
    assert await records.session(digest("two"), now=NOW + 100) is None


async def test_a_rotated_session_has_another_id_and_is_the_same(records: Records) -> None:
    session = await signed_in(records, "one")
    rotated = await records.rotate(digest("one"), digest("two"), now=NOW + 9, idle_until=NOW + 109)
    assert rotated == replace(session, digest=digest("two"), seen=NOW + 9, idle_until=NOW + 109)
    assert await records.session(digest("one"), now=NOW + 9) is None
    assert await records.session(digest("two"), now=NOW + 9) == rotated


async def test_sessions_are_listed_and_ended_by_account(records: Records) -> None:
    first = await signed_in(records, "one")
    second = await signed_in(records, "two", device=TABLET, now=NOW + 1)
    bobs = await signed_in(records, "bobs", BOB)
    assert await records.sessions_of(ALICE, now=NOW + 1) == [second, first]
    assert await records.sessions_of(ALICE, now=NOW + 100) == [second]
    assert await records.end_sessions_of(ALICE, label="bobs") == 0
    assert await records.end_sessions_of(ALICE, label="two") == 1
    assert await records.sessions_of(ALICE, now=NOW + 1) == [first]
    await signed_in(records, "three")
    assert await records.end_sessions_of(ALICE) == 2
    assert await records.sessions_of(BOB, now=NOW) == [bobs]
    await records.end_session(digest("bobs"))
    await records.end_session(digest("bobs"))
    assert await records.sessions_of(BOB, now=NOW) == []


async def test_an_account_has_a_bounded_number_of_sessions(records: Records) -> None:
    for number in range(5):
        await records.link(code(f"code {number}"), now=NOW + number, most_devices=9)
        await records.redeem(
            digest(f"code {number}"),
            digest("holder"),
            new(f"session {number}"),
            ends=None,
            now=NOW + number,
            most_sessions=3,
        )
    await signed_in(records, "bobs", BOB)
    assert [session.label for session in await records.sessions_of(ALICE, now=NOW + 5)] == [
        "session 4",
        "session 3",
        "session 2",
    ]


# Devices


async def test_a_device_is_linked_again_and_again_and_known_since_the_first_time(records: Records) -> None:
    await signed_in(records, "one")
    await signed_in(records, "two", now=NOW + 50)
    (device,) = await records.devices_of(ALICE)
    assert (device.peer, device.first_linked, device.last_linked) == (PHONE, NOW, NOW + 50)
    assert await records.devices_of(BOB) == []


async def test_revoking_a_device_ends_its_sessions_and_codes_and_no_others(records: Records) -> None:
    await signed_in(records, "phone")
    tablet = await signed_in(records, "tablet", device=TABLET)
    bobs = await signed_in(records, "bobs", BOB)
    await records.link(code("late"), now=NOW, most_devices=9)
    assert await records.revoke_device(ALICE, PHONE)
    assert not await records.revoke_device(ALICE, PHONE)
    assert await records.sessions_of(ALICE, now=NOW) == [tablet]
    assert await records.sessions_of(BOB, now=NOW) == [bobs]
    assert [device.peer for device in await records.devices_of(ALICE)] == [TABLET]
    assert (
        await records.redeem(
            digest("late"), digest("holder"), new("late"), ends=None, now=NOW, most_sessions=9
        )
        is None
    )


async def test_an_account_has_a_bounded_number_of_devices(records: Records) -> None:
    for number in range(5):
        await records.link(
            code(f"code {number}", device=f"device {number}"), now=NOW + number, most_devices=3
        )
    peers = [device.peer for device in await records.devices_of(ALICE)]
    assert peers == ["device 4", "device 3", "device 2"]


# Time, and the backend itself


async def test_what_is_over_is_purged_in_bounded_portions_and_nothing_else(records: Records) -> None:
    for number in range(5):
        await records.add_sign_in(sign_in(f"{number}"), now=NOW, most=10)
    await signed_in(records, "idle")
    kept = await signed_in(records, "kept", now=NOW + 300)
    await records.link(code("over"), now=NOW, most_devices=9)
    assert await records.purge(now=NOW + 310, most=3) == 5
    assert await records.purge(now=NOW + 310, most=3) == 2
    assert await records.purge(now=NOW + 310, most=3) == 0
    assert await records.sessions_of(ALICE, now=NOW + 310) == [kept]


def test_a_backend_runs_on_asyncio_too(make: Callable[[], Records]) -> None:
    async def scenario() -> None:
        records = make()
        try:
            session = await signed_in(records, "one")
            async with anyio.create_task_group() as tasks:
                for _ in range(20):
                    tasks.start_soon(lambda: records.session(digest("one"), now=NOW))
            assert await records.session(digest("one"), now=NOW) == session
        finally:
            await records.aclose()

    anyio.run(scenario, backend="asyncio")


async def test_a_cancelled_use_leaves_the_backend_usable(records: Records) -> None:
    await records.open()
    with trio.CancelScope() as scope:
        scope.cancel()
        await signed_in(records, "one")
    await signed_in(records, "two")
    assert await records.session(digest("two"), now=NOW) is not None


async def test_a_closed_backend_may_be_opened_again(records: Records, make: Callable[[], Records]) -> None:
    await records.open()
    await records.aclose()
    await records.aclose()
    await records.open()
    await signed_in(records, "one")
