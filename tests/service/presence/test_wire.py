from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handclasp.identity import Identity
from handclasp.service.frames import Refused
from handclasp.service.presence.frames import (
    ORDER,
    Accepted,
    Advertise,
    Challenge,
    ClientFrame,
    Close,
    CloseCode,
    Closed,
    End,
    EndCode,
    Error,
    Find,
    Found,
    Gone,
    Incoming,
    Listed,
    Listen,
    Message,
    Open,
    Opened,
    Prove,
    Ready,
    Refusal,
    RefusalCode,
    SendOn,
    ServerFrame,
    Unfind,
    Unlisten,
    What,
    Withdraw,
)
from handclasp.service.presence.wire import RECORD_LENGTH, encode_frame, parse_frame_untrusted

PEER = str(Identity.from_seed(bytes(32)).peer_id)
TOPIC = "aa" * 32
SIGNATURE = base64.urlsafe_b64encode(bytes(64)).decode().rstrip("=")
GOOD: list[tuple[dict[str, object], ClientFrame]] = [
    (
        {"type": "prove", "peer": PEER, "host": "[::1]:80", "signature": SIGNATURE},
        Prove(PEER, "[::1]:80", bytes(64)),
    ),
    ({"type": "advertise", "topic": TOPIC, "record": "AA"}, Advertise(TOPIC, "AA")),
    ({"type": "withdraw", "topic": TOPIC}, Withdraw(TOPIC)),
    ({"type": "find", "topic": TOPIC}, Find(TOPIC)),
    ({"type": "unfind", "topic": TOPIC}, Unfind(TOPIC)),
    ({"type": "listen"}, Listen()),
    ({"type": "unlisten"}, Unlisten()),
    ({"type": "open", "channel": 1, "peer": PEER}, Open(1, PEER)),
    ({"type": "send", "channel": 1, "body": "AA"}, SendOn(1, "AA")),
    ({"type": "close", "channel": 1}, Close(1)),
]


@pytest.mark.parametrize(("fields", "frame"), GOOD)
def test_a_frame_is_read_as_it_is_meant(fields: dict[str, object], frame: ClientFrame) -> None:
    assert parse_frame_untrusted(json.dumps(fields)) == frame


def test_every_frame_has_its_place_in_the_order() -> None:
    assert {kind for _, kind in ORDER} == {type(frame) for _, frame in GOOD}


@pytest.mark.parametrize(("fields", "frame"), GOOD)
def test_every_field_has_to_be_there_and_no_other(fields: dict[str, object], frame: ClientFrame) -> None:
    for name, good in fields.items():
        wrong = {other: value for other, value in fields.items() if other != name}
        with pytest.raises(Refused, match=name):
            parse_frame_untrusted(json.dumps(wrong))
        for value in (None, True, 1.5, -1, "\n", "", {}, []):
            if value == good:
                continue
            with pytest.raises(Refused):
                parse_frame_untrusted(json.dumps({**fields, name: value}))
    with pytest.raises(Refused, match="more"):
        parse_frame_untrusted(json.dumps({**fields, "more": 1}))
    assert parse_frame_untrusted(json.dumps(fields)) == frame


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("peer", PEER + "1"),
        ("peer", PEER[:-1]),
        ("peer", "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N"),
        ("host", "evil.example\n00"),
        ("host", "x" * 262),
        ("host", "signal.exämple"),
        ("signature", SIGNATURE + "AA"),
        ("signature", SIGNATURE[:-1] + "B"),
    ],
)
def test_a_proof_has_one_spelling(name: str, value: str) -> None:
    fields = {**GOOD[0][0], name: value}
    with pytest.raises(Refused, match=name):
        parse_frame_untrusted(json.dumps(fields))


@pytest.mark.parametrize(
    "fields",
    [
        {"type": "find", "topic": TOPIC.upper()},
        {"type": "find", "topic": TOPIC[1:]},
        {"type": "advertise", "topic": TOPIC, "record": "A" * (RECORD_LENGTH * 2)},
        {"type": "advertise", "topic": TOPIC, "record": "AA=="},
        {"type": "send", "channel": 1, "body": ""},
        {"type": "send", "channel": 10**9, "body": "AA"},
        {"type": "close", "channel": "1"},
        {"type": "subscribe", "token": "00" * 32, "after": 0},
    ],
)
def test_what_is_out_of_bounds_is_malformed(fields: dict[str, object]) -> None:
    with pytest.raises(Refused) as caught:
        parse_frame_untrusted(json.dumps(fields))
    assert caught.value.code == "malformed"


@given(st.text())
def test_no_text_does_more_than_be_refused(text: str) -> None:
    try:
        parse_frame_untrusted(text)
    except Refused:
        return


@pytest.mark.parametrize(
    ("frame", "fields"),
    [
        (Challenge("00"), {"type": "challenge", "nonce": "00"}),
        (Ready(), {"type": "ready"}),
        (Accepted(What.ADVERTISE, TOPIC), {"type": "accepted", "what": "advertise", "topic": TOPIC}),
        (
            Refusal(What.FIND, TOPIC, RefusalCode.LIMIT),
            {"type": "refused", "what": "find", "topic": TOPIC, "code": "limit"},
        ),
        (Found(TOPIC, PEER, "AA"), {"type": "found", "topic": TOPIC, "peer": PEER, "record": "AA"}),
        (Gone(TOPIC, PEER), {"type": "gone", "topic": TOPIC, "peer": PEER}),
        (Listed(TOPIC), {"type": "listed", "topic": TOPIC}),
        (Opened(1), {"type": "opened", "channel": 1}),
        (Incoming(2), {"type": "incoming", "channel": 2}),
        (Message(2, "AA"), {"type": "message", "channel": 2, "body": "AA"}),
        (Closed(2, CloseCode.LEFT), {"type": "closed", "channel": 2, "code": "left"}),
        (Error("slow", "why"), {"type": "error", "code": "slow", "detail": "why"}),
    ],
)
def test_what_the_service_sends_is_what_the_page_says(frame: ServerFrame, fields: dict[str, object]) -> None:
    assert json.loads(encode_frame(frame)) == fields


def test_an_end_says_why() -> None:
    for code in EndCode:
        fields = json.loads(encode_frame(End(code)))
        assert fields.pop("detail")
        assert fields == {"type": "end", "code": code}
