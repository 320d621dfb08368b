"""The hub by itself: an explicit clock, numbers for sockets, frames in and frames out."""

from __future__ import annotations

import gc
import re
from collections import Counter
from enum import Enum
from types import FunctionType, ModuleType

import pytest

from handclasp.service.frames import (
    Accepted,
    Claim,
    ClientFrame,
    Close,
    Crowded,
    End,
    EndCode,
    Error,
    Joined,
    Left,
    Message,
    Publish,
    Ready,
    Refused,
    Role,
    ServerFrame,
    Subscribe,
    Topic,
)
from handclasp.service.hub import Hub
from handclasp.service.mailbox import LIFE, Happening, State
from handclasp.service.seats import ORDER, Delivery, Note, Stage
from handclasp.service.settings import Settings

from .driver import ID, OTHER_ID

UNKNOWN_TOKEN = "ab" * 32
UNKNOWN_NONCE = "cd" * 16


class Desk:
    """A hub with a clock in hand; keeps what came for each socket, and counts the acknowledgements apart."""

    def __init__(self, **settings: float) -> None:
        self.hub = Hub(Settings(**settings))
        self.now = 1000.0
        self.notes: list[str] = []
        self.accepted: Counter[int] = Counter()
        self._received: dict[int, list[ServerFrame]] = {}

    def collect(self) -> None:
        for effect in self.hub.drain():
            if isinstance(effect, Note):
                self.notes.append(f"{effect.label} {effect.event}")
            elif isinstance(effect.frame, Accepted):
                self.accepted[effect.connection] += 1
            else:
                assert isinstance(effect, Delivery)
                self._received.setdefault(effect.connection, []).append(effect.frame)

    def got(self, connection: int) -> list[ServerFrame]:
        """What came since the last call."""
        self.collect()
        return self._received.pop(connection, [])

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.hub.tick(self.now)

    def open(self, mailbox: str = ID) -> tuple[str, str]:
        challenge = self.hub.open(mailbox, self.now)
        return challenge.token, challenge.nonce

    def say(self, connection: int, frame: ClientFrame) -> None:
        self.hub.receive(connection, frame, self.now)

    def socket(self, first: ClientFrame) -> int:
        connection = self.hub.connect()
        self.say(connection, first)
        return connection

    def subscribe(self, token: str, after: int = 0) -> int:
        return self.socket(Subscribe(token, after))

    def claim(self, mailbox: str = ID) -> tuple[int, str]:
        connection = self.socket(Claim(mailbox))
        ready = self.got(connection)[0]
        assert isinstance(ready, Ready), ready
        assert ready.token is not None
        return connection, ready.token

    def hang_up(self, connection: int) -> None:
        self.hub.disconnect(connection, self.now)

    def pair(self) -> tuple[int, int, str, str, str]:
        """Both connected, greetings read: website, wallet, their tokens, the nonce."""
        website_token, nonce = self.open()
        website = self.subscribe(website_token)
        wallet, wallet_token = self.claim()
        self.got(website)
        return website, wallet, website_token, wallet_token, nonce

    def is_refused(self, connection: int, code: str) -> bool:
        frames = self.got(connection)
        return len(frames) == 1 and isinstance(frames[0], Error) and frames[0].code == code


@pytest.fixture
def desk() -> Desk:
    return Desk()


def refused(code: str, status: int) -> object:
    return pytest.raises(Refused, check=lambda error: (error.code, error.status) == (code, status))


def everything_in(thing: object) -> list[object]:
    """Every text and bytes that can be reached from *thing*, however it is kept."""
    found: list[object] = []
    seen: set[int] = set()
    waiting = [thing]
    while waiting:
        each = waiting.pop()
        if id(each) in seen or isinstance(each, type | ModuleType | FunctionType | Enum | Settings):
            continue
        seen.add(id(each))
        if isinstance(each, str | bytes):
            found.append(each)
        elif hasattr(each, "__dict__"):
            waiting += vars(each).values()  # not the names of its attributes
        else:
            waiting += gc.get_referents(each)
    return found


# Opening and claiming


def test_tokens_and_nonce_have_the_length_that_the_protocol_says(desk: Desk) -> None:
    challenge = desk.hub.open(ID, desk.now)
    assert re.fullmatch(r"[0-9a-f]{64}", challenge.token)
    assert re.fullmatch(r"[0-9a-f]{32}", challenge.nonce)
    assert challenge.expires_in == 120


def test_a_mailbox_that_exists_cannot_be_opened_again(desk: Desk) -> None:
    desk.open()
    with refused("crowded", 409):
        desk.open()


def test_the_wallet_gets_its_own_token_and_the_nonce_of_the_challenge(desk: Desk) -> None:
    token, nonce = desk.open()
    wallet = desk.socket(Claim(ID))
    (ready,) = desk.got(wallet)
    assert isinstance(ready, Ready)
    assert (ready.role, ready.nonce, ready.expires_in) == (Role.WALLET, nonce, 300)
    assert ready.token not in {None, token}


def test_a_website_that_subscribes_gets_no_token_and_no_nonce(desk: Desk) -> None:
    token, _ = desk.open()
    desk.wait(2)
    assert desk.got(desk.subscribe(token)) == [Ready(Role.WEBSITE, 118)]


def test_a_wallet_that_comes_back_gets_no_second_token(desk: Desk) -> None:
    _, wallet, _, wallet_token, _ = desk.pair()
    desk.hang_up(wallet)
    back = desk.subscribe(wallet_token)
    assert desk.got(back)[0] == Ready(Role.WALLET, 300)


def test_both_hear_joined_as_soon_as_both_are_there(desk: Desk) -> None:
    token, _ = desk.open()
    website = desk.subscribe(token)
    assert Joined() not in desk.got(website)
    wallet = desk.socket(Claim(ID))
    assert desk.got(website) == [Joined()]
    assert Joined() in desk.got(wallet)


def test_a_wallet_may_claim_before_the_website_subscribes(desk: Desk) -> None:
    token, _ = desk.open()
    wallet, _ = desk.claim()
    website = desk.subscribe(token)
    assert desk.got(wallet) == [Joined()]
    assert desk.got(website) == [Ready(Role.WEBSITE, 300), Joined()]


def test_a_second_claim_is_refused_and_both_parties_are_told(desk: Desk) -> None:
    website, wallet, *_ = desk.pair()
    thief = desk.socket(Claim(ID))
    assert desk.is_refused(thief, "crowded")
    assert desk.got(website) == [Crowded()]
    assert desk.got(wallet) == [Crowded()]


def test_a_thief_who_claims_often_cannot_fill_the_outbox_of_the_two(desk: Desk) -> None:
    website, wallet, *_ = desk.pair()
    for _ in range(100):
        assert desk.is_refused(desk.socket(Claim(ID)), "crowded")
    assert desk.got(website) == [Crowded()]
    assert desk.got(wallet) == [Crowded()]


def test_a_party_that_was_away_hears_of_the_thief_when_it_is_back(desk: Desk) -> None:
    website, _, website_token, _, _ = desk.pair()
    desk.hang_up(website)
    desk.socket(Claim(ID))
    assert Crowded() in desk.got(desk.subscribe(website_token))


def test_a_wallet_that_broke_off_cannot_claim_again(desk: Desk) -> None:
    _, wallet, *_ = desk.pair()
    desk.hang_up(wallet)
    assert desk.is_refused(desk.socket(Claim(ID)), "crowded")


def test_a_full_service_opens_no_mailbox_until_one_is_over() -> None:
    desk = Desk(mailboxes=1)
    token, _ = desk.open()
    with refused("full", 503):
        desk.open(OTHER_ID)
    desk.say(desk.subscribe(token), Close())
    desk.open(OTHER_ID)


# Messages


def test_messages_are_numbered_for_each_receiver(desk: Desk) -> None:
    website, wallet, *_ = desk.pair()
    desk.say(wallet, Publish(Topic.LINK, "bGluaw"))
    desk.say(website, Publish(Topic.OFFER, "b2ZmZXI"))
    desk.say(wallet, Publish(Topic.ANSWER, "YW5zd2Vy"))
    assert desk.got(website) == [Message(Topic.LINK, 1, "bGluaw"), Message(Topic.ANSWER, 2, "YW5zd2Vy")]
    assert desk.got(wallet) == [Message(Topic.OFFER, 1, "b2ZmZXI")]


def test_every_message_of_a_socket_is_acknowledged_to_it_once_the_service_has_it(desk: Desk) -> None:
    _, wallet, website_token, wallet_token, _ = desk.pair()
    for _ in range(3):
        desk.say(wallet, Publish(Topic.ANSWER, "AA"))
    desk.hub.publish(wallet_token, Topic.ANSWER, "AA", desk.now)
    desk.hub.publish(website_token, Topic.OFFER, "AA", desk.now)
    desk.say(wallet, Publish(Topic.OFFER, "AA"))
    desk.collect()
    assert desk.accepted == {wallet: 3}


def test_a_message_over_http_reaches_the_socket_of_the_other_party(desk: Desk) -> None:
    website, wallet, website_token, wallet_token, _ = desk.pair()
    desk.hub.publish(website_token, Topic.OFFER, "AA", desk.now)
    desk.hub.publish(wallet_token, Topic.ANSWER, "AQ", desk.now)
    assert desk.got(wallet) == [Message(Topic.OFFER, 1, "AA")]
    assert desk.got(website) == [Message(Topic.ANSWER, 1, "AQ")]


def test_what_was_published_before_the_wallet_came_is_waiting_for_it(desk: Desk) -> None:
    token, _ = desk.open()
    desk.hub.publish(token, Topic.OFFER, "AA", desk.now)
    wallet = desk.socket(Claim(ID))
    assert desk.got(wallet)[1:] == [Message(Topic.OFFER, 1, "AA")]


def test_a_resume_brings_what_came_after_the_last_message_seen(desk: Desk) -> None:
    website, wallet, website_token, _, _ = desk.pair()
    for body in ("AA", "AQ", "Ag"):
        desk.say(wallet, Publish(Topic.ANSWER, body))
    desk.hang_up(website)
    desk.say(wallet, Publish(Topic.ANSWER, "Aw"))
    messages = [frame for frame in desk.got(desk.subscribe(website_token, 2)) if isinstance(frame, Message)]
    assert [(message.n, message.body) for message in messages] == [(3, "Ag"), (4, "Aw")]


def test_a_resume_after_a_message_that_never_was_is_refused(desk: Desk) -> None:
    token, _ = desk.open()
    assert desk.is_refused(desk.subscribe(token, 1), "malformed")


@pytest.mark.parametrize(
    ("role", "topic"), [(Role.WEBSITE, Topic.LINK), (Role.WEBSITE, Topic.ANSWER), (Role.WALLET, Topic.OFFER)]
)
def test_a_topic_of_the_other_party_is_forbidden_everywhere(desk: Desk, role: Role, topic: Topic) -> None:
    website, wallet, website_token, wallet_token, _ = desk.pair()
    connection, token = (website, website_token) if role is Role.WEBSITE else (wallet, wallet_token)
    with refused("forbidden", 403):
        desk.hub.publish(token, topic, "AA", desk.now)
    desk.say(connection, Publish(topic, "AA"))
    assert desk.is_refused(connection, "forbidden")
    assert not any(isinstance(frame, Message) for each in (website, wallet) for frame in desk.got(each))


def test_the_257th_message_of_a_direction_is_refused_and_the_other_direction_goes_on(desk: Desk) -> None:
    website, wallet, _, wallet_token, _ = desk.pair()
    for _ in range(256):
        desk.say(wallet, Publish(Topic.ANSWER, "AA"))
    assert len(desk.got(website)) == 256
    with refused("limit", 429):
        desk.hub.publish(wallet_token, Topic.ANSWER, "AA", desk.now)
    desk.say(website, Publish(Topic.OFFER, "AA"))
    assert desk.got(wallet) == [Message(Topic.OFFER, 1, "AA")]
    desk.say(wallet, Publish(Topic.ANSWER, "AA"))
    assert desk.is_refused(wallet, "limit")
    assert desk.got(website) == [Left()]


def test_a_direction_takes_only_so_many_characters() -> None:
    desk = Desk(direction_length=87_380, stored_length=100_000)
    website, wallet, *_ = desk.pair()
    desk.say(wallet, Publish(Topic.LINK, "A" * 87_380))
    assert len(desk.got(website)) == 1
    desk.say(wallet, Publish(Topic.ANSWER, "AA"))
    assert desk.is_refused(wallet, "limit")


def test_the_service_keeps_only_so_many_characters_and_has_room_again_when_a_mailbox_is_over() -> None:
    desk = Desk(direction_length=87_380, stored_length=87_380)
    website, wallet, website_token, _, _ = desk.pair()
    desk.say(wallet, Publish(Topic.LINK, "A" * 87_380))
    with refused("full", 503):
        desk.hub.publish(website_token, Topic.OFFER, "AA", desk.now)
    desk.say(website, Close())
    _, _, token, _, _ = desk.pair()
    desk.hub.publish(token, Topic.OFFER, "A" * 87_380, desk.now)


# The order of frames, as data


@pytest.mark.parametrize("stage", [Stage.NEW, Stage.SEATED])
@pytest.mark.parametrize("kind", [Subscribe, Claim, Publish, Close])
def test_a_frame_out_of_order_ends_that_socket_and_nothing_else(
    desk: Desk, stage: Stage, kind: type[ClientFrame]
) -> None:
    website, wallet, website_token, _, _ = desk.pair()
    frame = {
        Subscribe: Subscribe(website_token, 0),
        Claim: Claim(OTHER_ID),
        Publish: Publish(Topic.ANSWER, "AA"),
        Close: Close(),
    }[kind]
    if (stage, kind) in ORDER:
        return
    connection = desk.hub.connect() if stage is Stage.NEW else wallet
    desk.say(connection, frame)
    assert desk.is_refused(connection, "malformed")
    expected = [Left()] if connection == wallet else []
    assert desk.got(website) == expected


def test_the_tables_have_the_steps_of_the_protocol_and_no_others() -> None:
    assert set(ORDER) == {
        (Stage.NEW, Subscribe),
        (Stage.NEW, Claim),
        (Stage.SEATED, Publish),
        (Stage.SEATED, Close),
    }
    assert LIFE == {
        (State.OPEN, Happening.CLAIM): State.CLAIMED,
        (State.OPEN, Happening.END): State.FORGOTTEN,
        (State.CLAIMED, Happening.END): State.FORGOTTEN,
    }


def test_frames_after_the_last_word_are_void(desk: Desk) -> None:
    website, wallet, *_ = desk.pair()
    desk.say(wallet, Publish(Topic.OFFER, "AA"))
    desk.got(website)
    desk.say(wallet, Publish(Topic.ANSWER, "AA"))
    desk.say(wallet, Close())
    assert desk.got(website) == []
    assert desk.is_refused(wallet, "forbidden")


# The nonce


def test_a_nonce_is_good_once(desk: Desk) -> None:
    website, _, _, wallet_token, nonce = desk.pair()
    desk.hub.link(wallet_token, nonce, "AA", desk.now)
    with refused("nonce", 403):
        desk.hub.link(wallet_token, nonce, "AA", desk.now)
    assert desk.got(website) == [Message(Topic.LINK, 1, "AA")]


def test_used_unknown_expired_and_foreign_nonces_are_answered_alike() -> None:
    desk = Desk(nonce_life=130, challenge_life=130)
    *_, used_token, used = desk.pair()
    desk.hub.link(used_token, used, "AA", desk.now)
    _, foreign = desk.open(OTHER_ID)
    answers = set()

    def attempt(token: str, nonce: str) -> None:
        with pytest.raises(Refused) as caught:
            desk.hub.link(token, nonce, "AA", desk.now)
        answers.add((caught.value.code, caught.value.detail, caught.value.status))

    attempt(used_token, used)
    attempt(used_token, UNKNOWN_NONCE)
    attempt(used_token, foreign)
    desk.wait(100)
    desk.hub.open("ee" * 16, desk.now)
    _, late_token = desk.claim("ee" * 16)
    late_nonce = desk.hub.open("dd" * 16, desk.now).nonce
    desk.wait(130)
    attempt(late_token, late_nonce)
    assert len(answers) == 1


def test_a_nonce_is_no_good_after_300_seconds_though_the_mailbox_lives(desk: Desk) -> None:
    _, nonce = desk.open()
    desk.wait(119)
    wallet, wallet_token = desk.claim()
    desk.wait(181)
    with refused("nonce", 403):
        desk.hub.link(wallet_token, nonce, "AA", desk.now)
    desk.say(wallet, Publish(Topic.ANSWER, "AA"))
    assert desk.got(wallet) == []


def test_a_nonce_is_good_until_the_last_moment(desk: Desk) -> None:
    _, nonce = desk.open()
    desk.wait(119)
    _, wallet_token = desk.claim()
    desk.wait(180.9)
    desk.hub.link(wallet_token, nonce, "AA", desk.now)


def test_a_foreign_attempt_does_not_use_the_nonce_up(desk: Desk) -> None:
    _, _, website_token, wallet_token, nonce = desk.pair()
    desk.open(OTHER_ID)
    _, foreign_token = desk.claim(OTHER_ID)
    with refused("nonce", 403):
        desk.hub.link(foreign_token, nonce, "AA", desk.now)
    with refused("forbidden", 403):
        desk.hub.link(website_token, nonce, "AA", desk.now)
    desk.hub.link(wallet_token, nonce, "AA", desk.now)


def test_a_nonce_is_taken_even_when_the_message_finds_no_room() -> None:
    desk = Desk(messages=1)
    _, wallet, _, wallet_token, nonce = desk.pair()
    desk.say(wallet, Publish(Topic.LINK, "AA"))
    with refused("limit", 429):
        desk.hub.link(wallet_token, nonce, "AA", desk.now)
    with refused("nonce", 403):
        desk.hub.link(wallet_token, nonce, "AA", desk.now)


# Coming and going


def test_the_other_party_hears_left_and_joined(desk: Desk) -> None:
    website, wallet, _, wallet_token, _ = desk.pair()
    desk.hang_up(wallet)
    assert desk.got(website) == [Left()]
    desk.wait(4.9)
    back = desk.subscribe(wallet_token)
    assert desk.got(website) == [Joined()]
    assert desk.got(back) == [Ready(Role.WALLET, 295), Joined()]
    desk.wait(10)
    assert desk.got(website) == []


@pytest.mark.parametrize("leaver", [Role.WEBSITE, Role.WALLET])
def test_a_party_that_stays_away_for_5_seconds_ends_the_mailbox(desk: Desk, leaver: Role) -> None:
    website, wallet, website_token, wallet_token, _ = desk.pair()
    gone, stays = (website, wallet) if leaver is Role.WEBSITE else (wallet, website)
    desk.hang_up(gone)
    assert desk.got(stays) == [Left()]
    assert desk.hub.next_deadline() == desk.now + 5
    desk.wait(4.99)
    assert desk.got(stays) == []
    desk.wait(0.01)
    assert desk.got(stays) == [End(EndCode.LEFT)]
    for token in (website_token, wallet_token):
        assert desk.is_refused(desk.subscribe(token), "unauthorized")


def test_an_open_mailbox_ends_when_its_website_stays_away(desk: Desk) -> None:
    token, _ = desk.open()
    desk.hang_up(desk.subscribe(token))
    desk.wait(5)
    assert desk.is_refused(desk.socket(Claim(ID)), "unauthorized")


def test_an_open_mailbox_whose_website_never_subscribed_waits_its_whole_time(desk: Desk) -> None:
    desk.open()
    desk.wait(119.9)
    desk.claim()


def test_a_newer_socket_replaces_the_older_one_and_the_other_party_does_not_notice(desk: Desk) -> None:
    website, wallet, website_token, _, _ = desk.pair()
    newer = desk.subscribe(website_token)
    assert desk.got(website) == [End(EndCode.REPLACED)]
    assert desk.got(newer) == [Ready(Role.WEBSITE, 300), Joined()]
    desk.hang_up(website)
    desk.wait(10)
    assert desk.got(wallet) == []
    desk.say(wallet, Publish(Topic.ANSWER, "AA"))
    assert desk.got(newer) == [Message(Topic.ANSWER, 1, "AA")]
    assert desk.got(website) == []


def test_close_ends_it_for_both_at_any_time(desk: Desk) -> None:
    website, wallet, *_ = desk.pair()
    desk.say(wallet, Close())
    assert desk.got(website) == [End(EndCode.CLOSED)]
    assert desk.got(wallet) == [End(EndCode.CLOSED)]
    token, _ = desk.open()
    alone = desk.subscribe(token)
    desk.say(alone, Close())
    assert desk.got(alone)[-1] == End(EndCode.CLOSED)


def test_an_open_mailbox_expires_after_120_seconds_and_a_claimed_one_300_after_the_claim(desk: Desk) -> None:
    token, _ = desk.open()
    website = desk.subscribe(token)
    desk.got(website)
    desk.wait(119.9)
    wallet, _ = desk.claim()
    desk.got(website)
    desk.wait(299.9)
    assert desk.got(website) == []
    desk.wait(0.1)
    assert desk.got(website) == [End(EndCode.EXPIRED)]
    assert desk.got(wallet)[-1] == End(EndCode.EXPIRED)
    open_token, _ = desk.open()
    waiting = desk.subscribe(open_token)
    desk.wait(120)
    assert desk.got(waiting)[-1] == End(EndCode.EXPIRED)


def test_whatever_comes_first_is_the_reason_even_when_the_timer_is_late(desk: Desk) -> None:
    website, wallet, *_ = desk.pair()
    desk.wait(294)
    desk.hang_up(wallet)
    desk.got(website)
    desk.wait(60)
    assert desk.got(website) == [End(EndCode.LEFT)]


def test_without_any_tick_nothing_can_be_used_after_its_time(desk: Desk) -> None:
    _, _, website_token, _, _ = desk.pair()
    desk.now += 300
    with refused("unauthorized", 401):
        desk.hub.publish(website_token, Topic.OFFER, "AA", desk.now)


def test_shutdown_tells_every_socket_and_opens_nothing_any_more(desk: Desk) -> None:
    website, wallet, *_ = desk.pair()
    silent = desk.hub.connect()
    desk.hub.shutdown()
    for connection in (website, wallet, silent):
        assert desk.got(connection) == [End(EndCode.SHUTDOWN)]
    with refused("full", 503):
        desk.open()
    assert desk.got(desk.hub.connect()) == [End(EndCode.SHUTDOWN)]


@pytest.mark.parametrize(("asked", "kept"), [(None, 5), (1, 1), (60, 60), (10_000, 300)])
def test_a_party_may_be_away_for_as_long_as_it_asked_but_not_for_ever(asked: int | None, kept: int) -> None:
    desk = Desk(pairing_life=1000)
    token, _ = desk.open()
    website = desk.subscribe(token)
    wallet = desk.socket(Claim(ID, away=asked))
    ready = desk.got(wallet)[0]
    assert isinstance(ready, Ready)
    desk.hang_up(wallet)
    assert desk.got(website) == [Ready(Role.WEBSITE, 120), Joined(), Left()]
    desk.say(website, Publish(Topic.OFFER, "AA"))
    desk.wait(kept - 0.1)
    assert desk.got(website) == []
    back = desk.subscribe(ready.token or "")
    assert Message(Topic.OFFER, 1, "AA") in desk.got(back)
    desk.hang_up(desk.socket(Subscribe(ready.token or "", 1, away=asked)))
    desk.wait(kept)
    assert End(EndCode.LEFT) in desk.got(website)


def test_a_party_that_is_gone_for_long_does_not_end_the_mailbox_before_another_that_is_not(
    desk: Desk,
) -> None:
    token, _ = desk.open()
    website = desk.socket(Subscribe(token, 0, away=60))
    wallet, _ = desk.claim()
    desk.hang_up(website)
    desk.wait(1)
    desk.hang_up(wallet)
    assert desk.hub.next_deadline() == desk.now + 5
    desk.wait(5)
    assert desk.is_refused(desk.subscribe(token), "unauthorized")


# Answers that were lost

BY = "5e" * 32


def test_a_claim_may_be_repeated_by_whoever_made_it_and_by_nobody_else(desk: Desk) -> None:
    desk.open()
    first, second = desk.socket(Claim(ID, BY)), desk.socket(Claim(ID, BY))
    frames = desk.got(first)
    assert frames[-1] == End(EndCode.REPLACED)
    assert desk.got(second) == frames[:1]
    for thief in (Claim(ID), Claim(ID, "77" * 32)):
        assert desk.is_refused(desk.socket(thief), "crowded")


def test_a_repeated_claim_brings_the_nonce_until_it_is_used(desk: Desk) -> None:
    _, nonce = desk.open()
    ready = desk.got(desk.socket(Claim(ID, BY)))[0]
    assert isinstance(ready, Ready)
    desk.hub.link(ready.token, nonce, "AA", desk.now)
    assert desk.got(desk.socket(Claim(ID, BY)))[0] == Ready(Role.WALLET, 300, ready.token)


def test_a_message_with_a_number_counts_once_however_often_it_is_said(desk: Desk) -> None:
    website, wallet, _, wallet_token, nonce = desk.pair()
    desk.say(wallet, Publish(Topic.LINK, "AA", 1))
    desk.say(wallet, Publish(Topic.LINK, "AA", 1))
    for _ in range(2):
        desk.hub.publish(wallet_token, Topic.ANSWER, "AQ", desk.now, n=2)
        desk.hub.link(wallet_token, nonce, "Ag", desk.now, n=3)
    assert desk.got(website) == [
        Message(Topic.LINK, 1, "AA"),
        Message(Topic.ANSWER, 2, "AQ"),
        Message(Topic.LINK, 3, "Ag"),
    ]
    assert desk.accepted == {wallet: 2}


@pytest.mark.parametrize(
    ("topic", "body", "n"), [(Topic.LINK, "AQ", 1), (Topic.ANSWER, "AA", 1), (Topic.LINK, "AA", 3)]
)
def test_another_message_under_a_used_number_and_a_number_too_far_are_refused(
    desk: Desk, topic: Topic, body: str, n: int
) -> None:
    website, wallet, *_ = desk.pair()
    desk.say(wallet, Publish(Topic.LINK, "AA", 1))
    desk.say(wallet, Publish(topic, body, n))
    assert desk.is_refused(wallet, "number")
    assert desk.got(website) == [Message(Topic.LINK, 1, "AA"), Left()]


# What is forgotten


def test_unknown_used_up_and_forgotten_tokens_and_ids_are_answered_alike(desk: Desk) -> None:
    website, wallet, website_token, wallet_token, _ = desk.pair()
    desk.say(website, Close())
    desk.got(website)
    desk.got(wallet)
    answers = set()
    for first in (
        Subscribe(website_token, 0),
        Subscribe(wallet_token, 0),
        Subscribe(UNKNOWN_TOKEN, 0),
        Claim(ID),
        Claim(OTHER_ID),
    ):
        answers.update(desk.got(desk.socket(first)))
    assert len(answers) == 1
    over_http = set()
    for token in (website_token, wallet_token, UNKNOWN_TOKEN, None):
        with pytest.raises(Refused) as caught:
            desk.hub.publish(token, Topic.OFFER, "AA", desk.now)
        over_http.add(str(caught.value))
    assert len(over_http) == 1


def test_a_forgotten_id_opens_a_new_mailbox_with_nothing_of_the_old_one(desk: Desk) -> None:
    website, _, website_token, _, nonce = desk.pair()
    desk.hub.publish(website_token, Topic.OFFER, "AA", desk.now)
    desk.say(website, Close())
    new_token, new_nonce = desk.open()
    assert new_token != website_token
    assert new_nonce != nonce
    wallet = desk.socket(Claim(ID))
    assert len(desk.got(wallet)) == 1


def test_no_token_is_kept_and_neither_the_id_nor_the_nonce_in_a_form_that_can_be_read(desk: Desk) -> None:
    def is_kept(secret: str) -> bool:
        return any(
            (secret if isinstance(each, str) else secret.encode()) in each for each in everything_in(desk.hub)
        )

    token, nonce = desk.open()
    assert not is_kept(token)
    assert not is_kept(nonce)
    wallet = desk.socket(Claim(ID))
    ready = desk.got(wallet)[0]
    assert isinstance(ready, Ready)
    assert ready.token is not None
    assert ready.nonce == nonce
    for secret in (ID, token, nonce, ready.token):
        assert not is_kept(secret)


def test_even_who_still_holds_a_mailbox_finds_nothing_in_it_after_the_end(desk: Desk) -> None:
    website, _, website_token, _, _ = desk.pair()
    mailbox, _ = desk.hub.authorize(website_token, Topic.OFFER, desk.now)
    desk.hub.publish(website_token, Topic.OFFER, "Ym9keQ", desk.now)
    assert {mailbox.key, mailbox.opening.token, "Ym9keQ"} <= set(everything_in(mailbox))
    desk.say(website, Close())
    assert set(everything_in(mailbox)) <= {"", b"", mailbox.label}


@pytest.mark.parametrize("how", ["close", "expiry", "grace", "shutdown"])
def test_a_hub_is_empty_after_the_end(how: str) -> None:
    desk = Desk()
    website, wallet, website_token, _, nonce = desk.pair()
    desk.hub.publish(website_token, Topic.OFFER, "Ym9keQ", desk.now)
    match how:
        case "close":
            desk.say(website, Close())
        case "expiry":
            desk.wait(300)
        case "grace":
            desk.hang_up(wallet)
            desk.wait(5)
        case "shutdown":
            desk.hub.shutdown()
    for connection in (website, wallet):
        if connection in desk.hub._seats:
            desk.hang_up(connection)
    desk.collect()
    assert set(everything_in(desk.hub)) <= {""}
    assert desk.hub.next_deadline() is None
    assert len(desk.hub._timetable) == 0
    assert desk.hub._stored == 0
    assert nonce


def test_ten_thousand_connects_and_disconnects_leave_nothing_behind(desk: Desk) -> None:
    token, _ = desk.open()
    for _ in range(10_000):
        desk.hang_up(desk.subscribe(token))
    assert len(desk.hub._seats) == 0
    assert len(desk.hub._timetable) == 2


def test_notes_carry_a_label_and_no_secret(desk: Desk) -> None:
    website, _, website_token, wallet_token, nonce = desk.pair()
    desk.hub.publish(website_token, Topic.OFFER, "Ym9keQ", desk.now)
    desk.socket(Claim(ID))
    desk.say(website, Close())
    desk.collect()
    text = "\n".join(desk.notes)
    assert [note.split(" ", 1)[1] for note in desk.notes] == [
        "opened, 1 now",
        "claimed",
        "crowded",
        "ended: closed, 0 now",
    ]
    assert len({note.split()[0] for note in desk.notes}) == 1
    for secret in (ID, website_token, wallet_token, nonce, "Ym9keQ"):
        assert secret not in text
