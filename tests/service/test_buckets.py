from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from handclasp.service.buckets import Bucket, Buckets, Places, network_of


def test_a_burst_passes_and_then_the_rate() -> None:
    buckets = Buckets(burst=3, rate=2, capacity=10)
    assert [buckets.spend("a", 100.0) for _ in range(3)] == [0, 0, 0]
    assert buckets.spend("a", 100.0) == 0.5
    assert buckets.spend("a", 100.25) == 0.25
    assert buckets.spend("a", 100.5) == 0
    assert buckets.spend("a", 100.5) == 0.5
    assert buckets.spend("b", 100.5) == 0, "every key has a bucket of its own"


def test_a_bucket_is_full_again_after_a_while_and_never_more_than_full() -> None:
    buckets = Buckets(burst=2, rate=1, capacity=10)
    for now in (0.0, 1_000.0):
        assert [buckets.spend("a", now) > 0 for _ in range(3)] == [False, False, True]


def test_whoever_is_refused_waits_no_longer_for_having_asked() -> None:
    buckets = Buckets(burst=1, rate=1, capacity=10)
    assert buckets.spend("a", 0.0) == 0
    for _ in range(1000):
        assert buckets.spend("a", 0.0) == 1
    assert buckets.spend("a", 1.0) == 0


@given(st.lists(st.floats(0, 5), min_size=1, max_size=300), st.integers(1, 20), st.floats(0.125, 50))
def test_no_order_of_requests_gets_more_than_burst_and_rate(
    pauses: list[float], burst: int, rate: float
) -> None:
    buckets, single = Buckets(burst, rate, 10), Bucket(burst, rate)
    now, passed = 0.0, 0
    for pause in pauses:
        now += pause
        wait = buckets.spend("a", now)
        assert single.spend(now) == (wait == 0)
        passed += wait == 0
        assert passed <= burst + now * rate + 1e-6
        if wait:
            assert Buckets.spend(buckets, "a", now + wait) == 0, "it said when"
            passed += 1
            now += wait
            assert single.spend(now)


def test_the_table_keeps_those_who_came_last_and_no_more() -> None:
    buckets = Buckets(burst=1, rate=0.001, capacity=100)
    assert buckets.spend("busy", 0.0) == 0
    for number in range(1000):
        buckets.spend("busy", 0.0)
        assert buckets.spend(number, 0.0) == 0
    assert len(buckets) == 100
    assert buckets.spend(999, 0.0) > 0
    assert buckets.spend(0, 0.0) == 0, "forgotten"


def test_places_are_counted_and_nothing_stays_behind() -> None:
    places = Places(2)
    assert [places.take("a"), places.take("a"), places.take("a"), places.take("b")] == [
        True,
        True,
        False,
        True,
    ]
    places.give_back("a")
    assert places.take("a")
    for key in ("a", "a", "b"):
        places.give_back(key)
    assert len(places) == 0
    assert not Places(0).take("a")


def test_an_address_is_an_ipv4_address_or_a_network_of_64_bits() -> None:
    assert network_of("192.0.2.1") != network_of("192.0.2.2")
    assert network_of("2001:db8::1") == network_of("2001:db8::ffff:0:0:1")
    assert network_of("2001:db8::1") != network_of("2001:db8:0:1::1")
    assert network_of("::ffff:192.0.2.1") == network_of("192.0.2.1")
    assert network_of("") == network_of("nonsense") == b""
