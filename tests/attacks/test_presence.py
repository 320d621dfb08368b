"""A presence service in the hands of an attacker: the real one, with somebody who changes every frame at will."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from handclasp import signaling
from handclasp.abc import Context, PeerRecord, SignalingChannel
from handclasp.discovery.records import SignedRecord, hash_topic
from handclasp.discovery.signaling.presence import Presence
from handclasp.errors import HandclaspError, HandshakeFailed, PeerUnreachable, ServiceRefused, WrongPeer
from handclasp.identity import Identity
from handclasp.service import create_app
from handclasp.testing import open_service

from .hostile import decode, encode, open_server

ALICE, BOB, EVE = (Identity.from_seed(bytes([n]) * 32) for n in range(3))
PATIENCE = 60.0
#: Gets a frame to a peer, and that peer's name; returns what is delivered instead.
Meddle = Callable[[dict[str, Any], str], list[dict[str, Any]]]


class Meddler:
    """The service, its frames to peers passed through *meddle*; knows all that went through."""

    def __init__(self) -> None:
        self.url = ""
        self.meddle: Meddle = lambda frame, _: [frame]
        self.everything = bytearray()
        self._app: Any = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self._app = self._app or create_app()
        peer = ""

        async def spy() -> Any:
            nonlocal peer
            event = await receive()
            text = event.get("text") or ""
            self.everything += text.encode()
            if text and json.loads(text)["type"] == "prove":
                peer = json.loads(text)["peer"]
            return event

        async def meddle(event: Any) -> None:
            if event["type"] != "websocket.send":
                await send(event)
                return
            self.everything += event["text"].encode()
            for frame in self.meddle(json.loads(event["text"]), peer):
                await send({"type": "websocket.send", "text": json.dumps(frame)})

        await self._app(scope, spy, meddle)


@asynccontextmanager
async def open_meddler() -> AsyncGenerator[Meddler]:
    meddler = Meddler()
    async with open_server(meddler) as meddler.url:
        yield meddler


@asynccontextmanager
async def open_presence(url: str, identity: Identity) -> AsyncGenerator[Presence]:
    async with signaling(url)(Context(identity)) as backend:
        assert isinstance(backend, Presence)
        yield backend


def me(identity: Identity, number: int = 1) -> PeerRecord:
    return PeerRecord(identity.peer_id, (f"/ip4/192.0.2.{number}/tcp/1",))


def signed(
    record: PeerRecord, by: Identity, *, topic: str = "tea", sequence: int = 0, life: int = 3600
) -> str:
    number = sequence or int(time.time() * 1000)
    text = SignedRecord(record, number, int(time.time()) + life)
    return encode(text.sign(hash_topic(topic), by))


async def upcoming(records: AsyncIterator[PeerRecord]) -> PeerRecord:
    with trio.fail_after(PATIENCE):
        return await anext(records)


async def outcome(step: Callable[[], Awaitable[object]]) -> object:
    try:
        return await step()
    except (HandclaspError, trio.EndOfChannel) as exc:
        return exc


# --- records ---


def forgeries(record: str) -> dict[str, dict[str, str]]:
    """What a service could make of Alice's record: peer and record of a ``found``."""
    alice, eve = str(ALICE.peer_id), str(EVE.peer_id)
    flipped = bytearray(decode(record))
    flipped[40] ^= 1
    payload = decode(signed(me(EVE, 66), EVE))
    return {
        "nonsense": {"peer": alice, "record": encode(b"nonsense")},
        "nothing": {"peer": alice, "record": ""},
        "one bit": {"peer": alice, "record": encode(bytes(flipped))},
        "another peer's record under her name": {"peer": alice, "record": encode(payload)},
        "her record under another peer's name": {"peer": eve, "record": record},
        "her record of another topic": {
            "peer": alice,
            "record": signed(me(ALICE, 66), ALICE, topic="coffee"),
        },
        "an expired one": {"peer": alice, "record": signed(me(ALICE, 66), ALICE, life=-1)},
        "one that she has replaced": {"peer": alice, "record": signed(me(ALICE, 66), ALICE, sequence=1)},
    }


@pytest.mark.parametrize("what", list(forgeries(signed(me(ALICE), ALICE))))
async def test_a_service_can_neither_invent_nor_change_nor_bring_back_a_record(what: str) -> None:
    async with open_meddler() as meddler:

        def meddle(frame: dict[str, Any], peer: str) -> list[dict[str, Any]]:
            if frame["type"] != "found":
                return [frame]
            forged = {**frame, **forgeries(frame["record"])[what]}
            return [forged, frame, forged] if what != "one that she has replaced" else [frame, forged]

        meddler.meddle = meddle
        async with open_presence(meddler.url, ALICE) as alice, open_presence(meddler.url, BOB) as bob:
            async with bob.find("tea") as records, alice.advertise("tea", me(ALICE, 1)):
                assert await upcoming(records) == me(ALICE, 1)
                async with alice.advertise("tea", me(ALICE, 2)):
                    assert await upcoming(records) == me(ALICE, 2)


async def test_a_service_that_tells_of_a_thousand_peers_too_many_is_not_believed_them_all() -> None:
    from handclasp.discovery.signaling.searches import MAX_KNOWN

    crowd = [Identity.generate() for _ in range(MAX_KNOWN + 50)]
    async with open_meddler() as meddler:

        def meddle(frame: dict[str, Any], peer: str) -> list[dict[str, Any]]:
            if frame["type"] != "listed":
                return [frame]
            made_up = [
                {
                    "type": "found",
                    "topic": frame["topic"],
                    "peer": str(one.peer_id),
                    "record": signed(me(one), one),
                }
                for one in crowd
            ]
            return [*made_up, frame]

        meddler.meddle = meddle
        async with open_presence(meddler.url, BOB) as bob, bob.find("tea") as records:
            found = [await upcoming(records) for _ in range(MAX_KNOWN)]
            assert len({record.peer for record in found}) == MAX_KNOWN
            async with bob.advertise("milk", me(BOB)):  # an answer: what came before it has been read
                with trio.move_on_after(0.1):
                    pytest.fail(f"one more was believed: {await anext(records)}")


# --- channels ---


async def converse(
    meddler: Meddler, *, answerer: Identity = BOB
) -> tuple[list[object], list[SignalingChannel]]:
    """Alice dials Bob, whoever answers; what both got out of it."""
    seen: list[object] = []
    ends: list[SignalingChannel] = []

    async def one(channel: SignalingChannel, *steps: Callable[[], Awaitable[object]]) -> None:
        for step in steps:
            got = await outcome(step)
            seen.append(got)
            if isinstance(got, Exception):
                break
        await channel.aclose()

    async def answer(bob: Presence, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with bob.incoming() as channels:
            task_status.started()
            channel = await anext(channels)
            ends.append(channel)
            await one(channel, lambda: channel.send(b"offer"), channel.receive)

    async with open_presence(meddler.url, ALICE) as alice, open_presence(meddler.url, answerer) as bob:
        async with trio.open_nursery() as nursery:
            await nursery.start(answer, bob)
            with trio.fail_after(PATIENCE):
                channel = await alice.open_channel(alice.address, answerer.peer_id)
                ends.append(channel)
                await one(channel, channel.receive, lambda: channel.send(b"answer"), channel.receive)
            nursery.cancel_scope.cancel()
    return seen, ends


async def test_the_honest_way_works_and_the_service_reads_nothing_of_it() -> None:
    async with open_meddler() as meddler:
        seen, ends = await converse(meddler)
        assert b"offer" in seen
        assert b"answer" in seen
        assert {end.peer for end in ends} == {ALICE.peer_id, BOB.peer_id}
        for word in (b"offer", b"answer"):
            assert word not in meddler.everything
            assert encode(word).encode() not in meddler.everything


@pytest.mark.parametrize("number", [0, 1, 2])
async def test_a_flipped_bit_in_a_handshake_message_gives_no_channel(number: int) -> None:
    # Every bit of them is flipped in tests/discovery/test_secure.py; here some, through the service.
    for at in (0, 31, -1):
        async with open_meddler() as meddler:
            count = 0

            def meddle(frame: dict[str, Any], peer: str, at: int = at) -> list[dict[str, Any]]:
                nonlocal count
                if frame["type"] == "message":
                    if count == number:
                        body = bytearray(decode(frame["body"]))
                        body[at] ^= 1
                        frame = {**frame, "body": encode(bytes(body))}
                    count += 1
                return [frame]

            meddler.meddle = meddle
            seen, _ = await converse(meddler)
            assert any(isinstance(each, HandshakeFailed) for each in seen)
            assert b"answer" not in seen


async def test_a_repeated_message_ends_the_channel() -> None:
    async with open_meddler() as meddler:
        meddler.meddle = lambda frame, _: [frame, frame] if frame["type"] == "message" else [frame]
        seen, _ = await converse(meddler)
        assert any(isinstance(each, HandshakeFailed) for each in seen)
        assert b"answer" not in seen


async def test_a_channel_for_bob_that_is_led_to_eve_is_refused_by_alice() -> None:
    async with open_meddler() as meddler:
        # Eve runs the service: Alice's `open` for Bob is entered as one for Eve.
        async with open_presence(meddler.url, EVE) as eve, eve.incoming() as channels:
            async with open_presence(meddler.url, ALICE) as alice:
                line = alice._line
                assert line is not None
                post = line.post
                line.post = lambda frame: post(
                    {**frame, "peer": str(EVE.peer_id)} if frame["type"] == "open" else frame
                )
                async with await alice.open_channel(alice.address, BOB.peer_id) as channel:
                    with trio.fail_after(PATIENCE):
                        async with await anext(channels) as led, trio.open_nursery() as nursery:
                            nursery.start_soon(led.send, b"offer")
                            with pytest.raises(WrongPeer):
                                await channel.receive()
                            with pytest.raises(WrongPeer):
                                await channel.send(b"answer")


async def test_a_flood_of_channels_and_messages_is_turned_away_and_the_next_honest_one_works() -> None:
    async with open_service() as url, open_presence(url, BOB) as bob, bob.incoming() as channels:
        async with open_presence(url, EVE) as eve, trio.open_nursery() as nursery:
            flood = [await eve.open_channel(eve.address, BOB.peer_id) for _ in range(64)]
            with pytest.raises(PeerUnreachable):
                await eve.open_channel(eve.address, BOB.peer_id)
            async with open_presence(url, ALICE) as alice:
                for channel in flood[:8]:  # Bob's queue has room for 64
                    await channel.aclose()
                taken = [await anext(channels) for _ in range(16)]
                for channel in taken:
                    await channel.aclose()
                honest = await alice.open_channel(alice.address, BOB.peer_id)

                async def answer() -> None:
                    async for channel in channels:
                        nursery.start_soon(serve, channel)

                async def serve(channel: SignalingChannel) -> None:
                    async with channel:
                        await outcome(lambda: channel.send(b"offer"))
                        await outcome(channel.receive)

                nursery.start_soon(answer)
                with trio.fail_after(PATIENCE):
                    async with honest:
                        assert await honest.receive() == b"offer"
                        assert honest.peer == BOB.peer_id
                        await honest.send(b"answer")
            for channel in flood:
                await channel.aclose()
            nursery.cancel_scope.cancel()


# --- the proof ---


async def test_a_proof_is_signed_for_a_nonce_and_nothing_else() -> None:
    for nonce in ("", "00", "00" * 31 + "0\n", "handclasp/1 peer record\n" + "00" * 20, 1, None):
        async with open_meddler() as meddler:
            meddler.meddle = lambda frame, _, nonce=nonce: [
                {**frame, "nonce": nonce} if frame["type"] == "challenge" else frame
            ]
            with pytest.raises(ServiceRefused) as caught:
                async with open_presence(meddler.url, ALICE):
                    pass
            assert caught.value.code == "malformed"
            assert b"signature" not in meddler.everything


@pytest.mark.parametrize(
    "frame",
    [
        {"type": "ready"},
        {"type": "accepted", "what": "listen"},
        {"type": "incoming", "channel": 1},
        {"type": "incoming", "channel": "2"},
        {"type": "message", "channel": 2},
        {"type": "found", "topic": "aa" * 32, "peer": "nobody", "record": ""},
        {"type": "hello"},
        {"type": 1},
        {},
    ],
)
async def test_a_service_that_breaks_the_protocol_is_left(frame: dict[str, Any]) -> None:
    async with open_meddler() as meddler:
        broken = 0

        def meddle(real: dict[str, Any], _: str) -> list[dict[str, Any]]:
            nonlocal broken
            if real["type"] == "listed" and not broken:
                broken += 1
                return [frame]
            return [real]

        meddler.meddle = meddle
        async with open_presence(meddler.url, ALICE) as alice, open_presence(meddler.url, BOB) as bob:
            async with alice.advertise("tea", me(ALICE)), bob.find("tea") as records:
                assert await upcoming(records) == me(ALICE)
                # Bob has left and come back: everything works.
                async with bob.find("coffee") as more, alice.advertise("coffee", me(ALICE)):
                    assert await upcoming(more) == me(ALICE)
        assert broken == 1
        assert bytes(meddler.everything).count(b'"challenge"') == 3
