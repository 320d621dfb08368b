"""What the service says of who opened a mailbox, and how much it keeps of that."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from handclasp.service import Settings, create_app

from .driver import ID, OTHER_ID, Client, running


async def opened_by(client: Client, origin: str | None, mailbox: str = ID) -> tuple[int, dict]:
    headers = {} if origin is None else {"origin": origin}
    await client.request("GET", f"/challenge?mailbox={mailbox}", **headers)
    response = await client.request("GET", f"/origin?mailbox={mailbox}")
    return response.status, response.json()


async def test_the_origin_of_the_page_that_opened_a_mailbox_is_attested() -> None:
    async with running(create_app()) as client:
        assert await opened_by(client, "https://shop.example") == (200, {"origin": "https://shop.example"})
        # Whoever comes second opens nothing, and changes nothing.
        assert await opened_by(client, "https://evil.example") == (200, {"origin": "https://shop.example"})


@pytest.mark.parametrize("origin", [None, "null", "https://SHOP.example", "x" * 1000, 'https://a"b'])
async def test_what_is_no_origin_is_not_attested(origin: str | None) -> None:
    async with running(create_app()) as client:
        status, body = await opened_by(client, origin)
        assert (status, body["error"]) == (404, "not_found")


async def test_a_question_without_a_mailbox_is_malformed() -> None:
    async with running(create_app()) as client:
        response = await client.request("GET", "/origin?mailbox=x")
        assert (response.status, response.json()["error"]) == (400, "malformed")


async def test_it_is_forgotten_in_time(autojump_clock: trio.testing.MockClock) -> None:
    async with running(create_app()) as client:
        await opened_by(client, "https://shop.example")
        await trio.sleep(419)
        assert (await client.request("GET", f"/origin?mailbox={ID}")).status == 200
        await trio.sleep(1)
        assert (await client.request("GET", f"/origin?mailbox={ID}")).status == 404


async def test_it_keeps_as_many_as_there_may_be_mailboxes() -> None:
    app = create_app(Settings(mailboxes=1))
    async with running(app) as client:
        await opened_by(client, "https://shop.example")
        async with client.socket() as wallet:
            wallet.send(type="claim", mailbox=ID)
            await wallet.expect("ready")
            wallet.send(type="close")
            await wallet.expect_end(1000, "end", "closed")
        assert await opened_by(client, "https://shop.example", OTHER_ID) == (
            200,
            {"origin": "https://shop.example"},
        )
        assert len(app._routes._attestations._origins) == 1
