"""Two parties in one mailbox: through a real service, and through one that does as it likes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import h11
import pytest
import trio
import trio.testing
import wsproto.events as ws

from handclasp.discovery.signaling import Invitation, MailboxSession, Moment, join, open_invitation
from handclasp.errors import (
    HandclaspError,
    HandshakeFailed,
    InvitationRefused,
    MisuseError,
    PeerLeft,
    ServiceRefused,
    ServiceUnavailable,
)
from handclasp.identity import Identity
from handclasp.testing import open_service

from .impostor import WALLET, WEBSITE, Message, Service, Socket, open_hostile_service

ORIGIN = "https://shop.example"


@pytest.fixture
async def service() -> AsyncGenerator[str]:
    async with open_service() as url:
        yield url


@pytest.fixture
async def recorder() -> AsyncGenerator[Service]:
    async with open_hostile_service(Service()) as opened:
        yield opened


@asynccontextmanager
async def invited(url: str, moments: list[Moment] | None = None) -> AsyncGenerator[MailboxSession]:
    watcher = (moments if moments is not None else []).append
    async with open_invitation(Identity.generate(), service=url, origin=ORIGIN, watcher=watcher) as session:
        yield session


@asynccontextmanager
async def joined(
    invitation: Invitation, moments: list[Moment] | None = None
) -> AsyncGenerator[MailboxSession]:
    watcher = (moments if moments is not None else []).append
    async with join(Identity.generate(), invitation, watcher=watcher) as session:
        yield session


@asynccontextmanager
async def paired(url: str) -> AsyncGenerator[tuple[MailboxSession, MailboxSession]]:
    """A website and a wallet whose handshake is over."""
    async with invited(url) as website, joined(website.invitation) as wallet:
        await website.signaling.send(b"offer")
        await wallet.signaling.receive()
        await wallet.signaling.send(b"answer")
        await website.signaling.receive()
        yield website, wallet


# --- through a real service ---


async def test_the_first_message_of_each_side_rides_in_the_handshake(service: str) -> None:
    async with invited(service) as website, trio.open_nursery() as nursery:
        nursery.start_soon(website.signaling.send, b"offer")
        async with joined(website.invitation) as wallet:
            assert await wallet.signaling.receive() == b"offer"
            assert wallet.peer == website.identity.peer_id
            await wallet.signaling.send(b"answer")
            assert await website.signaling.receive() == b"answer"
            assert website.peer == wallet.identity.peer_id
            assert await website.handshake_hash() == await wallet.handshake_hash()
            assert website.binding == wallet.binding
            assert len(website.binding or b"") == 32


async def test_messages_keep_their_order_and_their_kind(service: str) -> None:
    async with paired(service) as (website, wallet):
        for number in range(20):
            await website.signaling.send(b"candidate %d" % number)
            await website.send_link(b"verdict %d" % number)
            await wallet.signaling.send(b"back %d" % number)
        for number in range(20):
            assert await wallet.receive_link() == b"verdict %d" % number
        for number in range(20):
            assert await wallet.signaling.receive() == b"candidate %d" % number
            assert await website.signaling.receive() == b"back %d" % number


async def test_the_link_takes_the_nonce_with_it(service: str) -> None:
    async with paired(service) as (website, wallet):
        assert await website.nonce() == await wallet.nonce()
        await wallet.post_link(b"signed")
        assert await website.receive_link() == b"signed"
        with pytest.raises(ServiceRefused) as caught:
            await wallet.post_link(b"signed again")
        assert caught.value.code == "nonce"


async def test_a_second_claim_is_refused_and_both_parties_hear_of_it(service: str) -> None:
    seen_by_website: list[Moment] = []
    seen_by_wallet: list[Moment] = []
    async with invited(service, seen_by_website) as website:
        async with joined(website.invitation, seen_by_wallet) as wallet:
            await website.signaling.send(b"offer")
            await wallet.signaling.receive()
            async with joined(website.invitation) as thief:
                with pytest.raises(InvitationRefused, match="already used"):
                    await thief.signaling.receive()
                with pytest.raises(InvitationRefused):
                    await thief.handshake_hash()
            await wallet.signaling.send(b"answer")
            await website.signaling.receive()
            await website.send_link(b"all is well")  # so that what came before it has arrived, too
            await wallet.receive_link()
    assert Moment.CROWDED in seen_by_website
    assert Moment.CROWDED in seen_by_wallet


async def test_a_mailbox_that_the_service_does_not_know_is_refused(service: str) -> None:
    async with invited(service) as website:
        invitation = website.invitation
    async with joined(invitation) as wallet:
        with pytest.raises(InvitationRefused, match="does not know"):
            await wallet.signaling.receive()


async def test_whoever_leaves_ends_it_for_the_other(service: str) -> None:
    async with invited(service) as website:
        async with joined(website.invitation) as wallet:
            await website.signaling.send(b"offer")
            await wallet.signaling.receive()
        with pytest.raises(PeerLeft):
            await website.signaling.receive()
        with pytest.raises(PeerLeft):
            await website.receive_link()
        with pytest.raises(PeerLeft):
            await website.signaling.send(b"x")


async def test_a_website_that_leaves_ends_it_for_the_wallet(service: str) -> None:
    invitations: list[Invitation] = []
    here, may_leave = trio.Event(), trio.Event()

    async def website() -> None:
        async with invited(service) as session:
            invitations.append(session.invitation)
            here.set()
            await session.signaling.send(b"offer")
            await may_leave.wait()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(website)
        await here.wait()
        async with joined(invitations[0]) as wallet:
            await wallet.signaling.receive()
            may_leave.set()
            with pytest.raises(PeerLeft):
                await wallet.signaling.receive()


async def test_a_service_that_stops_says_so() -> None:
    urls: list[str] = []
    up, may_stop = trio.Event(), trio.Event()

    async def serve() -> None:
        async with open_service() as url:
            urls.append(url)
            up.set()
            await may_stop.wait()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        await up.wait()
        async with paired(urls[0]) as (website, wallet):
            may_stop.set()
            for session in (website, wallet):
                with pytest.raises(ServiceRefused) as caught:
                    await session.signaling.receive()
                assert caught.value.code == "shutdown"


async def test_a_service_that_is_killed_is_unavailable_from_then_on(leftovers: Callable) -> None:
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "handclasp", "serve", "--port", "0", "--json", "--log-level", "error"],
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    async with process.stdout:
        url = json.loads(await process.stdout.receive_some())["service"]
        async with leftovers().none():
            async with paired(url) as (website, wallet):
                process.send_signal(signal.SIGKILL)
                await process.wait()
                for session in (website, wallet):
                    with pytest.raises(ServiceUnavailable):
                        await session.signaling.receive()
                    with pytest.raises(ServiceUnavailable):
                        await session.send_link(b"x")
            with pytest.raises(ServiceUnavailable):
                async with invited(url):
                    pass
            with pytest.raises(ServiceUnavailable):
                async with joined(website.invitation):
                    pass


async def test_nothing_is_left_behind(service: str, leftovers: Callable) -> None:
    async with paired(service):
        pass  # loads what is loaded once
    async with leftovers().none():
        for _ in range(3):
            async with paired(service):
                pass
        with pytest.raises(ValueError, match="mine"):
            async with paired(service):
                raise ValueError("mine")


# --- what goes over the wire ---


async def test_a_pairing_takes_three_messages_to_exchange_offer_and_answer(recorder: Service) -> None:
    async with paired(recorder.url):
        (mailbox,) = recorder.mailboxes.values()
        assert [message.topic for message in mailbox.passed] == ["link", "offer", "answer"]


async def test_the_handshake_goes_on_when_nobody_has_anything_to_say(
    recorder: Service,
    autojump_clock: trio.testing.MockClock,
) -> None:
    autojump_clock.autojump_threshold = 0.05  # sockets are in between
    async with invited(recorder.url) as website, joined(website.invitation) as wallet:
        assert await website.handshake_hash() == await wallet.handshake_hash()


async def test_the_peer_is_not_known_before_it_proved_itself(recorder: Service) -> None:
    async with invited(recorder.url) as website:
        with pytest.raises(MisuseError):
            _ = website.peer
        assert website.binding is None


async def test_a_message_that_is_too_long_is_the_senders_mistake(recorder: Service) -> None:
    async with paired(recorder.url) as (website, wallet):
        longest = bytes(website.signaling.MAX_MESSAGE)
        await website.signaling.send(longest)
        assert await wallet.signaling.receive() == longest
        with pytest.raises(MisuseError):
            await website.signaling.send(longest + b"x")
        await website.signaling.send(b"still usable")
        assert await wallet.signaling.receive() == b"still usable"


# --- a service that does as it likes ---


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("expired", ServiceRefused),
        ("left", PeerLeft),
        ("closed", PeerLeft),
        ("shutdown", ServiceRefused),
        ("replaced", ServiceRefused),
        ("something new", ServiceRefused),
    ],
)
async def test_the_end_of_a_mailbox_is_told_to_everyone_who_waits(
    recorder: Service, code: str, error: type[HandclaspError]
) -> None:
    async def wait(receive: Callable) -> None:
        with pytest.raises(error):
            await receive()

    async with paired(recorder.url) as (website, wallet):
        (mailbox,) = recorder.mailboxes.values()
        async with trio.open_nursery() as nursery:
            for session in (website, wallet):
                nursery.start_soon(wait, session.signaling.receive)
                nursery.start_soon(wait, session.receive_link)
            await trio.testing.wait_all_tasks_blocked()
            await recorder.end(mailbox, code)
        with pytest.raises(error):
            await website.signaling.send(b"too late")


NONSENSE = {
    "no JSON": "hello",
    "half of it": '{"type": "message"',
    "no object": "[]",
    "a number": "1",
    "no type": "{}",
    "an unknown type": '{"type": "surprise"}',
    "a type that is an object": '{"type": {"type": "message"}}',
    "a message without a body": '{"type": "message", "topic": "offer", "n": 1}',
    "a body that is none": '{"type": "message", "topic": "offer", "n": 1, "body": 7}',
    "a body in another alphabet": '{"type": "message", "topic": "offer", "n": 1, "body": "+/+/"}',
    "a body with spaces": '{"type": "message", "topic": "offer", "n": 1, "body": "AA AA"}',
    "a body of half a byte": '{"type": "message", "topic": "offer", "n": 1, "body": "A"}',
    "a nonce that is none": '{"type": "ready", "role": "wallet", "expires_in": 1, "nonce": []}',
    "a tower of brackets": "[" * 50_000,
    "a digit too many": '{"type": "message", "n": ' + "1" * 5_000 + "}",
    "a lone surrogate": '{"type": "\\ud800"}',
    "too long": '{"type": "' + "x" * 100_000 + '"}',
    "nothing": "",
}


@pytest.mark.parametrize("text", NONSENSE.values(), ids=NONSENSE)
async def test_nonsense_from_the_service_ends_the_session_and_nothing_else(
    recorder: Service, leftovers: Callable, text: str
) -> None:
    async with leftovers().none():
        async with paired(recorder.url) as (website, wallet):
            (mailbox,) = recorder.mailboxes.values()
            sockets = [(website, mailbox.sockets[WEBSITE]), (wallet, mailbox.sockets[WALLET])]
            for session, socket in sockets:
                await socket.send_event(ws.TextMessage(text))
                with pytest.raises(HandclaspError):
                    await session.signaling.receive()


async def test_a_binary_frame_is_read_like_any_other(recorder: Service) -> None:
    async with paired(recorder.url) as (website, _):
        (mailbox,) = recorder.mailboxes.values()
        await mailbox.sockets[WEBSITE].send_event(ws.BytesMessage(b"\xff\xfe"))
        with pytest.raises(ServiceRefused):
            await website.signaling.receive()


async def test_a_service_that_floods_is_cut_off(recorder: Service) -> None:
    async with paired(recorder.url) as (website, _):
        (mailbox,) = recorder.mailboxes.values()
        for _ in range(2_000):
            await mailbox.sockets[WEBSITE].send(type="crowded")
        await mailbox.sockets[WEBSITE].send(type="message", topic="answer", n=9, body="AAAA")
        with pytest.raises(HandclaspError):
            await website.signaling.receive()


class Answering(Service):
    """Answers every request over HTTP in the same way."""

    def __init__(self, status: int, body: str) -> None:
        super().__init__()
        self.status = status
        self.body = body

    async def http(self, request: h11.Request, body: bytes) -> tuple[int, str]:
        del request, body
        return self.status, self.body


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (503, '{"error": "full", "detail": "later"}', "full"),
        (409, '{"error": "crowded", "detail": "there is one"}', "crowded"),
        (500, "oops", "malformed"),
        (200, "oops", "malformed"),
        (200, "[]", "malformed"),
        (200, "{}", "malformed"),
        (200, '{"token": 1, "nonce": "x"}', "malformed"),
        (302, "{}", "malformed"),
        (400, '{"error": {"a": 1}}', "{'a': 1}"),
        (200, "[" * 100_000, "malformed"),
    ],
)
async def test_a_challenge_that_cannot_be_used_is_refused(status: int, body: str, code: str) -> None:
    async with open_hostile_service(Answering(status, body)) as service:
        with pytest.raises(ServiceRefused) as caught:
            async with invited(service.url):
                pass
        assert caught.value.code == code


async def test_an_answer_without_end_is_not_read_to_its_end() -> None:
    async with open_hostile_service(Answering(200, "x" * 50_000_000)) as service:
        with pytest.raises((ServiceRefused, ServiceUnavailable)):
            async with invited(service.url):
                pass
        assert service.sent < 10_000_000


class Losing(Service):
    """Acknowledges messages of a topic and forgets them."""

    def __init__(self, *topics: str) -> None:
        super().__init__()
        self.topics = topics

    async def pass_on(self, message: Message) -> None:
        if message.topic not in self.topics:
            await self.deliver(message)


class Silent(Service):
    """Acknowledges nothing."""

    async def accept(self, socket: Socket) -> None:
        """Say nothing."""


async def test_a_service_that_acknowledges_nothing_is_unavailable(
    autojump_clock: trio.testing.MockClock,
) -> None:
    autojump_clock.autojump_threshold = 0.05
    async with open_hostile_service(Silent()) as service, invited(service.url) as website:
        async with joined(website.invitation) as wallet:
            with pytest.raises(ServiceUnavailable, match="acknowledge"):
                await wallet.signaling.receive()


class Hasty(Service):
    """Ends the mailbox in the same breath in which it acknowledges a message, once it is in a hurry."""

    in_a_hurry = False

    async def accept(self, socket: Socket) -> None:
        if not self.in_a_hurry:
            await super().accept(socket)
            return
        frames = ({"type": "accepted"}, {"type": "end", "code": "closed", "detail": "they are done"})
        text = [socket._protocol.send(ws.TextMessage(json.dumps(frame))) for frame in frames]
        await socket._stream.send_all(b"".join(text))


async def test_what_was_accepted_was_sent_though_the_peer_has_closed_by_now() -> None:
    for _ in range(8):  # who is told first, the reader or the writer, is up to trio's dice
        async with open_hostile_service(hasty := Hasty()) as service, paired(service.url) as (_, wallet):
            hasty.in_a_hurry = True
            await wallet._mailbox.publish("link", b"the last word")
            with pytest.raises((PeerLeft, ServiceRefused)):
                await wallet.receive_link()


async def test_a_message_that_is_left_out_ends_the_session_with_the_next(recorder: Service) -> None:
    async with paired(recorder.url) as (website, wallet):
        recorder.pass_on = Losing("answer").pass_on  # type: ignore[method-assign]
        await wallet.signaling.send(b"lost")
        recorder.pass_on = recorder.deliver  # type: ignore[method-assign]
        await wallet.signaling.send(b"next")
        with pytest.raises(HandshakeFailed):
            await website.signaling.receive()
