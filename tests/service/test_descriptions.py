"""`openapi.yaml` and `asyncapi.yaml` say what the running service does, and nothing else."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import trio
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import handclasp.service
from handclasp import Identity
from handclasp.abc import PeerRecord
from handclasp.discovery.records import SignedRecord
from handclasp.discovery.signaling.answers import encode
from handclasp.service import routes, wire
from handclasp.service.frames import Refused
from handclasp.service.presence import wire as presence_wire

from ..serving import Raw, Service, connected, serving  # noqa: TID252 - tests are no installed package

FOLDER = Path(handclasp.service.__file__).parent
OPENAPI: dict[str, Any] = yaml.safe_load((FOLDER / "openapi.yaml").read_text())
ASYNCAPI: dict[str, Any] = yaml.safe_load((FOLDER / "asyncapi.yaml").read_text())
NO_LIMITS = ("--address-burst", "1000000", "--address-rate", "100000", "--mailbox-burst", "100000")
TOPIC = "ab" * 32


def resolve(node: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in node:
        target: Any = ASYNCAPI
        for part in node["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        node = target
    return node


def payloads(operation: str) -> dict[str, dict[str, Any]]:
    """The schemas of an operation's messages, by name."""
    messages = ASYNCAPI["operations"][operation]["messages"]
    return {each["$ref"].rpartition("/")[2]: resolve(each)["payload"] for each in messages}


SCHEMAS = {
    operation: {
        name: jsonschema.Draft202012Validator({**payload, "components": ASYNCAPI["components"]})
        for name, payload in payloads(operation).items()
    }
    for operation in ASYNCAPI["operations"]
}


def kind_of(operation: str, frame: object) -> str | None:
    """The one documented message that a frame is, None for none."""
    names = [name for name, schema in SCHEMAS[operation].items() if schema.is_valid(frame)]
    assert len(names) <= 1, (frame, names)
    return names[0] if names else None


# They are complete


def test_every_route_is_described_and_no_other() -> None:
    described = {
        path: {method.upper() for method in operations} for path, operations in OPENAPI["paths"].items()
    }
    assert described == {path: set(methods) for path, methods in routes._ROUTES.items()}


def test_every_frame_is_described_and_no_other() -> None:
    def types(operation: str) -> set[str]:
        return {payload["properties"]["type"]["const"] for payload in payloads(operation).values()}

    assert types("sendToMailbox") == set(wire._FRAMES)
    assert types("sendAsPeer") == set(presence_wire._FRAMES)
    assert types("receiveAsPeer") == set(presence_wire._TYPES.values())
    for channel, send, receive in (
        ("mailbox", "sendToMailbox", "receiveFromMailbox"),
        ("peers", "sendAsPeer", "receiveAsPeer"),
    ):
        assert set(ASYNCAPI["channels"][channel]["messages"]) == set(payloads(send)) | set(payloads(receive))
    used = set(re.findall(r"#/components/messages/(\w+)", (FOLDER / "asyncapi.yaml").read_text()))
    assert used == set(ASYNCAPI["components"]["messages"])


# HTTP


@pytest.mark.parametrize("party", ["website", "wallet"])
async def test_schemathesis_finds_nothing(tmp_path: Path, party: str) -> None:
    async with serving(tmp_path, *NO_LIMITS, "--ice-stun", "stun:stun.example:3478") as service:
        async with connected(service) as http, connected(service) as raw:
            mailbox = os.urandom(16).hex()
            _, _, body = await http.request("GET", f"/challenge?mailbox={mailbox}")
            token = json.loads(body)["token"]
            if party == "wallet":
                await raw.upgrade()
                await raw.send(type="claim", mailbox=mailbox)
                token = (await raw.expect("ready"))["token"]
            command = [
                *(str(Path(sys.executable).with_name("st")), "run", str(FOLDER / "openapi.yaml")),
                *("--url", service.url.replace("ws:", "http:"), "-H", f"Authorization: Bearer {token}"),
                *("--checks", "all", "--max-examples", "10", "--seed", "1"),
            ]
            result = await trio.run_process(
                command,
                capture_stdout=True,
                stderr=subprocess.STDOUT,
                check=False,
                cwd=tmp_path,
                env={
                    **os.environ,
                    "COLUMNS": "200",
                    "PYTHONPATH": str(Path(__file__).parent),
                    "SCHEMATHESIS_HOOKS": "spelling",
                },
            )
            output = result.stdout.decode()
            assert result.returncode == 0, output
            assert re.search(r"Tested: 8", output), output
            passed = re.search(r"(\d+) generated, (\d+) passed", output)
            assert passed is not None, output
            assert passed[1] == passed[2]
            assert int(passed[1]) > 100


# WebSocket


class Told:
    """Frames that went over a socket, each as a documented message."""

    def __init__(self, raw: Raw, channel: str, seen: set[str]) -> None:
        self.raw = raw
        self._channel = channel
        self._seen = seen

    async def send(self, **frame: object) -> None:
        kind = kind_of({"mailbox": "sendToMailbox", "peers": "sendAsPeer"}[self._channel], frame)
        assert kind is not None, f"{frame} is not described"
        self._seen.add(f"{self._channel} {kind}")
        await self.raw.send(**frame)

    async def get(self, expected: str) -> dict[str, Any]:
        frame = await self.raw.get()
        kind = kind_of({"mailbox": "receiveFromMailbox", "peers": "receiveAsPeer"}[self._channel], frame)
        assert kind == expected, frame
        self._seen.add(f"{self._channel} {kind}")
        return frame


@asynccontextmanager
async def socket_of(service: Service, channel: str, seen: set[str]) -> AsyncGenerator[Told]:
    async with connected(service) as raw:
        assert (await raw.upgrade(ASYNCAPI["channels"][channel]["address"]))[0] == 101
        yield Told(raw, channel, seen)


async def mailbox_conversation(service: Service, seen: set[str]) -> None:
    mailbox = os.urandom(16).hex()
    async with connected(service) as http:
        _, _, body = await http.request("GET", f"/challenge?mailbox={mailbox}")
        token = json.loads(body)["token"]
    async with (
        socket_of(service, "mailbox", seen) as website,
        socket_of(service, "mailbox", seen) as wallet,
        socket_of(service, "mailbox", seen) as thief,
    ):
        await website.send(type="subscribe", token=token, after=0)
        await website.get("ready")
        await wallet.send(type="claim", mailbox=mailbox)
        ready = await wallet.get("ready")
        for party in (website, wallet):
            await party.get("joined")
        await thief.send(type="claim", mailbox=mailbox)
        await thief.get("error")
        for party in (website, wallet):
            await party.get("crowded")
        for topic, sender, receiver in (
            ("link", wallet, website),
            ("offer", website, wallet),
            ("answer", wallet, website),
        ):
            await sender.send(type="publish", topic=topic, body="AA")
            await sender.get("accepted")
            await receiver.get("message")
        async with socket_of(service, "mailbox", seen) as again:
            await again.send(type="subscribe", token=ready["token"], after=1)
            assert (await wallet.get("end"))["code"] == "replaced"
            for kind in ("ready", "joined", "crowded"):
                await again.get(kind)
        await website.get("left")
        await website.send(type="close")
        await website.get("end")


async def prove(peer: Told, identity: Identity) -> None:
    nonce = (await peer.get("challenge"))["nonce"]
    signature = encode(identity.sign(f"handclasp/1 peers\nx\n{nonce}".encode()))
    await peer.send(type="prove", peer=str(identity.peer_id), host="x", signature=signature)
    await peer.get("present")


async def peers_conversation(service: Service, seen: set[str]) -> None:
    alice, bob = Identity.generate(), Identity.generate()
    me = PeerRecord(alice.peer_id, ("/ip4/192.0.2.1/tcp/80/ws",))
    record = encode(SignedRecord(me, 1, int(time.time()) + 60).sign(bytes.fromhex(TOPIC), alice))
    async with socket_of(service, "peers", seen) as one, socket_of(service, "peers", seen) as two:
        await prove(one, alice)
        await prove(two, bob)
        await one.send(type="listen")
        await one.get("done")
        await one.send(type="advertise", topic=TOPIC, record=record)
        await one.get("done")
        await one.send(type="advertise", topic="cd" * 32, record=record)
        await one.get("refused")  # one topic is all it may have here
        await two.send(type="find", topic=TOPIC)
        await two.get("found")
        await two.get("listed")
        await two.send(type="open", channel=1, peer=str(alice.peer_id))
        await two.get("opened")
        await two.send(type="send", channel=1, body="AA")
        await one.get("incoming")
        await one.get("arrived")
        await two.send(type="close", channel=1)
        await one.get("closed")
        await one.send(type="withdraw", topic=TOPIC)
        await one.get("done")
        while (await two.raw.get())["type"] != "gone":
            pass
        seen.add("peers gone")
        await two.send(type="unfind", topic=TOPIC)
        await one.send(type="unlisten")
        await one.get("done")
        async with socket_of(service, "peers", seen) as newer:
            await prove(newer, alice)
            assert (await one.get("over"))["code"] == "replaced"
            await newer.raw.send_frame(b"{}")
            assert (await newer.get("error"))["code"] == "malformed"


async def test_every_described_frame_is_sent_and_every_answer_is_as_described(tmp_path: Path) -> None:
    seen: set[str] = set()
    async with serving(tmp_path, "--presence-advertised", "1") as service:
        await mailbox_conversation(service, seen)
        await peers_conversation(service, seen)
        async with socket_of(service, "mailbox", seen) as last, socket_of(service, "peers", seen) as peer:
            await peer.get("challenge")
            service.process.send_signal(signal.SIGTERM)
            assert (await last.get("end"))["code"] == "shutdown"
            assert (await peer.get("over"))["code"] == "shutdown"
    described = {
        f"{channel} {name}" for channel, each in ASYNCAPI["channels"].items() for name in each["messages"]
    }
    assert seen == described


# What is described is what is accepted

PARSERS = {"sendToMailbox": wire.parse_frame_untrusted, "sendAsPeer": presence_wire.parse_frame_untrusted}
PEER = str(Identity.generate().peer_id)
VALUES: dict[str, list[object]] = {
    "token": ["ab" * 32, "AB" * 32, "ab" * 31],
    "after": [0, 1, 999_999_999, 1_000_000_000, -1],
    "away": [1, 300, 999_999_999, 0, -1],
    "n": [1, 2, 999_999_999, 0, 1_000_000_000],
    "by": ["cd" * 32, "CD" * 32, "cd" * 31],
    "mailbox": ["ab" * 16, "ab" * 17, "ag" * 16],
    "topic": ["link", "offer", "answer", "Link", TOPIC, TOPIC.upper()],
    "body": ["", "AA", "AAA", "AAAA", "AB", "A", "A=", "A" * 87_380, "A" * 87_384],
    "peer": [PEER, PEER[:-1], "x"],
    "host": ["x", "signal.example:81", "[::1]:1", "", "a b", "x" * 262],
    "signature": ["A" * 86, "A" * 85 + "B", "A" * 85],
    "record": ["AA", "", "A" * 5462, "A" * 5464],
    "channel": [0, 1, 999_999_999, 1_000_000_000, 1.5],
    "type": [*wire._FRAMES, *presence_wire._FRAMES, "ready", ""],
    "extra": [1],
}
ANYTHING = st.none() | st.booleans() | st.integers(-1, 5) | st.text(max_size=3)


def frames(operation: str) -> Iterator[st.SearchStrategy[dict[str, object]]]:
    for payload in payloads(operation).values():
        names = list(payload["properties"])
        valid = {
            name: st.just(payload["properties"][name]["const"])
            if name == "type"
            else st.sampled_from(VALUES[name])
            for name in names
        }
        yield st.fixed_dictionaries(valid)
        anything = {name: st.sampled_from(VALUES[name]) | ANYTHING for name in VALUES}
        others = {name: each for name, each in anything.items() if name not in valid}
        yield st.fixed_dictionaries(valid, optional=others)
        yield st.fixed_dictionaries({}, optional={**anything, **valid})


@settings(max_examples=300)
@given(st.data(), st.sampled_from(sorted(PARSERS)))
def test_a_frame_is_accepted_if_and_only_if_it_is_described(data: st.DataObject, operation: str) -> None:
    frame = data.draw(st.one_of(*frames(operation)))
    try:
        PARSERS[operation](json.dumps(frame))
    except Refused:
        accepted = False
    else:
        accepted = True
    if frame.get("peer") != PEER and kind_of(operation, frame) and "peer" in frame:
        return  # a pattern cannot tell whether it is one
    assert accepted == (kind_of(operation, frame) is not None), frame
