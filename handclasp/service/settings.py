"""Limits and lifetimes of the signaling service, each with the reason for its number.

What the protocol fixes for both sides (the size of a message, a frame, a URL) is no setting: see `wire`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from handclasp.errors import ConfigurationError

from .strict import BODY_LENGTH

_LONGEST_LIFE = 300.0  # docs/protocols/mailbox.md promises that no nonce or waiting mailbox outlives this


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How much the service keeps, and for how long. Times are in seconds.

    Raises:
        ConfigurationError: a number is not positive, or contradicts another; the message names it.
    """

    challenge_life: float = 120.0
    """How long a mailbox waits for its wallet: as long as a page shows one QR code."""

    nonce_life: float = 300.0
    """How long the nonce can be used: time to read a prompt and sign, even after a late claim."""

    pairing_life: float = 300.0
    """How long a claimed mailbox lives: connecting takes seconds, a person who reads a minute or two."""

    grace: float = 5.0
    """How long a party may be away: time for a phone to change networks, and the other side is not left waiting."""

    headers_within: float = 5.0
    """How long the headers of a request may take (`serve` only): they fit into a packet or two."""

    first_frame_within: float = 5.0
    """How long a socket may stay silent before it says who it is: half-open sockets cost memory."""

    body_within: float = 10.0
    """How long a request's body may take in all: 96 KiB at 10 KB/s."""

    close_within: float = 5.0
    """How long the last frames of a socket may take before it is dropped: a dead peer never reads them."""

    outbox: int = 64
    """Frames that may wait for one socket: a pairing needs about five and its candidates, so here nobody reads."""

    messages: int = 256
    """Messages for each direction of a mailbox: a pairing needs about five and 64 candidates."""

    direction_length: int = 1024 * 1024
    """Characters of message bodies kept for each direction: an SDP of 32 KiB and 64 candidates fit several times.
    256 of the longest messages would be 22 MB, and a few hundred such mailboxes would fill a machine."""

    stored_length: int = 256 * 1024 * 1024
    """Characters of message bodies kept in all: whatever strangers publish, it fits into a small machine."""

    mailboxes: int = 100_000
    """Mailboxes at once: about 2 KiB each when idle (measured), 200 MB in all."""

    def __post_init__(self) -> None:
        for each in fields(self):
            value: object = getattr(self, each.name)
            # bool is an int, and an infinite life is a leak
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
                raise ConfigurationError(f"{each.name} must be a positive number, not {value!r}")
        for name in ("challenge_life", "nonce_life"):
            if getattr(self, name) > _LONGEST_LIFE:
                raise ConfigurationError(
                    f"{name} is at most {_LONGEST_LIFE:g} seconds (docs/protocols/mailbox.md)"
                )
        if self.nonce_life < self.challenge_life:
            raise ConfigurationError(
                "nonce_life is shorter than challenge_life: a late wallet could not sign in"
            )
        if self.direction_length < BODY_LENGTH:
            raise ConfigurationError(f"direction_length must hold one message of {BODY_LENGTH} characters")
        if self.stored_length < self.direction_length:
            raise ConfigurationError("stored_length must hold at least one direction_length")
