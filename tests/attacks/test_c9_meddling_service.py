"""C9: the service drops, repeats, swaps, invents or replays messages.

At worst both sides get an error: never a session that the two see differently, and never a wait without end.
The clock jumps ahead whenever both only wait, so a wait without end would show as a side without an outcome.
"""

# ruff: noqa: ARG001 - asking for the clock is how a test gets it
from __future__ import annotations

import secrets
from typing import Any

import pytest
import trio
import trio.testing

from .hostile import Tamper, decode, encode, open_hostile_service
from .pairing import Outcome, pair

FOREVER = 1_000_000  # seconds on a clock that jumps
#: Each message of a pairing: the greeting, the offer, the answer, the link, the verdict.
MESSAGES = [("link", 1), ("offer", 1), ("answer", 1), ("link", 2), ("offer", 2)]


def nth(topic: str, count: int, meddle: Tamper) -> Tamper:
    """Meddle with one message and let all others through."""
    seen = {"link": 0, "offer": 0, "answer": 0}

    def tamper(frame: dict[str, Any]) -> list[dict[str, Any]]:
        seen[frame["topic"]] += 1
        return meddle(frame) if (frame["topic"], seen[frame["topic"]]) == (topic, count) else [frame]

    return tamper


async def pair_through(tamper: Tamper) -> Outcome:
    async with open_hostile_service(tamper) as service:
        return await pair(service.url, within=FOREVER)


def check(outcome: Outcome, *, verdict: bool = False) -> None:
    """Nobody has a session and nobody waits; only the website may have one when its verdict was meddled with."""
    assert outcome.wallet_error is not None, "the wallet waits without end, or believes that it is linked"
    assert not outcome.wallet_connected
    if not verdict:
        assert outcome.website_error is not None, (
            "the website waits without end, or believes that it is linked"
        )
        assert outcome.linked is None
        assert not outcome.signature


@pytest.mark.parametrize(("topic", "count"), MESSAGES)
async def test_a_message_that_is_dropped(topic: str, count: int, jumping: trio.testing.MockClock) -> None:
    outcome = await pair_through(nth(topic, count, lambda _: []))
    check(outcome, verdict=(topic, count) == ("offer", 2))


async def test_every_message_is_dropped(jumping: trio.testing.MockClock) -> None:
    check(await pair_through(lambda _: []))


@pytest.mark.parametrize(("topic", "count"), MESSAGES[:-1])
async def test_a_message_that_is_repeated(topic: str, count: int, jumping: trio.testing.MockClock) -> None:
    outcome = await pair_through(nth(topic, count, lambda frame: [frame, frame]))
    assert outcome.website_error is not None or outcome.wallet_error is not None
    assert (outcome.linked is None) == (not outcome.signature), "the two see the session differently"


@pytest.mark.parametrize(("topic", "count"), MESSAGES[:-1])
async def test_a_message_that_is_invented_before_a_real_one(
    topic: str, count: int, jumping: trio.testing.MockClock
) -> None:
    body = encode(secrets.token_bytes(200))
    check(await pair_through(nth(topic, count, lambda frame: [{**frame, "body": body}, frame])))


@pytest.mark.parametrize("length", [0, 1, 60_000])
async def test_an_invented_message_of_any_length(length: int, jumping: trio.testing.MockClock) -> None:
    body = encode(bytes(length))
    check(await pair_through(nth("offer", 1, lambda frame: [{**frame, "body": body}, frame])))


async def test_a_message_that_is_replaced_by_the_one_of_another_pairing(
    jumping: trio.testing.MockClock,
) -> None:
    recorded: list[dict[str, Any]] = []

    def record(frame: dict[str, Any]) -> list[dict[str, Any]]:
        recorded.append(frame)
        return [frame]

    assert (await pair_through(record)).signature
    for topic, count in MESSAGES:
        old = [frame["body"] for frame in recorded if frame["topic"] == topic][count - 1]
        outcome = await pair_through(nth(topic, count, lambda frame, old=old: [{**frame, "body": old}]))  # type: ignore[misc]
        check(outcome, verdict=(topic, count) == ("offer", 2))


async def test_the_answer_and_the_link_change_places(jumping: trio.testing.MockClock) -> None:
    held: list[dict[str, Any]] = []

    def swap(frame: dict[str, Any]) -> list[dict[str, Any]]:
        if frame["topic"] == "answer" and not held:
            held.append(frame)
            return []
        return [frame, held.pop()] if held and frame["topic"] == "link" else [frame]

    check(await pair_through(swap))


async def test_a_message_is_sent_back_to_where_it_came_from(jumping: trio.testing.MockClock) -> None:
    """What the website said comes to it as if the wallet had said it."""
    said: list[str] = []

    def reflect(frame: dict[str, Any]) -> list[dict[str, Any]]:
        if frame["topic"] == "offer":
            said.append(frame["body"])
        elif frame["topic"] == "answer" and said:
            return [{**frame, "body": said[0]}]
        return [frame]

    check(await pair_through(reflect))


async def test_messages_come_under_another_topic_than_they_were_sent(jumping: trio.testing.MockClock) -> None:
    """Topics are for the service; what a message means is inside the seal."""

    def rename(frame: dict[str, Any]) -> list[dict[str, Any]]:
        return [{**frame, "topic": {"link": "answer", "offer": "link", "answer": "offer"}[frame["topic"]]}]

    outcome = await pair_through(rename)
    assert outcome.signature or (outcome.website_error is not None and outcome.wallet_error is not None)


async def test_what_the_service_recorded_is_of_no_use_to_it_afterwards(
    jumping: trio.testing.MockClock,
) -> None:
    """The whole of one pairing, replayed to a website that waits for a wallet."""
    bodies: dict[str, list[str]] = {"link": [], "offer": [], "answer": []}

    def record(frame: dict[str, Any]) -> list[dict[str, Any]]:
        bodies[frame["topic"]].append(frame["body"])
        return [frame]

    assert (await pair_through(record)).signature

    def replay(frame: dict[str, Any]) -> list[dict[str, Any]]:
        topic = frame["topic"]
        return [{**frame, "body": bodies[topic].pop(0)}] if bodies[topic] else [frame]

    check(await pair_through(replay))
    assert all(decode(body) for body in bodies["link"])
