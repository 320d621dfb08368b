"""Flow control between engines that know it: what may be sent, what is reported, and what nonsense does."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handclasp.errors import ProtocolViolation
from handclasp.transports.webrtc.native.credit import (
    WINDOW,
    ReadReports,
    SendCredit,
    declare,
    window_untrusted,
)

SDP = "v=0\r\nm=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n"


def test_a_declaration_is_read_again() -> None:
    assert window_untrusted(declare(SDP)) == WINDOW
    assert declare(SDP).startswith(SDP)


@pytest.mark.parametrize(
    "line", ["", "a=x-handclasp-window:", "a=x-handclasp-window:-1", "a=x-handclasp-window:٣"]
)
def test_without_a_declaration_there_is_no_window(line: str) -> None:
    assert window_untrusted(f"{SDP}{line}\r\n") is None


def test_a_number_that_is_too_long_is_not_even_read() -> None:
    assert window_untrusted(f"{SDP}a=x-handclasp-window:{'9' * 5_000}\r\n") is None
    with pytest.raises(ProtocolViolation):
        SendCredit(10).reported_untrusted("9" * 5_000)


def test_a_peer_that_reports_nothing_is_sent_everything() -> None:
    credit = SendCredit(None)
    credit.spend(10**9)
    assert credit.allows(10**9)


def test_what_is_unread_stays_within_the_window() -> None:
    credit = SendCredit(100)
    credit.spend(60)
    assert credit.allows(40)
    assert not credit.allows(41)
    credit.reported_untrusted("30")
    assert credit.allows(70)
    assert not credit.allows(71)


def test_one_message_may_always_be_under_way() -> None:
    credit = SendCredit(0)
    assert credit.allows(16_384)
    credit.spend(16_384)
    assert not credit.allows(1)
    credit.reported_untrusted("16384")
    assert credit.allows(16_384)


@pytest.mark.parametrize("text", ["", "x", "-1", "1.0", "61", "29", "٣٠", " 40"])
def test_nonsense_is_a_violation(text: str) -> None:
    credit = SendCredit(100)
    credit.spend(60)
    credit.reported_untrusted("30")
    with pytest.raises(ProtocolViolation):
        credit.reported_untrusted(text)


@settings(deadline=None)  # a slow machine is not a bug
@given(
    st.lists(st.integers(1, 16_384), min_size=1, max_size=20),
    st.lists(st.integers(1_000, 65_536), min_size=1, max_size=20),
)
def test_a_reader_that_goes_on_never_leaves_a_writer_waiting(sizes: list[int], reads: list[int]) -> None:
    credit, reports = SendCredit(WINDOW), ReadReports()
    unread, turn = 0, 0
    for size in sizes * 50:
        while not credit.allows(size):
            assert unread, "everything was read, and yet nothing may be sent"
            read = min(unread, reads[turn % len(reads)])
            unread, turn = unread - read, turn + 1
            report = reports.read(read)
            if report is not None:
                credit.reported_untrusted(report)
        credit.spend(size)
        unread += size
        assert unread <= WINDOW
