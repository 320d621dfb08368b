"""What is kept, as data. Times are Unix time in whole seconds; every secret is its SHA-256."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto


@dataclass(frozen=True)
class SignIn:
    """A sign-in that a browser has begun: what the signed message will have to name."""

    mailbox: str
    """The request id; good for one sign-in."""

    login: bytes
    """SHA-256 of the browser's login cookie."""

    website: str
    """The page's peer id."""

    origin: str
    """Where the page said it is; in the allow-list."""

    nonce: bytes | None
    """SHA-256 of the nonce, None when another service gave it."""

    begun: int
    expires: int


@dataclass(frozen=True)
class Linked:
    """What a verified message proves."""

    account: str
    """CAIP-10."""

    device: str
    """The wallet's peer id."""

    handshake: str
    """The hash of the handshake, in hexadecimal digits: names the channel that the two have."""


@dataclass(frozen=True)
class Code:
    """A one-time code that is worth a session."""

    digest: bytes
    holder: bytes
    """SHA-256 of what its bearer must show beside it: the login cookie."""

    linked: Linked
    expires: int


@dataclass(frozen=True)
class Session:
    """Somebody who is signed in."""

    digest: bytes
    """SHA-256 of the session id."""

    label: str
    """What lists call it: 16 hexadecimal digits that open nothing."""

    linked: Linked
    created: int
    seen: int
    idle_until: int
    expires: int


@dataclass(frozen=True)
class Device:
    """A wallet that proved an account here."""

    account: str
    peer: str
    first_linked: int
    last_linked: int


class Outcome(Enum):
    """What became of a `Records.add_sign_in`."""

    ADDED = auto()
    EXISTS = auto()
    """The mailbox was used before."""
    FULL = auto()
