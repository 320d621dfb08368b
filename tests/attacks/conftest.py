"""Waiting made short: the attacks here make somebody wait for a deadline more often than not."""

from __future__ import annotations

import pytest
import trio.testing

from handclasp.protocols.wallet import wallet
from handclasp.transports.webrtc import aiortc_internals


@pytest.fixture
def jumping(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> trio.testing.MockClock:
    """A clock that jumps ahead once nothing happens any more, neither here nor in the service's thread."""
    autojump_clock.autojump_threshold = 0.15
    # aiortc has a clock of its own, which does not jump, and wakes trio's while a connection is up.
    monkeypatch.setattr(aiortc_internals, "CONSENT_INTERVAL", 0.4)
    monkeypatch.setattr(aiortc_internals, "CONSENT_LOST", 1.2)
    monkeypatch.setattr(wallet, "_HANDSHAKE_TIMEOUT", 3.0)
    return autojump_clock
