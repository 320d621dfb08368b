"""Floods against a running service, and an honest pairing beside them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import trio

from handclasp import Identity
from handclasp.discovery.signaling import open_invitation
from handclasp.errors import ServiceUnavailable

from ..serving import (  # noqa: TID252 - tests are no installed package
    HANG,
    Raw,
    Service,
    connected,
    paired,
    serving,
    talk,
)
from .pairing import pair

ATTACKER, OTHER = "127.0.0.66", "127.0.0.67"


async def bearer_post(raw: Raw, topic: str, token: str, **fields: object) -> tuple[int, dict, bytes]:
    return await raw.request(
        "POST",
        f"/{topic}",
        json.dumps(fields).encode(),
        Content_Type="application/json",
        Authorization=f"Bearer {token}",
    )


async def test_an_address_that_asks_too_often_is_told_when_to_come_back(tmp_path: Path) -> None:
    async with serving(tmp_path, "--address-burst", "5", "--address-rate", "0.1") as service:
        async with connected(service, ATTACKER) as raw:
            for _ in range(5):
                assert (await raw.request("GET", f"/challenge?mailbox={os.urandom(16).hex()}"))[0] == 200
        for target in ("/challenge?mailbox=" + "0" * 32, "/nothing", "/ice"):
            async with connected(service, ATTACKER) as raw:
                status, headers, body = await raw.request("GET", target)
                assert (status, json.loads(body)["error"]) == (429, "limit")
                assert 1 <= int(headers["retry-after"]) <= 10
        for path in ("/ws", "/peers"):
            async with connected(service, ATTACKER) as raw:
                status, headers, _ = await raw.upgrade(path)
                assert status == 429
                assert 1 <= int(headers["retry-after"]) <= 10
        async with connected(service, ATTACKER) as raw:
            for path in ("/health", "/ready"):
                assert (await raw.request("GET", path))[0] == 200, (
                    "whoever watches the service may always ask"
                )
        async with paired(service, OTHER) as others:
            await talk(others)


async def test_after_the_time_that_it_was_told_an_address_is_served_again(tmp_path: Path) -> None:
    async with serving(tmp_path, "--address-burst", "1", "--address-rate", "2") as service:
        statuses = []
        with trio.fail_after(HANG):
            while statuses.count(404) < 3:
                async with connected(service, ATTACKER) as raw:
                    status, headers, _ = await raw.request("GET", "/nothing")
                    statuses.append(status)
                    assert status == 404 or headers["retry-after"] == "1"
    assert statuses[:2] == [404, 429]


async def test_an_address_has_a_number_of_sockets_and_gets_them_back(tmp_path: Path) -> None:
    async with serving(tmp_path, "--address-sockets", "2") as service:
        async with connected(service, ATTACKER) as one, connected(service, ATTACKER) as two:
            assert (await one.upgrade("/ws"))[0] == 101
            assert (await two.upgrade("/peers"))[0] == 101
            async with connected(service, ATTACKER) as three:
                assert (await three.upgrade("/ws"))[0] == 429
            async with connected(service, OTHER) as other:
                assert (await other.upgrade("/ws"))[0] == 101
            await one.send_frame(b"nonsense")
            assert await one.end() == 1008
            async with connected(service, ATTACKER) as again:
                assert (await again.upgrade("/ws"))[0] == 101


async def test_a_mailbox_that_gets_too_many_messages_says_so_by_http_and_by_websocket(tmp_path: Path) -> None:
    async with serving(tmp_path, "--mailbox-burst", "4", "--mailbox-rate", "0.1") as service:
        async with paired(service) as others, paired(service) as pair, connected(service) as raw:
            for _ in range(2):
                await talk(pair)
            for _ in range(2):
                assert (await bearer_post(raw, "offer", pair.website_token, body="AA"))[0] == 202
            for topic, token, fields in (
                ("offer", pair.website_token, {"body": "AA"}),
                ("answer", pair.wallet_token, {"body": "AA"}),
                ("link", pair.wallet_token, {"body": "AA", "nonce": pair.nonce}),
            ):
                status, headers, body = await bearer_post(raw, topic, token, **fields)
                assert (status, json.loads(body)["error"]) == (429, "limit")
                assert 1 <= int(headers["retry-after"]) <= 10
            await pair.wallet.send(type="publish", topic="answer", body="AA")
            for _ in range(2):
                await pair.wallet.expect("message")  # the offers
            assert (await pair.wallet.expect("error"))["code"] == "limit"
            assert await pair.wallet.end() == 1008
            await talk(others)


async def test_a_peer_that_never_stops_talking_is_let_go(tmp_path: Path) -> None:
    async with serving(tmp_path, "--presence-frames-burst", "20", "--presence-frames-rate", "0.1") as service:
        async with connected(service) as raw:
            await raw.upgrade("/peers")
            nonce = (await raw.expect("challenge"))["nonce"]
            await prove(raw, service, nonce)
            for _ in range(19):
                await raw.send(type="listen")
            for _ in range(19):
                await raw.expect("accepted")
            await raw.send(type="listen")
            assert (await raw.expect("error"))["code"] == "limit"
            assert await raw.end() == 1008


async def prove(raw: Raw, service: Service, nonce: str) -> None:
    from handclasp.discovery.signaling.answers import encode

    identity = Identity.generate()
    signature = encode(identity.sign(f"handclasp/1 peers\nx\n{nonce}".encode()))
    await raw.send(type="prove", peer=str(identity.peer_id), host="x", signature=signature)
    await raw.expect("ready")


async def test_a_flood_from_one_address_leaves_an_honest_pairing_working_beside_it(tmp_path: Path) -> None:
    """Requests, handshakes, silent sockets and nonsense, as fast as the attacker can."""
    refused = 0

    async def flood(service: Service, kind: int) -> None:
        nonlocal refused
        while True:
            try:
                async with connected(service, ATTACKER) as raw:
                    if kind == 0:
                        status, *_ = await raw.request("GET", f"/challenge?mailbox={os.urandom(16).hex()}")
                    else:
                        status, *_ = await raw.upgrade("/ws" if kind == 1 else "/peers")
                        if status == 101:
                            await raw.send_frame(os.urandom(50_000))
                            await raw.end()
                    refused += status == 429
            except (OSError, trio.BrokenResourceError, EOFError):
                continue

    async with serving(tmp_path) as service, trio.open_nursery() as nursery:
        for number in range(12):
            nursery.start_soon(flood, service, number % 3)
        with trio.fail_after(60):
            while refused < 200:  # noqa: ASYNC110 - the flood has passed the burst and is going on
                await trio.sleep(0.01)
        outcome = await pair(service.url)
        assert outcome.website_error is None
        assert outcome.wallet_error is None
        assert outcome.signature
        nursery.cancel_scope.cancel()


async def test_forwarded_headers_count_only_from_a_proxy_of_ours(tmp_path: Path) -> None:
    flags = ("--address-burst", "3", "--address-rate", "0.01")
    async with serving(tmp_path, *flags) as service, connected(service) as raw:
        answers = [await raw.request("GET", "/x", X_Forwarded_For=f"192.0.2.{n}") for n in range(4)]
        assert [status for status, *_ in answers] == [404, 404, 404, 429], "anybody can write that"
    async with serving(tmp_path, *flags, "--proxies", "127.0.0.1") as service:
        async with connected(service) as raw:
            for client in ("192.0.2.1", "192.0.2.2"):
                for number in range(3):  # what a client adds in front changes nothing
                    forwarded = f"198.51.100.{number}, {client}"
                    assert (await raw.request("GET", "/x", X_Forwarded_For=forwarded))[0] == 404
            assert (await raw.request("GET", "/x", X_Forwarded_For="192.0.2.1"))[0] == 429
        async with connected(service, ATTACKER) as raw:
            answers = [await raw.request("GET", "/x", X_Forwarded_For=f"203.0.113.{n}") for n in range(4)]
            assert [status for status, *_ in answers] == [404, 404, 404, 429], "this one is no proxy of ours"


async def test_our_own_client_says_that_it_was_refused(tmp_path: Path) -> None:
    async with serving(tmp_path, "--address-burst", "1", "--address-rate", "0.01") as service:
        inviting = open_invitation(Identity.generate(), service=service.url, origin="https://shop.example")
        with pytest.raises(ServiceUnavailable, match="429"):
            async with inviting:
                pass
