"""Peers at known addresses."""

from __future__ import annotations

import pytest
import trio

from handclasp import open_node
from handclasp.abc import Context, Discovery, DiscoveryFactory, PeerRecord
from handclasp.discovery.static import from_url, static
from handclasp.errors import ConfigurationError, MisuseError, PeerUnreachable
from handclasp.identity import Identity, PeerId
from handclasp.node.plugins import discovery_from_url

ALICE, BOB, CAROL = (Identity.generate() for _ in range(3))
AT_HOME = f"/ip4/192.0.2.1/tcp/4001/webrtc/p2p/{BOB.peer_id}"
AT_WORK = f"/dns4/signal.example/tcp/443/wss/webrtc/p2p/{BOB.peer_id}"
CAROLS = f"/ip6/2001:db8::1/tcp/4001/webrtc/p2p/{CAROL.peer_id}"


async def found(factory: DiscoveryFactory, topic: str) -> list[PeerRecord]:
    async with factory(Context(ALICE)) as backend:
        assert isinstance(backend, Discovery)
        async with backend.find(topic) as records:
            return [record async for record in records]


async def test_a_listed_peer_is_found_under_its_id_with_all_its_addresses_in_order() -> None:
    backend = static(AT_HOME, CAROLS, AT_WORK)
    assert await found(backend, str(BOB.peer_id)) == [PeerRecord(BOB.peer_id, (AT_HOME, AT_WORK))]
    assert await found(backend, str(CAROL.peer_id)) == [PeerRecord(CAROL.peer_id, (CAROLS,))]


async def test_a_peer_that_is_not_listed_is_not_found() -> None:
    assert await found(static(AT_HOME), str(CAROL.peer_id)) == []


async def test_a_topic_finds_every_listed_peer() -> None:
    records = await found(static(CAROLS, AT_HOME), "tea")
    assert records == [PeerRecord(CAROL.peer_id, (CAROLS,)), PeerRecord(BOB.peer_id, (AT_HOME,))]


async def test_advertising_adds_nobody_to_the_list() -> None:
    async with static(AT_HOME)(Context(ALICE)) as backend:
        assert isinstance(backend, Discovery)
        async with backend.advertise("tea", PeerRecord(ALICE.peer_id, (AT_WORK,))):
            async with backend.find("tea") as records:
                assert [record.peer async for record in records] == [BOB.peer_id]


async def test_a_topic_that_is_too_long_is_refused_as_everywhere() -> None:
    longest = "x" * Discovery.MAX_TOPIC
    assert len(await found(static(AT_HOME), longest)) == 1
    async with static(AT_HOME)(Context(ALICE)) as backend:
        assert isinstance(backend, Discovery)
        for use in (backend.find, lambda topic: backend.advertise(topic, PeerRecord(ALICE.peer_id))):
            with pytest.raises(MisuseError):
                async with use(longest + "x"):
                    pytest.fail("it was taken")


@pytest.mark.parametrize(
    "address", ["/ip4/192.0.2.1/tcp/4001", "192.0.2.1:4001", "/ip4/192.0.2.1/tcp/x/p2p/12D3KooW"]
)
def test_what_is_not_the_address_of_a_peer_is_a_mistake_that_is_named(address: str) -> None:
    with pytest.raises(ConfigurationError, match=address):
        static(AT_HOME, address)


async def test_a_url_lists_addresses() -> None:
    assert await found(discovery_from_url(f"static:{AT_HOME},{CAROLS}"), "tea") == [
        PeerRecord(BOB.peer_id, (AT_HOME,)),
        PeerRecord(CAROL.peer_id, (CAROLS,)),
    ]


@pytest.mark.parametrize(
    "url",
    ["static:", f"static:{AT_HOME},", f"static:{AT_HOME};{CAROLS}"],
    ids=["nothing", "end", "semicolon"],
)
def test_a_url_with_something_else_in_it_is_a_mistake(url: str) -> None:
    with pytest.raises(ConfigurationError):
        from_url(url)


async def test_a_node_looks_no_longer_than_the_list() -> None:
    unknown = PeerId(bytes(32))
    async with open_node(discovery=[static(AT_HOME)]) as node:
        with trio.fail_after(5), pytest.raises(PeerUnreachable, match="nowhere"):  # it would look for 10 s
            await node.connect(unknown)
