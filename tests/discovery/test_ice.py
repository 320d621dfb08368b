"""The ICE servers that a service names: it is not trusted."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handclasp.abc import IceServer
from handclasp.discovery.signaling.ice import Offered, offered_untrusted
from handclasp.errors import ProtocolViolation

FAR, NEAR = "wss://signal.example", "ws://127.0.0.1:8787"


def answer(*urls: object, more: object = False, **fields: object) -> dict[str, object]:
    return {"ice_servers": [{"urls": list(urls), **fields}], "expires_in": 600, "more": more}


def test_every_url_is_a_server() -> None:
    offered = offered_untrusted(
        answer("turn:a.example:1", "turns:b.example?transport=tcp", username="u", credential="c"), FAR
    )
    assert offered == Offered(
        (IceServer("turn:a.example:1", "u", "c"), IceServer("turns:b.example?transport=tcp", "u", "c"))
    )
    assert "'c'" not in repr(offered), "a password is not shown"
    assert offered_untrusted(answer(more=True), FAR) == Offered((), more=True)


@pytest.mark.parametrize(
    "url",
    [
        *("stun:10.0.0.1:22", "turn:192.168.1.1:80?transport=tcp", "turn:127.0.0.1:6379?transport=tcp"),
        *("turn:169.254.169.254:80?transport=tcp", "turn:[::1]:80", "turn:[fd00::1]:80", "turn:localhost:80"),
    ],
)
def test_a_service_elsewhere_cannot_send_us_into_our_own_network(url: str) -> None:
    assert offered_untrusted(answer(url, "stun:1.1.1.1:3478"), FAR).servers == (
        IceServer("stun:1.1.1.1:3478"),
    )
    assert offered_untrusted(answer(url), NEAR).servers == (IceServer(url),), "one at home may"


@pytest.mark.parametrize(
    "wrong",
    [
        *(
            {},
            {"ice_servers": {}, "more": False},
            {"ice_servers": [], "more": 1},
            {"ice_servers": [1], "more": False},
        ),
        *(
            answer("http://a.example"),
            answer("turn:"),
            answer("turn:a.example:123456"),
            answer("turn:a b:1"),
            answer(1),
        ),
        *(answer("turn:a.example?transport=sctp"), answer("turn:a.example", username=1)),
        *(answer("turn:a.example", credential="x" * 513), answer(*["stun:a.example"] * 9)),
        {"ice_servers": [{"urls": "turn:a.example"}], "more": False},
    ],
)
def test_what_is_no_answer_is_a_fault_of_the_service(wrong: dict[str, object]) -> None:
    with pytest.raises(ProtocolViolation):
        offered_untrusted(wrong, FAR)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(st.dictionaries(st.sampled_from(["ice_servers", "more", "urls"]), JSON))
def test_no_answer_does_more_than_be_refused(data: dict[str, object]) -> None:
    with suppress(ProtocolViolation):
        offered_untrusted(data, FAR)
