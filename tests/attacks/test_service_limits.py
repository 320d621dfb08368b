"""Every limit of a running service, attacked over sockets. Those that need time are set lower here than they are."""

from __future__ import annotations

import gc
import json
import os
from pathlib import Path

import pytest
import trio

from handclasp.service import Settings, create_app

from ..service.driver import running  # noqa: TID252 - tests are no installed package
from ..serving import (  # noqa: TID252 - tests are no installed package
    HANG,
    Raw,
    Service,
    client_frame,
    connected,
    paired,
    serving,
    talk,
)

SHOP = "https://shop.example"
FRAME_LENGTH, LONGEST = 96 * 1024, 87_380
NO_RATES = ("--address-burst", "10000000", "--address-rate", "1000000", "--address-sockets", "100000")


async def challenge(service: Service, **headers: str) -> tuple[str, str]:
    """A new mailbox and the website's token."""
    mailbox = os.urandom(16).hex()
    async with connected(service) as http:
        status, _, body = await http.request("GET", f"/challenge?mailbox={mailbox}", **headers)
        assert status == 200, body
        return mailbox, json.loads(body)["token"]


async def post(
    raw: Raw, topic: str, token: str, body: bytes, **headers: str
) -> tuple[int, dict[str, str], bytes]:
    bearer = f"Bearer {token}"
    return await raw.request(
        "POST", f"/{topic}", body, Content_Type="application/json", Authorization=bearer, **headers
    )


# Origins


@pytest.mark.parametrize(
    "origin",
    [
        *(
            "https://evil.example",
            "null",
            "",
            "http://shop.example",
            "https://shop.example:444",
            "https://SHOP.example",
        ),
        *(
            "https://shop.example.evil.example",
            "https://xshop.example",
            "https://shop.example/",
            "https://a.shop.example",
        ),
    ],
)
async def test_pages_of_other_origins_neither_connect_nor_change_anything(
    tmp_path: Path, origin: str
) -> None:
    async with serving(tmp_path, "--origins", SHOP) as service:
        _, token = await challenge(service, Origin=SHOP)
        for path in ("/ws", "/peers"):
            async with connected(service) as raw:
                assert (await raw.upgrade(path, Origin=origin))[0] == 403
        async with connected(service) as raw:
            status, _, body = await raw.request("GET", f"/challenge?mailbox={'0' * 32}", Origin=origin)
            assert (status, json.loads(body)["error"]) == (403, "origin")
        async with connected(service) as raw:
            status, _, body = await post(raw, "offer", token, b'{"body":"AA"}', Origin=origin)
            assert (status, json.loads(body)["error"]) == (403, "origin")
        for allowed in ({"Origin": SHOP}, {}):  # programs send none, and hold no cookies of a browser
            async with connected(service) as raw:
                assert (await raw.upgrade("/ws", **allowed))[0] == 101
            async with connected(service) as raw:
                assert (await post(raw, "offer", token, b'{"body":"AA"}', **allowed))[0] == 202


async def test_two_origins_are_none_that_may(tmp_path: Path) -> None:
    async with serving(tmp_path, "--origins", SHOP) as service, connected(service) as raw:
        request = f"GET /challenge?mailbox={'0' * 32} HTTP/1.1\r\nHost: x\r\nOrigin: {SHOP}\r\nOrigin: {SHOP}\r\n\r\n"
        await raw.stream.send_all(request.encode())
        assert (await raw.answer())[0] == 403


# The first message


@pytest.mark.parametrize("path", ["/ws", "/peers"])
async def test_who_does_not_say_who_it_is_in_time_is_let_go(tmp_path: Path, path: str) -> None:
    async with serving(tmp_path, "--first-frame-within", "0.5") as service:
        async with connected(service) as silent, connected(service) as dripping:
            for raw in (silent, dripping):
                assert (await raw.upgrade(path))[0] == 101
            if path == "/peers":
                for raw in (silent, dripping):
                    await raw.expect("challenge")
            frame = client_frame(json.dumps({"type": "claim", "mailbox": "ab" * 16}).encode())

            async def drip() -> None:
                """A first frame that never ends is none; pings and empty fragments in between are none, either."""
                await dripping.stream.send_all(frame[:3])
                for byte in frame[3:-1]:
                    await dripping.stream.send_all(bytes([byte]))
                    await trio.sleep(0.02)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(drip)
                for raw in (silent, dripping):
                    assert (await raw.expect("error"))["code"] == "timeout"
                    assert await raw.end() == 1008
                nursery.cancel_scope.cancel()


# Sizes


async def test_urls_have_2_kib(tmp_path: Path) -> None:
    async with serving(tmp_path) as service:
        for length, status in ((2048, 404), (2049, 414)):
            target = "/nothing?" + "x" * (length - len("/nothing") - 0 - 1)
            async with connected(service) as raw:
                assert (await raw.request("GET", target + "x" * (length - len(target) + 1)))[0] == status
            async with connected(service) as raw:
                assert (await raw.upgrade(target + "x" * (length - len(target) + 1)))[0] == status


async def test_bodies_and_frames_have_96_kib_and_messages_65535_bytes(tmp_path: Path) -> None:
    async with serving(tmp_path) as service, paired(service) as others, paired(service) as pair:
        await talk(pair, "A" * LONGEST)
        async with connected(service) as raw:
            status, _, _ = await post(raw, "offer", pair.website_token, b'{"body":"%s"}' % (b"A" * LONGEST))
            assert status == 202
        for length, expected in ((LONGEST + 1, 400), (FRAME_LENGTH, 413), (500_000, 413), (5_000_000, 413)):
            async with connected(service) as raw:
                body = b'{"body":"%s"}' % (b"A" * length)
                try:
                    status, *_ = await post(raw, "offer", pair.website_token, body)
                except (trio.BrokenResourceError, EOFError):
                    assert length > 4 * FRAME_LENGTH, "only a flood is cut off before its end"
                else:
                    assert status == expected
        for length, code in ((LONGEST + 1, 1008), (FRAME_LENGTH, 1009)):
            async with connected(service) as raw:
                await raw.upgrade()
                await raw.send(type="subscribe", token=pair.wallet_token, after=0)
                await raw.send_frame(b'{"type":"publish","topic":"answer","body":"%s"}' % (b"A" * length))
                assert await raw.end() == code
        await talk(others)


async def test_json_is_flat_however_deep_it_was_meant(tmp_path: Path) -> None:
    deep = [
        b"[" * 90_000,
        b'{"a":' * 15_000,
        b'{"type":' + b"[" * 40_000 + b"]" * 40_000 + b"}",
        b'{"type":{"type":{}}}',
    ]
    async with serving(tmp_path) as service, paired(service) as pair:
        for text in deep:
            async with connected(service) as raw:
                await raw.upgrade()
                await raw.send_frame(text)
                assert (await raw.expect("error"))["code"] == "malformed"
                assert await raw.end() == 1008
            async with connected(service) as raw:
                status, _, body = await post(raw, "offer", pair.website_token, text)
                assert (status, json.loads(body)["error"]) == (400, "malformed")
        await talk(pair)


async def test_a_mailbox_has_256_messages_for_each_side(tmp_path: Path) -> None:
    async with serving(tmp_path) as service, paired(service) as others, paired(service) as pair:
        for _ in range(256):
            await talk(pair)
        async with connected(service) as raw:
            status, _, body = await post(raw, "answer", pair.wallet_token, b'{"body":"AA"}')
            assert (status, json.loads(body)["error"]) == (429, "limit")
            assert (await post(raw, "offer", pair.website_token, b'{"body":"AA"}'))[0] == 202, (
                "the other side goes on"
            )
        await pair.wallet.send(type="publish", topic="answer", body="AA")
        await pair.wallet.expect("message")
        assert (await pair.wallet.expect("error"))["code"] == "limit"
        await talk(others)


async def test_a_mailbox_keeps_1_mib_for_each_side(tmp_path: Path) -> None:
    async with serving(tmp_path) as service, paired(service) as pair:
        for _ in range(12):
            await talk(pair, "A" * 87_000)
        await pair.wallet.send(type="publish", topic="answer", body="A" * 87_000)
        assert (await pair.wallet.expect("error"))["code"] == "limit"


# Ids


async def test_unknown_used_and_expired_ids_are_answered_byte_for_byte_alike(tmp_path: Path) -> None:
    async with serving(tmp_path, *NO_RATES, "--challenge-life", "0.3") as service:
        expired, expired_token = await challenge(service)
        async with connected(service) as website:
            await website.upgrade()
            await website.send(type="subscribe", token=expired_token, after=0)
            await website.expect("ready")
            assert (await website.expect("end"))["code"] == "expired"
        async with paired(service) as pair:
            await pair.wallet.send(type="close")
            await pair.website.expect("end")
        ids = {"unknown": "ab" * 16, "used": pair.mailbox, "expired": expired}
        tokens = ("ab" * 32, pair.wallet_token, pair.website_token, expired_token)
        claims = {str(await answer_of(service, {"type": "claim", "mailbox": each})) for each in ids.values()}
        assert len(claims) == 1, claims
        subscriptions = {
            str(await answer_of(service, {"type": "subscribe", "token": each, "after": 0})) for each in tokens
        }
        assert subscriptions == claims, "and a token says no more than a mailbox"
        answers = set()
        for token in (*tokens, "x"):
            async with connected(service) as raw:
                status, headers, body = await post(raw, "answer", token, b'{"body":"AA"}')
                headers.pop("date")
                answers.add((status, str(headers), body))
        assert len(answers) == 1
        assert answers.pop()[0] == 401


async def answer_of(service: Service, frame: dict[str, object]) -> tuple[str, str, int | None]:
    async with connected(service) as raw:
        await raw.upgrade()
        await raw.send(**frame)
        answer = await raw.get()
        return answer["type"], json.dumps(answer), await raw.end() if answer["type"] == "error" else None


# What stays behind


@pytest.mark.thorough
async def test_10000_connects_and_disconnects_leave_nothing_behind() -> None:
    """Without a network, where every object can be counted."""
    app = create_app(Settings(address_burst=100_000, grace=0.001))
    async with running(app) as client:

        async def come_and_go(count: int) -> int:
            for n in range(count):
                if n % 2:
                    token = (await client.challenge(os.urandom(16).hex()))["token"]
                    async with client.socket() as socket:
                        socket.send(type="subscribe", token=token, after=0)
                        await socket.expect("ready")
                else:
                    async with client.socket("/peers") as socket:
                        await socket.expect("challenge")
            with trio.fail_after(HANG):
                while app.population() != (0, 0, 0):  # noqa: ASYNC110 - the grace of the last one
                    await trio.sleep(0.001)
            gc.collect()
            return len(gc.get_objects())

        before = await come_and_go(1_000)
        after = await come_and_go(10_000)
    assert after - before < 2_000, "one object for each would be 10,000"


@pytest.mark.timeout(900)
async def test_10000_connections_and_their_ends_leave_the_memory_of_a_process_flat(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """The same over sockets, the server's part included; it takes minutes.

    At first memory grows: Python's collector and allocator find their level, where what one connection leaves is used
    by the next. That level is waited for; then it has to stay.
    """

    async def come_and_go(service: Service, number: int) -> None:
        for n in range(number):
            async with connected(service) as raw:
                if n % 2:
                    _, token = await challenge(service)
                    await raw.upgrade()
                    await raw.send(type="subscribe", token=token, after=0)
                    await raw.expect("ready")
                else:
                    await raw.upgrade("/peers")
                    await raw.expect("challenge")

    flags = (*NO_RATES, "--grace", "0.1", "--log-level", "warning")
    async with serving(tmp_path, *flags) as service:

        async def grown(number: int) -> int:
            before = service.resident()
            async with trio.open_nursery() as nursery:
                for _ in range(10):
                    nursery.start_soon(come_and_go, service, number // 10)
            async with paired(service) as pair:  # later than the grace of all of them
                await talk(pair)
            return service.resident() - before

        for _ in range(15):
            if await grown(1_000) < 128 * 1024 and await grown(1_000) < 128 * 1024:
                break
        growth = await grown(10_000)
        assert growth < 2 * 1024 * 1024, f"{growth / 10_000:.0f} bytes each"
