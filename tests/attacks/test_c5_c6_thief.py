"""C5: a thief with a photo of the QR code. C6: a thief with a link that a wallet really signed."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from handclasp.abc import TransportFactory
from handclasp.accounts import LocalAccount
from handclasp.discovery.signaling import Invitation, join, open_invitation
from handclasp.errors import HandclaspError, InvitationRefused, LinkRefused
from handclasp.identity import Identity
from handclasp.node import Node, open_node
from handclasp.protocols.wallet import PROTOCOL, Approver, LinkRequest, PendingLink, Wallet, invite

from .hostile import HostileService, open_hostile_service
from .pairing import Yes

SHOP, EVIL = "https://shop.example", "https://evil.example"
VICTIM, THIEF = LocalAccount.generate(), LocalAccount.generate()


class Remembering(Yes):
    """Agrees to everything, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[LinkRequest] = []

    async def approve_link(self, request: LinkRequest) -> bool:
        self.asked.append(request)
        return True


@pytest.fixture
async def service() -> AsyncGenerator[HostileService]:
    async with open_hostile_service() as opened:
        yield opened


@pytest.fixture
async def website(loopback_webrtc: TransportFactory) -> AsyncGenerator[Node]:
    async with open_node(transports=[loopback_webrtc]) as node:
        yield node


@asynccontextmanager
async def wallet_node(
    transport: TransportFactory, account: LocalAccount, person: Approver
) -> AsyncGenerator[tuple[Wallet, Node]]:
    wallet = Wallet(account, person)
    async with open_node(transports=[transport], protocols={PROTOCOL: wallet.serve}) as node:
        yield wallet, node


# --- C5 ---


async def test_c5_a_thief_who_is_first_gets_his_own_account_linked_and_the_victim_signs_nothing(
    service: HostileService, website: Node, loopback_webrtc: TransportFactory
) -> None:
    person = Remembering()
    async with (
        invite(website, service=service.url, origin=SHOP) as pending,
        wallet_node(loopback_webrtc, THIEF, Yes()) as (thief, thiefs_node),
        wallet_node(loopback_webrtc, VICTIM, person) as (victim, victims_node),
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(thief.link, thiefs_node, pending.invitation)
        linked = await pending.linked()
        assert linked.account.address == THIEF.address
        assert linked.peer == thiefs_node.peer_id
        with pytest.raises(InvitationRefused):
            await victim.link(victims_node, pending.invitation)
        assert not person.asked
        assert not victims_node.connections


async def test_c5_a_thief_who_is_second_is_refused_and_the_victim_is_linked(
    service: HostileService, website: Node, loopback_webrtc: TransportFactory
) -> None:
    decided = trio.Event()

    class Slow(Yes):
        async def approve_link(self, request: LinkRequest) -> bool:
            del request
            await decided.wait()
            return True

    refusals: list[HandclaspError] = []
    async with (
        invite(website, service=service.url, origin=SHOP) as pending,
        wallet_node(loopback_webrtc, VICTIM, Slow()) as (victim, victims_node),
        wallet_node(loopback_webrtc, THIEF, Yes()) as (thief, thiefs_node),
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(victim.link, victims_node, pending.invitation)

        async def steal() -> None:
            while not victims_node.connections:  # noqa: ASYNC110 - the moment before the person decides
                await trio.sleep(0.01)
            with pytest.raises(InvitationRefused) as caught:
                await thief.link(thiefs_node, pending.invitation)
            refusals.append(caught.value)
            decided.set()

        nursery.start_soon(steal)
        linked = await pending.linked()
    assert refusals
    assert linked.account.address == VICTIM.address


# --- C6 ---


async def phish(service: str, victims_node: Node, victim: Wallet, *, origin: str) -> bytes:
    """A link that the victim signed for a website of the thief's."""
    async with open_invitation(Identity.generate(), service=service, origin=origin) as session:
        got: list[bytes] = []

        async def be_the_website() -> None:
            await session.signaling.send(b"an offer that leads nowhere")
            got.append(await session.receive_link())
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(be_the_website)
            nursery.start_soon(give_in, victim, victims_node, session.invitation)
        return got[0]


async def give_in(wallet: Wallet, node: Node, invitation: Invitation) -> None:
    try:
        await wallet.link(node, invitation)
    except HandclaspError:
        await trio.sleep_forever()  # the link may have been on its way before


async def replay(link: bytes, pending: PendingLink) -> LinkRefused:
    """A thief's wallet that shows somebody else's link; returns what the website says."""
    refused: list[LinkRefused] = []

    async def be_the_website() -> None:
        with pytest.raises(LinkRefused) as caught:
            await pending.linked()
        refused.append(caught.value)
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(be_the_website)
        async with join(Identity.generate(), pending.invitation) as session:
            await session.handshake_hash() if False else await session.signaling.receive()
            await session.signaling.send(b"an answer that leads nowhere")
            await session.post_link(link)
            await trio.sleep_forever()
    return refused[0]
