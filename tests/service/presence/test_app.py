"""The presence protocol through the ASGI application, on both event loops."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio
import pytest
import trio.testing

from handclasp.identity import Identity
from handclasp.service import Settings, create_app
from handclasp.service.settings import PresenceSettings

from ..driver import Client, Closed, Socket, running  # noqa: TID252 - no test folder has a name to import it by

HOST = "signal.example"
ALICE, BOB = (Identity.from_seed(bytes([n]) * 32) for n in range(2))
TOPIC = "aa" * 32


def settings(**limits: float) -> Settings:
    return Settings(presence=PresenceSettings(hosts=(HOST,), **limits))


@asynccontextmanager
async def present(client: Client, who: Identity) -> AsyncGenerator[Socket]:
    async with client.socket("/peers") as socket:
        challenge = await socket.expect("challenge")
        text = f"handclasp/1 peers\n{HOST}\n{challenge['nonce']}".encode()
        socket.send(type="prove", peer=str(who.peer_id), host=HOST, signature=_base64url(who.sign(text)))
        await socket.expect("ready")
        yield socket


def _base64url(data: bytes) -> str:
    import base64

    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


async def whole_sequence() -> None:
    async with running(create_app(settings())) as client, present(client, ALICE) as alice:
        async with present(client, BOB) as bob:
            alice.send(type="advertise", topic=TOPIC, record="AA")
            await alice.expect("accepted", what="advertise", topic=TOPIC)
            alice.send(type="listen")
            await alice.expect("accepted", what="listen")
            bob.send(type="find", topic=TOPIC)
            await bob.expect("found", topic=TOPIC, peer=str(ALICE.peer_id), record="AA")
            await bob.expect("listed", topic=TOPIC)
            bob.send(type="open", channel=1, peer=str(ALICE.peer_id))
            bob.send(type="send", channel=1, body="BAQE")
            await bob.expect("opened", channel=1)
            await alice.expect("incoming", channel=2)
            await alice.expect("message", channel=2, body="BAQE")
            alice.send(type="send", channel=2, body="CAgI")
            await bob.expect("message", channel=1, body="CAgI")
        await alice.expect("closed", channel=2, code="left")


async def test_two_peers_meet_on_trio() -> None:
    await whole_sequence()


def test_two_peers_meet_on_asyncio() -> None:
    anyio.run(whole_sequence)


async def test_a_socket_that_proves_nothing_is_closed_after_5_seconds(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running(create_app(settings())) as client, client.socket("/peers") as socket:
        await socket.expect("challenge")
        await socket.expect_end(1008, "error", "timeout")
        assert autojump_clock.current_time() == 5


@pytest.mark.parametrize("lifespan", [True, False])
async def test_a_channel_ends_in_time_with_and_without_lifespan(
    autojump_clock: trio.testing.MockClock, *, lifespan: bool
) -> None:
    async with (
        running(create_app(settings()), lifespan=lifespan) as client,
        present(client, ALICE) as alice,
        present(client, BOB) as bob,
    ):
        alice.send(type="listen")
        await alice.expect("accepted", what="listen")
        bob.send(type="open", channel=1, peer=str(ALICE.peer_id))
        await bob.expect("opened", channel=1)
        await bob.expect("closed", channel=1, code="expired")
        assert autojump_clock.current_time() == 60


@pytest.mark.parametrize("text", ["x", "{}", '{"type": "listen"}', '{"type": "claim", "mailbox": "00"}'])
async def test_a_bad_first_frame_ends_that_socket_and_nothing_else(text: str) -> None:
    async with running(create_app(settings())) as client, present(client, ALICE) as alice:
        async with client.socket("/peers") as socket:
            await socket.expect("challenge")
            socket.send_text(text)
            await socket.expect_end(1008, "error", "malformed")
        async with client.socket("/peers") as socket:
            await socket.expect("challenge")
            socket.send_bytes(b"x")
            await socket.expect_end(1008, "error", "malformed")
        alice.send(type="find", topic=TOPIC)
        await alice.expect("listed")


async def test_a_client_that_asks_and_never_reads_is_let_go_in_time(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running(create_app(settings(answers=8))) as client:
        async with present(client, ALICE) as alice:
            alice.stop_reading()
            for number in range(1, 41, 2):
                alice.send(type="open", channel=number, peer=str(BOB.peer_id))
            await alice.gone.wait()
            assert autojump_clock.current_time() == Settings().close_within


async def test_a_shutdown_reaches_peers_and_mailboxes() -> None:
    app = create_app(settings())
    async with running(app) as client, present(client, ALICE) as alice, client.socket() as wallet:
        await app.shut_down()
        await alice.expect_end(1001, "end", "shutdown")
        await wallet.expect_end(1001, "end", "shutdown")
        async with client.socket("/peers") as late:
            await late.expect_end(1001, "end", "shutdown")


async def test_a_peer_that_comes_again_replaces_itself() -> None:
    async with running(create_app(settings())) as client, present(client, ALICE) as alice:
        async with present(client, ALICE):
            await alice.expect_end(1000, "end", "replaced")


async def test_there_is_nothing_below_the_path_and_nothing_for_http() -> None:
    async with running(create_app(settings())) as client:
        async with client.socket("/peers/") as socket:
            assert await socket.get() == Closed(None) or not socket.accepted
        assert (await client.request("GET", "/peers")).status == 404


async def test_the_log_names_no_peer_and_no_topic(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    await whole_sequence()
    assert "a peer came" in caplog.text
    for secret in (str(ALICE.peer_id), str(BOB.peer_id), TOPIC, "BAQE", HOST):
        assert secret not in caplog.text
