"""What the service counts: plain numbers, because one is added to on the way of every message.

Nothing here names anybody; `metrics` says what each number is called outside.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Traffic:
    """The sockets of one protocol."""

    sockets: int = 0
    """Open now."""

    opened: int = 0
    frames_in: int = 0
    frames_out: int = 0


@dataclass(slots=True)
class Counts:
    """Everything that one process has counted since it began."""

    traffic: dict[str, Traffic] = field(default_factory=dict[str, Traffic])
    """By the path of the socket."""

    answers: Counter[int] = field(default_factory=Counter[int])
    """HTTP answers by status."""

    refused_addresses: int = 0
    """Requests and sockets that an address has asked for too often."""

    refused_origins: int = 0
    faults: int = 0
    """Errors that were the service's own."""
