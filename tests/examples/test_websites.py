"""The websites in examples/websites: the service embedded in each framework, with sessions, in memory."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import anyio
import django.conf
import django.urls
import django.utils.functional
import pytest

from tests.service.signin.browser import ACCOUNT, COOKIE, ORIGIN, Browser, Page, asgi

WEBSITES = Path(__file__).parents[2] / "examples" / "websites"
FRAMEWORKS = sorted(path.stem for path in WEBSITES.glob("*.py"))


@pytest.fixture(params=FRAMEWORKS)
def website(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ModuleType]:
    """The example, loaded as itself; its database is in a temporary folder."""
    before = Path.cwd()
    os.chdir(tmp_path)
    sys.path.insert(0, str(WEBSITES))
    sys.modules.pop(request.param, None)
    if request.param == "django_shop":  # it has one set of settings for a process, and this is a fresh one
        django.conf.settings._wrapped = django.utils.functional.empty
        django.urls.clear_url_caches()
    try:
        yield import_module(request.param)
    finally:
        sys.path.remove(str(WEBSITES))
        os.chdir(before)


def test_a_browser_signs_in_and_the_website_knows_who_it_is(website: ModuleType) -> None:
    async def scenario() -> None:
        page = Page(Browser(website.app, at="/handclasp"))
        visitor = Browser(website.app)
        assert (await visitor.get("/me")).status == 401
        assert (await visitor.post("/buy")).status == 401
        await page.sign_in()
        visitor.jar = dict(page.browser.jar)
        account = f"eip155:1:{ACCOUNT.address}"
        assert (await visitor.get("/me")).json() == {"account": account}
        assert (await visitor.post("/buy")).json() == {"sold_to": account}
        for foreign in ("https://evil.example", "https://evil.shop.example", None):
            assert (await visitor.post("/buy", headers={"origin": foreign})).status == 403
        await page.browser.post("/session/logout")
        assert (await visitor.get("/me")).status == 401
        await website.wallets.shut_down()

    anyio.run(scenario, backend="asyncio")


def test_the_origin_vouches_for_its_page_at_its_root(website: ModuleType) -> None:
    async def scenario() -> None:
        page = Page(Browser(website.app, at="/handclasp"))
        await page.begin()
        path = f"/.well-known/handclasp/{page.identity.peer_id}"
        reply = await asgi(website.app, "GET", path, [("host", "shop.example")])
        assert reply.json() == {"origin": ORIGIN, "peer": str(page.identity.peer_id)}
        other = await asgi(website.app, "GET", f"/.well-known/handclasp/{page.wallet.peer_id}", [])
        assert other.error == (404, "not_found")
        await website.wallets.shut_down()

    anyio.run(scenario, backend="asyncio")


def test_its_lifespan_begins_and_ends_with_the_website(website: ModuleType) -> None:
    async def scenario() -> None:
        page = Page(Browser(website.app, at="/handclasp"))
        stop = anyio.Event()
        sent: list[str] = []
        events = iter(["lifespan.startup", "lifespan.shutdown"])

        async def receive() -> dict:
            kind = next(events)
            if kind == "lifespan.shutdown":
                await stop.wait()
            return {"type": kind}

        async def send(event: dict) -> None:
            sent.append(event["type"])

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(website.app, {"type": "lifespan", "state": {}}, receive, send)
            await page.sign_in()
            assert COOKIE in page.browser.jar
            stop.set()
        assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
        assert website.wallets.sessions.records._database._connection is None

    anyio.run(scenario, backend="asyncio")
