"""The steps of a pairing, in the order of the seed's sequence diagram, for whoever shows them.

`handclasp demo` prints them as a table that fills in; a web page may draw them.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import TypeAlias

from handclasp.discovery.signaling import Moment, Watcher

__all__ = ["Observer", "Step", "watch"]


class Step(enum.Enum):
    """One step: who does what. Website and wallet each report their own."""

    CHALLENGED = ("Website ⇄ Server", "GET challenge: a mailbox and a nonce")
    SUBSCRIBED = ("Website → Server", "subscribe to wss:link and wss:answer")
    INVITED = ("Website", "display the invitation as a QR code")
    READ = ("Wallet", "scan the QR code")
    CLAIMED = ("Wallet → Server", "claim the mailbox, subscribe to wss:offer")
    SCANNED = ("Server → Website", "emit link: a wallet is here")
    OFFER_SENT = ("Website → Server", "send the offer, sealed")
    OFFER_RECEIVED = ("Server → Wallet", "emit the offer: the website is who it says")
    ANSWER_SENT = ("Wallet → Server", "send the answer, sealed")
    ANSWER_RECEIVED = ("Server → Website", "emit the answer: the wallet is known")
    APPROVED = ("Wallet", "the person agrees; sign the message")
    LINK_POSTED = ("Wallet → Server", "POST nonce + sealed signature: nonce taken")
    LINK_RECEIVED = ("Server → Website", "emit link: the sealed signature")
    LINKED = ("Website", "signature and every field hold: linked")
    WALLET_CONNECTED = ("Wallet ⇄ Website", "DataChannel open, certificates confirmed")
    WEBSITE_CONNECTED = ("Website ⇄ Wallet", "DataChannel open, certificates confirmed")
    SESSION_CREATED = ("Website ⇄ Wallet", "wallet_createSession, peer to peer")
    SIGNED = ("Website ⇄ Wallet", "personal_sign, peer to peer: it verifies")

    def __init__(self, who: str, what: str) -> None:
        self.who = who
        self.what = what

    @property
    def key(self) -> str:
        """The step's name as it appears in JSON events: ``offer-sent``."""
        return self.name.lower().replace("_", "-")


#: Is called with each step that this side took; must not block.
Observer: TypeAlias = Callable[[Step], None]

_WEBSITE = {
    Moment.CHALLENGED: Step.CHALLENGED,
    Moment.SUBSCRIBED: Step.SUBSCRIBED,
    Moment.SCANNED: Step.SCANNED,
    Moment.OFFER_SENT: Step.OFFER_SENT,
    Moment.ANSWER_RECEIVED: Step.ANSWER_RECEIVED,
}
_WALLET = {
    Moment.CLAIMED: Step.CLAIMED,
    Moment.OFFER_RECEIVED: Step.OFFER_RECEIVED,
    Moment.ANSWER_SENT: Step.ANSWER_SENT,
}


def watch(observe: Observer, *, wallet: bool) -> Watcher:
    """A watcher of the mailbox that reports the steps in it to *observe*."""
    steps = _WALLET if wallet else _WEBSITE

    def watcher(moment: Moment) -> None:
        if moment in steps:
            observe(steps[moment])

    return watcher
