"""A pairing over connections that break: both sides come back and nothing is lost, doubled or out of order."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack

import pytest
import trio

from handclasp.discovery.signaling import MailboxSession, Moment, join, open_invitation
from handclasp.discovery.signaling.mailbox import Mailbox, claim_mailbox, open_mailbox
from handclasp.errors import ServiceRefused, ServiceUnavailable
from handclasp.identity import Identity
from handclasp.testing import open_service

from .balancer import Balancer, open_balancer

HANG = 20
ORIGIN = "https://shop.example"
ID = "1744803b76013fe6dbf79b16d340b7c1"


@pytest.fixture
async def balancer() -> AsyncGenerator[Balancer]:
    async with open_service() as url, open_balancer(url) as balancer:
        yield balancer


async def whole_sequence(website: MailboxSession, wallet: MailboxSession) -> None:
    with trio.fail_after(HANG):
        await website.signaling.send(b"offer")
        assert await wallet.signaling.receive() == b"offer"
        await wallet.signaling.send(b"answer")
        assert await website.signaling.receive() == b"answer"
        for number in range(3):
            await wallet.signaling.send(b"candidate %d" % number)
            await website.signaling.send(b"candidate %d" % number)
        for number in range(3):
            assert await website.signaling.receive() == b"candidate %d" % number
            assert await wallet.signaling.receive() == b"candidate %d" % number
        await wallet.post_link(b"signed")
        assert await website.receive_link() == b"signed"
        await website.send_link(b"verdict")
        assert await wallet.receive_link() == b"verdict"


async def test_both_connections_break_between_any_two_steps(balancer: Balancer) -> None:
    moments: list[Moment] = []
    async with AsyncExitStack() as stack:
        website = await stack.enter_async_context(
            open_invitation(Identity.generate(), service=balancer.url, origin=ORIGIN, watcher=moments.append)
        )
        balancer.cut()
        wallet = await stack.enter_async_context(join(Identity.generate(), website.invitation))
        balancer.cut()
        await website.signaling.send(b"offer")
        balancer.cut()
        assert await wallet.signaling.receive() == b"offer"
        balancer.cut()
        await wallet.signaling.send(b"answer")
        balancer.cut()
        assert await website.signaling.receive() == b"answer"
        balancer.cut()
        await wallet.post_link(b"signed")
        balancer.cut()
        assert await website.receive_link() == b"signed"
    assert Moment.CROWDED not in moments


@pytest.mark.parametrize("who", ["website", "wallet"])
async def test_a_connection_may_break_after_any_byte_that_the_service_says(
    balancer: Balancer, who: str
) -> None:
    """In the middle of a frame, before an answer, after it: every 60th byte of the whole sequence."""
    for length in range(0, 1_500, 60):
        balancer.cut_after.clear()
        async with AsyncExitStack() as stack:
            invitation = open_invitation(Identity.generate(), service=balancer.url, origin=ORIGIN)
            if who == "website":
                balancer.cut_after = [
                    10_000,
                    length + 200,
                ]  # the challenge is not repeated; and the upgrade's answer
            website = await stack.enter_async_context(invitation)
            if who == "wallet":
                balancer.cut_after = [length + 200]
            wallet = await stack.enter_async_context(join(Identity.generate(), website.invitation))
            await whole_sequence(website, wallet)


async def test_a_lost_answer_to_the_link_is_asked_for_again(balancer: Balancer) -> None:
    async with open_invitation(Identity.generate(), service=balancer.url, origin=ORIGIN) as website:
        async with join(Identity.generate(), website.invitation) as wallet:
            await website.signaling.send(b"offer")
            await wallet.signaling.receive()
            await wallet.signaling.send(b"answer")
            await website.signaling.receive()
            for length in (0, 1, 50):
                balancer.cut_after.append(length)
            await wallet.post_link(b"signed")
            assert await website.receive_link() == b"signed"
            await wallet.send_link(b"and more")
            assert await website.receive_link() == b"and more"


async def end_of(mailbox: Mailbox) -> None:
    while True:
        await mailbox.receive()


async def talk(sender: Mailbox, receiver: Mailbox, topic: str, count: int) -> None:
    async def send() -> None:
        for number in range(count):
            await sender.publish(topic, b"%d" % number)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        expected = 0
        while expected < count:
            event = await receiver.receive()
            body = getattr(event, "body", None)
            if body is not None:
                assert body == b"%d" % expected
                expected += 1


async def test_while_connections_break_all_the_time_messages_arrive_once_and_in_order(
    balancer: Balancer,
) -> None:
    async with open_mailbox(balancer.url, ID) as website, claim_mailbox(balancer.url, ID) as wallet:
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                balancer.cut_after = [900 + 37 * number for number in range(12)]
                balancer.cut()
                nursery.start_soon(talk, website, wallet, "offer", 60)
                nursery.start_soon(talk, wallet, website, "answer", 60)
        assert balancer.connections > 6


async def test_whoever_gives_up_half_way_through_a_message_leaves_a_mailbox_that_works(
    balancer: Balancer,
) -> None:
    async with open_mailbox(balancer.url, ID) as website, claim_mailbox(balancer.url, ID) as wallet:
        await wallet.publish("link", b"first")
        with trio.CancelScope() as scope:
            scope.cancel()
            await wallet.publish("answer", b"second")
        await wallet.publish("answer", b"third")
        bodies = []
        with trio.fail_after(HANG):
            while len(bodies) < 3:
                body = getattr(await website.receive(), "body", None)
                bodies += [] if body is None else [body]
        assert bodies == [b"first", b"second", b"third"]


async def test_a_service_that_comes_back_without_its_mailboxes_is_an_error_in_time(
    leftovers: Callable,
) -> None:
    async with open_balancer() as balancer, AsyncExitStack() as stack:
        async with open_service() as url:
            balancer.backends = [url]
            mailbox = await stack.enter_async_context(open_mailbox(balancer.url, ID))
            balancer.cut()
        async with open_service() as url:
            balancer.backends = [url]
            with trio.fail_after(10), pytest.raises(ServiceRefused) as caught:
                await end_of(mailbox)
            assert caught.value.code in {"unauthorized", "shutdown"}


async def test_a_service_that_does_not_come_back_is_an_error_within_10_seconds(balancer: Balancer) -> None:
    async with open_mailbox(balancer.url, ID) as website:
        balancer.backends = []
        balancer.cut()
        with trio.fail_after(10), pytest.raises(ServiceUnavailable):
            await end_of(website)
