"""What happens during a pairing, for whoever shows it to a person."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import TypeAlias

__all__ = ["Moment", "Watcher"]


class Moment(enum.StrEnum):
    """What a `Watcher` is told, in the order in which it happens."""

    CHALLENGED = "challenged"
    """Website: the service opened a mailbox and gave a nonce."""
    SUBSCRIBED = "subscribed"
    """Website: the socket is up; whoever claims the mailbox will be heard."""
    CLAIMED = "claimed"
    """Wallet: the mailbox is ours and the first handshake message is in it."""
    SCANNED = "scanned"
    """Website: a wallet has claimed the mailbox and greeted."""
    OFFER_SENT = "offer-sent"
    """Website: the second handshake message is on its way, the SDP offer inside."""
    OFFER_RECEIVED = "offer-received"
    """Wallet: it arrived, from the peer that the invitation names."""
    ANSWER_SENT = "answer-sent"
    """Wallet: the third handshake message is on its way, the SDP answer inside."""
    ANSWER_RECEIVED = "answer-received"
    """Website: it arrived; both know each other now."""
    JOINED = "joined"
    """The other side's connection to the service is up."""
    LEFT = "left"
    """The other side's connection to the service broke; it may come back."""
    CROWDED = "crowded"
    """A third party tried to use the invitation and was refused: somebody else saw it."""


#: Is called with each moment of a pairing; must not block.
Watcher: TypeAlias = Callable[[Moment], None]
