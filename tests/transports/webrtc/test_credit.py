"""Flow control of a stream: what may be sent, what is reported, and what nonsense does."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handclasp.errors import ProtocolViolation
from handclasp.transports.webrtc.credit import WINDOW, ReadReports, SendCredit, declare, window_untrusted

SDP = "v=0\r\nm=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n"


def test_a_declaration_is_read_again() -> None:
    assert window_untrusted(declare(SDP)) == WINDOW
    assert declare(SDP).startswith(SDP)


NONSENSE = [
    "",
    "a=x-handclasp-window:",
    *(f"a=x-handclasp-window:{text}" for text in ("-1", "٣", "0", "1.5")),
]


@pytest.mark.parametrize("line", NONSENSE)
def test_without_a_declaration_there_is_no_window(line: str) -> None:
    assert window_untrusted(f"{SDP}{line}\r\n") is None


def test_a_number_that_is_too_long_is_not_even_read() -> None:
    assert window_untrusted(f"{SDP}a=x-handclasp-window:{'9' * 5_000}\r\n") is None


def test_what_is_unread_stays_within_the_window() -> None:
    credit = SendCredit(100)
    credit.spend(60)
    assert credit.room == 40
    credit.reported_untrusted(30)
    assert credit.room == 70
    credit.spend(70)
    assert credit.room == 0


@pytest.mark.parametrize("read", [0, 29, 61, 2**63 - 1])
def test_nonsense_is_a_violation(read: int) -> None:
    credit = SendCredit(100)
    credit.spend(60)
    credit.reported_untrusted(30)
    with pytest.raises(ProtocolViolation):
        credit.reported_untrusted(read)


@settings(deadline=None)  # a slow machine is not a bug
@given(
    st.lists(st.integers(1, 16_384), min_size=1, max_size=20),
    st.lists(st.integers(1_000, 65_536), min_size=1, max_size=20),
)
def test_a_reader_that_goes_on_never_leaves_a_writer_waiting(sizes: list[int], reads: list[int]) -> None:
    credit, reports = SendCredit(WINDOW), ReadReports()
    unread, turn = 0, 0
    for size in sizes * 50:
        while not credit.room:
            assert unread, "everything was read, and yet nothing may be sent"
            read = min(unread, reads[turn % len(reads)])
            unread, turn = unread - read, turn + 1
            report = reports.read(read)
            if report is not None:
                credit.reported_untrusted(report)
        sent = min(size, credit.room)
        credit.spend(sent)
        unread += sent
        assert unread <= WINDOW
