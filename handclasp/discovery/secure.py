"""A signaling channel with one authenticated peer over anything that carries messages: Noise XX, end to end.

Whoever owns the way in between sees sizes and times. The answerer's first message rides in the second handshake
message and the dialer's in the third: three messages carry the handshake, an SDP offer and its answer.
Source: docs/protocols/invitation.md, "The handshake".
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections import deque
from collections.abc import Callable

import trio

from handclasp.abc import SignalingChannel
from handclasp.errors import HandclaspError, HandshakeFailed, MisuseError, PeerLeft, ServiceUnavailable
from handclasp.identity import Identity, PeerId

from .sealed import Conversation, Kind, Message

__all__ = ["HANDSHAKE_TIMEOUT", "Pipe", "SecureChannel"]

#: Seconds that each of the peer's handshake messages may take; it gathers its candidates in them.
HANDSHAKE_TIMEOUT = 10.0
#: Seconds that a handshake message waits for something to carry.
_EARLY_DATA_PATIENCE = 3.0


class Pipe(trio.abc.AsyncResource):
    """Carries messages of at most 65,535 bytes to one other end, in order. Nobody in between has to be trusted.

    Its `aclose` never waits for the other end.
    """

    @abstractmethod
    async def send(self, message: bytes) -> None:
        """Send one message. Cancelled, it may or may not have been sent.

        Raises:
            ServiceUnavailable: the way broke. Where the other end merely has closed, nothing is raised.
            trio.ClosedResourceError: you closed this pipe.
        """

    @abstractmethod
    async def receive(self) -> bytes:
        """Wait for the next message. Cancelling loses none.

        Raises:
            trio.EndOfChannel: the other end closed.
            ServiceUnavailable: the way broke.
            trio.ClosedResourceError: you closed this pipe.
        """


class SecureChannel(SignalingChannel):
    """A signaling channel whose two ends have proved their peer ids to each other.

    The handshake happens inside `send` and `receive`, no task runs for it. `binding` is known as soon as the handshake
    is over: to the answerer with its first `receive`, to the dialer after its first `send`. The first error is final.

    Args:
        pipe: carries the sealed messages; belongs to this channel, which closes it.
        identity: who this side is.
        dialed: whom this side wants to talk to; None on the side that answers, and so makes the SDP offer.
        prologue: names what the pipe is part of; both sides have to agree on it.
    """

    def __init__(self, pipe: Pipe, identity: Identity, *, dialed: PeerId | None, prologue: bytes) -> None:
        self._pipe = pipe
        self._conversation = Conversation(identity, dialed=dialed, prologue=prologue)
        self._offers = dialed is None
        self._to_greet = dialed is not None
        self._sending = trio.Lock()  # messages have to arrive in the order in which they were sealed
        self._receiving = trio.Lock()  # a sender reads, too, while it waits for its turn in the handshake
        self._queued = trio.Event()  # somebody wants to send, so a handshake message need not go empty
        self._opened = deque[bytes]()  # at most what came inside the handshake while nobody received
        self._over: HandclaspError | None = None
        self._closed = False

    @property
    def offers(self) -> bool:
        """See `SignalingChannel.offers`: the side that was dialed does."""
        return self._offers

    @property
    def peer(self) -> PeerId:
        """See `SignalingChannel.peer`."""
        return self._conversation.peer

    @property
    def binding(self) -> bytes:
        """See `SignalingChannel.binding`; never None.

        Raises:
            MisuseError: the handshake is not over.
        """
        secured = self._conversation.secured
        if secured is None:
            raise MisuseError("the binding is not known before the handshake is over")
        return secured.binding

    async def greet(self) -> None:
        """Send the dialer's first message now, which tells nobody who it is; else it goes with the first use.

        Raises:
            ServiceUnavailable: the way to the peer broke.
            trio.ClosedResourceError: you closed this channel.
        """
        async with self._receiving:
            self._check()
            await self._greet()

    async def send(self, message: bytes) -> None:
        """See `SignalingChannel.send`. The first one may wait for the peer's part of the handshake.

        Where the peer has closed, the message is lost and nothing is raised: `receive` tells.
        Cancelling it ends the channel: nobody knows whether the message went out.

        Raises:
            MisuseError: *message* is too long.
            HandshakeFailed, WrongPeer: what arrived was not from the peer.
            PeerLeft: the peer took more than `HANDSHAKE_TIMEOUT` for its part of the handshake.
            ServiceUnavailable: the way to the peer broke.
            trio.ClosedResourceError: you closed this channel.
        """
        if len(message) > self.MAX_MESSAGE:
            raise MisuseError(f"a signaling message has at most {self.MAX_MESSAGE} bytes, not {len(message)}")
        self._queued.set()
        async with self._sending:
            try:
                await self._read_until(lambda: self._conversation.may_send)
            except trio.EndOfChannel:
                return  # the peer needs nothing more; `receive` says so
            await self._transmit(self._conversation.send(Message(Kind.SIGNALING, message)))

    async def receive(self) -> bytes:
        """See `SignalingChannel.receive`. Cancelling loses nothing.

        Raises:
            trio.EndOfChannel: the peer has nothing more to say.
            HandshakeFailed, WrongPeer: what arrived was not from the peer.
            PeerLeft: the peer took more than `HANDSHAKE_TIMEOUT` for its part of the handshake.
            ServiceUnavailable: the way to the peer broke.
            trio.ClosedResourceError: you closed this channel.
        """
        while True:
            await self._read_until(lambda: bool(self._opened) or self._is_our_turn)
            if self._opened:
                return self._opened.popleft()
            await self._answer_empty()

    async def aclose(self) -> None:
        """Tell the peer that nothing more will come, and close the pipe."""
        self._closed = True
        await self._pipe.aclose()

    # --- inside ---

    @property
    def _in_handshake(self) -> bool:
        return self._conversation.secured is None

    @property
    def _is_our_turn(self) -> bool:
        """Whether the handshake waits for this side."""
        return self._in_handshake and self._conversation.may_send

    def _check(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError
        if self._over is not None:
            raise self._over

    async def _read_until(self, done: Callable[[], bool]) -> None:
        """Take messages in until there is what the caller waits for, whoever else is reading."""
        await trio.lowlevel.checkpoint()
        while True:
            self._check()
            if done():
                return
            async with self._receiving:
                self._check()
                if not done():  # another task may have read it meanwhile
                    await self._read_untrusted()

    async def _read_untrusted(self) -> None:
        await self._greet()
        try:
            with trio.fail_after(HANDSHAKE_TIMEOUT if self._in_handshake else math.inf):
                sealed = await self._pipe.receive()
            message = self._conversation.receive_untrusted(sealed)
            if message is not None and message.kind is not Kind.SIGNALING:
                raise HandshakeFailed(f"a sealed message of kind {message.kind} has no place here")
        except trio.TooSlowError:
            self._over = PeerLeft(f"the peer did not shake hands within {HANDSHAKE_TIMEOUT:.0f} s")
            raise self._over from None
        except HandclaspError as exc:
            self._over = exc
            raise
        if message is not None:
            self._opened.append(message.text)

    async def _greet(self) -> None:
        if self._to_greet:
            self._to_greet = False
            await self._transmit(self._conversation.greet())

    async def _answer_empty(self) -> None:
        """Go on with the handshake even if nobody has anything to send with it."""
        with trio.move_on_after(_EARLY_DATA_PATIENCE):
            await self._queued.wait()
        async with self._sending:
            self._check()
            if self._is_our_turn:
                await self._transmit(self._conversation.send(None))

    async def _transmit(self, sealed: bytes) -> None:
        try:
            await self._pipe.send(sealed)
        except BaseException:
            # Its number is used up: without it the peer can open nothing that follows.
            self._over = ServiceUnavailable("a message was not sent, and the channel is over")
            raise
