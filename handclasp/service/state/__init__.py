"""Where mailboxes are kept when more than one process has to know them, or a restart must not end them.

A backend knows nothing of mailboxes. It keeps *logs*: short lists of rows that only grow, each under a key and a name,
and gone after a while. Every instance of the service may add to every log, and is told what others add to those that
it follows. All of it is in `State`; whoever writes a backend runs ``tests/service/state`` on it.

=====================  ========================================================================
``memory:``            a dict, for applications in one process
``sqlite:<path>``      a file on this machine, for one process or several
``redis://…``          Redis or Valkey, for any number of machines; needs ``handclasp[redis]``
=====================  ========================================================================
"""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol, TypeAlias

from handclasp.errors import ConfigurationError, WorldFault

__all__ = [
    "LEASE",
    "MOST_ROWS",
    "Created",
    "Follower",
    "Row",
    "State",
    "StateUnavailable",
    "Sync",
    "from_url",
]

Row: TypeAlias = list[object]
"""Anything that JSON can hold."""

MOST_ROWS = 4096
"""Rows of a log: a mailbox takes 512 messages, and the rest is for parties that come and go 1,700 times in its life.
Whoever needs more is not using it, and the log is erased."""

LEASE = 3.0
"""Seconds after which an instance that gives no sign of life is taken for dead. With the second until somebody looks
and the 5 that its parties have to come back, the others know within 10."""

WITHIN = 2.0
"""Seconds that an answer may take: in a data centre it takes a millisecond."""


class StateUnavailable(WorldFault):
    """What keeps the mailboxes is away, full, or does not answer: it may be back in a moment."""


class Created(Enum):
    """What became of a new log."""

    DONE = auto()
    TAKEN = auto()
    """There is one of that name."""

    FULL = auto()
    """There are as many as there may be."""


@dataclass(frozen=True, slots=True)
class Sync:
    """What to add to a log, and what is known of it."""

    log: str
    known: int
    """Rows that this instance has seen."""

    rows: Sequence[Row] = ()
    life: float | None = None
    """Seconds from now after which the log may be erased; None to leave that as it is."""


class Follower(Protocol):
    """The instance, as its state sees it. Neither method may block, or raise."""

    def follow(self, log: str, start: int, rows: Sequence[Row]) -> None:
        """Others have added *rows* to a log that this instance has synced; the first has the index *start*."""

    def lost_track(self) -> None:
        """`follow` may have missed something: sync every log again."""


class State(ABC):
    """One instance's access to what all of them share.

    Attributes:
        instance: this instance's name, new with each object.
    """

    def __init__(self) -> None:
        self.instance = secrets.token_hex(8)

    @abstractmethod
    def clock(self) -> float:
        """Seconds, the same for all instances (within what the network takes). Never goes back."""

    @abstractmethod
    def open(self, follower: Follower) -> AbstractAsyncContextManager[None]:
        """Be an instance while the block runs. Connects by itself, again and again; waits for nothing.

        Raises:
            ConfigurationError: it cannot work like that, ever; the message says why.
        """

    @abstractmethod
    async def create(self, log: str, name: str, row: Row, *, life: float, most: int) -> Created:
        """Begin a log, unless *name* is taken or there are *most* of them.

        Raises:
            StateUnavailable: it may have been done, or not.
        """

    @abstractmethod
    async def find(self, name: str) -> str | None:
        """The log of that name.

        Raises:
            StateUnavailable: nobody knows.
        """

    @abstractmethod
    async def sync(self, batch: Sequence[Sync]) -> Sequence[Sequence[Row] | None]:
        """Add to logs, and follow them from now on. What was added stays, whatever dies after this has returned.

        Returns:
            for each what others had added after the known rows and before the new ones; None where there is no log.

        Raises:
            StateUnavailable: any of it may have been done, or not.
        """

    @abstractmethod
    async def delete(self, logs: Sequence[tuple[str, str]]) -> None:
        """Erase logs, each by its key and its name; no harm where there is none.

        Raises:
            StateUnavailable: they will go by themselves, in time.
        """

    @abstractmethod
    async def living(self, instances: Collection[str]) -> set[str]:
        """Those of *instances* that gave a sign of life within `LEASE`, or about whom nobody can know.

        Raises:
            StateUnavailable: nobody knows about any.
        """


def from_url(url: str) -> State:
    """The state that a URL names.

    Raises:
        ConfigurationError: it names none, or the package for it is not installed.
    """
    scheme, separator, rest = url.partition(":")
    if separator:
        match scheme:
            case "memory" if not rest:
                from .memory import MemoryState

                return MemoryState()
            case "sqlite" if rest:
                from .sqlite import SqliteState

                return SqliteState(rest.removeprefix("//"))
            case "redis" | "rediss" | "unix":
                from .redis import RedisState

                return RedisState(url)
            case _:
                pass
    # Not the URL itself: it may hold a password.
    raise ConfigurationError("a state is memory:, sqlite:<path>, redis://<host>/<number> or rediss://…")
