from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handclasp.errors import ConfigurationError
from handclasp.service.proxies import Proxies

OURS = ("10.0.0.0/8", "2001:db8::/32", "127.0.0.1")


def client(*lines: str, connecting: str | None = "10.0.0.1", networks: tuple[str, ...] = OURS) -> str:
    headers = [(b"host", b"x"), *((b"x-forwarded-for", line.encode("latin-1")) for line in lines)]
    scope = {"client": None if connecting is None else (connecting, 1), "headers": headers}
    return Proxies(networks).client_untrusted(scope)


def test_without_proxies_the_header_is_nothing() -> None:
    assert client("192.0.2.9", networks=()) == "10.0.0.1"


def test_whoever_is_no_proxy_of_ours_cannot_say_that_he_is_somebody_else() -> None:
    assert client("192.0.2.9", connecting="198.51.100.1") == "198.51.100.1"


def test_a_proxy_says_who_the_client_is() -> None:
    assert client("192.0.2.9") == "192.0.2.9"
    assert client("192.0.2.9", connecting="::ffff:10.0.0.1") == "192.0.2.9"
    assert client("192.0.2.9", connecting="2001:db8::1") == "192.0.2.9"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (("198.51.100.1, 192.0.2.9",), "192.0.2.9"),  # what the client wrote itself comes first
        (("198.51.100.1", "192.0.2.9"), "192.0.2.9"),  # and in another line, too
        (("198.51.100.1, 192.0.2.9, 10.2.3.4",), "192.0.2.9"),  # two proxies of ours
        (("10.9.9.9",), "10.9.9.9"),  # a client in the network of the proxies
        (("nonsense, 192.0.2.9",), "192.0.2.9"),
        (("192.0.2.9, nonsense",), "10.0.0.1"),
        (("192.0.2.9, nonsense, 10.2.3.4",), "10.2.3.4"),
        (("192.0.2.9, ",), "10.0.0.1"),
        ((), "10.0.0.1"),
        (("192.0.2.9:4711",), "192.0.2.9"),
        (("[2001:db9::1]:4711",), "2001:db9::1"),
        (("2001:db9::1",), "2001:db9::1"),
        (("1.2.3.4:5:6",), "10.0.0.1"),
    ],
)
def test_the_client_is_the_last_in_the_chain_that_is_no_proxy_of_ours(
    lines: tuple[str, ...], expected: str
) -> None:
    assert client(*lines) == expected


def test_a_unix_socket_is_a_proxy_where_the_settings_say_so() -> None:
    assert client("192.0.2.9", connecting=None) == ""
    assert client("192.0.2.9", connecting=None, networks=("unix",)) == "192.0.2.9"


@given(st.lists(st.text(st.characters(codec="latin-1"), max_size=200), max_size=3))
def test_no_header_does_more_than_name_an_address(lines: list[str]) -> None:
    assert isinstance(client(*lines), str)


def test_a_chain_of_any_length_costs_little() -> None:
    assert client(",".join(["10.0.0.1"] * 5000)) == "10.0.0.1"


def test_what_is_no_network_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"10\.0\.0\.1/8"):
        Proxies(["10.0.0.1/8"])
