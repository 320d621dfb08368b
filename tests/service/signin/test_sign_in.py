"""Signing in over HTTP, in memory: what works."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import anyio
import pytest
import trio
import trio.testing

from handclasp.accounts import LocalAccount
from handclasp.service import Settings
from handclasp.service.embedded import SignInApp, create_embedded_app, create_sign_in_app
from handclasp.service.records import SqliteRecords
from handclasp.service.signin import Sessions, SignInSettings

from .browser import ACCOUNT, COOKIE, ORIGIN, Browser, Page

SETTINGS = SignInSettings(origins=(ORIGIN,))
BOB = LocalAccount.generate()


class Clock:
    """The time as a test wants it."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


@pytest.fixture(params=[create_embedded_app, create_sign_in_app], ids=["embedded", "beside a shared service"])
def app(request: pytest.FixtureRequest) -> SignInApp:
    return request.param(SETTINGS)


def timed() -> tuple[SignInApp, Clock]:
    clock = Clock()
    return SignInApp(Sessions(SETTINGS, SqliteRecords(None), clock=clock), None), clock


async def test_a_page_signs_in_and_its_browser_stays_signed_in(app: SignInApp) -> None:
    browser = Browser(app)
    assert (await browser.get("/session")).error == (401, "unauthorized")
    page = Page(browser)
    session = await page.sign_in()
    assert session["account"] == f"eip155:1:{ACCOUNT.address}"
    assert session["device"] == str(page.wallet.peer_id)
    assert set(browser.jar) == {COOKIE}
    again = await browser.get("/session")
    assert (again.status, again.json()) == (200, session)


def test_it_works_on_asyncio() -> None:
    async def scenario() -> None:
        app = create_embedded_app(SETTINGS)
        await Page(Browser(app)).sign_in()
        await app.shut_down()

    anyio.run(scenario, backend="asyncio")


async def test_embedded_a_sign_in_opens_the_mailbox_and_its_nonce_is_the_one_that_counts() -> None:
    app = create_embedded_app(SETTINGS)
    page = Page(Browser(app))
    begun = (await page.begin()).json()
    assert set(begun) == {"token", "nonce", "expires_in", "challenge"}
    taken = await Browser(app).request("GET", f"/challenge?mailbox={page.mailbox}")
    assert taken.error == (409, "crowded")
    page.nonce = "f" * 32
    assert (await page.link()).json()["detail"] == "nonce: is not the one that was asked for"


async def test_a_mailbox_that_exists_begins_no_sign_in() -> None:
    app = create_embedded_app(SETTINGS)
    page = Page(Browser(app))
    await Browser(app).request("GET", f"/challenge?mailbox={page.mailbox}")
    assert (await page.begin()).error == (409, "crowded")


async def test_beside_a_shared_service_a_mailbox_is_good_for_one_sign_in() -> None:
    app = create_sign_in_app(SETTINGS)
    page = Page(Browser(app))
    await page.sign_in()
    assert (await page.begin()).error == (409, "crowded")
    assert (await Browser(app).request("GET", f"/challenge?mailbox={page.mailbox}")).error == (
        404,
        "not_found",
    )


async def test_two_pages_of_one_browser_may_wait_for_a_wallet(app: SignInApp) -> None:
    browser = Browser(app)
    first, second = Page(browser), Page(browser)
    await first.begin()
    await second.begin()
    assert first.challenge != second.challenge
    reply = await first.link()
    assert reply.status == 200
    assert (await second.link()).status == 200
    assert (await first.redeem(reply.json()["code"])).status == 200


async def test_every_answer_is_kept_from_caches_and_from_other_origins(app: SignInApp) -> None:
    browser = Browser(app)
    page = Page(browser)
    code = await page.code()
    replies = [await page.redeem(code), await page.redeem(code)]
    replies += [await browser.get(path) for path in ("/session", "/sessions", "/devices")]
    replies += [await browser.post("/session/rotate"), await browser.request("OPTIONS", "/session")]
    replies += [
        await browser.post("/session/logout"),
        await browser.get("/session"),
        await browser.get("/session/link"),
    ]
    for reply in replies:
        assert reply.all("cache-control") == ["no-store"]
        assert reply.all("x-content-type-options") == ["nosniff"]
        assert reply.all("cross-origin-resource-policy") == ["same-origin"]
        assert not [name for name, _ in reply.headers if name.startswith("access-control")]
    assert replies[-1].status == 405
    assert replies[-1].all("allow") == ["POST"]


async def test_a_session_is_rotated_and_the_old_id_is_void(app: SignInApp) -> None:
    browser = Browser(app)
    session = await Page(browser).sign_in()
    old = browser.jar[COOKIE]
    rotated = await browser.post("/session/rotate")
    assert rotated.json()["session"] == session["session"]
    assert browser.jar[COOKIE] != old
    assert (await browser.get("/session")).status == 200
    assert (await browser.get("/session", cookies=[f"{COOKIE}={old}"])).error == (401, "unauthorized")
    assert (await Browser(app).post("/session/rotate")).error == (401, "unauthorized")


async def test_logging_out_ends_the_session_on_the_server_and_in_the_browser(app: SignInApp) -> None:
    browser = Browser(app)
    await Page(browser).sign_in()
    old = browser.jar[COOKIE]
    assert (await browser.post("/session/logout")).status == 200
    assert browser.jar == {}
    assert (await browser.get("/session", cookies=[f"{COOKIE}={old}"])).error == (401, "unauthorized")
    assert (await browser.post("/session/logout")).status == 200


async def test_sessions_and_devices_are_listed_and_revoked(app: SignInApp) -> None:
    phone, tablet, bob = Browser(app), Browser(app), Browser(app)
    first, second = Page(phone), Page(tablet)
    mine, other = await first.sign_in(), await second.sign_in()
    await Page(bob).sign_in(BOB)
    listed = (await phone.get("/sessions")).json()["sessions"]
    assert {(each["session"], each["current"]) for each in listed} == {
        (mine["session"], True),
        (other["session"], False),
    }
    devices = (await phone.get("/devices")).json()["devices"]
    assert {each["device"] for each in devices} == {str(first.wallet.peer_id), str(second.wallet.peer_id)}

    assert (await phone.post("/sessions/revoke", {"session": other["session"]})).status == 200
    assert (await tablet.get("/session")).error == (401, "unauthorized")
    assert (await phone.post("/sessions/revoke", {"session": other["session"]})).error == (404, "not_found")
    assert (await phone.post("/devices/revoke", {"device": str(first.wallet.peer_id)})).status == 200
    assert COOKIE not in phone.jar
    assert (await phone.get("/session")).error == (401, "unauthorized")
    assert (await bob.get("/session")).status == 200


async def test_nobody_revokes_what_is_another_accounts(app: SignInApp) -> None:
    alice, bob = Browser(app), Browser(app)
    page = Page(alice)
    session = await page.sign_in()
    await Page(bob).sign_in(BOB)
    assert (await bob.post("/sessions/revoke", {"session": session["session"]})).error == (404, "not_found")
    assert (await bob.post("/devices/revoke", {"device": str(page.wallet.peer_id)})).error == (
        404,
        "not_found",
    )
    assert (await bob.post("/sessions/revoke-all")).status == 200
    assert (await bob.get("/session")).error == (401, "unauthorized")
    assert (await alice.get("/session")).status == 200


@pytest.mark.parametrize("path", ["/sessions", "/devices"])
async def test_lists_are_for_those_who_are_signed_in(app: SignInApp, path: str) -> None:
    assert (await Browser(app).get(path)).error == (401, "unauthorized")
    for body in ({"session": "0" * 16}, {"device": str(Page(Browser(app)).identity.peer_id)}):
        kind = next(iter(body))
        assert (await Browser(app).post(f"/{kind}s/revoke", body)).error == (401, "unauthorized")
    assert (await Browser(app).post("/sessions/revoke-all")).error == (401, "unauthorized")


async def test_a_session_ends_when_it_is_idle_and_when_it_is_old() -> None:
    app, clock = timed()
    browser = Browser(app)
    session = await Page(browser).sign_in()
    for _ in range(7):
        clock.now += SETTINGS.idle_life - 1
        assert (await browser.get("/session")).status == 200
    clock.now = session["expires"] - 1
    assert (await browser.get("/session")).status == 200
    clock.now += 1
    assert (await browser.get("/session")).error == (401, "unauthorized")

    await Page(browser, issued_at=datetime.fromtimestamp(clock.now, UTC)).sign_in()
    clock.now += SETTINGS.idle_life
    assert (await browser.get("/session")).error == (401, "unauthorized")


async def test_a_sign_in_and_a_code_have_their_time() -> None:
    app, clock = timed()
    page = Page(Browser(app))
    await page.begin()
    clock.now += SETTINGS.sign_in_life
    assert (await page.link()).error == (403, "sign_in")
    page = Page(Browser(app))
    page.issued_at = datetime.fromtimestamp(clock.now, UTC)
    code = await page.code()
    clock.now += SETTINGS.code_life
    assert (await page.redeem(code)).error == (403, "code")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/session/begin", {"mailbox": "00", "peer": "12D3KooWA4Xop1JaT3MHxwYMkCepYsv4iPVopMXwCz5iHYdBfeSB"}),
        ("/session/begin", {"mailbox": "0" * 32, "peer": "QmNotEd25519"}),
        ("/session/begin", {"mailbox": "0" * 32}),
        ("/session/link", {"mailbox": "0" * 32, "message": "m", "signature": "s", "proof": "!"}),
        ("/session/link", {"mailbox": "0" * 32, "message": "m" * 8193, "signature": "s", "proof": "AA"}),
        ("/session/redeem", {"code": "0" * 63}),
        ("/session/redeem", {"code": "0" * 64, "more": "x"}),
        ("/session/rotate", {"more": "x"}),
        ("/session/logout", b"[]"),
        ("/sessions/revoke", b"\xff"),
        ("/devices/revoke", {"device": 1}),
    ],
)
async def test_what_is_malformed_is_refused_and_named(app: SignInApp, path: str, body: object) -> None:
    assert (await Browser(app).post(path, body)).error == (400, "malformed")


async def test_a_page_on_an_ipv6_address_signs_in() -> None:
    origin = "http://[::1]:8000"
    app = create_sign_in_app(SignInSettings(origins=(origin,)))
    assert (await Page(Browser(app, origin=origin), origin=origin).sign_in())["account"]


async def test_there_is_a_limit_to_sign_ins_under_way() -> None:
    app = create_sign_in_app(SignInSettings(origins=(ORIGIN,), sign_ins=2))
    browser = Browser(app)
    assert [(await Page(browser).begin()).status for _ in range(3)] == [200, 200, 503]


async def test_a_body_has_its_limit() -> None:
    app = create_sign_in_app(SETTINGS)
    long = await Browser(app).post("/session/redeem", b" " * (96 * 1024 + 1))
    assert long.error == (413, "limit")


async def test_the_database_may_fail_and_the_client_is_told_to_try_again(tmp_path: Path) -> None:
    app = create_sign_in_app(SETTINGS, records=SqliteRecords(tmp_path / "records.db"))
    browser = Browser(app)
    await Page(browser).sign_in()
    locker = SqliteRecords(tmp_path / "records.db")
    await locker.open()
    locker._database._connection.execute("BEGIN IMMEDIATE")
    app.sessions.records._database._connection.execute("PRAGMA busy_timeout = 1")
    assert (await browser.post("/session/rotate")).error == (503, "unavailable")
    locker._database._connection.execute("ROLLBACK")
    assert (await browser.get("/session")).status == 200
    await locker.aclose()
    await app.shut_down()


@pytest.mark.parametrize("make", [create_embedded_app, create_sign_in_app])
async def test_one_address_asks_only_so_often(make: Callable[..., SignInApp]) -> None:
    app = make(SETTINGS, settings=Settings(address_burst=3, address_rate=0.001))
    browser = Browser(app)
    replies = [await browser.post("/session/redeem", {"code": "0" * 64}) for _ in range(4)]
    assert [reply.status for reply in replies] == [403, 403, 403, 429]
    assert replies[-1].all("retry-after")
    assert (await browser.get(f"/.well-known/handclasp/{Page(browser).identity.peer_id}")).status == 429


async def test_a_body_that_drips_in_has_its_deadline(autojump_clock: trio.testing.MockClock) -> None:
    app = create_sign_in_app(SETTINGS)
    sent: list[dict] = []

    async def receive() -> dict:
        await trio.sleep(1)
        return {"type": "http.request", "body": b" ", "more_body": True}

    async def send(event: dict) -> None:
        sent.append(event)

    headers = [(b"origin", ORIGIN.encode()), (b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/session/redeem", "headers": headers}
    start = trio.current_time()
    await app(scope, receive, send)
    assert sent[0]["status"] == 408
    assert trio.current_time() - start == pytest.approx(10)
