"""What somebody finds who reads a service's state: C1 for what is stored."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import trio
import trio.testing

from handclasp.service import create_app
from handclasp.service.state import State, from_url
from handclasp.service.state.memory import MemoryState, MemoryStore

from ..driver import ID, paired, running  # noqa: TID252 - tests are no installed package
from .servers import redis_server

BY = "5e" * 32


async def play(state: State) -> set[str]:
    """A mailbox with everything in it, as it stands in the middle; the secrets."""
    async with running(create_app(state=state)) as client, paired(client) as pair:
        website_token, wallet_token, nonce = pair.website_token, pair.wallet_token, pair.nonce
        pair.wallet.send(type="publish", topic="answer", body="c2VhbGVk")
        await pair.website.expect("message")
        return {ID, website_token, website_token[32:], wallet_token, wallet_token[32:], nonce}


def everything_in(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


async def test_in_memory_there_is_neither_id_nor_token_nor_nonce(
    autojump_clock: trio.testing.MockClock,
) -> None:
    store = MemoryStore()
    secrets = await play(MemoryState(store))
    kept = json.dumps([[key, log.name, log.rows] for key, log in store.logs.items()])
    assert "c2VhbGVk" in kept
    assert not [secret for secret in secrets if secret in kept]


async def test_nor_in_an_sqlite_file(tmp_path: Path) -> None:
    secrets = await play(from_url(f"sqlite:{tmp_path / 'state'}"))
    kept = everything_in(tmp_path)
    assert b"c2VhbGVk" in kept
    assert not [secret for secret in secrets if secret.encode() in kept]


async def test_nor_in_what_a_redis_is_told(tmp_path: Path) -> None:
    with redis_server(tmp_path, durable=True) as server:
        secrets = await play(from_url(server.url))
        kept = everything_in(tmp_path)
    assert b"c2VhbGVk" in kept
    assert not [secret for secret in secrets if secret.encode() in kept]


@pytest.mark.parametrize(
    "url", ["", "memory", "memory:x", "sqlite:", "postgres://secret", "redis://:secret@[", "secret"]
)
def test_a_url_that_names_no_state_is_refused_without_being_repeated(url: str) -> None:
    from handclasp.errors import ConfigurationError

    with pytest.raises(ConfigurationError) as caught:
        from_url(url)
    assert "secret" not in str(caught.value)
