"""What can happen to a mailbox, as data: the entries of its log.

Every instance of the service that has to do with a mailbox takes the same entries in the same order and so comes to
the same state and the same answers (docs/decisions/0008-mailbox-log.md). Whatever an answer depends on is in here:
the time, the limits, who asked. Of tokens and nonces there are hashes only.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple, TypeAlias

from .frames import Role, Topic


class Origin(NamedTuple):
    """Who asked: a socket or a request of an instance. A socket's origin is its seat at the mailbox."""

    instance: str
    number: int


class Opening(NamedTuple):
    """``GET /challenge``. The limits of a mailbox are those of the instance that opened it."""

    name: str
    """A hash of the mailbox id."""

    token: str
    sealed_nonce: str
    """Readable with the mailbox id, which is not here."""

    nonce: str
    ends_at: float
    nonce_ends_at: float
    pairing_life: float
    messages: int
    direction_length: int


class Claiming(NamedTuple):
    """The wallet comes for the first time; *away* is how many seconds it may be gone."""

    token: str
    away: float


class Sitting(NamedTuple):
    """A party comes with its token."""

    role: Role
    after: int
    away: float


class Publishing(NamedTuple):
    """A message. Its number *n* in its direction is 0 when the sender does not count."""

    topic: Topic
    n: int
    body: str
    from_seat: bool


class Linking(NamedTuple):
    """``POST /link``: a message that takes the nonce with it."""

    nonce: str
    n: int
    body: str


class Closing(NamedTuple):
    """The end of the mailbox, for both."""


class Leaving(NamedTuple):
    """A seat is empty: its socket broke, or its instance is gone."""

    role: Role
    seat: Origin


class Looking(NamedTuple):
    """Is its time over?"""


Asked: TypeAlias = Opening | Claiming | Sitting | Publishing | Linking | Closing | Leaving | Looking


class Entry(NamedTuple):
    """One entry of a log."""

    at: float
    """Seconds of the clock that all instances share."""

    origin: Origin
    serial: int
    """Grows with each entry of an instance, so that one which was sent twice counts once; 0 where that cannot be."""

    asked: Asked


class Journal(ABC):
    """Where a hub's entries go when others have to see them too."""

    instance: str

    @abstractmethod
    def submit(self, key: str, entry: Entry) -> None:
        """Put *entry* into the log of the mailbox at *key*; `Hub.commit` or `Hub.fail` follows."""

    @abstractmethod
    def next_serial(self) -> int:
        """The number of this instance's next entry."""

    @abstractmethod
    def ended(self, key: str, name: str, *, by_us: bool) -> None:
        """A mailbox is over; whoever ended it erases its log."""


Row: TypeAlias = list[object]

_KINDS: Mapping[str, type[Asked]] = MappingProxyType(
    {
        "open": Opening,
        "claim": Claiming,
        "sit": Sitting,
        "publish": Publishing,
        "link": Linking,
        "close": Closing,
        "leave": Leaving,
        "look": Looking,
    }
)
_NAMES: Mapping[type[Asked], str] = MappingProxyType({kind: name for name, kind in _KINDS.items()})


def to_row(entry: Entry) -> Row:
    """An entry as JSON can hold it."""
    at, (instance, number), serial, asked = entry
    return [at, instance, number, serial, _NAMES[type(asked)], *asked]


def from_row(row: Row) -> Entry:
    """The entry of a row that another instance wrote.

    Raises:
        ValueError: it is none, or of a later version.
    """
    try:
        at, instance, number, serial, name, *rest = row
        kind = _KINDS[str(name)]
        asked = kind(*rest)  # type: ignore[arg-type]
        match asked:
            case Sitting(role):
                asked = asked._replace(role=Role(role))
            case Leaving(role, seat):
                asked = Leaving(Role(role), Origin(*seat))
            case Publishing(topic):
                asked = asked._replace(topic=Topic(topic))
            case _:
                pass
    except (KeyError, TypeError, ValueError) as exc:
        raise ValueError("an entry of a mailbox's log makes no sense here") from exc
    return Entry(float(str(at)), Origin(str(instance), int(str(number))), int(str(serial)), asked)
