"""What falls due when, for any number of mailboxes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from enum import Enum, auto
from types import MappingProxyType

from .frames import Role
from .mailbox import Mailbox


class Due(Enum):
    """What falls due for a mailbox; each kind is nearly always the same time away."""

    CHALLENGE = auto()
    PAIRING = auto()
    WEBSITE_GONE = auto()
    WALLET_GONE = auto()


#: The time that each party may be away.
GONE: Mapping[Role, Due] = MappingProxyType({Role.WEBSITE: Due.WEBSITE_GONE, Role.WALLET: Due.WALLET_GONE})


class Timetable:
    """What falls due when.

    What was added first is nearly always due first, so a queue per kind does: constant time, and nothing stays
    behind as it would in a heap. What comes out of order (it was opened at another instance, or its party asked for
    more time) moves past those that it has to move past.
    """

    def __init__(self) -> None:
        self._queues: Mapping[Due, OrderedDict[Mailbox, float]] = {kind: OrderedDict() for kind in Due}

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    def set(self, kind: Due, mailbox: Mailbox, time: float | None) -> None:
        """Note the *time* of one kind; None when it is no more."""
        queue = self._queues[kind]
        before = queue.get(mailbox)
        if before == time:
            return
        if before is not None:
            del queue[mailbox]
        if time is None:
            return
        later: list[Mailbox] = []
        for other in reversed(queue):
            if queue[other] <= time:
                break
            later.append(other)
        queue[mailbox] = time
        for other in reversed(later):
            queue.move_to_end(other)

    def follow(self, mailbox: Mailbox) -> None:
        """Note all times of a mailbox as they are now."""
        is_claimed = mailbox.is_claimed
        self.set(Due.CHALLENGE, mailbox, None if is_claimed else mailbox.ends_at)
        self.set(Due.PAIRING, mailbox, mailbox.ends_at if is_claimed else None)
        for role, kind in GONE.items():
            self.set(kind, mailbox, mailbox.parties[role].gone_at)

    def drop(self, mailbox: Mailbox) -> None:
        """Take *mailbox* out, wherever it is."""
        for queue in self._queues.values():
            queue.pop(mailbox, None)

    def first(self) -> tuple[float, Mailbox] | None:
        """What falls due next."""
        heads = [next(iter(queue.items())) for queue in self._queues.values() if queue]
        if not heads:
            return None
        mailbox, time = min(heads, key=_time)
        return time, mailbox


def _time(head: tuple[Mailbox, float]) -> float:
    return head[1]
