"""Limits and lifetimes of the signaling service, each with the reason for its number.

What the protocol fixes for both sides (the size of a message, a frame, a URL) is no setting: see `wire`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields

from handclasp.errors import ConfigurationError

from .proxies import Proxies
from .secret import Secret
from .strict import BODY_LENGTH

#: Scheme, host and a port that is not the scheme's own; neither path nor slash (RFC 6454 §6.2).
_ORIGIN = re.compile(
    r"(?!http://[^:]*:80\Z|https://[^:]*:443\Z)https?://[a-z0-9.-]+(:[1-9][0-9]{0,4})?|https?://\[[0-9a-f:]+\](:[1-9][0-9]{0,4})?"
)
_ICE_URL = re.compile(
    r"(stuns?|turns?):([A-Za-z0-9.-]+|\[[0-9a-f:]+\])(:[0-9]{1,5})?(\?transport=(udp|tcp))?"
)  # RFC 7064, 7065
_LONGEST_PASSWORD = 600.0  # seconds: whoever is shown one can relay through our server until it ends
_LONGEST_LIFE = 300.0  # docs/protocols/mailbox.md promises that no nonce or waiting mailbox outlives this


@dataclass(frozen=True, kw_only=True)
class PresenceSettings:
    """How much the service keeps of peers that find each other (docs/protocols/presence.md). Times are in seconds.

    Raises:
        ConfigurationError: a number is not positive, or contradicts another; the message names it.
    """

    hosts: tuple[str, ...] = ()
    """The names by which peers reach the service, each with its port unless that is the scheme's own. A proof of a
    peer id names the host that it is for, so that a hostile service cannot pass it on to this one. Empty: whatever
    the Host header says."""

    sockets: int = 10_000
    """Peers at once: about 40 KiB each (measured, the server's part included), 400 MB in all."""

    advertised: int = 64
    """Topics under which a peer advertises: a program has a handful."""

    sought: int = 64
    """Topics that a peer finds: as many, and one for each peer that it is looking for."""

    records: int = 1_000
    """Records under one topic: whoever finds it is told all of them."""

    records_length: int = 64 * 1024 * 1024
    """Characters of records in all: whatever strangers advertise, it fits into a small machine."""

    changes: int = 1_000_000
    """Changes under topics that wait to be told, in all: about 100 bytes each (measured), 100 MB."""

    channels: int = 64
    """Channels that a peer has opened: a dial takes a second or two."""

    incoming: int = 256
    """Channels that others have opened to a peer: a busy one, and an attacker needs several sockets to occupy it."""

    channel_life: float = 60.0
    """How long a channel lives: a dial gives up after 30 s."""

    channel_length: int = 1024 * 1024
    """Characters of message bodies in a channel, each way: it is for signaling, not a relay for data."""

    channel_messages: int = 64
    """Messages that wait on a channel: an SDP and its candidates, so here nobody reads."""

    socket_length: int = 2 * 1024 * 1024
    """Characters of message bodies that wait for a peer on all its channels: 25 of the longest messages."""

    waiting_length: int = 256 * 1024 * 1024
    """Characters of message bodies that wait in all."""

    answers: int = 256
    """Answers to what a peer itself has asked that wait for it: more than its limits let it ask at once."""

    burst: int = 256
    """Frames that make work for others (advertise, withdraw, find, open) at once: all again after a lost connection."""

    rate: float = 16.0
    """And how many of them a second, afterwards."""

    frames_burst: int = 1_024
    """Frames of any kind from one socket at once: everything that it may advertise and find, and busy channels."""

    frames_rate: float = 256.0
    """And how many of them a second, afterwards: beyond it a socket only keeps the service from others."""

    def __post_init__(self) -> None:
        _check_positive(self)
        if self.channel_length < BODY_LENGTH:
            raise ConfigurationError(f"channel_length must hold one message of {BODY_LENGTH} characters")
        if self.socket_length < BODY_LENGTH:
            raise ConfigurationError(f"socket_length must hold one message of {BODY_LENGTH} characters")
        if self.waiting_length < self.socket_length:
            raise ConfigurationError("waiting_length must hold at least one socket_length")


@dataclass(frozen=True, kw_only=True)
class IceSettings:
    """The servers that help the two of a mailbox to find a path (docs/how-to/run-a-turn-server.md).

    Raises:
        ConfigurationError: a URL is none, TURN has no secret, or the life is too long; the message names it.
    """

    stun: tuple[str, ...] = ()
    """STUN servers, `stun:stun.example:3478`: they tell a client its address and cost next to nothing."""

    turn: tuple[str, ...] = ()
    """TURN servers, `turn:turn.example:3478?transport=udp` or `turns:…`: relays, for two who have no direct path."""

    secret: Secret | None = None
    """The secret shared with the TURN servers (coturn's `static-auth-secret`), of at least 32 bytes."""

    life: float = 600.0
    """Seconds for which a TURN password is good: time to connect, and little to those who pass it on. At most 600."""

    def __post_init__(self) -> None:
        for name, urls in (("stun", self.stun), ("turn", self.turn)):
            for url in urls:
                if not _ICE_URL.fullmatch(url) or not url.startswith(name):
                    raise ConfigurationError(f"ice.{name}: {url!r} is not the URL of a {name.upper()} server")
        if self.turn and self.secret is None:
            raise ConfigurationError("ice.turn: TURN servers need ice.secret, or ice.secret_file")
        if not 0 < self.life <= _LONGEST_PASSWORD:
            raise ConfigurationError(f"ice.life: more than 0 and at most {_LONGEST_PASSWORD:g} s")


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

    longest_away: float = 300.0
    """How long it may be away when it asks for more: a phone on which the app that signs is in front."""

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

    address_burst: int = 512
    """Requests and upgrades of one address (an IPv4 address, the /64 of an IPv6 address) at once: 80 pairings, so an
    office behind one address does not notice."""

    address_rate: float = 64.0
    """And how many of them a second, afterwards: ten pairings."""

    address_sockets: int = 1_024
    """Sockets of one address at once: a carrier that hides its customers behind one address still fits, and nobody
    takes all places of the service alone."""

    addresses: int = 100_000
    """Addresses whose rate is remembered: about 150 bytes each (measured), 15 MB in all."""

    mailbox_burst: int = 512
    """Messages for one mailbox at once, by any way: as many as both directions hold."""

    mailbox_rate: float = 32.0
    """And how many of them a second, afterwards: a person's devices send a few."""

    proxies: tuple[str, ...] = ()
    """The proxies in front, as networks (`10.0.0.0/8`; `unix` for a Unix socket): from them, and from nobody else,
    `X-Forwarded-For` says who the client is. Empty: nobody, the client is whoever connects."""

    origins: tuple[str, ...] = ()
    """The web origins whose pages may use the service, spelled as browsers do (`https://shop.example`). Programs send
    none and may. Empty: all, there are no cookies to abuse."""

    ice: IceSettings = field(default_factory=IceSettings)
    """STUN and TURN servers."""

    presence: PresenceSettings = field(default_factory=PresenceSettings)
    """The same for peers that find each other."""

    def __post_init__(self) -> None:
        _check_positive(self)
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
        Proxies(self.proxies)
        for origin in self.origins:
            if not _ORIGIN.fullmatch(origin):
                raise ConfigurationError(
                    f"origins: {origin!r} is not as browsers spell it (https://shop.example)"
                )


def _check_positive(settings: Settings | PresenceSettings) -> None:
    for each in fields(settings):
        value: object = getattr(settings, each.name)
        if isinstance(value, (tuple, PresenceSettings, IceSettings)):
            continue
        # bool is an int, and an infinite life is a leak
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
            raise ConfigurationError(f"{each.name} must be a positive number, not {value!r}")
