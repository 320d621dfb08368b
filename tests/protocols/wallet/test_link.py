import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handclasp.accounts import AccountId, ChainId, LocalAccount, SignInMessage, recover_message
from handclasp.discovery.signaling import Invitation
from handclasp.errors import LinkRefused
from handclasp.identity import Identity
from handclasp.protocols.wallet.link import (
    DECLINED,
    STATEMENT,
    Pairing,
    check_verdict_untrusted,
    sign_link,
    verdict,
    verify_link_untrusted,
)

ACCOUNT = LocalAccount.generate()
STRANGER = LocalAccount.generate()
WEBSITE = Identity.from_seed(b"s" * 32).peer_id
WALLET = Identity.from_seed(b"w" * 32).peer_id
OTHER = Identity.from_seed(b"x" * 32).peer_id
INVITATION = Invitation(
    "wss://signal.example", "https://shop.example", WEBSITE, bytes(range(16)), 1_764_000_000
)
PAIRING = Pairing(INVITATION, WALLET, "0123456789abcdef0123456789abcdef", bytes(range(32)))
CHAINS = frozenset({1, 10})


def now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def sent(text: str, signature: str) -> bytes:
    return json.dumps({"message": text, "signature": signature}).encode()


def signed(message: SignInMessage | str, account: LocalAccount = ACCOUNT) -> bytes:
    """The link that a wallet sends which signs whatever this is."""
    return sent(str(message), account.sign_message(str(message)))


def message(**changes: object) -> SignInMessage:
    """The right message, but for some fields."""
    return replace(PAIRING.message(ACCOUNT.address, 1, now()), **changes)


def refused(link: bytes, pairing: Pairing = PAIRING) -> LinkRefused:
    with pytest.raises(LinkRefused) as caught:
        verify_link_untrusted(link, pairing, CHAINS)
    return caught.value


# --- the good way ---


@pytest.mark.parametrize("chain", [1, 10])
def test_a_link_proves_its_account_on_its_chain(chain: int) -> None:
    link = sign_link(PAIRING, ACCOUNT, chain)
    account = verify_link_untrusted(link, PAIRING, CHAINS)
    assert account == AccountId(ChainId("eip155", str(chain)), ACCOUNT.address)


def test_the_signed_text_is_the_one_in_the_documentation() -> None:
    link = json.loads(sign_link(PAIRING, ACCOUNT, 1))
    assert link.keys() == {"message", "signature"}
    issued = SignInMessage.from_text_untrusted(link["message"]).issued_at
    assert abs(issued - now()) < timedelta(seconds=5)
    minutes_5 = issued + timedelta(minutes=5)
    assert (
        link["message"]
        == f"""\
shop.example wants you to sign in with your Ethereum account:
{ACCOUNT.address}

{STATEMENT}

URI: https://shop.example
Version: 1
Chain ID: 1
Nonce: 0123456789abcdef0123456789abcdef
Issued At: {issued:%Y-%m-%dT%H:%M:%SZ}
Expiration Time: {minutes_5:%Y-%m-%dT%H:%M:%SZ}
Request ID: 1744803b76013fe6dbf79b16d340b7c1
Resources:
- urn:handclasp:website:{WEBSITE}
- urn:handclasp:wallet:{WALLET}
- urn:handclasp:handshake:{bytes(range(32)).hex()}"""
    )
    assert recover_message(link["message"], link["signature"]) == ACCOUNT.address


@pytest.mark.parametrize("origin", ["http://localhost:8787", "http://[::1]", "https://192.168.1.5:8443"])
def test_websites_on_this_machine_and_in_private_networks_can_be_linked(origin: str) -> None:
    pairing = replace(PAIRING, invitation=replace(INVITATION, origin=origin))
    link = sign_link(pairing, ACCOUNT, 1)
    assert verify_link_untrusted(link, pairing, CHAINS).address == ACCOUNT.address
    scheme, _, domain = origin.partition("://")
    shown = domain if scheme == "https" else origin
    assert json.loads(link)["message"].startswith(f"{shown} wants you to sign in")


# --- a link of another pairing: claim C6 ---


def invited(**changes: object) -> Pairing:
    return replace(PAIRING, invitation=replace(INVITATION, **changes))


@pytest.mark.parametrize(
    ("other", "field"),
    [
        pytest.param(replace(PAIRING, nonce="f" * 32), "nonce", id="nonce"),
        pytest.param(replace(PAIRING, nonce=PAIRING.nonce.upper()), "nonce", id="nonce in upper case"),
        pytest.param(invited(origin="https://evil.example"), "domain", id="domain"),
        pytest.param(invited(origin="https://shop.example.evil.example"), "domain", id="longer domain"),
        pytest.param(invited(origin="https://sub.shop.example"), "domain", id="subdomain"),
        pytest.param(invited(origin="https://shop.example:8443"), "domain", id="port"),
        pytest.param(invited(origin="http://shop.example"), "scheme", id="scheme"),
        pytest.param(invited(secret=bytes(16)), "request_id", id="mailbox"),
        pytest.param(invited(peer=OTHER), "resources", id="website's peer"),
        pytest.param(replace(PAIRING, wallet=OTHER), "resources", id="wallet's peer"),
        pytest.param(replace(PAIRING, handshake_hash=bytes(32)), "resources", id="handshake"),
        pytest.param(replace(invited(peer=WALLET), wallet=WEBSITE), "resources", id="peers swapped"),
    ],
)
def test_a_link_made_for_another_pairing_is_refused(other: Pairing, field: str) -> None:
    link = sign_link(other, ACCOUNT, 1)
    assert verify_link_untrusted(link, other, CHAINS).address == ACCOUNT.address  # good where it belongs
    assert refused(link).field == field


# --- one wrong field, rightly signed ---


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        pytest.param({"scheme": "https"}, "scheme", id="scheme that goes without saying"),
        pytest.param({"domain": "evil.example"}, "domain", id="domain"),
        pytest.param({"statement": None}, "statement", id="no statement"),
        pytest.param({"statement": STATEMENT + " Really."}, "statement", id="another statement"),
        pytest.param({"uri": "https://evil.example"}, "uri", id="URI"),
        pytest.param({"uri": "https://shop.example/"}, "uri", id="URI with a slash"),
        pytest.param({"uri": "http://shop.example"}, "uri", id="URI with another scheme"),
        pytest.param({"chain_id": ChainId("eip155", "5")}, "chain_id", id="chain"),
        pytest.param({"nonce": "0123456789abcdef"}, "nonce", id="half the nonce"),
        pytest.param({"request_id": None}, "request_id", id="no mailbox"),
        pytest.param({"request_id": "0" * 32}, "request_id", id="another mailbox"),
        pytest.param({"resources": ()}, "resources", id="no resources"),
        pytest.param({"resources": PAIRING._resources[:2]}, "resources", id="without the handshake"),
        pytest.param({"resources": PAIRING._resources[::-1]}, "resources", id="another order"),
        pytest.param({"resources": (*PAIRING._resources, "urn:x:y")}, "resources", id="one more"),
        pytest.param({"expiration_time": None}, "expiration_time", id="no expiry"),
    ],
)
def test_a_link_with_one_wrong_field_is_refused_and_says_which(
    changes: dict[str, object], field: str
) -> None:
    assert refused(signed(message(**changes))).field == field


def timed(issued: timedelta, expires: timedelta, not_before: timedelta | None = None) -> SignInMessage:
    """The right message with other times, relative to now."""
    start = now()
    return message(
        issued_at=start + issued,
        expiration_time=start + expires,
        not_before=None if not_before is None else start + not_before,
    )


MINUTE = timedelta(minutes=1)


@pytest.mark.parametrize(
    ("make", "field"),
    [
        pytest.param(lambda: timed(-7 * MINUTE, -2 * MINUTE), "expiration_time", id="expired"),
        pytest.param(lambda: timed(-525_600 * MINUTE, -525_595 * MINUTE), "expiration_time", id="a year old"),
        pytest.param(lambda: timed(2 * MINUTE, 7 * MINUTE), "issued_at", id="from the future"),
        pytest.param(lambda: timed(-MINUTE, 11 * MINUTE), "expiration_time", id="good for too long"),
        pytest.param(lambda: timed(0 * MINUTE, 525_600 * MINUTE), "expiration_time", id="good for a year"),
        pytest.param(lambda: timed(0 * MINUTE, 0 * MINUTE), "expiration_time", id="good for no time"),
        pytest.param(lambda: timed(0 * MINUTE, 5 * MINUTE, 3 * MINUTE), "not_before", id="not yet good"),
    ],
)
def test_a_link_out_of_its_time_is_refused(make: Callable[[], SignInMessage], field: str) -> None:
    assert refused(signed(make())).field == field


def test_clocks_may_differ_by_a_minute() -> None:
    for skew in (timedelta(seconds=50), timedelta(seconds=-50)):
        link = signed(timed(skew, skew + 5 * MINUTE))
        assert verify_link_untrusted(link, PAIRING, CHAINS).address == ACCOUNT.address
    late = timedelta(seconds=50)
    link = signed(timed(-5 * MINUTE - late, -late))
    assert verify_link_untrusted(link, PAIRING, CHAINS).address == ACCOUNT.address


# --- the signature ---


def test_a_stranger_cannot_sign_for_an_account() -> None:
    assert refused(signed(message(), STRANGER)).field == "signature"
    assert refused(signed(message(address=STRANGER.address))).field == "signature"


def test_a_signature_over_another_text_is_refused() -> None:
    earlier = message(issued_at=now() - timedelta(seconds=1))
    link = sent(str(message()), ACCOUNT.sign_message(str(earlier)))
    assert refused(link).field == "signature"


def test_a_signature_over_typed_data_or_a_hash_is_no_link() -> None:
    text = str(message())
    for other in (text.encode() + b"\0", text + "\n", "0x" + text.encode().hex()):
        assert refused(sent(text, ACCOUNT.sign_message(other))).field == "signature"


@pytest.mark.parametrize(
    "signature",
    ["", "0x", "0x" + "00" * 65, "0x" + "11" * 64, "0x" + "11" * 66, "11" * 65, "0x" + "zz" * 65, "\ud800"],
)
def test_a_malformed_signature_is_refused(signature: str) -> None:
    assert refused(sent(str(message()), signature)).field == "signature"


def test_no_character_of_the_signed_text_can_be_changed() -> None:
    text = str(message())
    signature = ACCOUNT.sign_message(text)
    assert verify_link_untrusted(sent(text, signature), PAIRING, CHAINS).address == ACCOUNT.address
    for at, old in enumerate(text):
        for new in {"", "0", "1", "a", "\n", " ", old + old, old.swapcase()} - {old}:
            refused(sent(text[:at] + new + text[at + 1 :], signature))


def test_a_changed_text_that_still_has_every_field_fails_by_its_signature() -> None:
    text = str(message())
    later = str(message(issued_at=now() - timedelta(seconds=7)))
    other = str(message(chain_id=ChainId("eip155", "10")))
    signature = ACCOUNT.sign_message(text)
    for changed in (later, other):
        assert refused(sent(changed, signature)).field == "signature"


def test_no_digit_of_the_signature_can_be_changed() -> None:
    text = str(message())
    signature = ACCOUNT.sign_message(text)
    for at in range(2, len(signature)):
        digit = f"{int(signature[at], 16) ^ 1:x}"
        assert refused(sent(text, signature[:at] + digit + signature[at + 1 :])).field == "signature"


@pytest.mark.parametrize(
    ("make", "field"),
    [
        pytest.param(lambda text: text + "\n", "message", id="line feed behind"),
        pytest.param(lambda text: text.replace("\n", "\r\n"), "message", id="carriage returns"),
        pytest.param(lambda text: text.replace("Version: 1", "Version: 2"), "version", id="version"),
        pytest.param(
            lambda text: text.replace(ACCOUNT.address, ACCOUNT.address.lower()), "address", id="address"
        ),
        pytest.param(lambda text: text.replace("Chain ID: 1", "Chain ID: 01"), "chain_id", id="leading zero"),
        pytest.param(lambda _: "sign me", "message", id="something else"),
        pytest.param(lambda _: "", "message", id="nothing"),
    ],
)
def test_a_text_that_is_no_canonical_sign_in_message_is_refused(
    make: Callable[[str], str], field: str
) -> None:
    assert refused(signed(make(str(message())))).field == field


# --- what is no link at all ---


@pytest.mark.parametrize(
    "link",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"x", id="no JSON"),
        pytest.param(b"\xff\xfe", id="not UTF-8"),
        pytest.param(b"null", id="null"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b"{}", id="empty"),
        pytest.param(b'{"message": "x"}', id="no signature"),
        pytest.param(b'{"signature": "x"}', id="no message"),
        pytest.param(b'{"message": null, "signature": "x"}', id="null as message"),
        pytest.param(b'{"message": "x", "signature": 5}', id="a number as signature"),
        pytest.param(b'{"message": ["x"], "signature": "x"}', id="a list as message"),
        pytest.param(b'{"refused": "by someone else"}', id="refused by nobody"),
        pytest.param(b"[" * 60_000, id="deep nesting"),
        pytest.param(b"9" * 60_000, id="huge number"),
    ],
)
def test_what_is_no_link_is_refused(link: bytes) -> None:
    assert refused(link).field == "link"


def test_a_message_with_lone_surrogates_is_refused() -> None:
    assert refused(b'{"message": "\\ud800", "signature": "0x"}').field == "message"


def test_a_person_who_declines_is_told_apart_from_a_link_that_is_wrong() -> None:
    error = refused(DECLINED)
    assert (error.field, error.reason) == ("approval", "the person at the wallet declined")
    both = json.loads(sign_link(PAIRING, ACCOUNT, 1)) | json.loads(DECLINED)
    assert refused(json.dumps(both).encode()).field == "approval"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=30),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["message", "signature", "refused", "x"]), inner)
    ),
    max_leaves=5,
)


@given(st.binary(max_size=100) | json_values.map(lambda value: json.dumps(value).encode()))
@settings(deadline=None)
def test_any_bytes_are_refused_with_a_field(link: bytes) -> None:
    assert refused(link).field


def test_no_refusal_shows_the_nonce_or_the_signature() -> None:
    link = sign_link(replace(PAIRING, nonce="f" * 32), ACCOUNT, 1)
    text = str(refused(link))
    assert PAIRING.nonce not in text
    assert "f" * 32 not in text
    assert json.loads(link)["signature"] not in text


# --- the website's verdict ---


def test_a_good_verdict_says_nothing() -> None:
    check_verdict_untrusted(verdict(None))


def test_a_refusal_comes_back_with_field_and_reason() -> None:
    with pytest.raises(LinkRefused) as caught:
        check_verdict_untrusted(verdict(LinkRefused("nonce", "is not the one that was asked for")))
    assert (caught.value.field, caught.value.reason) == ("nonce", "is not the one that was asked for")


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"true",
        b"[]",
        b"{}",
        b"\xff",
        b'{"linked": "true"}',
        b'{"linked": 1}',
        b'{"linked": [true]}',
        b'{"linked": false}',
        b'{"Linked": true}',
        b"[" * 60_000,
    ],
)
def test_anything_but_linked_true_is_a_refusal(answer: bytes) -> None:
    with pytest.raises(LinkRefused):
        check_verdict_untrusted(answer)


def test_a_long_verdict_is_cut() -> None:
    long = json.dumps({"linked": False, "field": "f" * 10_000, "reason": "r" * 10_000}).encode()
    with pytest.raises(LinkRefused) as caught:
        check_verdict_untrusted(long)
    assert len(str(caught.value)) < 300
