"""Keeps the table of the matrix and prints it at the end."""

from __future__ import annotations

import pytest
from rich.console import Console

from .table import Table

_TABLE = pytest.StashKey[Table]()


@pytest.fixture
def matrix_table(request: pytest.FixtureRequest) -> Table:
    return request.config.stash.setdefault(_TABLE, Table())


def pytest_terminal_summary(config: pytest.Config) -> None:
    if config.getoption("--table") and _TABLE in config.stash:
        config.stash[_TABLE].print(Console(width=120))
