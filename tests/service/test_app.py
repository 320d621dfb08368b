"""The application as a server sees it, in memory: trio's clock jumps, so waiting costs nothing."""

from __future__ import annotations

import json
import logging

import anyio
import pytest
import trio
import trio.testing

from handclasp.service import Settings, create_app

from .driver import ID, OTHER_ID, Client, Closed, paired, running

LONGEST_BODY = "A" * 87_380
UNKNOWN_TOKEN = "ab" * 32
UNKNOWN_NONCE = "cd" * 16
CANARY = "c4n4ry"


# The whole sequence


async def whole_sequence() -> None:
    async with running(create_app()) as client, paired(client) as pair:
        website, wallet = pair.website, pair.wallet
        wallet.send(type="publish", topic="link", body="bm9pc2U")
        await wallet.expect("accepted")
        await website.expect("message", topic="link", n=1, body="bm9pc2U")
        assert (await client.post("offer", pair.website_token, body="b2ZmZXI")).status == 202
        await wallet.expect("message", topic="offer", n=1, body="b2ZmZXI")
        wallet.send(type="publish", topic="answer", body="YW5zd2Vy")
        await website.expect("message", topic="answer", n=2)
        linked = await client.post("link", pair.wallet_token, nonce=pair.nonce, body="c2l3ZQ")
        assert (linked.status, linked.json()) == (200, {"ok": True})
        await website.expect("message", topic="link", n=3, body="c2l3ZQ")
        website.send(type="close")
        await website.expect_end(1000, "end", "closed")
        await wallet.expect_end(1000, "end", "closed")
        assert (await client.post("offer", pair.website_token, body="AA")).status == 401


async def test_the_whole_sequence_on_trio() -> None:
    await whole_sequence()


def test_the_whole_sequence_on_asyncio() -> None:
    anyio.run(whole_sequence, backend="asyncio")


async def expiry_and_grace() -> None:
    settings = Settings(challenge_life=0.05, pairing_life=0.1, grace=0.05)
    for lifespan in (True, False):
        async with running(create_app(settings), lifespan=lifespan) as client:
            challenge = await client.challenge()
            async with client.socket() as website:
                website.send(type="subscribe", token=challenge["token"], after=0)
                await website.expect("ready")
                await website.expect_end(1000, "end", "expired")
            async with paired(client) as pair:
                await pair.website.expect_end(1000, "end", "expired")
                await pair.wallet.expect_end(1000, "end", "expired")
            async with paired(client, OTHER_ID) as pair:
                pair.wallet.hang_up()
                await pair.website.expect("left")
                await pair.website.expect_end(1000, "end", "left")


async def test_time_passes_with_and_without_lifespan_on_trio(autojump_clock: trio.testing.MockClock) -> None:
    await expiry_and_grace()


def test_time_passes_with_and_without_lifespan_on_asyncio() -> None:
    anyio.run(expiry_and_grace, backend="asyncio")


async def test_a_shutdown_on_asyncio_reaches_the_sockets_too() -> None:
    async def scenario() -> None:
        app = create_app()
        async with running(app) as client, paired(client) as pair:
            await app.shut_down()
            await pair.wallet.expect_end(1001, "end", "shutdown")

    await trio.to_thread.run_sync(lambda: anyio.run(scenario, backend="asyncio"))


# Sockets


async def test_a_second_claim_is_crowded_for_all_three() -> None:
    async with running(create_app()) as client, paired(client) as pair, client.socket() as thief:
        thief.send(type="claim", mailbox=ID)
        await thief.expect_end(1008, "error", "crowded")
        await pair.website.expect("crowded")
        await pair.wallet.expect("crowded")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("{", "malformed"),
        ('{"type": "claim", "mailbox": "' + OTHER_ID + '"}', "malformed"),
        ('{"type": "publish", "topic": "offer", "body": "AA"}', "forbidden"),
    ],
)
async def test_a_bad_frame_ends_that_socket_and_nothing_else(text: str, code: str) -> None:
    async with running(create_app()) as client, paired(client) as pair, paired(client, OTHER_ID) as others:
        pair.wallet.send_text(text)
        await pair.wallet.expect_end(1008, "error", code)
        await pair.website.expect("left")
        async with client.socket() as back:
            back.send(type="subscribe", token=pair.wallet_token, after=0)
            await back.expect("ready", token=None, nonce=None)
            await pair.website.expect("joined")
        others.wallet.send(type="publish", topic="answer", body="AA")
        await others.website.expect("message", n=1)


async def test_a_binary_frame_is_malformed() -> None:
    async with running(create_app()) as client, client.socket() as socket:
        socket.send_bytes(b'{"type": "close"}')
        await socket.expect_end(1008, "error", "malformed")


async def test_a_frame_that_the_server_let_through_is_refused_when_it_is_too_long() -> None:
    async with running(create_app()) as client, client.socket() as socket:
        socket.send_text(" " * (96 * 1024 + 1))
        await socket.expect_end(1008, "error", "limit")


async def test_a_socket_that_says_nothing_is_closed_after_5_seconds(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running(create_app()) as client, client.socket() as socket:
        start = trio.current_time()
        await socket.expect_end(1008, "error", "timeout")
        assert trio.current_time() - start == pytest.approx(5)


async def test_a_socket_that_has_said_who_it_is_may_be_silent(autojump_clock: trio.testing.MockClock) -> None:
    async with running(create_app()) as client, paired(client) as pair:
        await trio.sleep(299)
        pair.wallet.send(type="publish", topic="answer", body="AA")
        await pair.website.expect("message")


async def test_a_publish_may_follow_a_claim_at_once() -> None:
    async with running(create_app()) as client:
        challenge = await client.challenge()
        async with client.socket() as wallet, client.socket() as website:
            wallet.send(type="claim", mailbox=ID)
            wallet.send(type="publish", topic="link", body="AA")
            await wallet.expect("ready")
            website.send(type="subscribe", token=challenge["token"], after=0)
            await website.expect("ready")
            await website.expect("joined")
            await website.expect("message", n=1)


async def test_a_slow_consumer_is_closed_with_1013_while_others_go_on() -> None:
    async with running(create_app()) as client, paired(client, OTHER_ID) as others:
        challenge = await client.challenge()
        async with client.socket(reads=False) as website, client.socket() as wallet:
            website.send(type="subscribe", token=challenge["token"], after=0)
            await trio.testing.wait_all_tasks_blocked()
            wallet.send(type="claim", mailbox=ID)
            for _ in range(70):
                wallet.send(type="publish", topic="answer", body="AA")
            frames = await wallet.frames_until(lambda frame: frame["type"] == "left")
            kinds = [frame["type"] for frame in frames if frame["type"] != "accepted"]
            assert kinds == ["ready", "joined", "left"]
            others.wallet.send(type="publish", topic="answer", body="AA")
            await others.website.expect("message")

            website.read_on()
            await website.expect("ready")
            await website.expect_end(1013, "error", "slow")
            async with client.socket() as back:
                back.send(type="subscribe", token=challenge["token"], after=0)
                frames = await back.frames_until(lambda frame: frame.get("n") == 70)
                assert [frame["n"] for frame in frames if frame["type"] == "message"] == list(range(1, 71))


async def test_exactly_64_frames_may_wait() -> None:
    async with running(create_app()) as client:
        challenge = await client.challenge()
        async with client.socket(reads=False) as website, client.socket() as wallet:
            website.send(type="subscribe", token=challenge["token"], after=0)
            await trio.testing.wait_all_tasks_blocked()
            wallet.send(type="claim", mailbox=ID)
            for _ in range(63):  # and `joined`; `ready` is under way
                wallet.send(type="publish", topic="answer", body="AA")
            await trio.testing.wait_all_tasks_blocked()
            website.read_on()
            await website.expect("ready")
            await website.expect("joined")
            for n in range(1, 64):
                await website.expect("message", n=n)


async def test_a_slow_consumer_that_never_reads_is_let_go_in_time(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running(create_app()) as client:
        challenge = await client.challenge()
        async with client.socket(reads=False) as website:
            website.send(type="subscribe", token=challenge["token"], after=0)
            with trio.fail_after(126):
                await website.gone.wait()


@pytest.mark.parametrize("count", [65, 256])
async def test_a_burst_does_not_make_a_reader_look_slow(count: int) -> None:
    async with running(create_app()) as client, paired(client) as pair:
        for _ in range(count):
            pair.wallet.send(type="publish", topic="answer", body="AA")
        for n in range(1, count + 1):
            await pair.website.expect("message", n=n)


async def test_a_resume_may_bring_more_than_an_outbox_holds() -> None:
    async with running(create_app()) as client, paired(client) as pair:
        pair.website.hang_up()
        for _ in range(256):
            assert (await client.post("answer", pair.wallet_token, body="AA")).status == 202
        async with client.socket() as back:
            back.send(type="subscribe", token=pair.website_token, after=0)
            await back.expect("ready")
            await back.expect("joined")
            for n in range(1, 257):
                await back.expect("message", n=n)


async def test_what_is_published_while_a_resume_is_under_way_does_not_make_it_look_slow() -> None:
    async with running(create_app()) as client, paired(client) as pair:
        pair.website.hang_up()
        for _ in range(100):
            assert (await client.post("answer", pair.wallet_token, body="AA")).status == 202
        async with client.socket(reads=False) as back:
            back.send(type="subscribe", token=pair.website_token, after=0)
            await trio.testing.wait_all_tasks_blocked()
            assert (await client.post("answer", pair.wallet_token, body="AQ")).status == 202
            back.read_on()
            await back.expect("ready")
            await back.expect("joined")
            for n in range(1, 101):
                await back.expect("message", n=n, body="AA")
            await back.expect("message", n=101, body="AQ")


async def test_a_newer_socket_ends_the_older_one_with_replaced() -> None:
    async with running(create_app()) as client, paired(client) as pair, client.socket() as newer:
        newer.send(type="subscribe", token=pair.website_token, after=0)
        await newer.expect("ready")
        await newer.expect("joined")
        await pair.website.expect_end(1000, "end", "replaced")


async def test_the_end_of_the_server_reaches_every_socket_and_opens_nothing_after() -> None:
    app = create_app()
    async with running(app) as client, paired(client) as pair, client.socket() as silent:
        await trio.testing.wait_all_tasks_blocked()
        await app.shut_down()
        for socket in (pair.website, pair.wallet, silent):
            await socket.expect_end(1001, "end", "shutdown")
        response = await client.request("GET", f"/challenge?mailbox={OTHER_ID}")
        assert (response.status, response.json()["error"]) == (503, "full")
        async with client.socket() as late:
            await late.expect_end(1001, "end", "shutdown")


async def test_the_end_of_lifespan_reaches_every_socket() -> None:
    async def stay(client: Client, *, task_status: trio.TaskStatus[None]) -> None:
        async with paired(client) as pair:
            task_status.started()
            await pair.website.expect_end(1001, "end", "shutdown")
            await pair.wallet.expect_end(1001, "end", "shutdown")

    async with trio.open_nursery() as nursery, running(create_app()) as client:
        await nursery.start(stay, client)


async def test_a_dead_peer_does_not_hold_up_the_end_of_the_server(
    autojump_clock: trio.testing.MockClock,
) -> None:
    app = create_app()
    async with running(app) as client:
        challenge = await client.challenge()
        async with client.socket(reads=False) as website:
            website.send(type="subscribe", token=challenge["token"], after=0)
            await trio.testing.wait_all_tasks_blocked()
            start = trio.current_time()
            await app.shut_down()
            assert trio.current_time() - start == pytest.approx(5)


async def test_without_lifespan_another_socket_keeps_the_time_when_the_first_is_gone(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running(create_app(), lifespan=False) as client:
        challenge = await client.challenge()
        async with client.socket() as first:
            first.send(type="subscribe", token=(await client.challenge(OTHER_ID))["token"], after=0)
            await first.expect("ready")  # so it has begun to keep the time before the second comes
            async with client.socket() as second:
                second.send(type="subscribe", token=challenge["token"], after=0)
                await second.expect("ready")
                first.hang_up()
                await first.gone.wait()
                start = trio.current_time()
                await second.expect_end(1000, "end", "expired")
                assert trio.current_time() - start == pytest.approx(120)


async def test_a_deadline_that_comes_up_earlier_than_the_timer_is_kept(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running(create_app()) as client, paired(client) as pair:
        await trio.sleep(1)
        pair.wallet.hang_up()
        await pair.website.expect("left")
        start = trio.current_time()
        await pair.website.expect_end(1000, "end", "left")
        assert trio.current_time() - start == pytest.approx(5)


async def test_a_socket_is_refused_anywhere_but_at_its_place() -> None:
    async with running(create_app()) as client:
        for target in ("/", "/ws/", "/health", "/ws?" + "x" * 2048):
            async with client.socket(target) as socket:
                assert await socket.get() == Closed(None)
                assert not socket.accepted


# Requests


async def test_a_challenge_opens_a_mailbox_once() -> None:
    async with running(create_app()) as client:
        challenge = await client.challenge()
        assert set(challenge) == {"token", "nonce", "expires_in"}
        assert challenge["expires_in"] == 120
        again = await client.request("GET", f"/challenge?mailbox={ID}")
        assert (again.status, again.json()["error"]) == (409, "crowded")


async def test_every_answer_is_for_every_website_and_for_no_cache() -> None:
    async with running(create_app()) as client:
        for response in (
            await client.request("GET", "/health"),
            await client.request("GET", f"/challenge?mailbox={ID}"),
            await client.request("GET", "/challenge"),
            await client.request("POST", "/link", b"x"),
            await client.request("DELETE", "/nowhere"),
            await client.request("OPTIONS", "/offer"),
        ):
            assert response.headers["access-control-allow-origin"] == "*"
            assert response.headers["cache-control"] == "no-store"
            assert "set-cookie" not in response.headers
            if response.status != 204:
                assert response.headers["content-type"] == "application/json"
                assert response.headers["content-length"] == str(len(response.body))


async def test_a_preflight_allows_what_a_website_needs() -> None:
    async with running(create_app()) as client:
        response = await client.request(
            "OPTIONS", "/link", origin="https://shop.example", access_control_request_method="POST"
        )
        assert (response.status, response.body) == (204, b"")
        assert "content-length" not in response.headers
        assert response.headers["access-control-allow-methods"] == "GET, POST"
        assert response.headers["access-control-allow-headers"] == "authorization, content-type"


@pytest.mark.parametrize(
    ("method", "target", "status", "code"),
    [
        ("GET", "/", 404, "not_found"),
        ("GET", "/ws", 404, "not_found"),
        ("GET", "/health/", 404, "not_found"),
        ("OPTIONS", "/nowhere", 404, "not_found"),
        ("POST", "/challenge", 405, "method"),
        ("GET", "/link", 405, "method"),
        ("HEAD", "/health", 405, "method"),
        ("PUT", "/offer", 405, "method"),
        ("GET", "/challenge", 400, "malformed"),
        ("GET", "/challenge?mailbox=1", 400, "malformed"),
        ("GET", f"/challenge?mailbox={ID}&x={'y' * 2048}", 414, "limit"),
        ("GET", "/" + "y" * 2048, 414, "limit"),
    ],
)
async def test_a_wrong_request_is_refused(method: str, target: str, status: int, code: str) -> None:
    async with running(create_app()) as client:
        response = await client.request(method, target)
        assert (response.status, response.json()["error"]) == (status, code)
        assert response.json().keys() == {"error", "detail"}
        assert ("allow" in response.headers) == (status == 405)


async def test_a_url_of_2_kib_is_not_too_long() -> None:
    async with running(create_app()) as client:
        target = "/health?"
        response = await client.request("GET", target + "x" * (2048 - len(target) + 1))
        assert response.status == 200


async def test_used_unknown_foreign_and_missing_tokens_are_answered_byte_for_byte_alike() -> None:
    async with running(create_app()) as client:
        async with paired(client) as pair:
            pair.website.send(type="close")
            await pair.website.expect_end(1000, "end", "closed")
        answers = [
            await client.post("link", token, nonce=UNKNOWN_NONCE, body="AA")
            for token in (
                pair.wallet_token,
                pair.website_token,
                UNKNOWN_TOKEN,
                "short",
                "ab" * 31 + "é",
                None,
            )
        ]
        assert answers[0].status == 401
        assert answers[0].headers["www-authenticate"] == "Bearer"
        assert all(answer == answers[0] for answer in answers)


async def test_two_authorization_headers_are_none() -> None:
    async with running(create_app()) as client:
        challenge = await client.challenge()
        header = ("authorization", f"Bearer {challenge['token']}")
        response = await client.request_in_chunks("POST", "/offer", [b'{"body": "AA"}'], [header, header])
        assert response.status == 401


async def test_used_unknown_and_foreign_nonces_are_answered_byte_for_byte_alike() -> None:
    async with running(create_app()) as client, paired(client) as pair, paired(client, OTHER_ID) as others:
        assert (await client.post("link", pair.wallet_token, nonce=pair.nonce, body="AA")).status == 200
        answers = [
            await client.post("link", pair.wallet_token, nonce=nonce, body="AA")
            for nonce in (UNKNOWN_NONCE, pair.nonce, others.nonce)
        ]
        assert (answers[0].status, answers[0].json()["error"]) == (403, "nonce")
        assert all(answer == answers[0] for answer in answers)


async def test_a_topic_of_the_other_party_is_forbidden() -> None:
    async with running(create_app()) as client, paired(client) as pair:
        for topic, token in (("offer", pair.wallet_token), ("answer", pair.website_token)):
            response = await client.post(topic, token, body="AA")
            assert (response.status, response.json()["error"]) == (403, "forbidden")
        response = await client.post("link", pair.website_token, nonce=pair.nonce, body="AA")
        assert (response.status, response.json()["error"]) == (403, "forbidden")
        assert (await client.post("link", pair.wallet_token, nonce=pair.nonce, body="AA")).status == 200


@pytest.mark.parametrize(
    "media_type", ["text/plain", "application/x-www-form-urlencoded", "", "application/jsonp"]
)
async def test_a_body_that_is_not_json_by_its_type_is_refused(media_type: str) -> None:
    # A form or text/plain may be sent across origins without a preflight.
    async with running(create_app()) as client:
        token = (await client.challenge())["token"]
        response = await client.request(
            "POST", "/offer", b'{"body": "AA"}', content_type=media_type, authorization=f"Bearer {token}"
        )
        assert (response.status, response.json()["error"]) == (415, "media_type")


@pytest.mark.parametrize(
    "media_type", ["application/json", "application/json; charset=utf-8", "Application/JSON"]
)
async def test_json_may_be_spelled_as_http_allows(media_type: str) -> None:
    async with running(create_app()) as client:
        token = (await client.challenge())["token"]
        response = await client.request(
            "POST", "/offer", b'{"body": "AA"}', content_type=media_type, authorization=f"Bearer {token}"
        )
        assert response.status == 202


async def test_the_longest_message_passes_over_http_and_one_byte_more_does_not() -> None:
    async with running(create_app()) as client, paired(client) as pair:
        assert (await client.post("offer", pair.website_token, body=LONGEST_BODY)).status == 202
        await pair.wallet.expect("message", body=LONGEST_BODY)
        assert (await client.post("offer", pair.website_token, body=LONGEST_BODY + "AA")).status == 400


async def test_a_body_over_the_limit_is_read_to_its_end_and_refused() -> None:
    async with running(create_app()) as client:
        token = (await client.challenge())["token"]
        response = await client.request(
            "POST", "/offer", b" " * (96 * 1024 + 1), authorization=f"Bearer {token}"
        )
        assert (response.status, response.json()["error"]) == (413, "limit")
        assert "connection" not in response.headers


async def test_a_body_nobody_asked_for_is_read_so_that_the_client_can_read_its_answer() -> None:
    async with running(create_app()) as client:
        response = await client.request("POST", "/offer", b" " * 100_000)
        assert response.status == 401
        assert "connection" not in response.headers


async def test_an_announced_flood_is_refused_before_it_comes(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running(create_app()) as client:
        token = (await client.challenge())["token"]
        headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
        start = trio.current_time()
        response = await client.request_in_chunks(
            "POST", "/offer", [], {**headers, "content-length": "1000000000"}
        )
        assert (response.status, response.json()["error"]) == (413, "limit")
        assert response.headers["connection"] == "close"
        assert trio.current_time() == start


async def test_a_flood_is_cut_off_and_the_connection_closed() -> None:
    async with running(create_app()) as client:
        token = (await client.challenge())["token"]
        headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
        response = await client.request_in_chunks(
            "POST", "/offer", [b" " * 65_536] * 7 + [b""] * 100, headers
        )
        assert (response.status, response.json()["error"]) == (413, "limit")
        assert response.headers["connection"] == "close"


async def test_a_body_that_drips_in_is_cut_off(autojump_clock: trio.testing.MockClock) -> None:
    async with running(create_app()) as client:
        token = (await client.challenge())["token"]
        headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
        start = trio.current_time()
        response = await client.request_in_chunks("POST", "/offer", [b" "] * 100, headers, every=1)
        assert (response.status, response.json()["error"]) == (408, "timeout")
        assert response.headers["connection"] == "close"
        assert trio.current_time() - start == pytest.approx(10)


async def test_a_body_nobody_asked_for_cannot_drip_in_either(autojump_clock: trio.testing.MockClock) -> None:
    async with running(create_app()) as client:
        start = trio.current_time()
        response = await client.request_in_chunks("POST", "/offer", [b" "] * 100, {}, every=1)
        assert (response.status, response.headers["connection"]) == (401, "close")
        assert trio.current_time() - start == pytest.approx(10)


async def test_a_client_that_hangs_up_in_its_body_gets_no_answer() -> None:
    async with running(create_app()) as client:
        token = (await client.challenge())["token"]
        scope = client._scope(
            "http", "/offer", {"authorization": f"Bearer {token}", "content-type": "application/json"}
        )
        events = [{"type": "http.disconnect"}, {"type": "http.request", "body": b'{"bo', "more_body": True}]
        sent: list[dict] = []

        async def receive() -> dict:
            return events.pop()

        async def send(event: dict) -> None:
            sent.append(event)

        await client.app({**scope, "method": "POST"}, receive, send)
        assert not events
        assert not sent


async def test_it_can_be_mounted_below_a_path() -> None:
    client = Client(create_app(), root_path="/signaling")
    assert (await client.request("GET", "/health")).status == 200
    async with paired(client):
        pass
    assert (await Client(create_app()).request("GET", "/signaling/health")).status == 404


async def test_two_applications_know_nothing_of_each_other() -> None:
    one, two = Client(create_app()), Client(create_app())
    token = (await one.challenge())["token"]
    assert (await two.post("offer", token, body="AA")).status == 401
    await two.challenge()


# Faults of ours, and the log


async def test_an_unexpected_error_is_answered_and_logged_without_its_message(
    caplog: pytest.LogCaptureFixture,
) -> None:
    client = Client(create_app())
    token = (await client.challenge())["token"]
    events: list[dict] = []

    async def receive() -> dict:
        raise KeyError(CANARY)

    async def send(event: dict) -> None:
        events.append(event)

    headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
    scope = client._scope("http", "/offer", headers)
    await client.app({**scope, "method": "POST"}, receive, send)
    assert events[0]["status"] == 500
    assert json.loads(events[1]["body"])["error"] == "internal"
    assert "KeyError" in caplog.text
    assert "test_app.py" in caplog.text
    assert CANARY not in caplog.text + events[1]["body"].decode()


async def test_an_unexpected_error_on_a_socket_is_logged_without_its_message_and_the_party_counts_as_gone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = create_app()
    async with running(app) as client, paired(client) as pair:
        events: list[dict] = [
            {
                "type": "websocket.receive",
                "text": json.dumps({"type": "subscribe", "token": pair.wallet_token, "after": 0}),
            },
            {"type": "websocket.connect"},
        ]

        async def receive() -> dict:
            if not events:
                raise KeyError(CANARY)
            return events.pop()

        async def send(event: dict) -> None:
            pass

        await app(client._scope("websocket", "/ws", {}), receive, send)
        await pair.website.expect("left")
    assert "KeyError" in caplog.text
    assert CANARY not in caplog.text


async def test_the_log_tells_what_happened_and_nothing_secret(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        async with running(create_app()) as client, paired(client) as pair, client.socket() as thief:
            thief.send(type="claim", mailbox=ID)
            await thief.expect_end(1008, "error", "crowded")
            await client.post("link", pair.wallet_token, nonce=pair.nonce, body="Ym9keQ")
            await client.post("offer", UNKNOWN_TOKEN, body="Ym9keQ")
            pair.wallet.send_text("{malformed" + ID)
            await pair.website.expect("crowded")
            await pair.website.expect("message")
            await pair.website.expect("left")
            pair.website.send(type="close")
            await pair.website.expect_end(1000, "end", "closed")
    for event in ("opened", "claimed", "crowded", "ended: closed"):
        assert event in caplog.text
    for secret in (ID, pair.website_token, pair.wallet_token, pair.nonce, "Ym9keQ", "malformed"):
        assert secret not in caplog.text
