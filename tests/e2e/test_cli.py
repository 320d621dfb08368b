"""The commands as a person runs them: real processes, a real service, a real DataChannel on 127.0.0.1."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from handclasp import Identity, Invitation
from handclasp.protocols.wallet import Step

from ..ports import free_port  # noqa: TID252 - no installed package

HANDCLASP = [sys.executable, "-m", "handclasp"]
TYPED_DATA = {
    "types": {
        "EIP712Domain": [{"name": "name", "type": "string"}],
        "Mail": [{"name": "contents", "type": "string"}],
    },
    "primaryType": "Mail",
    "domain": {"name": "handclasp"},
    "message": {"contents": "hello"},
}


class Command:
    """A running command and the events that it printed."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self.seen: list[dict[str, Any]] = []
        self._buffer = b""

    async def event(self, name: str, **fields: object) -> dict[str, Any]:
        """The next event called *name* (with these fields)."""
        while True:
            found = await self._next()
            assert found is not None, f"the command ended without {name!r}; it printed {self.seen}"
            if found["event"] == name and fields.items() <= found.items():
                return found

    async def rest(self) -> list[dict[str, Any]]:
        """Every event until the command ends."""
        found = []
        while (event := await self._next()) is not None:
            found.append(event)
        return found

    async def _next(self) -> dict[str, Any] | None:
        assert self.process.stdout is not None
        while b"\n" not in self._buffer:
            data = await self.process.stdout.receive_some()
            if not data:
                return None
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        self.seen.append(json.loads(line))
        return self.seen[-1]

    async def type(self, line: str) -> None:
        assert self.process.stdin is not None
        await self.process.stdin.send_all(line.encode() + b"\n")


@asynccontextmanager
async def run(*arguments: str, stderr: Any = None) -> AsyncGenerator[Command]:
    process = await trio.lowlevel.open_process(
        [*HANDCLASP, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr
    )
    try:
        yield Command(process)
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
            assert process.stdin is not None
            assert process.stdout is not None
            await process.stdin.aclose()
            await process.stdout.aclose()


@asynccontextmanager
async def serving(**options: Any) -> AsyncGenerator[tuple[Command, str]]:
    async with run("serve", "--port", "0", "--json", "--log-level", "debug", **options) as service:
        yield service, (await service.event("ready"))["service"]


@asynccontextmanager
async def paired(service: str) -> AsyncGenerator[tuple[Command, Command]]:
    """A website and a wallet that have linked and have a session."""
    async with (
        inviting(service) as (website, uri),
        run("wallet", "--yes", "--json", "--loopback", uri) as wallet,
    ):
        await website.event("session")
        yield website, wallet


@asynccontextmanager
async def inviting(service: str, *options: str) -> AsyncGenerator[tuple[Command, str]]:
    async with run("invite", "--service", service, "--json", "--loopback", *options) as website:
        yield website, (await website.event("invitation"))["uri"]


def run_to_end(*arguments: str, typed: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run([*HANDCLASP, *arguments], input=typed, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("port", [0, None], ids=["any port", "a named port"])
def test_the_demonstration_takes_every_step_and_ends(port: int | None) -> None:
    done = run_to_end("demo", "--once", "--port", str(free_port() if port is None else port))

    assert done.returncode == 0, done.stdout + done.stderr
    for number, step in enumerate(Step, 1):
        assert re.search(
            rf"^ *{number} +{step.who} +{re.escape(step.what)} +-?\d+\.\d *$", done.stdout, re.MULTILINE
        )
    assert re.search(r"linked 0x[0-9a-fA-F]{40} · DataChannel open · signed in \d+ ms", done.stdout)


def test_the_demonstration_says_when_its_port_is_taken() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = run_to_end("demo", "--once", "--port", str(taken.getsockname()[1]))

    assert done.returncode == 1
    assert str(taken) not in done.stdout
    assert "error:" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


async def test_a_person_gets_verified_signatures_for_what_is_typed(tmp_path: Path) -> None:
    (tmp_path / "mail.json").write_text(json.dumps(TYPED_DATA))
    async with serving() as (_, service), paired(service) as (website, wallet):
        address = (await wallet.event("account"))["address"]
        await website.type("personal_sign Hello, wörld")
        signed = await website.event("result", method="personal_sign")
        await website.type(f"eth_signTypedData_v4 {tmp_path / 'mail.json'}")
        typed = await website.event("result", method="eth_signTypedData_v4")
        await website.type("eth_accounts")
        accounts = await website.event("result", method="eth_accounts")
        await website.type("eth_sendEverything")
        refused = await website.event("error")
        await website.type(f"eth_signTypedData_v4 {tmp_path / 'missing.json'}")
        missing = await website.event("error")
        await website.type("quit")
        await website.rest()
        await wallet.event("left")

        assert re.fullmatch("0x[0-9a-f]{130}", signed["result"])
        assert re.fullmatch("0x[0-9a-f]{130}", typed["result"])
        assert accounts["result"] == [address]
        assert "eth_sendEverything" in refused["detail"]
        assert "missing.json" in missing["detail"]
        assert (await website.process.wait(), await wallet.process.wait()) == (0, 0)


async def test_signing_goes_on_when_the_service_has_stopped() -> None:
    async with serving() as (server, service), paired(service) as (website, _):
        server.process.send_signal(signal.SIGINT)
        assert await server.process.wait() == 0
        await website.type("personal_sign still here")
        assert (await website.event("result"))["method"] == "personal_sign"


async def test_a_wallet_that_is_killed_in_the_middle_is_reported_and_its_mailbox_forgotten(
    tmp_path: Path,
) -> None:
    with (tmp_path / "log").open("wb") as log:
        async with serving(stderr=log) as (_, service), inviting(service) as (website, uri):
            async with run("wallet", "--json", "--loopback", uri) as wallet:
                await wallet.event("question")  # the person has not answered yet
                await website.event("step", step="website-connected")
                wallet.process.kill()
                failed = await website.event("error")
            assert failed["error"] == "PeerLeft"
            assert await website.process.wait() == 1
            assert re.search(rb"ended: left, 0 now", (tmp_path / "log").read_bytes())


async def test_a_wallet_that_is_killed_after_linking_is_reported() -> None:
    async with serving() as (_, service), paired(service) as (website, wallet):
        wallet.process.kill()
        failed = await website.event("error")
        assert failed["error"] == "ConnectionLost"
        assert await website.process.wait() == 1


async def test_both_sides_report_a_person_who_declines() -> None:
    async with serving() as (_, service), inviting(service) as (website, uri):
        async with run("wallet", "--json", "--loopback", uri) as wallet:
            await wallet.event("question", question="Link?")
            await wallet.type("n")
            assert (await wallet.event("error"))["detail"] == "link refused: approval: you declined"
            assert (await website.event("error"))["error"] == "LinkRefused"
            assert (await wallet.process.wait(), await website.process.wait()) == (1, 1)


async def test_a_declined_signature_leaves_the_session_usable() -> None:
    async with serving() as (_, service), inviting(service) as (website, uri):
        async with run("wallet", "--json", "--loopback", uri) as wallet:
            for question, answer in (("Link?", "y"), ("Allow it to ask?", "yes")):
                await wallet.event("question", question=question)
                await wallet.type(answer)
            await website.event("session")
            for answer, event in (("n", "error"), ("y", "result")):
                await website.type("personal_sign please")
                await wallet.event("question", question="Sign?")
                await wallet.type(answer)
                told = await website.event(event)
                assert event == "result" or "4001" in told["detail"]


async def test_an_invitation_works_once() -> None:
    async with serving() as (_, service), inviting(service) as (website, uri):
        async with run("wallet", "--json", "--loopback", uri) as wallet:
            await wallet.event("question")
            second = await trio.to_thread.run_sync(run_to_end, "wallet", "--yes", "--json", "--loopback", uri)
            await wallet.type("y")
            await wallet.event("question", question="Allow it to ask?")
            assert (await website.event("linked"))["account"].startswith("eip155:1:0x")
    assert second.returncode == 1
    assert '"InvitationRefused"' in second.stdout
    assert "already used" in second.stdout


def invitation(**changes: Any) -> Invitation:
    values: dict[str, Any] = {
        "service": "ws://127.0.0.1:9",
        "origin": "https://shop.example",
        "peer": Identity.from_seed(bytes(32)).peer_id,
        "secret": bytes(16),
        "expires": int(time.time()) + 86_400,
    }
    return Invitation(**(values | changes))


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        (str(invitation(expires=1_700_000_000)), "expires: it expired"),
        (str(invitation()).replace("shop.example", "SHOP.example"), "origin: not in canonical form"),
        (str(invitation()).replace("&expires", "&extra=1&expires"), "unknown field 'extra'"),
        (str(invitation()).replace("handclasp:1", "handclasp:2"), "version:"),
        (str(invitation(policy="same-lan")), "policy: the website demands 'same-lan'"),
        (str(invitation()), "the signaling service at ws://127.0.0.1:9 cannot be reached"),
        ("hello", "version:"),
    ],
)
def test_a_wallet_says_what_is_wrong_with_an_invitation(uri: str, says: str) -> None:
    done = run_to_end("wallet", "--yes", "--loopback", uri)
    assert done.returncode == 1
    assert says in " ".join(done.stdout.split())
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--service", "ws://127.0.0.1:9"], "cannot be reached"),
        (["--service", "http://127.0.0.1:9"], "service: begins with neither wss:// nor ws://"),
        (["--origin", "http://shop.example"], "origin: http:// is for this machine"),
    ],
)
def test_a_website_says_what_is_wrong_with_its_options(arguments: list[str], says: str) -> None:
    done = run_to_end("invite", "--loopback", *arguments)
    assert done.returncode == 1
    assert says in " ".join(done.stdout.split())
    assert "Traceback" not in done.stderr


def test_a_wallet_without_an_invitation_says_so() -> None:
    done = run_to_end("wallet", "--yes", "--loopback")
    assert done.returncode == 1
    assert "there is no invitation" in done.stdout


async def test_an_invitation_that_nobody_takes_expires_with_a_clear_error() -> None:
    async with serving() as (_, service), inviting(service, "--lifetime", "5") as (website, _):
        failed = await website.event("error")
        assert failed["error"] == "DeadlineExceeded"
        assert "expired" in failed["detail"]


async def test_a_service_that_is_killed_in_the_middle_is_reported_by_both_sides() -> None:
    async with serving() as (server, service), inviting(service) as (website, uri):
        async with run("wallet", "--json", "--loopback", uri) as wallet:
            await wallet.event("question")
            server.process.kill()
            assert (await website.event("error"))["error"] == "ServiceUnavailable"
            await wallet.type("y")
            assert (await wallet.event("error"))["error"] == "ServiceUnavailable"


async def test_nothing_that_the_service_prints_at_debug_level_tells_a_secret(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as log:
        async with serving(stderr=log) as (server, service):
            async with inviting(service) as (website, uri):
                async with run("wallet", "--yes", "--json", "--loopback", uri) as wallet:
                    address = (await wallet.event("account"))["address"]
                    await website.event("session")
                    await website.type("personal_sign canary-text")
                    signature = (await website.event("result"))["result"]
            server.process.send_signal(signal.SIGINT)
            told = [json.dumps(event) for event in await server.rest()]
    printed = (tmp_path / "log").read_text() + "\n".join(told)
    invited = Invitation.from_text_untrusted(uri, now=0)
    secret = uri.partition("secret=")[2].partition("&")[0]
    canaries = [
        secret,
        invited.mailbox,
        str(invited.peer),
        address,
        signature,
        "canary-text",
        "m=application",
        "candidate:",
    ]
    assert "claimed" in printed  # it did log this pairing
    for canary in canaries:
        assert canary.lower() not in printed.lower()
