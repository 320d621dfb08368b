"""How a mailbox begins: its key, its first token, its nonce, and what is written down of them."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from hashlib import sha256

from .entries import Entry, Opening, Origin
from .frames import Refused
from .mailbox import digest, seal_nonce
from .settings import Settings

KEY_DIGITS = 32
"""Of a token, those in front: where the mailbox is. As many follow that nobody can guess."""


@dataclass(frozen=True)
class Challenge:
    """What the website gets when it opens a mailbox."""

    token: str
    nonce: str
    expires_in: int


@dataclass(frozen=True)
class Plan:
    """A mailbox that is to be opened."""

    key: str
    challenge: Challenge
    entry: Entry
    opening: Opening


def plan_mailbox(settings: Settings, origin: Origin, mailbox_id: str, now: float) -> Plan:
    """A new mailbox, by the limits of *settings*: it keeps these, whatever those of other instances are."""
    key, nonce = secrets.token_hex(KEY_DIGITS // 2), secrets.token_hex(16)
    token = key + secrets.token_hex(16)
    opening = Opening(
        name=name_of(mailbox_id),
        token=digest(token),
        sealed_nonce=seal_nonce(nonce, mailbox_id),
        nonce=digest(nonce),
        ends_at=now + settings.challenge_life,
        nonce_ends_at=now + settings.nonce_life,
        pairing_life=settings.pairing_life,
        messages=settings.messages,
        direction_length=settings.direction_length,
    )
    challenge = Challenge(token, nonce, round(settings.challenge_life))
    return Plan(key, challenge, Entry(now, origin, 0, opening), opening)


def name_of(mailbox_id: str) -> str:
    """What a mailbox is called where its id must not be: a hash."""
    return sha256(b"name of " + mailbox_id.encode()).hexdigest()[:32]


def full() -> Refused:
    """There is no room, or no way to keep anything."""
    return Refused("full", "the service has no room at the moment: try again in a minute", 503)


def crowded() -> Refused:
    """A mailbox that is to be opened exists."""
    return Refused("crowded", "this mailbox exists: make a new invitation", 409)
