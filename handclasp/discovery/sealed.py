"""The sealed conversation of two peers, without I/O: the handshake, then encrypted messages.

The dialer sends the first handshake message. The answerer's first message rides in the second
one and the dialer's in the third, so an SDP offer and its answer cost no round trip of their own.
Source: docs/protocols/invitation.md, "The handshake".
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from handclasp.errors import HandshakeFailed, MisuseError, WrongPeer
from handclasp.identity import Identity, PeerId

from .noise import MAX_MESSAGE, Handshake, Secured

#: Bytes of the longest text that fits into one sealed message beside keys, signatures and tags.
MAX_TEXT = MAX_MESSAGE - 512


class Kind(enum.IntEnum):
    """What a sealed message is about: its first byte."""

    SIGNALING = 0
    """A message of ``/webrtc-signaling``: offer, answer or candidate."""
    LINK = 1
    """JSON of the link: the signed sign-in message one way, the verdict the other."""


_KINDS = frozenset(Kind)


@dataclass(frozen=True)
class Message:
    """One opened message."""

    kind: Kind
    text: bytes


class Conversation:
    """One side's view. The caller moves bytes; a refusal ends the conversation for good.

    Args:
        identity: who this side is.
        dialed: whom this side wants to talk to, and then it speaks first; None on the side that answers anybody.
        prologue: bytes that both sides have to agree on.
    """

    def __init__(self, identity: Identity, *, dialed: PeerId | None, prologue: bytes) -> None:
        self._handshake = Handshake(identity, initiator=dialed is not None, prologue=prologue)
        self._dialed = dialed
        self._peer: PeerId | None = None
        self._secured: Secured | None = None
        self._dead = False

    @property
    def may_send(self) -> bool:
        """Whether `send` may be called now: it is our turn in the handshake, or the handshake is over."""
        if self._secured is not None:
            return not self._dead
        greeting = self._dialed is not None and self._peer is None  # carries nothing: see `greet`
        return not self._dead and self._handshake.may_write and not greeting

    @property
    def peer(self) -> PeerId:
        """Who the other side proved to be.

        Raises:
            MisuseError: nobody has, yet.
        """
        if self._peer is None:
            raise MisuseError("the peer is not known before its first message was received")
        return self._peer

    @property
    def secured(self) -> Secured | None:
        """The session, once all three handshake messages are through."""
        return self._secured

    def greet(self) -> bytes:
        """The dialer's first message."""
        return self._handshake.write()

    def send(self, message: Message | None) -> bytes:
        """Seal one message; None sends a handshake message that carries nothing.

        Raises:
            MisuseError: too long, or not our turn.
        """
        text = b"" if message is None else bytes([message.kind]) + message.text
        if len(text) > MAX_TEXT or not self.may_send:
            raise MisuseError(
                f"a sealed message has at most {MAX_TEXT} bytes, and must wait for the handshake"
            )
        if self._secured is not None:
            return self._secured.seal.seal(text)
        sealed = self._handshake.write(text)
        self._finish_if_done(wrote=True)
        return sealed

    def receive_untrusted(self, sealed: bytes) -> Message | None:
        """Open what arrived; None when it carries nothing but its part of the handshake.

        Raises:
            HandshakeFailed: altered, out of order, repeated, or not from the peer.
            WrongPeer: the handshake is sound, but its peer is not the one that was dialed.
        """
        if self._dead:
            raise HandshakeFailed("the conversation is over")
        self._dead = True  # until it turns out well
        text = self._open_untrusted(sealed)
        if text and text[0] not in _KINDS:
            raise HandshakeFailed(f"a sealed message is of the unknown kind {text[0]}")
        self._dead = False
        return Message(Kind(text[0]), text[1:]) if text else None

    def _open_untrusted(self, sealed: bytes) -> bytes:
        if self._secured is not None:
            return self._secured.open.open_untrusted(sealed)
        text = self._handshake.read_untrusted(sealed)
        peer = self._handshake.peer
        if peer is not None:
            if self._dialed is not None and peer != self._dialed:
                raise WrongPeer(f"{peer} answered in the place of {self._dialed}")
            self._peer = peer
        self._finish_if_done(wrote=False)
        return text

    def _finish_if_done(self, *, wrote: bool) -> None:
        # The third message is written by the dialer and read by the answerer.
        if self._peer is not None and wrote is (self._dialed is not None) and not self._handshake.may_write:
            self._secured = self._handshake.finish()
