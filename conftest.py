"""Every Python block in the README and the docs runs as a test."""

import os

import pytest
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser()], patterns=["README.md", "docs/*.md", "docs/**/*.md"]
).pytest()


def pytest_addoption(parser: pytest.Parser) -> None:
    """`make matrix` prints its table; attacks on the service come in a number that takes seconds, or in full."""
    parser.addoption("--table", action="store_true", help="print the matrix of tests/matrix as a table")
    parser.addoption(
        "--thorough", action="store_true", help="attack the service with the full numbers: minutes"
    )


def pytest_xdist_auto_num_workers() -> int:
    """``pytest -n auto``: one more than there are processors, because many tests wait for a clock."""
    return (os.cpu_count() or 1) + 1


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What takes minutes by its nature is for ``--thorough``."""
    if config.getoption("--thorough"):
        return
    takes_minutes = [item for item in items if item.get_closest_marker("thorough")]
    if takes_minutes:
        config.hook.pytest_deselected(items=takes_minutes)
        items[:] = [item for item in items if item not in takes_minutes]
