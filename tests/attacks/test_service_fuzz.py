"""Random and mutated WebSocket messages: none ends the process, or anybody's connection but the sender's.

In the suite it is 3,000 messages; with ``--thorough`` the 100,000 of the claim (two minutes).
"""

from __future__ import annotations

import json
import os
import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from handclasp import Identity
from handclasp.discovery.signaling.answers import encode

from ..serving import (  # noqa: TID252 - tests are no installed package
    HANG,
    Pair,
    Raw,
    Service,
    client_frame,
    connected,
    paired,
    serving,
    talk,
)

NO_LIMITS = ("--address-burst", "10000000", "--address-rate", "1000000", "--address-sockets", "100000")
NO_LIMITS += ("--mailbox-burst", "10000000", "--mailbox-rate", "1000000", "--messages", "1000000")
NO_LIMITS += ("--direction-length", "200000000", "--mailboxes", "1000000")
IDENTITY = Identity.generate()
TEMPLATES = [
    {"type": "subscribe", "token": "ab" * 32, "after": 0},
    {"type": "claim", "mailbox": "ab" * 16},
    {"type": "publish", "topic": "answer", "body": "AAAA"},
    {"type": "close"},
    {"type": "prove", "peer": str(IDENTITY.peer_id), "host": "x", "signature": "A" * 86},
    {"type": "advertise", "topic": "ab" * 32, "record": "AAAA"},
    {"type": "find", "topic": "ab" * 32},
    {"type": "listen"},
    {"type": "open", "channel": 1, "peer": str(IDENTITY.peer_id)},
    {"type": "send", "channel": 1, "body": "AAAA"},
    {"type": "close", "channel": 1},
]
ODD = [
    *(
        None,
        True,
        -1,
        0,
        1e308,
        10**30,
        "",
        "\x00",
        "\ud800",
        "A" * 90_000,
        "\U0001f91d",
        [],
        [[]],
        {},
        {"a": {}},
    ),
    *("__proto__", "ab" * 32, "../../etc/passwd", "'; DROP TABLE", "%s%n", "NaN"),
]


def mutated(rng: random.Random) -> tuple[bytes, int]:
    """A message and its opcode."""
    return rng.choice(WAYS)(rng, dict(rng.choice(TEMPLATES)))


def odd_value(rng: random.Random, frame: dict[str, object]) -> tuple[bytes, int]:
    return as_text({**frame, rng.choice(list(frame)): rng.choice(ODD)}), 1


def missing_field(rng: random.Random, frame: dict[str, object]) -> tuple[bytes, int]:
    del frame[rng.choice(list(frame))]
    return as_text(frame), 1


def odd_field(rng: random.Random, frame: dict[str, object]) -> tuple[bytes, int]:
    return as_text({**frame, str(rng.choice(ODD)): rng.choice(ODD)}), 1


def other_type(rng: random.Random, frame: dict[str, object]) -> tuple[bytes, int]:
    return as_text({**frame, "type": rng.choice(TEMPLATES)["type"]}), 1


def cut_short(rng: random.Random, frame: dict[str, object]) -> tuple[bytes, int]:
    text = as_text(frame)
    return text[: rng.randrange(len(text))], 1


def other_bytes(rng: random.Random, frame: dict[str, object]) -> tuple[bytes, int]:
    text = as_text(frame)
    position = rng.randrange(len(text))
    return text[:position] + rng.randbytes(rng.randrange(1, 4)) + text[position + 1 :], 1


def as_text(frame: object) -> bytes:
    return json.dumps(frame).encode("utf-8", "surrogatepass")


WAYS: list[Callable[[random.Random, dict[str, object]], tuple[bytes, int]]] = [
    *(odd_value, missing_field, odd_field, other_type, cut_short, other_bytes),
    lambda _, frame: (as_text(frame), 1),
    lambda _, frame: (as_text(frame), 2),
    lambda _, frame: (as_text(frame) * 2, 1),
    lambda rng, _: (rng.randbytes(rng.randrange(300)), rng.choice([1, 2])),
    lambda rng, _: (b"[" * rng.randrange(60_000), 1),
    lambda rng, _: (b'{"a":' * rng.randrange(15_000), 1),
    lambda rng, _: (b"9" * rng.randrange(90_000), 1),
]


def broken_wire(rng: random.Random) -> bytes:
    """Bytes that are no proper frame: the server below has to cope with these."""
    good = bytearray(client_frame(json.dumps(rng.choice(TEMPLATES)).encode()))
    for _ in range(rng.randrange(1, 4)):
        good[rng.randrange(min(8, len(good)))] = rng.randrange(256)
    return bytes(good)


async def greeted(service: Service, raw: Raw, rng: random.Random, mailboxes: list[str]) -> None:
    """Go as far as a client can, some of the time: a mutation after the greeting goes deeper than one before it."""
    if rng.random() < 0.5:
        assert (await raw.upgrade("/ws"))[0] == 101
        if mailboxes and rng.random() < 0.7:
            await raw.send(type="claim", mailbox=mailboxes.pop())
    else:
        assert (await raw.upgrade("/peers"))[0] == 101
        nonce = (await raw.expect("challenge"))["nonce"]
        if rng.random() < 0.7:
            identity = Identity.generate()
            signature = encode(identity.sign(f"handclasp/1 peers\nx\n{nonce}".encode()))
            await raw.send(type="prove", peer=str(identity.peer_id), host="x", signature=signature)
            await raw.expect("ready")


async def attack(service: Service, rng: random.Random, count: int, ends: Counter[int | None]) -> None:
    """Send *count* messages; each socket takes them until the service has enough of it."""
    sent = 0
    while sent < count:
        async with connected(service) as http:
            mailboxes = []
            for _ in range(20):
                mailbox = os.urandom(16).hex()
                assert (await http.request("GET", f"/challenge?mailbox={mailbox}"))[0] == 200
                mailboxes.append(mailbox)
        while mailboxes and sent < count:
            async with connected(service) as raw:
                await greeted(service, raw, rng, mailboxes)
                batch = [client_frame(*mutated(rng)) for _ in range(rng.randrange(1, 4))]
                if rng.random() < 0.05:
                    batch.append(broken_wire(rng))
                sent += len(batch)
                try:
                    await raw.stream.send_all(b"".join(batch))
                    await raw.send_frame(
                        (1000).to_bytes(2), opcode=8
                    )  # in case it is content with all of them
                except trio.BrokenResourceError:
                    pass
                ends[await raw.end()] += 1
                mailboxes = mailboxes or [""]
                mailboxes.pop()


async def bystanders(pair: Pair, peer: Raw, rounds: list[int]) -> None:
    """An honest pair and an honest peer that go on talking."""
    while True:
        await talk(pair)
        await peer.send(type="listen")
        while (await peer.get())["type"] != "accepted":  # strangers open channels to it
            pass
        rounds[0] += 1
        await trio.sleep(0.02)


async def test_no_message_ends_the_process_or_another_connection(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    count = 100_000 if request.config.getoption("--thorough") else 3_000
    seed = int(os.environ.get("FUZZ_SEED", time.time()))
    ends, rounds = Counter[int | None](), [0]
    async with serving(tmp_path, *NO_LIMITS, "--pairing-life", "3600", "--log-level", "info") as service:
        async with paired(service) as pair, connected(service) as peer, trio.open_nursery() as nursery:
            await peer.upgrade("/peers")
            nonce = (await peer.expect("challenge"))["nonce"]
            signature = encode(IDENTITY.sign(f"handclasp/1 peers\nx\n{nonce}".encode()))
            await peer.send(type="prove", peer=str(IDENTITY.peer_id), host="x", signature=signature)
            await peer.expect("ready")
            nursery.start_soon(bystanders, pair, peer, rounds)
            async with trio.open_nursery() as attackers:
                for number in range(8):
                    attackers.start_soon(attack, service, random.Random(seed + number), count // 8, ends)  # noqa: S311 - repeatable
            assert service.process.poll() is None, f"seed {seed}"
            with trio.fail_after(HANG):
                before = rounds[0]
                while rounds[0] < before + 3:  # noqa: ASYNC110 - the pair is well
                    await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
        log = service.log.read_text()
    assert "fault of the service" not in log, f"seed {seed}"
    assert log.count(" ERROR ") <= 100, "garbage on the wire does not fill the log"
    assert {1008, 1000} <= set(ends), ends
    # 1011: a frame was begun that never ends, so that a ping found no answer.
    assert set(ends) <= {None, 1000, 1001, 1002, 1003, 1007, 1008, 1009, 1011, 1013}, ends


async def test_one_malformed_message_ends_that_socket_and_nothing_else(tmp_path: Path) -> None:
    async with serving(tmp_path) as service, paired(service) as others, paired(service) as pair:
        await pair.wallet.send_frame(b'{"type":"publish","topic":"answer","body":"A"}')
        assert (await pair.wallet.expect("error"))["code"] == "malformed"
        assert await pair.wallet.end() == 1008
        await pair.website.expect("left")
        async with connected(service) as back:
            await back.upgrade()
            await back.send(type="subscribe", token=pair.wallet_token, after=0)
            await back.expect("ready")
            await pair.website.expect("joined")
            await back.send(type="publish", topic="answer", body="AA")
            await pair.website.expect("message")
        await talk(others)


async def test_garbage_on_the_wire_behind_good_frames_is_no_fault_of_the_service(tmp_path: Path) -> None:
    """The server closes the socket by itself while the service still has answers for it."""
    publish = client_frame(json.dumps({"type": "publish", "topic": "answer", "body": "AA"}).encode())
    reserved = b"\x8f\x80" + bytes(4)
    async with serving(tmp_path, *NO_LIMITS) as service, paired(service) as others:
        for _ in range(50):
            async with paired(service) as pair:
                await pair.wallet.stream.send_all(publish * 60)
                await pair.wallet.stream.send_all(reserved)
                assert await pair.wallet.end() == 1002
        await talk(others)
    assert "fault of the service" not in service.log.read_text()
