"""Every Python block in the README and the docs runs as a test."""

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
