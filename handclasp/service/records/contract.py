"""The contract of what remembers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from .model import Code, Device, Linked, Outcome, Session, SignIn


@dataclass(frozen=True)
class NewSession:
    """A session that is about to be made."""

    digest: bytes
    label: str
    idle_until: int
    expires: int


class Records(ABC):
    """Accounts, linked devices, sessions and sign-ins under way.

    Each method is one transaction: it has happened when it returns and outlives a kill of the process, or it
    has not happened at all. What takes something takes it once, however many ask at the same time. *now* is
    Unix time in seconds; what is over at *now* is not there, whether or not it was purged.

    Cancelling a method waits for its transaction, which has a deadline.

    Every method raises `handclasp.errors.RecordsUnavailable` when the database does not answer in time.
    """

    @abstractmethod
    async def open(self) -> None:
        """Connect, and bring the schema up to date. Optional: the first use does it, too.

        Raises:
            ConfigurationError: the database is of a newer version than this program, or cannot be one.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """Let go of the database. Harmless when it was never opened."""

    # Sign-ins

    @abstractmethod
    async def add_sign_in(self, sign_in: SignIn, *, now: int, most: int) -> Outcome:
        """Take note that a browser has begun to sign in; at most *most* at once."""

    @abstractmethod
    async def take_sign_in(self, mailbox: str, login: bytes, *, now: int, keep_until: int) -> SignIn | None:
        """Use up the sign-in that *login* began with *mailbox*, which stays unusable until *keep_until*."""

    @abstractmethod
    async def has_sign_in(self, login: bytes, *, now: int) -> bool:
        """Whether *login* has begun a sign-in that is not over."""

    @abstractmethod
    async def origin_of(self, website: str, *, now: int) -> str | None:
        """Where the page with this peer id has begun a sign-in that is not over; None if it has not."""

    # Links and codes

    @abstractmethod
    async def link(self, code: Code, *, now: int, most_devices: int) -> None:
        """Take note that an account was proved by a device, and add a code for it.

        The devices that were linked longest ago make room for more than *most_devices*.
        """

    @abstractmethod
    async def redeem(
        self, code: bytes, holder: bytes, new: NewSession, *, ends: bytes | None, now: int, most_sessions: int
    ) -> Session | None:
        """Take a code, make a session of it, end the session *ends*; None and no change if there is no such code.

        The sessions that were seen longest ago make room for more than *most_sessions* of an account.
        """

    # Sessions

    @abstractmethod
    async def session(self, digest: bytes, *, now: int) -> Session | None:
        """The session with this id."""

    @abstractmethod
    async def touch(self, digest: bytes, *, now: int, idle_until: int) -> None:
        """Take note that a session is in use."""

    @abstractmethod
    async def rotate(self, old: bytes, new: bytes, *, now: int, idle_until: int) -> Session | None:
        """Give a session another id; the old one is void."""

    @abstractmethod
    async def end_session(self, digest: bytes) -> None:
        """End one session, if it is there."""

    @abstractmethod
    async def sessions_of(self, account: str, *, now: int) -> Sequence[Session]:
        """Every session of an account, the latest first."""

    @abstractmethod
    async def end_sessions_of(self, account: str, *, label: str | None = None) -> int:
        """End the session of *account* that is called *label*, or all; how many there were."""

    # Devices

    @abstractmethod
    async def devices_of(self, account: str) -> Sequence[Device]:
        """The devices that are linked with an account, the latest first."""

    @abstractmethod
    async def revoke_device(self, account: str, peer: str) -> bool:
        """Forget a device; its sessions and codes end with it. False when it is not linked."""

    # Time

    @abstractmethod
    async def purge(self, *, now: int, most: int) -> int:
        """Delete what is over, at most *most* of each kind; how many were deleted."""


__all__ = ["Linked", "NewSession", "Records"]
