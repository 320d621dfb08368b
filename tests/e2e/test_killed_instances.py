"""A website and a wallet pair through several instances of the service while these, or their Redis, are killed.

Both finish, or have a clear error within 10 seconds; nothing that was acknowledged is lost.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx
import pytest
import trio

from handclasp.discovery.signaling import MailboxSession, join, open_invitation
from handclasp.discovery.signaling.mailbox import Mailbox, claim_mailbox, open_mailbox
from handclasp.errors import HandclaspError, ServiceRefused
from handclasp.identity import Identity

from ..discovery.signaling.balancer import Balancer, open_balancer  # noqa: TID252 - tests are no installed package
from ..service.programs import Instance, open_instance  # noqa: TID252 - same
from ..service.state.servers import RedisServer, redis_server  # noqa: TID252 - same

CLEAR = 10
ORIGIN = "https://shop.example"
PHASES = range(8)
Blow = Callable[[], Awaitable[None]]


@asynccontextmanager
async def two_instances(state: str) -> AsyncGenerator[tuple[Balancer, Instance, Instance]]:
    async with open_instance(state) as one, open_instance(state) as other:
        async with open_balancer(one.url, other.url) as balancer:
            yield balancer, one, other


async def pair(service: str, phase: int, blow: Blow) -> None:
    """The whole sequence, with a *blow* in one of its phases."""

    async def reached(number: int) -> None:
        if number == phase:
            await blow()

    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        website: MailboxSession = await enter(
            open_invitation(Identity.generate(), service=service, origin=ORIGIN)
        )
        await reached(0)
        wallet: MailboxSession = await enter(join(Identity.generate(), website.invitation))
        await reached(1)
        await website.signaling.send(b"offer")
        await reached(2)
        assert await wallet.signaling.receive() == b"offer"
        await reached(3)
        await wallet.signaling.send(b"answer")
        await reached(4)
        assert await website.signaling.receive() == b"answer"
        await reached(5)
        await wallet.post_link(b"signed")
        await reached(6)
        assert await website.receive_link() == b"signed"
        await reached(7)
        await website.send_link(b"verdict")
        assert await wallet.receive_link() == b"verdict"


@pytest.fixture
def redis(tmp_path: Path) -> AsyncGenerator[RedisServer]:
    with redis_server(tmp_path) as server:
        yield server


@pytest.fixture
def durable_redis(tmp_path: Path) -> AsyncGenerator[RedisServer]:
    with redis_server(tmp_path, durable=True) as server:
        yield server


async def test_a_pairing_through_two_instances(redis: RedisServer) -> None:
    async with two_instances(redis.url) as (balancer, *_):

        async def nothing() -> None:
            """All is well."""

        with trio.fail_after(CLEAR):
            await pair(balancer.url, 0, nothing)


@pytest.mark.parametrize("phase", PHASES)
async def test_an_instance_is_killed_in_any_phase_and_both_sides_finish(
    redis: RedisServer, phase: int
) -> None:
    """Four pairings at once, so that each party is at either instance in one of them."""
    async with two_instances(redis.url) as (balancer, one, _):
        waiting, killed = 0, trio.Event()

        async def blow() -> None:
            nonlocal waiting
            waiting += 1
            if waiting == 4:
                one.kill()
                killed.set()
            await killed.wait()

        with trio.fail_after(CLEAR * 2):
            async with trio.open_nursery() as nursery:
                for _ in range(4):
                    nursery.start_soon(pair, balancer.url, phase, blow)
                await killed.wait()
                nursery.cancel_scope.deadline = trio.current_time() + CLEAR
            assert not nursery.cancel_scope.cancelled_caught


@pytest.mark.parametrize("phase", PHASES)
async def test_redis_is_killed_in_any_phase_and_both_sides_finish(
    durable_redis: RedisServer, phase: int
) -> None:
    async with two_instances(durable_redis.url) as (balancer, *_):

        async def blow() -> None:
            durable_redis.kill()
            await trio.to_thread.run_sync(durable_redis.start)

        with trio.fail_after(CLEAR * 2):
            await pair(balancer.url, phase, blow)


@pytest.mark.parametrize("phase", [0, 3, 6])
async def test_a_redis_that_has_forgotten_everything_is_an_error_in_time(
    redis: RedisServer, phase: int
) -> None:
    async with two_instances(redis.url) as (balancer, *_):
        killed_at: list[float] = []

        async def blow() -> None:
            redis.kill()
            await trio.to_thread.run_sync(redis.start)
            killed_at.append(trio.current_time())

        with pytest.raises(HandclaspError):
            await pair(balancer.url, phase, blow)
        assert trio.current_time() - killed_at[0] < CLEAR


async def test_a_redis_that_hangs_is_a_clear_refusal_and_all_is_well_when_it_goes_on(
    redis: RedisServer,
) -> None:
    async with two_instances(redis.url) as (balancer, one, _), httpx.AsyncClient(timeout=CLEAR) as http:

        async def nothing() -> None:
            """All is well."""

        await pair(balancer.url, 0, nothing)
        redis.pause()
        response = await http.get(f"{one.url}/challenge", params={"mailbox": "ab" * 16})
        assert (response.status_code, response.json()["error"]) == (503, "full")
        with pytest.raises(ServiceRefused) as caught:
            await pair(balancer.url, 0, nothing)
        assert caught.value.code == "full"
        redis.go_on()
        with trio.fail_after(CLEAR):
            while True:
                try:
                    await pair(balancer.url, 0, nothing)
                except ServiceRefused:
                    await trio.sleep(0.05)
                else:
                    break


MESSAGES = 200  # of the 256 that a mailbox takes


async def talk(sender: Mailbox, receiver: Mailbox, topic: str, disturbed: trio.Event) -> None:
    """Messages go on until after the disturbance; each arrives once, in order."""

    async def send() -> None:
        for number in range(MESSAGES):
            if number == MESSAGES - 20:
                await disturbed.wait()
            await sender.publish(topic, b"%d" % number)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        seen = 0
        while seen < MESSAGES:
            body = getattr(await receiver.receive(), "body", None)
            if body is not None:
                assert body == b"%d" % seen
                seen += 1


async def test_nothing_acknowledged_is_lost_or_doubled_when_an_instance_is_killed_under_load(
    redis: RedisServer,
) -> None:
    async with two_instances(redis.url) as (balancer, one, other), trio.open_nursery() as everybody:
        disturbed = trio.Event()

        async def converse(number: int) -> None:
            mailbox = f"{number:032x}"
            async with open_mailbox(balancer.url, mailbox) as website:
                async with claim_mailbox(balancer.url, mailbox) as wallet, trio.open_nursery() as nursery:
                    nursery.start_soon(talk, website, wallet, "offer", disturbed)
                    nursery.start_soon(talk, wallet, website, "answer", disturbed)
                    talking.append(number)
                    if len(talking) == 8:
                        all_talk.set()

        talking: list[int] = []
        all_talk = trio.Event()
        with trio.fail_after(CLEAR * 3):
            for number in range(8):
                everybody.start_soon(converse, number)
            await all_talk.wait()
            one.kill()
            await one.start()
            other.stop()
            await trio.sleep(0.2)
            disturbed.set()


async def test_an_sqlite_file_outlasts_the_kill_of_its_only_instance(tmp_path: Path) -> None:
    async with open_instance(f"sqlite:{tmp_path / 'state'}") as instance:
        async with open_balancer(instance.url) as balancer:

            async def blow() -> None:
                instance.kill()
                await instance.start()

            for phase in (0, 2, 5):
                with trio.fail_after(CLEAR * 2):
                    await pair(balancer.url, phase, blow)
