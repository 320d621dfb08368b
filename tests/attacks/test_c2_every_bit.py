"""C2: somebody on the way flips one bit of one message. No session comes of it, on neither side."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from handclasp.discovery.sealed import Conversation, Kind, Message
from handclasp.discovery.signaling import Invitation
from handclasp.errors import HandshakeFailed
from handclasp.identity import Identity

WEBSITE, WALLET = Identity.generate(), Identity.generate()
INVITATION = Invitation(
    "wss://s.example", "https://shop.example", WEBSITE.peer_id, bytes(range(16)), 2_000_000_000
)
OFFER, ANSWER = Message(Kind.SIGNALING, b"an offer"), Message(Kind.SIGNALING, b"an answer")

Meddle = Callable[[bytes], bytes]


def untouched(message: bytes) -> bytes:
    return message


def pair(
    first: Meddle = untouched, second: Meddle = untouched, third: Meddle = untouched
) -> list[Conversation]:
    """Both sides after a handshake whose messages somebody had in his hands; the wallet comes second."""
    website = Conversation(WEBSITE, dialed=None, prologue=INVITATION.prologue)
    wallet = Conversation(WALLET, dialed=INVITATION.peer, prologue=INVITATION.prologue)
    website.receive_untrusted(first(wallet.greet()))
    assert wallet.receive_untrusted(second(website.send(OFFER))) == OFFER
    assert website.receive_untrusted(third(wallet.send(ANSWER))) == ANSWER
    return [website, wallet]


def length_of(number: int) -> int:
    lengths: list[int] = []

    def measure(message: bytes) -> bytes:
        lengths.append(len(message))
        return message

    pair(measure, measure, measure)
    return lengths[number]


def flip(bit: int) -> Meddle:
    def meddle(message: bytes) -> bytes:
        changed = bytearray(message)
        changed[bit // 8] ^= 1 << bit % 8
        return bytes(changed)

    return meddle


def test_undisturbed_both_sides_have_the_same_session() -> None:
    website, wallet = pair()
    assert website.secured is not None
    assert wallet.secured is not None
    assert website.secured.handshake_hash == wallet.secured.handshake_hash
    assert website.secured.binding == wallet.secured.binding


@pytest.mark.parametrize("number", range(3))
def test_no_bit_of_a_handshake_message_can_be_flipped(number: int) -> None:
    for bit in range(8 * length_of(number)):
        meddling = [untouched] * 3
        meddling[number] = flip(bit)
        with pytest.raises(HandshakeFailed):
            pair(*meddling)


@pytest.mark.parametrize("from_wallet", [True, False])
def test_no_bit_of_a_link_message_can_be_flipped(*, from_wallet: bool) -> None:
    bits, bit = 1, 0
    while bit < bits:
        website, wallet = pair()
        sender, receiver = (wallet, website) if from_wallet else (website, wallet)
        sealed = sender.send(Message(Kind.LINK, b'{"linked": true}'))
        bits = 8 * len(sealed)
        with pytest.raises(HandshakeFailed):
            receiver.receive_untrusted(flip(bit)(sealed))
        with pytest.raises(HandshakeFailed):  # and nothing that comes after it is believed either
            receiver.receive_untrusted(sealed)
        bit += 1


@pytest.mark.parametrize("number", range(3))
def test_no_handshake_message_can_be_shortened_or_lengthened(number: int) -> None:
    changes: list[Meddle] = [lambda message: message + b"\0", lambda _: b""]
    changes += [lambda message, end=end: message[:end] for end in range(1, length_of(number), 7)]  # type: ignore[misc]
    for change in changes:
        meddling = [untouched] * 3
        meddling[number] = change
        with pytest.raises(HandshakeFailed):
            pair(*meddling)
