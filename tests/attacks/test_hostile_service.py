"""C1, C2, C3, C4, C7, C8, C9: what a service in an attacker's hands gets from two unmodified peers."""

from __future__ import annotations

import re
from typing import Any

import pytest

from handclasp import Identity
from handclasp.discovery.sealed import Conversation, Kind, Message
from handclasp.discovery.signaling import Invitation
from handclasp.errors import HandshakeFailed, WrongPeer

from .hostile import decode, encode, open_hostile_service
from .pairing import ACCOUNT, MESSAGE, pair

MESSAGES = ("link", 1), ("offer", 1), ("answer", 1), ("link", 2), ("offer", 2)


async def test_an_undisturbed_pairing_through_the_hostile_service_works() -> None:
    async with open_hostile_service() as service:
        outcome = await pair(service.url)
    assert outcome.linked is not None
    assert outcome.signature
    assert outcome.website_error is None


async def test_c1_a_curious_service_learns_neither_account_nor_keys_nor_requests() -> None:
    async with open_hostile_service() as service:
        outcome = await pair(service.url)
    assert outcome.linked is not None
    assert outcome.invitation is not None
    seen = bytes(service.everything).lower() + b"".join(service.bodies).lower()
    assert b"challenge" in seen  # it did see this pairing
    secret = re.search("secret=([^&]+)", str(outcome.invitation))
    assert secret is not None
    canaries: list[bytes] = [
        ACCOUNT.address.encode(),
        bytes.fromhex(ACCOUNT.address[2:]),
        outcome.signature.encode(),
        bytes.fromhex(outcome.signature[2:]),
        secret[1].encode(),
        outcome.invitation.secret,
        outcome.invitation.secret.hex().encode(),
        str(outcome.invitation.peer).encode(),
        outcome.invitation.peer.public_key,
        str(outcome.linked.peer).encode(),
        outcome.linked.peer.public_key,
        b"shop.example",
        b"m=application",
        b"candidate:",
        b"fingerprint",
        b"personal_sign",
        b"wallet_createsession",
        MESSAGE.encode(),
    ]
    for canary in canaries:
        assert canary.lower() not in seen


def flip(body: bytes, position: int) -> bytes:
    changed = bytearray(body)
    changed[position % len(changed)] ^= 1 << (position % 8)
    return bytes(changed)


@pytest.mark.parametrize(("topic", "count"), MESSAGES)
@pytest.mark.parametrize("position", [0, 40, -1])
async def test_c2_flipping_a_bit_of_any_message_yields_no_session(
    topic: str, count: int, position: int
) -> None:
    seen: dict[str, int] = {}

    def tamper(frame: dict[str, Any]) -> list[dict[str, Any]]:
        seen[frame["topic"]] = seen.get(frame["topic"], 0) + 1
        if frame["topic"] == topic and seen[topic] == count:
            frame["body"] = encode(flip(decode(frame["body"]), position))
        return [frame]

    async with open_hostile_service(tamper) as service:
        outcome = await pair(service.url)
    assert seen[topic] >= count  # there was something to flip
    if (topic, count) == ("offer", 2):  # the website's verdict: it had verified everything by then
        assert not outcome.wallet_connected
        assert isinstance(outcome.wallet_error, HandshakeFailed)
        return
    assert outcome.nobody_has_a_session
    assert outcome.website_error is not None
    assert outcome.wallet_error is not None


@pytest.mark.parametrize("topic", ["link", "offer", "answer"])
async def test_c9_a_repeated_message_yields_no_session(topic: str) -> None:
    def tamper(frame: dict[str, Any]) -> list[dict[str, Any]]:
        return [frame, frame] if frame["topic"] == topic else [frame]

    async with open_hostile_service(tamper) as service:
        outcome = await pair(service.url)
    assert outcome.linked is None or not outcome.wallet_connected
    assert outcome.website_error is not None or outcome.wallet_error is not None


@pytest.mark.parametrize("topic", ["answer", "link"])
async def test_c9_messages_that_the_service_swaps_yield_no_session(topic: str) -> None:
    held: list[dict[str, Any]] = []

    def tamper(frame: dict[str, Any]) -> list[dict[str, Any]]:
        if frame["topic"] not in {"answer", "link"} or frame["n"] == 1:
            return [frame]
        if not held and frame["topic"] == topic:
            held.append(frame)  # comes after the next one
            return []
        return [frame, *held]

    async with open_hostile_service(tamper) as service:
        outcome = await pair(service.url, within=8)
    assert outcome.nobody_has_a_session


@pytest.mark.parametrize("topic", ["link", "offer", "answer"])
async def test_c9_dropped_messages_yield_no_session(topic: str) -> None:
    async with open_hostile_service(lambda frame: [] if frame["topic"] == topic else [frame]) as service:
        outcome = await pair(service.url, within=8)
    assert outcome.nobody_has_a_session


@pytest.mark.parametrize(
    ("field", "value"),
    [("origin", "https://phish.example"), ("expires", "1999999999"), ("secret", "A" * 22)],
)
async def test_c7_an_edited_invitation_yields_no_session(field: str, value: str) -> None:
    def edit(uri: str) -> str:
        return re.sub(rf"{field}=[^&]+", f"{field}={value}", uri)

    async with open_hostile_service() as service:
        outcome = await pair(service.url, edit=edit, within=8)
    assert outcome.nobody_has_a_session


def conversation(invitation: Invitation, identity: Identity, *, wallet: bool) -> Conversation:
    return Conversation(identity, dialed=invitation.peer if wallet else None, prologue=invitation.prologue)


def test_c3_a_service_without_the_secret_can_act_neither_as_the_website_nor_as_the_wallet() -> None:
    website, wallet, service = Identity.generate(), Identity.generate(), Identity.generate()
    genuine = Invitation("wss://s.example", "https://shop.example", website.peer_id, b"s" * 16, 2_000_000_000)
    guessed = Invitation("wss://s.example", "https://shop.example", website.peer_id, b"g" * 16, 2_000_000_000)

    victim, fake = conversation(genuine, wallet, wallet=True), conversation(guessed, service, wallet=False)
    fake.receive_untrusted(victim.greet())
    with pytest.raises(HandshakeFailed):
        victim.receive_untrusted(fake.send(None))

    site, thief = conversation(genuine, website, wallet=False), conversation(guessed, service, wallet=True)
    site.receive_untrusted(thief.greet())
    with pytest.raises(HandshakeFailed):
        thief.receive_untrusted(site.send(Message(Kind.SIGNALING, b"the offer")))


def test_c4_a_photo_of_the_qr_code_cannot_impersonate_the_website() -> None:
    website, wallet, thief = Identity.generate(), Identity.generate(), Identity.generate()
    photographed = Invitation(
        "wss://s.example", "https://shop.example", website.peer_id, b"s" * 16, 2_000_000_000
    )

    victim, fake = (
        conversation(photographed, wallet, wallet=True),
        conversation(photographed, thief, wallet=False),
    )
    fake.receive_untrusted(victim.greet())
    with pytest.raises(WrongPeer):
        victim.receive_untrusted(fake.send(Message(Kind.SIGNALING, b"the thief's offer")))
    assert not victim.may_send  # nothing more leaves the wallet, its identity least of all
