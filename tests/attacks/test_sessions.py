"""Attacks on signing in: C6, C10, C11 and C21 for its routes, and what cookies are attacked with."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from handclasp.accounts import LocalAccount
from handclasp.identity import Identity
from handclasp.service.embedded import SignInApp, create_embedded_app, create_sign_in_app
from handclasp.service.records import SqliteRecords
from handclasp.service.signin import SignInSettings
from tests.service.signin.browser import ACCOUNT, COOKIE, ORIGIN, Browser, Page, Reply

EVIL, SIBLING = "https://evil.example", "https://evil.shop.example"
THIEF = LocalAccount.generate()
SETTINGS = SignInSettings(origins=(ORIGIN, "https://www.shop.example"))
CHANGING = [
    "/session/begin",
    "/session/link",
    "/session/redeem",
    "/session/rotate",
    "/session/logout",
    "/sessions/revoke",
    "/sessions/revoke-all",
    "/devices/revoke",
]


@pytest.fixture(params=[create_embedded_app, create_sign_in_app], ids=["embedded", "beside a shared service"])
def app(request: pytest.FixtureRequest) -> SignInApp:
    return request.param(SETTINGS)


# C6: a valid link elsewhere


async def test_c6_a_link_of_another_sign_in_is_refused(app: SignInApp) -> None:
    """The thief has what a wallet signed for somebody else's page of the same website."""
    victim, thief = Page(Browser(app)), Page(Browser(app))
    await victim.begin()
    await thief.begin()
    stolen = victim.signed()
    for link in (stolen, thief.proved(stolen), {**thief.proved(stolen), "mailbox": victim.mailbox}):
        assert (await thief.browser.post("/session/link", link)).status == 403
    assert (await victim.link(stolen)).status == 200


async def test_c6_a_link_that_was_never_used_is_worth_nothing_to_who_finds_it(app: SignInApp) -> None:
    """The victim's page went away between the signature and the sign-in; the thief begins with its mailbox."""
    victim, thief = Page(Browser(app)), Page(Browser(app))
    await victim.begin()
    stolen = victim.signed()
    thief.mailbox = victim.mailbox
    assert (await thief.begin()).error == (409, "crowded")
    if app._signaling is None:  # even if the victim never told the website's server of its mailbox
        app.sessions.records = SqliteRecords(None)
        thief.identity, key = victim.identity, thief.identity
        await thief.begin()
        thief.identity = key
        assert (await thief.link(thief.proved(stolen))).json()["detail"].startswith("proof:")


async def test_c6_a_link_for_another_origin_of_the_same_website_is_refused(app: SignInApp) -> None:
    page = Page(Browser(app, origin="https://www.shop.example"))
    await page.begin()
    reply = await page.link(page.signed())
    assert reply.json()["detail"] == "domain: is not the one that was asked for"
    page = Page(Browser(app))
    await page.begin()
    page.browser.origin = "https://www.shop.example"
    assert (await page.link()).error == (403, "sign_in")


async def test_c6_a_phishing_page_cannot_use_what_a_wallet_signed_for_the_website(app: SignInApp) -> None:
    """It claimed the website's origin, with a peer id of its own; the website has never heard of that."""
    phisher = Page(Browser(app))
    phisher.challenge = "0" * 64
    assert (await phisher.link(phisher.signed())).error == (403, "sign_in")


# C10, each secret is good once


async def hundred(send: Callable[[int], Awaitable[Reply]]) -> list[Reply]:
    replies: list[Reply] = []

    async def one(number: int) -> None:
        replies.append(await send(number))

    async with trio.open_nursery() as nursery:
        for number in range(100):
            nursery.start_soon(one, number)
    return replies


async def test_c10_of_a_hundred_uses_of_a_sign_in_one_succeeds(app: SignInApp) -> None:
    page = Page(Browser(app))
    await page.begin()
    link = page.signed()
    replies = await hundred(lambda _: page.link(link))
    assert [reply.status for reply in replies].count(200) == 1
    assert len({reply.body for reply in replies if reply.status != 200}) == 1


async def test_c10_of_a_hundred_uses_of_a_code_one_succeeds(app: SignInApp) -> None:
    page = Page(Browser(app))
    code = await page.code()
    jar = dict(page.browser.jar)

    async def redeem(_: int) -> Reply:
        browser = Browser(app)
        browser.jar = dict(jar)
        return await browser.post("/session/redeem", {"code": code})

    replies = await hundred(redeem)
    assert [reply.status for reply in replies].count(200) == 1
    assert len({reply.body for reply in replies if reply.status != 200}) == 1


async def test_c10_a_link_that_did_not_hold_used_the_sign_in_up(app: SignInApp) -> None:
    page = Page(Browser(app))
    await page.begin()
    assert (await page.link({**page.signed(), "signature": "0x" + "11" * 65})).error == (403, "link")
    assert (await page.link(page.signed())).error == (403, "sign_in")


async def test_c10_used_unknown_and_foreign_sign_ins_and_codes_answer_alike(app: SignInApp) -> None:
    page, foreign = Page(Browser(app)), Page(Browser(app))
    code = await page.code()
    theirs = await foreign.code()
    unknown = Page(page.browser)
    jar, page.browser.jar = page.browser.jar, {}
    replies = [await page.link(), await page.redeem(code)]  # without its cookie
    page.browser.jar = dict(jar)
    replies += [await page.link(), await page.redeem("0" * 64)]  # used; unknown
    replies += [await unknown.link(), await page.redeem(theirs)]  # unknown; another browser's
    assert len({reply.body for reply in replies[::2]}) == 1
    assert len({reply.body for reply in replies[1::2]}) == 1
    assert len({str(reply.headers) for reply in replies[::2]}) == 1
    assert (await page.redeem(code)).status == 200  # none of that used it up


async def test_a_replayed_code_opens_nothing(app: SignInApp) -> None:
    page = Page(Browser(app))
    code = await page.code()
    jar = dict(page.browser.jar)
    assert (await page.redeem(code)).status == 200
    page.browser.jar = jar
    assert (await page.redeem(code)).error == (403, "code")


# Login CSRF, fixation


async def test_login_csrf_a_victim_cannot_be_made_to_redeem_the_attackers_code(app: SignInApp) -> None:
    attacker, victim = Page(Browser(app)), Page(Browser(app))
    code = await attacker.code(THIEF)
    await victim.begin()
    assert (await victim.redeem(code)).error == (403, "code")
    assert COOKIE not in victim.browser.jar


async def test_login_csrf_a_victim_cannot_be_made_to_link_the_attackers_wallet(app: SignInApp) -> None:
    attacker, victim = Page(Browser(app)), Page(Browser(app))
    await attacker.begin()
    await victim.begin()
    assert (await victim.link(attacker.signed(THIEF))).error == (403, "sign_in")


async def test_a_fixed_session_id_is_never_taken_over(app: SignInApp) -> None:
    """The attacker has put a session id of his into the victim's browser, one that is alive or one made up."""
    attacker, victim = Browser(app), Browser(app)
    await Page(attacker).sign_in(THIEF)
    for fixed in (attacker.jar[COOKIE], "ab" * 32):
        page = Page(victim)
        code = await page.code()
        victim.jar[COOKIE] = fixed
        assert (await page.redeem(code)).status == 200
        assert victim.jar[COOKIE] != fixed
        stolen = await victim.get("/session", cookies=[f"{COOKIE}={fixed}"])
        assert stolen.error == (401, "unauthorized")


async def test_a_fixed_login_is_not_taken_over_either(app: SignInApp) -> None:
    victim = Page(Browser(app))
    victim.browser.jar[f"{COOKIE}-login"] = "ab" * 32
    await victim.begin()
    assert victim.browser.jar[f"{COOKIE}-login"] != "ab" * 32


async def test_signing_in_makes_a_new_id_each_time_and_ends_the_session_before(app: SignInApp) -> None:
    browser = Browser(app)
    await Page(browser).sign_in()
    first = browser.jar[COOKIE]
    await Page(browser).sign_in()
    assert browser.jar[COOKIE] != first
    assert (await browser.get("/session", cookies=[f"{COOKIE}={first}"])).error == (401, "unauthorized")


async def test_neither_a_login_nor_a_code_is_a_session_id(app: SignInApp) -> None:
    page = Page(Browser(app))
    code = await page.code()
    login = page.browser.jar[f"{COOKIE}-login"]
    await page.redeem(code)
    for secret in (code, login):
        reply = await page.browser.get("/session", cookies=[f"{COOKIE}={secret}"])
        assert reply.error == (401, "unauthorized")


# Where a request comes from


@pytest.mark.parametrize("path", CHANGING)
@pytest.mark.parametrize(
    "headers",
    [
        {"origin": EVIL, "sec-fetch-site": "cross-site"},
        {"origin": EVIL, "sec-fetch-site": None},
        {"origin": SIBLING, "sec-fetch-site": "same-site"},
        {"origin": None, "sec-fetch-site": None},
        {"origin": None},
        {"origin": "null"},
        {"origin": f"{ORIGIN}.evil.example"},
        {"origin": f"{ORIGIN}:443"},
        {"origin": "http://shop.example"},
        {"origin": "HTTPS://SHOP.EXAMPLE"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "cross-site"},
    ],
    ids=str,
)
async def test_what_changes_something_comes_from_the_websites_own_pages(
    path: str, headers: dict[str, str | None]
) -> None:
    app = create_sign_in_app(SETTINGS)
    browser = Browser(app)
    await Page(browser).sign_in()
    jar = dict(browser.jar)
    assert (await browser.post(path, headers=headers)).error == (403, "forbidden")
    assert browser.jar == jar
    assert (await browser.get("/session")).status == 200


@pytest.mark.parametrize("path", CHANGING)
@pytest.mark.parametrize("media_type", [None, "text/plain", "application/x-www-form-urlencoded"])
async def test_a_form_cannot_send_what_changes_something(path: str, media_type: str | None) -> None:
    app = create_sign_in_app(SETTINGS)
    browser = Browser(app)
    reply = await browser.post(path, headers={"content-type": media_type})
    assert reply.error == (415, "media_type")


@pytest.mark.parametrize("path", ["/session", "/sessions", "/devices"])
@pytest.mark.parametrize(
    "headers",
    [
        {"origin": EVIL},
        {"origin": SIBLING},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "cross-site"},
    ],
    ids=str,
)
async def test_what_is_read_is_not_for_other_sites(app: SignInApp, path: str, headers: dict) -> None:
    browser = Browser(app)
    await Page(browser).sign_in()
    assert (await browser.get(path, headers=headers)).error == (403, "forbidden")
    assert (await browser.get(path)).status == 200


@pytest.mark.parametrize("path", ["/challenge?mailbox=" + "0" * 32, "/offer", "/answer", "/link"])
@pytest.mark.parametrize("origin", [EVIL, SIBLING, "null"])
async def test_mailboxes_are_not_for_other_sites_either(path: str, origin: str) -> None:
    app = create_embedded_app(replace(SETTINGS, wallets=("https://wallet.example",)))
    method = "GET" if "challenge" in path else "POST"
    reply = await Browser(app).request(method, path, headers={"origin": origin, "sec-fetch-site": None})
    assert reply.error == (403, "forbidden")
    assert not reply.all("access-control-allow-origin")
    headers = {"origin": "https://wallet.example", "sec-fetch-site": "cross-site"}
    reply = await Browser(app).request(method, path, headers=headers)
    assert reply.status in (200, 401)
    assert reply.all("access-control-allow-origin") == ["https://wallet.example"]
    assert not reply.all("access-control-allow-credentials")


# Cookies


@pytest.mark.parametrize(
    "cookies",
    [
        ["{name}={mine}", "{name}={tossed}"],
        ["{name}={tossed}", "{name}={mine}"],
        ["{name}={mine}", "{name}={mine}"],
        ["{name}={mine}", "other=1; {name}=x"],
    ],
    ids=["after", "before", "the same", "nonsense"],
)
async def test_tossing_a_second_cookie_leaves_nobody_signed_in(app: SignInApp, cookies: list[str]) -> None:
    """A sibling subdomain has put a cookie of the same name beside the real one."""
    victim, attacker = Browser(app), Browser(app)
    await Page(victim).sign_in()
    await Page(attacker).sign_in(THIEF)
    values = {"name": COOKIE, "mine": victim.jar[COOKIE], "tossed": attacker.jar[COOKIE]}
    tossed = [cookie.format(**values) for cookie in cookies]
    assert (await victim.get("/session", cookies=tossed)).error == (401, "unauthorized")


@pytest.mark.parametrize(
    "spelling",
    [
        "{name}\u2000={value}",
        "\u00a0{name}={value}",
        "\t{name}={value}",
        "  {name}={value}",
        "{lower}={value}",
        "handclasp={value}",
        "__Secure-handclasp={value}",
        "$Version=1; {name}={quoted}",
        "%5F%5FHost-handclasp={value}",
        "{name}={value} ",
        "{name}={upper}",
    ],
    ids=ascii,
)
async def test_a_name_or_value_that_others_would_read_as_ours_is_not(app: SignInApp, spelling: str) -> None:
    browser = Browser(app)
    await Page(browser).sign_in()
    value = browser.jar[COOKIE]
    cookie = spelling.format(
        name=COOKIE, lower=COOKIE.lower(), value=value, quoted=f'"{value}"', upper=value.upper() + "A"
    )
    assert (await browser.get("/session", cookies=[cookie])).error == (401, "unauthorized")


async def test_a_flood_of_cookies_is_not_searched(app: SignInApp) -> None:
    browser = Browser(app)
    await Page(browser).sign_in()
    flood = ["a=" + "b" * 16_384, f"{COOKIE}={browser.jar[COOKIE]}"]
    assert (await browser.get("/session", cookies=flood)).error == (401, "unauthorized")


async def test_a_shared_service_has_neither_cookies_nor_sessions() -> None:
    from handclasp.service import create_app
    from tests.service.driver import ID, Client

    client = Client(create_app())
    for method, path in (
        ("GET", f"/challenge?mailbox={ID}"),
        ("GET", "/session"),
        ("POST", "/session/begin"),
    ):
        response = await client.request(method, path, {} if method == "POST" else None)
        assert "set-cookie" not in response.headers
        assert response.status == (200 if "challenge" in path else 404)


# C11 and C21


async def test_c11_a_wallet_that_claimed_the_mailbox_cannot_sign_in_by_it(app: SignInApp) -> None:
    """It has the nonce and can sign whatever it likes; it has neither the page's cookie nor its key."""
    page = Page(Browser(app))
    await page.begin()
    wallet = Page(Browser(app), mailbox=page.mailbox, nonce=page.nonce, challenge=page.challenge)
    wallet.identity, own = page.identity, Identity.generate()
    signed = wallet.signed()
    assert (await wallet.browser.post("/session/link", signed)).error == (403, "sign_in")
    wallet.identity = own
    assert (await page.browser.post("/session/link", wallet.proved(signed))).error == (403, "link")


def contents(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.iterdir())


async def test_c21_nothing_secret_is_logged_or_kept(
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level(logging.DEBUG)
    records = SqliteRecords(tmp_path / "records.db")
    app = create_embedded_app(SETTINGS, records=records)
    page = Page(Browser(app))
    code = await page.code()
    secrets = [code, *page.browser.jar.values(), page.nonce, page.challenge, page.signed()["signature"]]
    await page.redeem(code)
    secrets += page.browser.jar.values()
    unused = Page(page.browser)
    await unused.begin()
    secrets += [unused.nonce, page.browser.jar[f"{COOKIE}-login"]]

    async def fail(*_: object, **__: object) -> None:
        raise RuntimeError(f"canary {secrets}")

    monkeypatch.setattr(app.sessions, "signed_in", fail)
    assert (await page.browser.get("/session")).error == (500, "internal")
    assert "RuntimeError" in caplog.text
    kept = contents(tmp_path)
    assert ACCOUNT.address.encode() in kept
    for secret in secrets:
        assert secret not in caplog.text
        assert secret.encode() not in kept
        assert not (len(secret) == 64 and bytes.fromhex(secret) in kept)
    await app.shut_down()
