"""C5: a thief with a photo of the QR code. C6: a thief with a link that a wallet really signed."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import trio

from handclasp.abc import TransportFactory
from handclasp.accounts import LocalAccount, SignInMessage
from handclasp.discovery.signaling import Invitation, MailboxSession, join, open_invitation
from handclasp.errors import HandclaspError, InvitationRefused, LinkRefused
from handclasp.identity import Identity
from handclasp.node import Node, open_node
from handclasp.protocols.wallet import PROTOCOL, Approver, LinkRequest, PendingLink, Wallet, invite
from handclasp.protocols.wallet.link import Pairing, sign_link, verify_link_untrusted
from handclasp.scope import open_scope

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


async def connect(node: Node, session: MailboxSession) -> None:
    """Connect like an honest peer; that the other side hangs up is part of the attack."""
    try:
        await node.connect_over(session.signaling)
    except HandclaspError:
        return


async def phish(service: str, evil: Node, victim: Wallet, victims_node: Node, origin: str) -> bytes:
    """The link that the victim signs for a website of the thief's."""
    async with (
        open_invitation(evil.identity, service=service, origin=origin) as session,
        open_scope() as scope,
    ):
        scope.start_soon(connect, evil, session)
        scope.start_soon(victim.link, victims_node, session.invitation)
        return await session.receive_link()


async def replay(
    thief: Node, pending: PendingLink, send: Callable[[MailboxSession], Awaitable[None]]
) -> LinkRefused:
    """Show a website somebody else's link as if it were the thief's own; returns what the website says."""

    async def after_the_handshake() -> None:
        await session.handshake_hash()
        await send(session)

    async with join(thief.identity, pending.invitation) as session, open_scope() as scope:
        scope.start_soon(connect, thief, session)
        scope.start_soon(after_the_handshake)
        with pytest.raises(LinkRefused) as caught:
            await pending.linked()
        return caught.value


@pytest.mark.parametrize(
    ("phished_for", "field"),
    [(EVIL, "domain"), ("http://localhost:3000", "scheme"), (SHOP, "nonce")],
    ids=["another website", "a website on this machine", "the same website in another session"],
)
async def test_c6_a_link_that_was_signed_elsewhere_is_refused(
    service: HostileService, website: Node, loopback_webrtc: TransportFactory, phished_for: str, field: str
) -> None:
    async with (
        open_node(transports=[loopback_webrtc]) as evil,
        wallet_node(loopback_webrtc, VICTIM, Yes()) as (victim, victims_node),
    ):
        link = await phish(service.url, evil, victim, victims_node, phished_for)
        assert VICTIM.address.encode() in link
        async with invite(website, service=service.url, origin=SHOP) as pending:
            refused = await replay(evil, pending, lambda session: session.post_link(link))
    assert refused.field == field


async def test_c6_a_link_is_refused_in_another_session_even_if_the_service_repeats_its_nonce(
    service: HostileService, website: Node, loopback_webrtc: TransportFactory
) -> None:
    """The thief is in league with the service, which gives both sessions the same nonce and asks for none."""
    async with (
        open_node(transports=[loopback_webrtc]) as evil,
        wallet_node(loopback_webrtc, VICTIM, Yes()) as (victim, victims_node),
    ):
        link = await phish(service.url, evil, victim, victims_node, SHOP)
        async with invite(website, service=service.url, origin=SHOP) as pending:
            signed = SignInMessage.from_text_untrusted(json.loads(link)["message"])
            pending._session._mailbox._nonce = signed.nonce
            refused = await replay(evil, pending, lambda session: session.send_link(link))
    assert refused.field == "request_id"


def test_c6_a_link_holds_for_one_pairing_only() -> None:
    """Whatever part of a pairing is another one, the link does not hold."""
    invitation = Invitation("wss://s.example", SHOP, Identity.generate().peer_id, bytes(16), 2_000_000_000)
    wallet, other = Identity.generate().peer_id, Identity.generate().peer_id
    pairing = Pairing(invitation, wallet, "0" * 32, bytes(32))
    link = sign_link(pairing, VICTIM, 1)
    assert verify_link_untrusted(link, pairing, frozenset({1})).address == VICTIM.address
    for changed in (
        replace(pairing, nonce="1" * 32),
        replace(pairing, handshake_hash=bytes(31) + b"x"),
        replace(pairing, wallet=other),
        replace(pairing, invitation=replace(invitation, peer=other)),
        replace(pairing, invitation=replace(invitation, origin=EVIL)),
        replace(pairing, invitation=replace(invitation, secret=bytes(15) + b"x")),
    ):
        with pytest.raises(LinkRefused):
            verify_link_untrusted(link, changed, frozenset({1}))
    with pytest.raises(LinkRefused):
        verify_link_untrusted(link, pairing, frozenset({137}))
