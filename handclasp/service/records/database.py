"""The seam between the queries, which are the same for every SQL database, and the databases."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias, TypeVar

Value: TypeAlias = bytes | int | str | None
Row: TypeAlias = tuple[Value, ...]
T = TypeVar("T")


class Cursor(Protocol):
    """Inside of a transaction, in a worker thread."""

    def run(self, sql: str, /, **values: Value) -> Sequence[Row]:
        """Run one statement with ``:name`` for each value; its rows."""
        ...


class Database(ABC):
    """Runs transactions, each with a deadline."""

    @abstractmethod
    async def open(self) -> None:
        """Connect and migrate, once; later calls do nothing."""

    @abstractmethod
    async def transact(self, work: Callable[[Cursor], T]) -> T:
        """Run *work* in a transaction in a worker thread; an exception rolls it back. It may run twice.

        Raises:
            RecordsUnavailable: there is no answer in time.
        """

    @abstractmethod
    async def read(self, work: Callable[[Cursor], T]) -> T:
        """As `transact`, for *work* that changes nothing and so need not wait for those that do."""

    @abstractmethod
    async def aclose(self) -> None:
        """Close every connection."""
