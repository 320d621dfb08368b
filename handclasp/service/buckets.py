"""How often somebody may do something: token buckets, one number each, in a table that cannot grow without end."""

from __future__ import annotations

import ipaddress
from collections import Counter, OrderedDict
from collections.abc import Hashable

_IPV6_NETWORK = 8  # bytes: a /64 is what one customer has at least, so its addresses are one address


class Buckets:
    """A bucket for each key: *burst* at once, and *rate* a second in the long run.

    What is kept is the time at which a bucket is full again (the generic cell rate algorithm, ITU-T I.371): one
    number, and no key is kept that has been idle while *capacity* others were not. Forgetting one gives its key a
    full bucket, which whoever has *capacity* addresses to spend would have anyway.
    """

    def __init__(self, burst: int, rate: float, capacity: int) -> None:
        self._interval = 1 / rate
        self._depth = burst / rate
        self._capacity = capacity
        self._full_at: OrderedDict[Hashable, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._full_at)

    def spend(self, key: Hashable, now: float) -> float:
        """Take one out of the bucket of *key*: 0.0 when there was one, else the seconds until there is."""
        full_at = self._full_at
        full = full_at.get(key, now)
        full = (max(now, full)) + self._interval
        wait = full - now - self._depth
        if wait > 1e-9:  # noqa: PLR2004 - the error of the sums, not a limit
            return wait
        full_at[key] = full
        full_at.move_to_end(key)
        if len(full_at) > self._capacity:
            full_at.popitem(last=False)
        return 0.0


class Bucket:
    """One bucket by itself, for what has a place of its own: a socket."""

    __slots__ = ("_depth", "_full", "_interval")

    def __init__(self, burst: int, rate: float) -> None:
        self._interval = 1 / rate
        self._depth = burst / rate
        self._full = 0.0

    def spend(self, now: float) -> bool:
        """Take one out; False when there is none."""
        full = (max(now, self._full)) + self._interval
        if full - now - self._depth > 1e-9:  # noqa: PLR2004 - as above
            return False
        self._full = full
        return True


class Places:
    """How many at once: a count for each key, as long as there is one."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken: Counter[Hashable] = Counter()

    def __len__(self) -> int:
        return len(self._taken)

    def take(self, key: Hashable) -> bool:
        """Take a place; False when all are taken."""
        if self._taken[key] >= self._most:
            return False
        self._taken[key] += 1
        return True

    def give_back(self, key: Hashable) -> None:
        """End what `take` has begun."""
        self._taken[key] -= 1
        if not self._taken[key]:
            del self._taken[key]


def network_of(address: str) -> bytes:
    """What counts as one client: an IPv4 address, or the /64 of an IPv6 address.

    Whatever is no address, such as the empty text for a Unix socket, is one client.
    """
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return b""
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is None:
            return parsed.packed[:_IPV6_NETWORK]
        parsed = parsed.ipv4_mapped
    return parsed.packed
