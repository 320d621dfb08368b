"""Several instances of the service with one state: any of them serves any client. In memory, on a clock that jumps."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import trio
import trio.testing

from handclasp.service import Settings, create_app
from handclasp.service.state.memory import MemoryState, MemoryStore

from .driver import ID, OTHER_ID, Client, Closed, Socket, running

BY = "5e" * 32


@asynccontextmanager
async def instances(
    count: int = 2, settings: Settings | None = None, store: MemoryStore | None = None
) -> AsyncGenerator[list[Client]]:
    store = MemoryStore() if store is None else store
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                running(create_app(settings or Settings(), state=MemoryState(store)))
            )
            for _ in range(count)
        ]


@pytest.fixture
async def two() -> AsyncGenerator[tuple[Client, Client]]:
    async with instances() as (one, other):
        yield one, other


@asynccontextmanager
async def met(
    one: Client, other: Client, mailbox: str = ID
) -> AsyncGenerator[tuple[Socket, Socket, dict, dict]]:
    """The website's socket at one instance, the wallet's at the other; the challenge, and what the wallet got."""
    challenge = await other.challenge(mailbox)
    async with one.socket() as website, other.socket() as wallet:
        website.send(type="subscribe", token=challenge["token"], after=0)
        await website.expect("ready", role="website")
        wallet.send(type="claim", mailbox=mailbox, by=BY)
        ready = await wallet.expect("ready", role="wallet", nonce=challenge["nonce"])
        await wallet.expect("joined")
        await website.expect("joined")
        yield website, wallet, challenge, ready


async def test_the_whole_sequence_with_each_step_at_another_instance(
    two: tuple[Client, Client], autojump_clock: trio.testing.MockClock
) -> None:
    one, other = two
    async with met(one, other) as (website, wallet, challenge, ready):
        wallet.send(type="publish", topic="link", body="bm9pc2U")
        await wallet.expect("accepted")
        await website.expect("message", topic="link", n=1, body="bm9pc2U")
        assert (await other.post("offer", challenge["token"], body="b2ZmZXI")).status == 202
        await wallet.expect("message", topic="offer", n=1, body="b2ZmZXI")
        wallet.send(type="publish", topic="answer", body="YW5zd2Vy")
        await website.expect("message", topic="answer", n=2)
        linked = await one.post("link", ready["token"], nonce=ready["nonce"], body="c2l3ZQ")
        assert (linked.status, linked.json()) == (200, {"ok": True})
        await website.expect("message", topic="link", n=3, body="c2l3ZQ")
        website.send(type="close")
        await website.expect_end(1000, "end", "closed")
        await wallet.expect_end(1000, "end", "closed")
        for client in two:
            assert (await client.post("offer", challenge["token"], body="AA")).status == 401


async def test_a_third_instance_without_a_socket_takes_requests_and_keeps_nothing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with instances(3) as (one, other, third), met(one, other) as (website, wallet, challenge, ready):
        assert (await third.post("answer", ready["token"], body="AA")).status == 202
        await website.expect("message", topic="answer", n=1)
        assert (await third.post("offer", challenge["token"], body="AQ")).status == 202
        await wallet.expect("message", topic="offer", n=1)
        assert (await third.post("offer", ready["token"], body="AA")).status == 403
        hub = third.app._switchboards["/ws"]._hub  # type: ignore[attr-defined]
        assert not hub._mailboxes
        assert not hub._tickets


async def test_of_two_claims_at_two_instances_one_succeeds_and_both_parties_are_told(
    two: tuple[Client, Client], autojump_clock: trio.testing.MockClock
) -> None:
    one, other = two
    challenge = await one.challenge()
    async with one.socket() as website, one.socket() as first, other.socket() as second:
        website.send(type="subscribe", token=challenge["token"], after=0)
        await website.expect("ready")
        for wallet in (first, second):
            wallet.send(type="claim", mailbox=ID)
        frames = [await first.get(), await second.get()]
        kinds = sorted(frame["type"] if isinstance(frame, dict) else "" for frame in frames)
        assert kinds == ["error", "ready"]
        (refused,) = (frame for frame in frames if isinstance(frame, dict) and frame["type"] == "error")
        assert refused["code"] == "crowded"
        await website.expect("joined")
        await website.expect("crowded")
        winner = first if frames[1] is refused else second
        await winner.expect("joined")
        await winner.expect("crowded")


async def test_of_100_uses_of_a_nonce_at_two_instances_one_succeeds(
    two: tuple[Client, Client], autojump_clock: trio.testing.MockClock
) -> None:
    one, other = two
    async with met(one, other) as (website, _, _, ready):
        statuses: list[int] = []

        async def use(client: Client) -> None:
            body = {"nonce": ready["nonce"], "body": "c2l3ZQ"}
            statuses.append((await client.post("link", ready["token"], **body)).status)

        async with trio.open_nursery() as nursery:
            for client in [one, other] * 50:
                nursery.start_soon(use, client)
        assert sorted(statuses) == [200] + [403] * 99
        await website.expect("message", topic="link", n=1)


async def test_both_talk_at_once_and_nothing_is_lost_or_doubled(
    two: tuple[Client, Client], autojump_clock: trio.testing.MockClock
) -> None:
    one, other = two
    async with met(one, other) as (website, wallet, _, _):
        for number in range(100):
            website.send(type="publish", topic="offer", body=f"{number:04d}")
            wallet.send(type="publish", topic="answer", body=f"{number:04d}")
        for receiver in (website, wallet):
            for number in range(100):
                await receiver.expect("message", n=number + 1, body=f"{number:04d}")


async def test_a_party_that_comes_back_at_another_instance_gets_what_it_missed(
    two: tuple[Client, Client], autojump_clock: trio.testing.MockClock
) -> None:
    one, other = two
    async with met(one, other) as (website, wallet, challenge, _):
        wallet.send(type="publish", topic="answer", body="AA")
        await website.expect("message", n=1)
        website.hang_up()
        await wallet.expect("left")
        wallet.send(type="publish", topic="answer", body="AQ")
        async with other.socket() as back:
            back.send(type="subscribe", token=challenge["token"], after=1)
            await back.expect("ready")
            await back.expect("joined")
            await back.expect("message", n=2, body="AQ")
            await wallet.expect("joined")


async def test_a_newer_socket_at_another_instance_replaces_the_older_one(
    two: tuple[Client, Client], autojump_clock: trio.testing.MockClock
) -> None:
    one, other = two
    async with met(one, other) as (website, wallet, challenge, _):
        async with other.socket() as newer:
            newer.send(type="subscribe", token=challenge["token"], after=0)
            await newer.expect("ready")
            await newer.expect("joined")
            await website.expect_end(1000, "end", "replaced")
            wallet.send(type="publish", topic="answer", body="AA")
            await newer.expect("message", n=1)


async def test_a_party_that_stays_away_ends_the_mailbox_for_the_one_at_the_other_instance(
    two: tuple[Client, Client], autojump_clock: trio.testing.MockClock
) -> None:
    async with met(*two) as (website, wallet, _, _):
        wallet.hang_up()
        await website.expect("left")
        start = trio.current_time()
        await website.expect_end(1000, "end", "left")
        assert trio.current_time() - start == pytest.approx(5)


async def test_time_ends_a_mailbox_at_both_instances(
    two: tuple[Client, Client], autojump_clock: trio.testing.MockClock
) -> None:
    async with met(*two) as (website, wallet, _, _):
        start = trio.current_time()
        await website.expect_end(1000, "end", "expired")
        await wallet.expect_end(1000, "end", "expired")
        assert trio.current_time() - start == pytest.approx(300, abs=1)


async def test_a_mailbox_that_nobody_follows_is_over_in_time(
    two: tuple[Client, Client], autojump_clock: trio.testing.MockClock
) -> None:
    one, other = two
    challenge = await one.challenge()
    async with one.socket() as website:
        website.send(type="subscribe", token=challenge["token"], after=0)
        await website.expect("ready")
    await trio.sleep(5)
    async with other.socket() as wallet:
        wallet.send(type="claim", mailbox=ID)
        await wallet.expect_end(1008, "error", "unauthorized")
    await trio.sleep(300)
    await one.challenge()


@asynccontextmanager
async def mortal(store: MemoryStore) -> AsyncGenerator[tuple[Client, trio.CancelScope]]:
    """An instance that can be killed: its lifespan is cancelled, and nobody gets to say goodbye."""

    async def live(task_status: trio.TaskStatus[tuple[Client, trio.CancelScope]]) -> None:
        with trio.CancelScope() as scope:
            async with running(create_app(state=MemoryState(store))) as client:
                task_status.started((client, scope))
                await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        yield await nursery.start(live)
        nursery.cancel_scope.cancel()


async def test_the_parties_of_an_instance_that_died_are_missed_and_may_come_back(
    autojump_clock: trio.testing.MockClock,
) -> None:
    store = MemoryStore()
    async with instances(1, store=store) as (stays,), mortal(store) as (dies, death):
        challenge = await stays.challenge()
        async with stays.socket() as website, dies.socket() as wallet:
            website.send(type="subscribe", token=challenge["token"], after=0)
            wallet.send(type="claim", mailbox=ID)
            ready = await wallet.expect("ready")
            await wallet.expect("joined")
            await website.expect("ready")
            await website.expect("joined")
            death.cancel()
            await website.expect("left")
            website.send(type="publish", topic="offer", body="AA")
            async with stays.socket() as back:
                back.send(type="subscribe", token=ready["token"], after=0)
                await back.expect("ready", role="wallet")
                await back.expect("joined")
                await back.expect("message", n=1)
                await website.expect("joined")


async def test_a_claim_whose_answer_was_lost_may_be_repeated_by_the_same_wallet_only(
    two: tuple[Client, Client], autojump_clock: trio.testing.MockClock
) -> None:
    one, other = two
    async with met(one, other) as (website, wallet, challenge, ready):
        wallet.hang_up()
        await website.expect("left")
        async with one.socket() as again:
            again.send(type="claim", mailbox=ID, by=BY)
            await again.expect("ready", role="wallet", nonce=challenge["nonce"], token=ready["token"])
            await again.expect("joined")
            await website.expect("joined")
            async with other.socket() as thief:
                thief.send(type="claim", mailbox=ID, by="77" * 32)
                await thief.expect_end(1008, "error", "crowded")
                await again.expect("crowded")
                await website.expect("crowded")


async def test_a_message_that_is_sent_again_elsewhere_counts_once(
    two: tuple[Client, Client], autojump_clock: trio.testing.MockClock
) -> None:
    one, other = two
    async with met(one, other) as (website, wallet, _, ready):
        wallet.send(type="publish", topic="link", n=1, body="AA")
        await wallet.expect("accepted")
        assert (await one.post("answer", ready["token"], n=2, body="AQ")).status == 202
        assert (await other.post("answer", ready["token"], n=2, body="AQ")).status == 202
        linking = {"n": 3, "nonce": ready["nonce"], "body": "Ag"}
        assert (await one.post("link", ready["token"], **linking)).status == 200
        assert (await other.post("link", ready["token"], **linking)).status == 200
        for n in (1, 2, 3):
            await website.expect("message", n=n)
        for n, body in ((3, "Aw"), (5, "Aw")):
            again = await one.post("answer", ready["token"], n=n, body=body)
            assert (again.status, again.json()["error"]) == (409, "number")
        wallet.send(type="publish", topic="answer", n=4, body="Aw")
        await website.expect("message", n=4)


async def test_an_instance_that_stops_sends_its_clients_to_the_others(
    two: tuple[Client, Client], autojump_clock: trio.testing.MockClock
) -> None:
    one, other = two
    async with met(one, other) as (website, wallet, challenge, _):
        with trio.fail_after(10):
            await one.app.shut_down()
        await website.expect_end(1012, "end", "restart")
        await wallet.expect("left")
        async with other.socket() as back:
            back.send(type="subscribe", token=challenge["token"], after=0)
            await back.expect("ready")
            await wallet.expect("joined")
        async with one.socket() as late:
            await late.expect_end(1012, "end", "restart")


async def test_a_socket_that_breaks_before_its_claim_is_answered_counts_as_gone(
    two: tuple[Client, Client], autojump_clock: trio.testing.MockClock
) -> None:
    one, other = two
    challenge = await one.challenge()
    async with one.socket() as website:
        website.send(type="subscribe", token=challenge["token"], after=0)
        await website.expect("ready")
        async with other.socket() as wallet:
            wallet.send(type="claim", mailbox=ID)
        frames = await website.frames_until(lambda frame: frame["type"] in {"left", "end"})
        assert [frame["type"] for frame in frames] in (["joined", "left"], ["end"])


async def test_ten_thousand_connects_and_disconnects_leave_nothing_behind(
    autojump_clock: trio.testing.MockClock,
) -> None:
    store = MemoryStore()
    everybody_at_once = Settings(address_burst=100_000)
    async with instances(settings=everybody_at_once, store=store) as (one, other):
        for number in range(5_000):
            mailbox = f"{number:032x}"
            challenge = await one.challenge(mailbox)
            async with other.socket() as website:
                website.send(type="subscribe", token=challenge["token"], after=0)
                await website.expect("ready")
            async with one.socket() as thief:
                thief.send(type="claim", mailbox=OTHER_ID)
                assert isinstance(await thief.get(), dict | Closed)
        await trio.sleep(200)
        for client in (one, other):
            exchange = client.app._switchboards["/ws"]
            hub, replication = exchange._hub, exchange._replication  # type: ignore[attr-defined]
            for kept in (hub._mailboxes, hub._names, hub._seats, hub._tickets, hub._timetable):
                assert len(kept) == 0
            for kept in (replication._queues, replication._early, replication._fetching, replication._behind):
                assert len(kept) == 0
        store.tidy(trio.current_time())
        assert not store.logs
        assert not store.names


async def test_without_lifespan_a_service_with_state_says_that_it_has_no_room() -> None:
    async with running(create_app(state=MemoryState()), lifespan=False) as client, client.socket() as socket:
        socket.send(type="claim", mailbox=ID)
        await socket.expect_end(1013, "error", "full")
