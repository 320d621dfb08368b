from __future__ import annotations

import base64
import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handclasp.errors import PeerFault
from handclasp.service.frames import (
    Accepted,
    Claim,
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
    Subscribe,
    Topic,
)
from handclasp.service.strict import BODY_LENGTH, FRAME_LENGTH
from handclasp.service.wire import (
    encode_frame,
    parse_bearer_untrusted,
    parse_challenge_untrusted,
    parse_frame_untrusted,
    parse_link_untrusted,
    parse_publish_untrusted,
)

from .driver import ID

TOKEN = "0f" * 32
NONCE = "0f" * 16


@pytest.mark.parametrize(
    ("text", "frame"),
    [
        (f'{{"type": "subscribe", "token": "{TOKEN}", "after": 0}}', Subscribe(TOKEN, 0)),
        (f'{{"after":999999999,"token":"{TOKEN}","type":"subscribe"}}', Subscribe(TOKEN, 999_999_999)),
        (f'{{"type": "claim", "mailbox": "{ID}"}}', Claim(ID)),
        ('{"type": "publish", "topic": "answer", "body": "AA"}', Publish(Topic.ANSWER, "AA")),
        ('{"type": "publish", "topic": "link", "body": ""}', Publish(Topic.LINK, "")),
        ('{"type": "close"}', Close()),
        (' {"type" : "close"}\n', Close()),
    ],
)
def test_every_frame_of_the_protocol_is_understood(text: str, frame: object) -> None:
    assert parse_frame_untrusted(text) == frame


@pytest.mark.parametrize(
    ("frame", "fields"),
    [
        (Ready(Role.WEBSITE, 118), {"type": "ready", "role": "website", "expires_in": 118}),
        (
            Ready(Role.WALLET, 300, TOKEN, NONCE),
            {"type": "ready", "role": "wallet", "expires_in": 300, "token": TOKEN, "nonce": NONCE},
        ),
        (Message(Topic.OFFER, 7, "AA"), {"type": "message", "topic": "offer", "n": 7, "body": "AA"}),
        (Accepted(), {"type": "accepted"}),
        (Joined(), {"type": "joined"}),
        (Left(), {"type": "left"}),
        (Crowded(), {"type": "crowded"}),
        (Error("slow", "read"), {"type": "error", "code": "slow", "detail": "read"}),
    ],
)
def test_every_frame_of_the_service_is_written_as_the_protocol_says(frame: object, fields: dict) -> None:
    assert json.loads(encode_frame(frame)) == fields


@pytest.mark.parametrize("code", list(EndCode))
def test_every_end_has_a_sentence(code: EndCode) -> None:
    fields = json.loads(encode_frame(End(code)))
    assert fields["type"] == "end"
    assert fields["code"] == code
    assert len(fields["detail"]) > 10


def subscribe(**changes: object) -> str:
    return json.dumps({"type": "subscribe", "token": TOKEN, "after": 0, **changes})


def publish(body: str) -> str:
    return json.dumps({"type": "publish", "topic": "offer", "body": body})


MALFORMED = [
    # what, text, the field that the answer names
    ("nothing", "", "frame"),
    ("no JSON", "subscribe", "frame"),
    ("cut short", '{"type": "close"', "frame"),
    ("two values", '{"type": "close"}{}', "frame"),
    ("something after", '{"type": "close"} x', "frame"),
    ("a byte order mark", '\ufeff{"type": "close"}', "frame"),
    ("single quotes", "{'type': 'close'}", "frame"),
    ("a list", '[{"type": "close"}]', "frame"),
    ("a text", '"close"', "frame"),
    ("a number", "1", "frame"),
    ("null", "null", "frame"),
    ("not a number", "NaN", "frame"),
    ("an object in an object", '{"type": {"a": 1}}', "frame"),
    ("a list in an object", '{"type": ["close"]}', "frame"),
    ("deep lists", "[" * 50_000, "frame"),
    ("deep objects", '{"a":' * 16_000, "frame"),
    ("an empty object", "{}", "type"),
    ("type twice", '{"type": "close", "type": "close"}', "'type'"),
    (
        "token twice",
        f'{{"type": "subscribe", "token": "{TOKEN}", "token": "{TOKEN}", "after": 0}}',
        "'token'",
    ),
    ("type null", '{"type": null}', "type"),
    ("type a number", '{"type": 1}', "type"),
    ("type unknown", '{"type": "open"}', "type"),
    ("type in capitals", '{"type": "CLOSE"}', "type"),
    ("type with a space", '{"type": "close "}', "type"),
    ("an unknown field", '{"type": "close", "why": "x"}', "'why'"),
    ("an unknown field with a control character", '{"type": "close", "a\\u0000\\n": "x"}', "'a\\x00\\n'"),
    ("an unknown field that is long", json.dumps({"type": "close", "a" * 999: 1}), f"'{'a' * 32}'"),
    ("a role to choose", subscribe(role="website"), "'role'"),
    ("no token", '{"type": "subscribe", "after": 0}', "token"),
    ("no after", f'{{"type": "subscribe", "token": "{TOKEN}"}}', "after"),
    ("after true", subscribe(after=True), "after"),
    ("after false", subscribe(after=False), "after"),
    ("after null", subscribe(after=None), "after"),
    ("after a text", subscribe(after="0"), "after"),
    ("after negative", subscribe(after=-1), "after"),
    ("after minus zero", subscribe().replace(": 0}", ": -0}"), "after"),
    ("after a fraction", subscribe(after=0.5), "after"),
    ("after a whole fraction", subscribe(after=1.0), "after"),
    ("after with an exponent", subscribe().replace(": 0}", ": 1e2}"), "after"),
    ("after infinite", subscribe(after=float("inf")), "after"),
    ("after not a number", subscribe(after=float("nan")), "after"),
    ("after of ten digits", subscribe(after=1_000_000_000), "after"),
    ("after of 10,000 digits", subscribe().replace(": 0}", ": " + "9" * 10_000 + "}"), "after"),
    ("after with a leading zero", subscribe().replace(": 0}", ": 01}"), "frame"),
    ("a token in capitals", subscribe(token=TOKEN.upper()), "token"),
    ("a token that is short", subscribe(token=TOKEN[1:]), "token"),
    ("a token that is long", subscribe(token=TOKEN + "0"), "token"),
    ("a token and a line feed", subscribe(token=TOKEN + "\n"), "token"),
    ("a token of other digits", subscribe(token="\N{ARABIC-INDIC DIGIT ZERO}" * 64), "token"),
    ("a token that is a number", subscribe(token=1), "token"),
    ("a mailbox of 31 digits", json.dumps({"type": "claim", "mailbox": ID[1:]}), "mailbox"),
    ("a mailbox that is null", json.dumps({"type": "claim", "mailbox": None}), "mailbox"),
    ("a claim with a token", json.dumps({"type": "claim", "mailbox": ID, "token": TOKEN}), "'token'"),
    ("no topic", '{"type": "publish", "body": "AA"}', "topic"),
    ("an unknown topic", '{"type": "publish", "topic": "offers", "body": "AA"}', "topic"),
    ("a topic that is null", '{"type": "publish", "topic": null, "body": "AA"}', "topic"),
    ("no body", '{"type": "publish", "topic": "offer"}', "body"),
    ("a body that is a number", '{"type": "publish", "topic": "offer", "body": 1}', "body"),
    ("a padded body", publish("AA=="), "body"),
    ("a body of one character", publish("A"), "body"),
    ("a body of five characters", publish("AAAAA"), "body"),
    ("spare bits after one byte", publish("AB"), "body"),
    ("spare bits after two bytes", publish("AAB"), "body"),
    ("standard base64", publish("A+/A"), "body"),
    ("a body with a space", publish("AA A"), "body"),
    ("a body with a line feed", publish("AAAA\n"), "body"),
    ("a body that is not ASCII", publish("ÄÄÄÄ"), "body"),
    ("a body of 65,536 bytes", publish("A" * (BODY_LENGTH + 2)), "body"),
]


@pytest.mark.parametrize(
    ("text", "field"), [case[1:] for case in MALFORMED], ids=[case[0] for case in MALFORMED]
)
def test_a_malformed_frame_is_refused_by_the_name_of_the_field(text: str, field: str) -> None:
    with pytest.raises(Refused) as caught:
        parse_frame_untrusted(text)
    assert caught.value.code == "malformed"
    assert caught.value.status == 400
    assert caught.value.detail.startswith(f"{field}: ")


@pytest.mark.parametrize("secret", ["token", "mailbox", "body", "type", "no JSON", "two objects"])
def test_a_refusal_repeats_nothing_of_a_value(secret: str) -> None:
    canary = "c4n4ry" * 3
    text = {
        "token": subscribe(token=canary),
        "mailbox": json.dumps({"type": "claim", "mailbox": canary}),
        "body": publish(canary + "="),
        "type": json.dumps({"type": canary}),
        "no JSON": canary,
        "two objects": f'{{"type": "{canary}"}}{{}}',
    }[secret]
    with pytest.raises(Refused) as caught:
        parse_frame_untrusted(text)
    error: BaseException | None = caught.value
    while error is not None:
        assert "c4n4ry" not in str(error)
        assert "c4n4ry" not in repr(vars(error))
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def test_a_frame_over_the_limit_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(Refused) as caught:
        parse_frame_untrusted('{"type": "close"' + " " * FRAME_LENGTH + "}")
    assert (caught.value.code, caught.value.status) == ("limit", 413)


def test_the_longest_message_fits_into_a_frame() -> None:
    body = base64.urlsafe_b64encode(b"\xff" * 65_535).decode().rstrip("=")
    assert len(body) == BODY_LENGTH
    text = publish(body)
    assert len(text) <= FRAME_LENGTH
    assert parse_frame_untrusted(text) == Publish(Topic.OFFER, body)
    link = json.dumps({"nonce": NONCE, "body": body}).encode()
    assert len(link) <= FRAME_LENGTH
    assert parse_link_untrusted(link).body == body


@given(st.binary(max_size=40))
def test_a_body_is_accepted_in_its_one_canonical_spelling(data: bytes) -> None:
    body = base64.urlsafe_b64encode(data).decode().rstrip("=")
    assert parse_publish_untrusted(json.dumps({"body": body}).encode()) == (body, 0)


@given(st.text("ABCDEFghij0189-_", max_size=9))
def test_no_two_bodies_that_are_accepted_decode_to_the_same_bytes(body: str) -> None:
    try:
        parse_publish_untrusted(json.dumps({"body": body}).encode())
    except Refused:
        return
    data = base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))
    assert base64.urlsafe_b64encode(data).decode().rstrip("=") == body


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"", "body of the request"),
        (b"\xff\xfe", "body of the request"),
        (b"{}", "nonce"),
        (json.dumps({"nonce": NONCE}).encode(), "body"),
        (json.dumps({"nonce": NONCE.upper(), "body": "AA"}).encode(), "nonce"),
        (json.dumps({"nonce": NONCE, "body": "AA", "token": TOKEN}).encode(), "'token'"),
        (json.dumps({"nonce": 1, "body": "AA"}).encode(), "nonce"),
        (json.dumps([NONCE, "AA"]).encode(), "body of the request"),
    ],
)
def test_a_malformed_link_request_is_refused_by_the_name_of_the_field(body: bytes, field: str) -> None:
    with pytest.raises(Refused, match="malformed") as caught:
        parse_link_untrusted(body)
    assert caught.value.detail.startswith(f"{field}: ")


@pytest.mark.parametrize(
    ("query", "field"),
    [
        (b"", "query"),
        (b"mailbox", "mailbox"),
        (b"mailbox=", "mailbox"),
        (b"Mailbox=" + ID.encode(), "query"),
        (b"id=" + ID.encode(), "query"),
        (b"mailbox=" + ID.upper().encode(), "mailbox"),
        (b"mailbox=" + ID.encode() + b"&mailbox=" + ID.encode(), "mailbox"),
        (b"mailbox=" + ID.encode() + b"&x=1", "mailbox"),
        (b"mailbox=%31" + ID.encode()[1:], "mailbox"),
        (b"mailbox=" + ID.encode() + b"\xff", "mailbox"),
    ],
)
def test_a_malformed_challenge_query_is_refused(query: bytes, field: str) -> None:
    with pytest.raises(Refused, match="malformed") as caught:
        parse_challenge_untrusted(query)
    assert caught.value.detail.startswith(f"{field}: ")


def test_the_challenge_query_holds_the_mailbox_id() -> None:
    assert parse_challenge_untrusted(b"mailbox=" + ID.encode()) == ID


@pytest.mark.parametrize(
    ("value", "token"),
    [
        (b"Bearer " + TOKEN.encode(), TOKEN),
        (b"bearer " + TOKEN.encode(), TOKEN),
        (None, None),
        (b"", None),
        (TOKEN.encode(), None),
        (b"Basic " + TOKEN.encode(), None),
        (b"Bearer", None),
        (b"Bearer  " + TOKEN.encode(), None),
        (b"Bearer " + TOKEN.encode() + b" ", None),
        (b"Bearer " + TOKEN.upper().encode(), None),
        (b"Bearer \xff" + TOKEN.encode()[1:], None),
    ],
)
def test_only_a_well_formed_bearer_token_is_looked_up(value: bytes | None, token: str | None) -> None:
    assert parse_bearer_untrusted(value) == token


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda parts: st.lists(parts, max_size=3) | st.dictionaries(st.text(max_size=8), parts, max_size=3),
    max_leaves=6,
)
nearly_frames = st.dictionaries(
    st.sampled_from(["type", "token", "after", "mailbox", "topic", "body", "x"]),
    st.sampled_from(["subscribe", "claim", "publish", "close", TOKEN, ID, "offer", "AA", 0, 1, True, None])
    | json_values,
    max_size=5,
).map(json.dumps)


@given(st.text(max_size=60) | json_values.map(json.dumps) | nearly_frames)
def test_whatever_comes_is_a_frame_or_a_refusal(text: str) -> None:
    try:
        frame = parse_frame_untrusted(text)
    except Refused as refused:
        encode_frame(Error(refused.code, refused.detail)).encode()
    else:
        fields = json.loads(text)
        assert fields["type"] == type(frame).__name__.lower()


def test_a_refusal_is_the_fault_of_the_peer() -> None:
    with pytest.raises(PeerFault):
        parse_frame_untrusted("")


@given(st.binary(max_size=60))
def test_whatever_is_posted_is_understood_or_refused(body: bytes) -> None:
    for parse in (parse_link_untrusted, parse_publish_untrusted, parse_challenge_untrusted):
        with suppress(Refused):
            parse(body)


@given(st.sampled_from(list(Topic)), st.integers(1, 256), st.text("Aa0_-", max_size=20))
def test_a_published_body_arrives_as_it_was_sent(topic: Topic, n: int, body: str) -> None:
    assert json.loads(encode_frame(Message(topic, n, body)))["body"] == body
