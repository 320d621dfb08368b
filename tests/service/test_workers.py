"""Several processes at one port: `handclasp serve --workers`. So far as it goes without a state that they share."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from handclasp.errors import ConfigurationError
from handclasp.service.configuration import Configuration
from handclasp.service.metrics import add_up

from ..serving import serving  # noqa: TID252 - no installed package


def test_several_workers_without_a_state_that_they_share_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="sqlite:PATH or redis://HOST"):
        Configuration(workers=2)


async def test_workers_that_cannot_start_end_the_service_with_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(AssertionError) as failed:
        async with serving(tmp_path, "--workers", "2", "--state", "sqlite:/nowhere/state.db"):
            pass
    assert "workers end as soon as they start" in str(failed.value)


def test_numbers_of_workers_add_up() -> None:
    one = {"answers": {"200": 1.0}, "workers": {"": 1.0}}
    two = {"answers": {"200": 2.0, "404": 1.0}, "workers": {"": 1.0}}
    assert add_up([one, two]) == {"answers": {"200": 3.0, "404": 1.0}, "workers": {"": 2.0}}
    assert json.loads(json.dumps(add_up([one, two]))) == add_up([one, two])
