"""Loads eth-account through handclasp: by itself it raises the recursion limit of the whole test run."""

from collections.abc import Generator

import pytest

from handclasp.accounts import LocalAccount

LocalAccount.generate()

from .chain import Node, run_node  # noqa: E402 - it imports eth-account


@pytest.fixture(scope="session")
def node() -> Generator[Node]:
    """A real Ethereum node; skips where anvil is not installed."""
    with run_node() as node:
        yield node
