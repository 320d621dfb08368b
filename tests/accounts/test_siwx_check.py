from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handclasp.accounts import ChainId, Expectation, SignInMessage, check
from handclasp.errors import ConfigurationError, LinkRefused

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SECOND = timedelta(seconds=1)
MILLISECOND = timedelta(milliseconds=1)
MINUTE = timedelta(minutes=1)
ADDRESS = "0xC02aaA39b223FE8D0A0e5C4F27eAD9083C756Cc2"
OTHER_ADDRESS = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"

MESSAGE = SignInMessage(
    scheme="https",
    domain="example.com",
    address=ADDRESS,
    statement="Sign in to Example",
    uri="https://example.com/login",
    chain_id=ChainId("eip155", "1"),
    nonce="abcdefgh12345678",
    issued_at=NOW,
    expiration_time=NOW + 10 * MINUTE,
    not_before=NOW,
    request_id="mailbox-7",
    resources=("urn:peer:website", "urn:peer:wallet", "urn:handshake:00ff"),
)
EXPECTATION = Expectation(
    scheme="https",
    domain="example.com",
    address=ADDRESS,
    statement="Sign in to Example",
    uri="https://example.com/login",
    chain_ids=frozenset({ChainId("eip155", "1"), ChainId("eip155", "10")}),
    nonce="abcdefgh12345678",
    request_id="mailbox-7",
    resources=("urn:peer:website", "urn:peer:wallet", "urn:handshake:00ff"),
)
# In the order in which check() looks at them; each row alone makes the message unacceptable.
FAULTS: list[tuple[str, object]] = [
    ("scheme", "http"),
    ("domain", "example.org"),
    ("address", OTHER_ADDRESS),
    ("statement", "Give everything away"),
    ("uri", "https://example.com/logout"),
    ("chain_id", ChainId("eip155", "2")),
    ("nonce", "abcdefgh12345679"),
    ("issued_at", NOW + 2 * MINUTE),
    ("expiration_time", None),
    ("not_before", NOW + 2 * MINUTE),
    ("request_id", "mailbox-8"),
    ("resources", ("urn:peer:website", "urn:peer:thief", "urn:handshake:00ff")),
]


def refused_field(message: SignInMessage, expectation: Expectation = EXPECTATION, now: datetime = NOW) -> str:
    with pytest.raises(LinkRefused) as caught:
        check(message, expectation, now=now)
    return caught.value.field


def test_a_message_that_is_as_expected_passes() -> None:
    check(MESSAGE, EXPECTATION, now=NOW)
    check(replace(MESSAGE, chain_id=ChainId("eip155", "10")), EXPECTATION, now=NOW)
    check(replace(MESSAGE, not_before=None), EXPECTATION, now=NOW)


@pytest.mark.parametrize(("field", "value"), FAULTS)
def test_a_field_that_differs_is_refused(field: str, value: object) -> None:
    assert refused_field(replace(MESSAGE, **{field: value})) == field


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("scheme", None),
        ("statement", None),
        ("request_id", None),
        ("resources", ()),
        ("resources", MESSAGE.resources[:2]),
        ("resources", (*MESSAGE.resources, "urn:more")),
        ("resources", MESSAGE.resources[::-1]),
        ("domain", "example.com:443"),
        ("domain", "www.example.com"),
        ("uri", "https://example.com/login/"),
        ("nonce", "ABCDEFGH12345678"),
    ],
)
def test_a_field_that_is_missing_or_almost_right_is_refused(field: str, value: object) -> None:
    assert refused_field(replace(MESSAGE, **{field: value})) == field


@pytest.mark.parametrize("field", ["scheme", "statement", "request_id"])
def test_a_field_that_was_not_asked_for_is_refused(field: str) -> None:
    assert refused_field(MESSAGE, replace(EXPECTATION, **{field: None})) == field
    check(replace(MESSAGE, **{field: None}), replace(EXPECTATION, **{field: None}), now=NOW)


def test_any_account_passes_if_none_is_expected() -> None:
    check(replace(MESSAGE, address=OTHER_ADDRESS), replace(EXPECTATION, address=None), now=NOW)


def test_of_several_faults_the_first_in_the_documented_order_is_named() -> None:
    for first, (field, _) in enumerate(FAULTS):
        assert refused_field(replace(MESSAGE, **dict(FAULTS[first:]))) == field


@pytest.mark.parametrize(
    ("change", "field"),
    [
        # issued at most the leeway ahead
        ({"issued_at": NOW + MINUTE}, None),
        ({"issued_at": NOW + MINUTE + MILLISECOND}, "issued_at"),
        # expires after it was issued, at most ten minutes later
        ({"expiration_time": NOW}, "expiration_time"),
        ({"expiration_time": NOW - SECOND}, "expiration_time"),
        ({"expiration_time": NOW + MILLISECOND, "not_before": None}, None),
        ({"expiration_time": NOW + 10 * MINUTE + MILLISECOND}, "expiration_time"),
        ({"expiration_time": None}, "expiration_time"),
        # expired less than the leeway ago
        (
            {"issued_at": NOW - 11 * MINUTE + MILLISECOND, "expiration_time": NOW - MINUTE + MILLISECOND},
            "not_before",
        ),
        (
            {
                "issued_at": NOW - 11 * MINUTE + MILLISECOND,
                "expiration_time": NOW - MINUTE + MILLISECOND,
                "not_before": None,
            },
            None,
        ),
        (
            {"issued_at": NOW - 11 * MINUTE, "expiration_time": NOW - MINUTE, "not_before": None},
            "expiration_time",
        ),
        # valid from at most the leeway ahead, and before it expires
        ({"not_before": NOW + MINUTE}, None),
        ({"not_before": NOW + MINUTE + MILLISECOND}, "not_before"),
        ({"expiration_time": NOW + SECOND, "not_before": NOW + SECOND}, "not_before"),
        ({"expiration_time": NOW + SECOND, "not_before": NOW + SECOND - MILLISECOND}, None),
    ],
)
def test_each_time_is_good_up_to_its_boundary(change: dict[str, datetime | None], field: str | None) -> None:
    message = replace(MESSAGE, **change)
    if field is None:
        check(message, EXPECTATION, now=NOW)
    else:
        assert refused_field(message) == field


def test_without_leeway_the_boundaries_are_the_times_themselves() -> None:
    exact = replace(EXPECTATION, leeway=timedelta(0))
    check(MESSAGE, exact, now=NOW)
    check(MESSAGE, exact, now=NOW + 10 * MINUTE - MILLISECOND)
    assert refused_field(MESSAGE, exact, NOW - MILLISECOND) == "issued_at"
    assert refused_field(MESSAGE, exact, NOW + 10 * MINUTE) == "expiration_time"


def test_a_shorter_lifetime_can_be_demanded() -> None:
    short = replace(EXPECTATION, max_lifetime=MINUTE)
    check(replace(MESSAGE, expiration_time=NOW + MINUTE), short, now=NOW)
    assert (
        refused_field(replace(MESSAGE, expiration_time=NOW + MINUTE + MILLISECOND), short)
        == "expiration_time"
    )


@pytest.mark.parametrize("name", ["issued_at", "expiration_time", "not_before"])
@pytest.mark.parametrize(
    "extreme", [datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)]
)
def test_the_first_and_last_moments_there_are_do_not_crash_the_check(name: str, extreme: datetime) -> None:
    message = replace(MESSAGE, **{name: extreme})
    if (name, extreme.year) == ("not_before", 1):
        check(message, EXPECTATION, now=NOW)
    else:
        # a message issued in the year 1 has too long a life
        assert refused_field(message) == ("expiration_time" if extreme.year == 1 else name)


def test_the_zone_of_now_does_not_matter_but_it_must_have_one() -> None:
    check(MESSAGE, EXPECTATION, now=NOW.astimezone(timezone(timedelta(hours=9))))
    with pytest.raises(ConfigurationError, match="time zone"):
        check(MESSAGE, EXPECTATION, now=NOW.replace(tzinfo=None))


@given(st.timedeltas(-timedelta(hours=1), timedelta(hours=1)))
def test_a_message_is_good_exactly_between_its_times(offset: timedelta) -> None:
    try:
        check(MESSAGE, EXPECTATION, now=NOW + offset)
    except LinkRefused:
        good = False
    else:
        good = True
    assert good == (-MINUTE <= offset < 11 * MINUTE)


@pytest.mark.parametrize(
    ("field", "value", "match"),
    [
        ("chain_ids", frozenset(), "chain_ids"),
        ("max_lifetime", timedelta(0), "max_lifetime"),
        ("max_lifetime", 10 * MINUTE + MILLISECOND, "max_lifetime"),
        ("leeway", -MILLISECOND, "leeway"),
        ("leeway", 5 * MINUTE + MILLISECOND, "leeway"),
        ("address", ADDRESS.lower(), "checksum_address"),
        ("address", "0x", "address"),
    ],
)
def test_an_expectation_that_nothing_or_too_much_would_meet_cannot_be_made(
    field: str, value: object, match: str
) -> None:
    with pytest.raises(ConfigurationError, match=match):
        replace(EXPECTATION, **{field: value})


def test_neither_repr_nor_refusal_shows_the_nonce() -> None:
    assert EXPECTATION.nonce not in repr(EXPECTATION)
    with pytest.raises(LinkRefused) as caught:
        check(replace(MESSAGE, nonce="canary00"), EXPECTATION, now=NOW)
    assert "canary00" not in str(caught.value)
    assert EXPECTATION.nonce not in str(caught.value)
