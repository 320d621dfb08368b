"""What the service tells its operator, and what it must not: metrics, readiness, logs, the end."""

from __future__ import annotations

import json
import re
import signal
import socket
from pathlib import Path

import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families

from handclasp.service.metrics import FAMILIES

from ..ports import free_port  # noqa: TID252 - no installed package
from ..serving import (  # noqa: TID252 - tests are no installed package
    HANG,
    Pair,
    Raw,
    Service,
    connected,
    paired,
    serving,
    talk,
)

SECRET = "9f0c41d27be35a6880d1e2f3a4b5c6d7"


async def page(port: int, path: str) -> tuple[int, str]:
    sock = trio.socket.socket()
    with sock:
        await sock.connect(("127.0.0.1", port))
        status, _, body = await Raw(trio.SocketStream(sock)).request("GET", path)
        return status, body.decode()


async def numbers(port: int) -> dict[str, float]:
    status, text = await page(port, "/metrics")
    assert status == 200
    samples: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(sample.labels[name] for name in sorted(sample.labels))
            samples[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return samples


async def test_metrics_count_what_happens_at_an_address_of_their_own(tmp_path: Path) -> None:
    port = free_port()
    async with serving(
        tmp_path, "--metrics", f"127.0.0.1:{port}", "--address-burst", "20", "--address-rate", "0.001"
    ) as service:
        async with connected(service) as raw:
            assert (await raw.request("GET", "/metrics"))[0] == 404, "not where everybody can read them"
        async with paired(service) as pair:
            await talk(pair)
            seen = await numbers(port)
            assert seen["handclasp_sockets{mailbox}"] == 2
            assert seen["handclasp_sockets_opened_total{mailbox}"] == 2
            assert seen["handclasp_frames_total{in,mailbox}"] == 3
            assert seen["handclasp_frames_total{out,mailbox}"] == 6
            assert (seen["handclasp_mailboxes"], seen["handclasp_stored_characters"]) == (1, 2)
            assert seen["handclasp_answers_total{200}"] == 1
            await pair.wallet.send(type="close")
            await pair.website.expect("end")
            for _ in range(20):
                async with connected(service) as raw:
                    await raw.request("GET", "/nothing")
        seen = await numbers(port)
        assert seen["handclasp_refused_total{address}"] >= 1
        assert seen["handclasp_answers_total{429}"] == seen["handclasp_refused_total{address}"]
        assert seen["handclasp_faults_total"] == 0
        with trio.fail_after(HANG):
            while (await numbers(port))["handclasp_sockets{mailbox}"]:
                pass
        assert await page(port, "/nothing") == (404, '{"ok": false}')


async def test_no_metric_names_anybody(tmp_path: Path) -> None:
    port = free_port()
    async with serving(tmp_path, "--metrics", f"127.0.0.1:{port}") as service, paired(service) as pair:
        await talk(pair, "Y2FuYXJ5")
        _, text = await page(port, "/metrics")
    for secret in (pair.mailbox, pair.website_token, pair.wallet_token, pair.nonce, "Y2FuYXJ5", "127.0.0.1"):
        assert secret not in text
    labels = set(re.findall(r'(\w+)="', text))
    assert labels <= {"protocol", "direction", "status", "why"} == {n for f in FAMILIES for n in f.labels}


async def test_metrics_that_cannot_be_served_are_an_error_at_once(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(AssertionError, match=f"metrics: cannot listen on 127.0.0.1 port {port}"):
            async with serving(tmp_path, "--metrics", f"127.0.0.1:{port}"):
                pass


# The end


async def test_a_service_that_drains_says_so_and_serves_on_until_it_stops(tmp_path: Path) -> None:
    port = free_port()
    async with serving(tmp_path, "--metrics", f"127.0.0.1:{port}", "--drain", "1.5") as service:
        async with connected(service) as raw, paired(service) as pair:
            assert (await raw.request("GET", "/ready"))[0] == 200
            assert (await page(port, "/ready"))[0] == 200
            service.process.send_signal(signal.SIGTERM)
            with trio.fail_after(HANG):
                while (await raw.request("GET", "/ready"))[0] == 200:
                    pass
            assert (await page(port, "/ready"))[0] == 503
            assert (await raw.request("GET", "/health"))[0] == 200
            async with paired(service) as late:
                await talk(late)
                await talk(pair)
                for raw_socket in (pair.website, pair.wallet, late.website, late.wallet):
                    frame = await raw_socket.expect("end")
                    assert frame["code"] == "shutdown"
                    assert await raw_socket.end() == 1001
        assert await service.wait() == -signal.SIGTERM


async def test_what_is_under_way_arrives_before_the_end(tmp_path: Path) -> None:
    async with serving(tmp_path) as service, paired(service) as pair:
        for _ in range(50):
            await pair.wallet.send(type="publish", topic="answer", body="A" * 1_000)
        await pair.wallet.expect("accepted")  # it has begun to read them
        service.process.send_signal(signal.SIGTERM)
        accepted = 1
        while (frame := await pair.wallet.get())["type"] == "accepted":
            accepted += 1
        assert frame["type"] == "end"
        for n in range(1, accepted + 1):
            assert (await pair.website.expect("message"))["n"] == n, "what was accepted is delivered"
        while (frame := await pair.website.get())["type"] == "message":
            pass  # taken, but the writer of `accepted` was told to stop first
        assert (frame["type"], frame["code"]) == ("end", "shutdown")


async def test_a_request_under_way_is_answered_before_the_end(tmp_path: Path) -> None:
    async with serving(tmp_path) as service, paired(service) as pair, connected(service) as raw:
        head = (
            f"POST /offer HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 13\r\n"
            f"Authorization: Bearer {pair.website_token}\r\nExpect: 100-continue\r\n\r\n"
        )
        await raw.stream.send_all(head.encode())
        assert (await raw.answer())[0] == 100  # it reads the body now
        service.process.send_signal(signal.SIGTERM)
        await pair.website.expect("end")
        await raw.stream.send_all(b'{"body":"AA"}')
        status, _, body = await raw.answer()
        assert (status, json.loads(body)["error"]) == (401, "unauthorized"), (
            "its mailbox has ended, and it says so"
        )


async def test_who_connects_after_the_end_has_begun_is_better_off_elsewhere(tmp_path: Path) -> None:
    async with serving(tmp_path, "--close-within", "20") as service:
        async with connected(service) as slow:  # reads nothing, so the service waits for it
            assert (await slow.upgrade())[0] == 101
            service.process.send_signal(signal.SIGTERM)
            with trio.fail_after(HANG), pytest.raises(OSError):  # noqa: PT011, PT012 - refused, or reset
                while True:
                    async with connected(service) as late:
                        await late.request("GET", "/health")


# Logs (claim C21)


async def whole_of(service: Service) -> Pair:
    """A whole pairing, and as many mistakes as a client can make, each with a secret in it."""
    async with paired(service) as pair, connected(service) as raw:
        await talk(pair, "Y2FuYXJ5")
        bearer = {"Authorization": f"Bearer {pair.wallet_token}", "Content_Type": "application/json"}
        link = json.dumps({"nonce": pair.nonce, "body": "bGluaw"}).encode()
        assert (await raw.request("POST", "/link", link, **bearer))[0] == 200
        assert (await raw.request("POST", "/link", link, **bearer))[0] == 403
        assert (await raw.request("POST", "/offer", b'{"body":"b2ZmZXI"}', **bearer))[0] == 403
        assert (await raw.request("POST", "/answer", b'{"body":"b2ZmZXI', **bearer))[0] == 400
        status, _, ice = await raw.request("GET", "/ice", Authorization=f"Bearer {pair.wallet_token}")
        assert (status, len(json.loads(ice)["ice_servers"])) == (200, 1)
        await raw.request("GET", "/nowhere?" + pair.wallet_token, X_Forwarded_For="203.0.113.77")
        for text in (
            pair.wallet_token,
            json.dumps({"type": pair.nonce}),
            '{"type":"claim","mailbox":"' + pair.mailbox,
        ):
            async with connected(service) as bad:
                await bad.upgrade("/ws?" + pair.wallet_token, Cookie="session=" + pair.nonce)
                await bad.send_frame(text.encode())
                assert (await bad.expect("error"))["code"] == "malformed"
        async with connected(service) as bad:
            await bad.stream.send_all(f"GET / HTTP/1.1\r\n{pair.wallet_token}\r\n\r\n".encode())
            assert (await bad.answer())[0] == 400
        await pair.wallet.send_frame(pair.nonce.encode() + b"\xff", opcode=1)  # not UTF-8
        await pair.wallet.end()
        credential = json.loads(ice)["ice_servers"][0]["credential"]
        return Pair(pair.mailbox, pair.website, pair.wallet, pair.website_token, credential, pair.nonce)


@pytest.mark.parametrize("style", ["text", "json"])
async def test_at_debug_no_line_of_the_log_holds_a_secret(tmp_path: Path, style: str) -> None:
    (tmp_path / "secret").write_text(SECRET)
    flags = ("--log-level", "debug", "--log-format", style, "--proxies", "127.0.0.1")
    flags += ("--ice-turn", "turn:127.0.0.1:1", "--ice-secret-file", str(tmp_path / "secret"))
    async with serving(tmp_path, *flags) as service:
        pair = await whole_of(service)
    log = service.log.read_text()
    assert "claimed" in log
    for secret in (
        *(pair.mailbox, pair.website_token, pair.wallet_token, pair.nonce),
        *("Y2FuYXJ5", "bGluaw", "b2ZmZXI", SECRET, "203.0.113.77", "session=", "nowhere"),
    ):
        assert secret not in log
    if style == "json":
        lines = [json.loads(line) for line in log.splitlines()]
        assert lines
        for line in lines:
            assert (
                {"at", "level", "logger", "message"}
                <= line.keys()
                <= {"at", "level", "logger", "message", "error"}
            )
