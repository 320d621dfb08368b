"""Website and wallet, whole, in one process: through a real service and over WebRTC on the loopback interface."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import trio
import trio.testing

from handclasp.abc import Connection, TransportFactory
from handclasp.accounts import LocalAccount, recover_message, recover_typed_data
from handclasp.discovery.memory import memory_channel_pair
from handclasp.discovery.signaling import Invitation
from handclasp.errors import ConnectionLost, HandclaspError, LinkRefused, PeerLeft, RequestFailed
from handclasp.node import Node, open_node
from handclasp.protocols.wallet import (
    PROTOCOL,
    Approver,
    LinkedWallet,
    LinkRequest,
    Proposal,
    SigningRequest,
    Step,
    Wallet,
    invite,
    open_wallet,
)
from handclasp.testing import open_service

ACCOUNT = LocalAccount.generate()
SHOP, BANK = "https://shop.example", "https://bank.example"
TYPED = {
    "types": {
        "EIP712Domain": [{"name": "name", "type": "string"}],
        "Mail": [{"name": "contents", "type": "string"}],
    },
    "primaryType": "Mail",
    "domain": {"name": "Ether Mail"},
    "message": {"contents": "Hello, Bob!"},
}


@dataclass
class Person(Approver):
    """Whoever holds the wallet; says what the test tells it to and remembers what it was asked."""

    link: bool = True
    session: bool = True
    signature: bool = True
    asked: list[LinkRequest | Proposal | SigningRequest] = field(default_factory=list)

    async def approve_link(self, request: LinkRequest) -> bool:
        self.asked.append(request)
        return self.link

    async def approve_session(self, proposal: Proposal) -> bool:
        self.asked.append(proposal)
        return self.session

    async def approve_signature(self, request: SigningRequest) -> bool:
        self.asked.append(request)
        return self.signature


class Pocket:
    """A wallet, its person and its node."""

    def __init__(self, node: Node, wallet: Wallet, person: Person) -> None:
        self.node = node
        self.wallet = wallet
        self.person = person


@asynccontextmanager
async def open_pocket(
    transport: TransportFactory, person: Person, chains: tuple[int, ...] = (1,)
) -> AsyncGenerator[Pocket]:
    wallet = Wallet(ACCOUNT, person, chains=chains)
    async with open_node(transports=[transport], protocols={PROTOCOL: wallet.serve}) as node:
        yield Pocket(node, wallet, person)


async def pair(
    site: Node,
    pocket: Pocket,
    service: str,
    origin: str = SHOP,
    observe: Callable[[Step], None] = lambda _: None,
) -> LinkedWallet:
    """Link both sides; raises what the website makes of it when the two disagree."""
    async with invite(site, service=service, origin=origin, observe=observe) as pending:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(scan, pocket, pending.invitation, observe)
            return await pending.linked()
    raise AssertionError


async def scan(pocket: Pocket, invitation: Invitation, observe: Callable[[Step], None]) -> None:
    await pocket.wallet.link(pocket.node, invitation, observe=observe)


async def outcome_of(function: Callable, *args: object) -> list[object]:
    """What a side got: its result or its error."""
    try:
        return [await function(*args)]
    except HandclaspError as exc:
        return [exc]


async def both_outcomes(site: Node, pocket: Pocket, service: str) -> tuple[object, object]:
    """What the website and the wallet make of a pairing that may fail."""
    got: dict[str, object] = {}

    async def take(name: str, function: Callable, *args: object) -> None:
        (got[name],) = await outcome_of(function, *args)

    async with invite(site, service=service, origin=SHOP) as pending, trio.open_nursery() as nursery:
        nursery.start_soon(take, "wallet", pocket.wallet.link, pocket.node, pending.invitation)
        await take("website", pending.linked)
    return got["website"], got["wallet"]


@pytest.fixture
async def service() -> AsyncGenerator[str]:
    async with open_service() as url:
        yield url


@pytest.fixture
async def site(loopback_webrtc: TransportFactory) -> AsyncGenerator[Node]:
    async with open_node(transports=[loopback_webrtc]) as node:
        yield node


@pytest.fixture
async def pocket(loopback_webrtc: TransportFactory) -> AsyncGenerator[Pocket]:
    async with open_pocket(loopback_webrtc, Person()) as opened:
        yield opened


# --- it works ---


async def test_link_session_and_both_kinds_of_signature(service: str, site: Node, pocket: Pocket) -> None:
    steps: list[Step] = []
    linked = await pair(site, pocket, service, observe=steps.append)
    assert linked.account.address == ACCOUNT.address
    assert linked.peer == pocket.node.peer_id
    async with open_wallet(site, linked) as wallet:
        await wallet.create_session()
        assert await wallet.accounts() == [ACCOUNT.address]
        signature = await wallet.personal_sign("hello")
        assert recover_message("hello", signature) == ACCOUNT.address
        signature = await wallet.sign_typed_data(TYPED)
        assert recover_typed_data(TYPED, signature) == ACCOUNT.address
    asked = pocket.person.asked
    assert [type(question) for question in asked] == [LinkRequest, Proposal, SigningRequest, SigningRequest]
    assert {question.origin for question in asked} == {SHOP}
    assert isinstance(asked[2], SigningRequest)
    assert asked[2].shown == "hello"
    reported_elsewhere = {Step.INVITED, Step.READ, Step.SESSION_CREATED, Step.SIGNED}  # by the command line
    assert set(steps) == set(Step) - reported_elsewhere
    assert len(steps) == len(set(steps))


async def test_the_service_may_go_away_once_both_are_connected(site: Node, pocket: Pocket) -> None:
    async with open_service() as service:
        linked = await pair(site, pocket, service)
    async with open_wallet(site, linked) as wallet:
        await wallet.create_session()
        assert recover_message("hello", await wallet.personal_sign("hello")) == ACCOUNT.address


async def test_two_websites_with_one_wallet_do_not_get_into_each_others_way(
    service: str, site: Node, pocket: Pocket, loopback_webrtc: TransportFactory
) -> None:
    async with open_node(transports=[loopback_webrtc]) as bank:
        at_shop = await pair(site, pocket, service, SHOP)
        at_bank = await pair(bank, pocket, service, BANK)
        async with open_wallet(site, at_shop) as shop_wallet, open_wallet(bank, at_bank) as bank_wallet:
            session = await shop_wallet.create_session()
            await bank_wallet.create_session()
            await shop_wallet.personal_sign("for the shop")
            await bank_wallet.personal_sign("for the bank")
            origins = [
                question.origin for question in pocket.person.asked if isinstance(question, SigningRequest)
            ]
            assert origins == [SHOP, BANK]
            bank_wallet._session_id = str(session["sessionId"])  # the bank steals the shop's session
            with pytest.raises(RequestFailed) as caught:
                await bank_wallet.personal_sign("for the shop, says the bank")
            assert caught.value.code == 5500


# --- the person says no ---


async def test_a_person_who_declines_the_link_ends_the_pairing_on_both_sides(
    service: str, site: Node, pocket: Pocket
) -> None:
    pocket.person.link = False
    for refused in await both_outcomes(site, pocket, service):
        assert isinstance(refused, LinkRefused)
        assert refused.field == "approval"


async def test_a_person_who_declines_a_session_can_be_asked_again(
    service: str, site: Node, pocket: Pocket
) -> None:
    pocket.person.session = False
    async with open_wallet(site, await pair(site, pocket, service)) as wallet:
        with pytest.raises(RequestFailed) as caught:
            await wallet.create_session()
        assert caught.value.code == 5000
        pocket.person.session = True
        await wallet.create_session()
        assert await wallet.accounts() == [ACCOUNT.address]


async def test_a_person_who_declines_a_signature_can_be_asked_again(
    service: str, site: Node, pocket: Pocket
) -> None:
    async with open_wallet(site, await pair(site, pocket, service)) as wallet:
        await wallet.create_session()
        pocket.person.signature = False
        for ask in (wallet.personal_sign("hello"), wallet.sign_typed_data(TYPED)):
            with pytest.raises(RequestFailed) as caught:
                await ask
            assert caught.value.code == 4001
        pocket.person.signature = True
        assert await wallet.personal_sign("hello")


async def test_a_wallet_on_a_chain_that_the_website_does_not_take_is_not_linked(
    service: str, site: Node, loopback_webrtc: TransportFactory
) -> None:
    async with open_pocket(loopback_webrtc, Person(), chains=(137,)) as pocket:
        for refused in await both_outcomes(site, pocket, service):
            assert isinstance(refused, LinkRefused)
            assert "chain" in refused.field


# --- somebody is gone ---


async def test_a_website_that_leaves_before_the_link_tells_the_wallet(
    service: str, site: Node, pocket: Pocket
) -> None:
    asked, gone = trio.Event(), trio.Event()

    async def hesitate(request: LinkRequest) -> bool:
        asked.set()
        await gone.wait()
        del request
        return True

    pocket.person.approve_link = hesitate  # type: ignore[method-assign]
    outcomes: list[object] = []

    async def take_the_invitation(invitation: Invitation) -> None:
        outcomes.extend(await outcome_of(pocket.wallet.link, pocket.node, invitation))

    async with trio.open_nursery() as nursery:
        async with invite(site, service=service, origin=SHOP) as pending:
            nursery.start_soon(take_the_invitation, pending.invitation)
            await asked.wait()
        await trio.testing.wait_all_tasks_blocked(0.05)  # the farewell takes its way through the service
        gone.set()
    (refused,) = outcomes
    assert isinstance(refused, PeerLeft), repr(refused)


async def test_a_website_that_leaves_after_the_link_is_noticed(
    service: str, pocket: Pocket, loopback_webrtc: TransportFactory
) -> None:
    async with open_node(transports=[loopback_webrtc]) as site:
        await pair(site, pocket, service)
        (connection,) = pocket.node.connections.values()
    await connection.wait_closed()
    await trio.testing.wait_all_tasks_blocked(0.05)
    assert not pocket.node.connections


async def test_a_wallet_that_leaves_ends_what_the_website_waits_for(
    service: str, site: Node, loopback_webrtc: TransportFactory
) -> None:
    asked = trio.Event()
    person = Person()

    async def never_decide(request: SigningRequest) -> bool:
        asked.set()
        await trio.sleep_forever()
        return request is not None

    person.approve_signature = never_decide  # type: ignore[method-assign]
    linked: list[LinkedWallet] = []
    ready, may_leave = trio.Event(), trio.Event()

    async def wallet_side() -> None:
        async with open_pocket(loopback_webrtc, person) as pocket:
            linked.append(await pair(site, pocket, service))
            ready.set()
            await may_leave.wait()

    async def leave_when_asked() -> None:
        await asked.wait()
        may_leave.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wallet_side)
        nursery.start_soon(leave_when_asked)
        await ready.wait()
        async with open_wallet(site, linked[0]) as wallet:
            await wallet.create_session()
            with pytest.raises(ConnectionLost):
                await wallet.personal_sign("hello")


async def test_a_peer_that_never_linked_is_not_served(site: Node, pocket: Pocket) -> None:
    ours, theirs = memory_channel_pair(site.peer_id, pocket.node.peer_id)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pocket.node.connect_over, theirs)
        connection = await site.connect_over(ours)
    assert isinstance(connection, Connection)

    async def ask() -> None:
        async with await site.open_stream(pocket.node.peer_id, PROTOCOL) as stream:
            await stream.receive_some()

    with pytest.raises((ConnectionLost, trio.BrokenResourceError)):
        await ask()
    assert not pocket.person.asked


async def test_nothing_is_left_behind(
    service: str, loopback_webrtc: TransportFactory, leftovers: Callable
) -> None:
    async def pair_once(person: Person) -> None:
        async with (
            open_node(transports=[loopback_webrtc]) as site,
            open_pocket(loopback_webrtc, person) as pocket,
        ):
            website, _ = await both_outcomes(site, pocket, service)
            if isinstance(website, LinkedWallet):
                async with open_wallet(site, website) as wallet:
                    await wallet.create_session()

    await pair_once(Person())  # loads what is loaded once
    async with leftovers().none():
        await pair_once(Person())
        await pair_once(Person(link=False))
