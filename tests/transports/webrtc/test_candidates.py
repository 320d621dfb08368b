"""Which ICE candidates are told and tried."""

from __future__ import annotations

import pytest

from handclasp.transports.webrtc.native.candidates import (
    is_name_untrusted,
    tell_only,
    try_only_addresses_untrusted,
)

HOST = "a=candidate:1 1 udp 9 192.0.2.1 1001 typ host generation 0"
OTHER_HOST = "a=candidate:2 1 udp 8 198.51.100.1 1002 typ host generation 0"
IPV6_HOST = "a=candidate:3 1 UDP 7 2001:db8::1 1003 typ host"
LOOPBACK = "a=candidate:4 1 udp 6 127.0.0.1 1004 typ host generation 0"
MAPPED = "a=candidate:5 1 udp 5 203.0.113.1 1005 typ srflx raddr 192.0.2.1 rport 1001"
OTHER_MAPPED = "a=candidate:6 1 udp 4 203.0.113.1 1006 typ srflx raddr 198.51.100.1 rport 1002"
RELAY = "a=candidate:7 1 udp 3 203.0.113.9 1007 typ relay raddr 203.0.113.1 rport 1005"
TCP = "a=candidate:8 1 tcp 2 192.0.2.1 9 typ host tcptype active"


def sdp(*candidates: str, media: str = "m=application 1001", default: str = "c=IN IP4 192.0.2.1") -> str:
    lines = ["v=0", f"{media} UDP/DTLS/SCTP webrtc-datachannel", default, *candidates, "a=mid:0"]
    return "".join(line + "\r\n" for line in lines)


def told(*candidates: str) -> str:
    return sdp(*candidates, media="m=application 9", default="c=IN IP4 0.0.0.0")


ALL = sdp(HOST, OTHER_HOST, IPV6_HOST, LOOPBACK, MAPPED, OTHER_MAPPED, RELAY, TCP)


def test_all_but_loopback_is_told_by_default() -> None:
    assert tell_only(ALL, None) == told(HOST, OTHER_HOST, IPV6_HOST, MAPPED, OTHER_MAPPED, RELAY)


def test_loopback_is_told_where_there_is_nothing_else() -> None:
    assert tell_only(sdp(LOOPBACK), None) == told(LOOPBACK)


def test_only_chosen_addresses_and_what_servers_make_of_them_are_told() -> None:
    assert tell_only(ALL, ["192.0.2.1"]) == told(HOST, MAPPED, RELAY)
    assert tell_only(ALL, ["127.0.0.1"]) == told(LOOPBACK, RELAY)
    assert tell_only(ALL, []) == told(RELAY)


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1", "7d0f.local", "7D0F.LOCAL"])
def test_addresses_and_mdns_names_are_tried(host: str) -> None:
    candidate = f"candidate:1 1 udp 9 {host} 9 typ host"
    assert not is_name_untrusted(candidate)
    assert try_only_addresses_untrusted(sdp(f"a={candidate}")) == sdp(f"a={candidate}")


@pytest.mark.parametrize("host", ["example.com", "local", "x.local.example.com", "999.1.1.1", "localhost"])
def test_no_name_server_is_asked_for_what_a_peer_says(host: str) -> None:
    candidate = f"candidate:1 1 udp 9 {host} 9 typ host"
    assert is_name_untrusted(candidate)
    assert try_only_addresses_untrusted(sdp(HOST, f"a={candidate}")) == sdp(HOST)


@pytest.mark.parametrize("text", ["", "candidate:", "candidate:x 1 1 udp 9 example.com 9 typ host"])
def test_what_is_malformed_is_left_to_the_stack_to_refuse(text: str) -> None:
    assert not is_name_untrusted(text)
