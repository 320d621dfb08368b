from __future__ import annotations

import pytest
import trio.testing


@pytest.fixture
def clock() -> trio.testing.MockClock:
    """Time that jumps when nothing moves for longer than the suites wait for stillness."""
    return trio.testing.MockClock(autojump_threshold=0.06)
