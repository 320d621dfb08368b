"""One connection to the service, on which a peer has proved who it is: requests, events and channels.

It does not come back when it breaks: `presence` makes another one.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TypeAlias

import trio

from handclasp.discovery.secure import Pipe
from handclasp.errors import (
    HandclaspError,
    PeerLeft,
    PeerUnreachable,
    ProtocolViolation,
    ServiceRefused,
    ServiceUnavailable,
)
from handclasp.identity import Identity, PeerId
from handclasp.scope import open_scope

from .answers import encode, promptly
from .told import (
    Accepted,
    Challenge,
    Closed,
    End,
    Event,
    Found,
    Gone,
    Incoming,
    Listed,
    Message,
    Opened,
    Ready,
    Refused,
    Told,
    told_untrusted,
)
from .websocket import ServiceSocket

__all__ = ["Asked", "ChannelPipe", "Line"]

#: Seconds between two looks whether the service still answers: a router forgets a quiet connection in a minute or two.
KEEP_ALIVE = 30.0
_OUTGOING = 32  # frames that wait for the socket before whoever sends another message has to wait, too
_WAITING = 64  # messages of a channel that wait for a slow reader; the service lets no more wait there
_MOST_CHANNELS = 1_024  # at once, whatever the service lets through
_HIGHEST = 10**9 - 1  # number of a channel; nobody dials this often

_log = logging.getLogger(__name__)
_Frame: TypeAlias = Mapping[str, object]


class Asked:
    """A request to the service that it will answer."""

    def __init__(self) -> None:
        self._answered = trio.Event()
        self._error: HandclaspError | None = None

    def answer(self, error: HandclaspError | None) -> None:
        """The answer is there; None when it is yes."""
        self._error = error
        self._answered.set()

    async def wait(self) -> None:
        """Wait for the answer.

        Raises:
            ServiceRefused: it is no; code ``limit`` or ``full``.
            ServiceUnavailable: there will be none, or it takes too long.
        """
        with promptly("the service did not answer"):
            await self._answered.wait()
        if self._error is not None:
            raise self._error


class Line:
    """Made by whoever has the socket; `prove`, then `run`. All other methods are for meanwhile."""

    def __init__(
        self,
        socket: ServiceSocket,
        *,
        hear: Callable[[Event], None],
        accept: Callable[[ChannelPipe], None],
    ) -> None:
        self._socket = socket
        self._hear = hear
        self._accept = accept
        self._outgoing: deque[_Frame] = deque()
        self._to_write = trio.Event()
        self._room = trio.Event()
        self._asked: dict[tuple[str, str | None], deque[Asked]] = {}
        self._channels: dict[int, ChannelPipe] = {}
        self._number = -1
        self._over: ServiceUnavailable | None = None

    async def prove(self, identity: Identity, host: str) -> None:
        """Prove who we are to the service at *host*.

        Raises:
            ServiceRefused: it does not let us in, or breaks its protocol.
            ServiceUnavailable: it went away, or does not answer.
        """
        with promptly("the service did not let us in"):
            challenge = await self._receive()
            if not isinstance(challenge, Challenge):
                raise _broken("no challenge at the beginning")
            # The domain, the host and the nonce: this signature is good for one connection to one service.
            signature = identity.sign(f"handclasp/1 peers\n{host}\n{challenge.nonce}".encode())
            proof = {
                "type": "prove",
                "peer": str(identity.peer_id),
                "host": host,
                "signature": encode(signature),
            }
            with suppress(trio.BrokenResourceError):  # then it has said why
                await self._socket.send(proof)
            if not isinstance(await self._receive(), Ready):
                raise _broken("something else than whether the proof is good")

    async def run(self) -> None:
        """Move frames until the connection is over; whoever waits for something is told why.

        Raises:
            ServiceRefused: the service ended it, or broke its protocol.
            ServiceUnavailable: it broke.
        """
        try:
            async with open_scope() as scope:
                scope.start_soon(self._write)
                scope.start_soon(self._keep_alive)
                while True:
                    self._take_untrusted(await self._receive())
        except HandclaspError as exc:
            self._break_off(f"the connection to the signaling service is over: {exc}")
            raise
        finally:
            self._break_off("the connection to the signaling service was closed")

    # --- requests ---

    def post(self, frame: _Frame) -> None:
        """Send a frame behind the others, without waiting. For what happens once for each object."""
        if self._over is None:
            self._outgoing.append(frame)
            self._to_write.set()

    def ask(self, what: str, topic: str | None = None, **fields: object) -> Asked:
        """Send a request; its answer can be waited for."""
        asked = Asked()
        if self._over is not None:
            asked.answer(self._over)
            return asked
        self._asked.setdefault((what, topic), deque()).append(asked)
        self.post({"type": what, **({} if topic is None else {"topic": topic}), **fields})
        return asked

    def open(self, peer: PeerId) -> ChannelPipe:
        """Open a channel to *peer*; messages may follow at once.

        Raises:
            ServiceUnavailable: the connection is over.
        """
        self._number += 2
        if self._over is not None or self._number > _HIGHEST:
            raise self._over or ServiceUnavailable("no channel is left on this connection to the service")
        pipe = self._channels[self._number] = ChannelPipe(self, self._number)
        self.post({"type": "open", "channel": self._number, "peer": str(peer)})
        return pipe

    async def send(self, frame: _Frame) -> None:
        """Send a frame once there are not too many before it; cancelled while it waits, it is not sent.

        Raises:
            ServiceUnavailable: the connection is over.
        """
        await trio.lowlevel.checkpoint()
        while len(self._outgoing) >= _OUTGOING and self._over is None:
            await self._room.wait()
        if self._over is not None:
            raise self._over
        self.post(frame)

    def forget(self, number: int) -> None:
        """This side has closed a channel."""
        if self._channels.pop(number, None) is not None:
            self.post({"type": "close", "channel": number})

    # --- inside ---

    async def _receive(self) -> Told:
        try:
            told = told_untrusted(await self._socket.receive())
        except trio.BrokenResourceError:
            raise ServiceUnavailable("the signaling service closed the connection") from None
        except ProtocolViolation as exc:
            raise _broken(str(exc)) from None
        if isinstance(told, End):
            raise ServiceRefused(told.code, told.detail)
        return told

    async def _write(self) -> None:
        # A task of its own: a sender that is cancelled halfway through a frame would break the connection for all.
        try:
            while True:
                while self._outgoing:
                    frame = self._outgoing.popleft()
                    self._room.set()
                    self._room = trio.Event()
                    await self._socket.send(frame)
                self._to_write = trio.Event()
                await self._to_write.wait()
        except trio.BrokenResourceError:
            return  # the reader says why

    async def _keep_alive(self) -> None:
        try:
            while True:
                await trio.sleep(KEEP_ALIVE)
                await self._socket.check_alive()
        except trio.BrokenResourceError:
            return  # the reader says why

    def _take_untrusted(self, told: Told) -> None:
        match told:
            case Accepted(what, topic):
                self._answer_untrusted(what, topic, None)
            case Refused(what, topic, code) if what != "find":
                refused = ServiceRefused(code, f"the service has no room for one more to {what}")
                _log.warning("%s under one topic: %s", what, refused)
                self._answer_untrusted(what, topic, refused)
            case Incoming(number):
                if number % 2 or number in self._channels or len(self._channels) >= _MOST_CHANNELS:
                    raise _broken("a channel that cannot be, or one too many")
                pipe = self._channels[number] = ChannelPipe(self, number)
                self._accept(pipe)
            case Opened(number) | Message(number) | Closed(number):
                self._take_on_channel(number, told)
            case Found() | Gone() | Listed() | Refused():
                self._hear(told)
            case _:
                raise _broken("a second greeting")

    def _take_on_channel(self, number: int, told: Opened | Message | Closed) -> None:
        pipe = self._channels.get(number)
        if pipe is None:
            return  # we have closed it, and this crossed it
        match told:
            case Opened():
                pipe.opened()
            case Message(_, body):
                if not pipe.put(body):
                    self.forget(number)
            case Closed(_, code):
                del self._channels[number]
                pipe.ended(code)

    def _answer_untrusted(self, what: str, topic: str | None, error: HandclaspError | None) -> None:
        waiting = self._asked.get((what, topic))
        if not waiting:
            raise _broken("an answer to what nobody has asked")
        waiting.popleft().answer(error)
        if not waiting:
            del self._asked[what, topic]

    def _break_off(self, reason: str) -> None:
        """Nothing comes any more; the first reason stays."""
        if self._over is not None:
            return
        self._over = why = ServiceUnavailable(reason)
        self._room.set()
        for waiting in self._asked.values():
            for asked in waiting:
                asked.answer(why)
        self._asked.clear()
        for pipe in self._channels.values():
            pipe.broken(why)
        self._channels.clear()


class ChannelPipe(Pipe):
    """Sealed messages to and from the other end of a channel."""

    def __init__(self, line: Line, number: int) -> None:
        self._line = line
        self._number = number
        self._opened = trio.Event()
        self._deliver, self._messages = trio.open_memory_channel[bytes](_WAITING)
        self._ended: str | None = None
        self._why: HandclaspError | None = None
        self._closed = False

    async def wait_opened(self) -> None:
        """Wait until the service has found the peer.

        Raises:
            PeerUnreachable: it has not.
            ServiceUnavailable: the connection to the service broke.
        """
        with promptly("the service did not say whether the peer is there"):
            await self._opened.wait()
        if self._ended == "unreachable":
            raise PeerUnreachable("the peer is not connected to this service, or takes no channels there")
        if self._ended == "limit":
            raise PeerUnreachable(
                "the peer, or this node, has too many signaling channels right now: try again"
            )
        if self._why is not None and self._ended is None:
            raise self._why

    async def send(self, message: bytes) -> None:
        """See `Pipe.send`."""
        if self._closed:
            raise trio.ClosedResourceError
        if self._ended is None and self._why is None:
            await self._line.send({"type": "send", "channel": self._number, "body": encode(message)})
        else:
            await trio.lowlevel.checkpoint()
        if self._closed:
            raise trio.ClosedResourceError
        if self._why is not None:
            raise self._why

    async def receive(self) -> bytes:
        """See `Pipe.receive`."""
        try:
            return await self._messages.receive()
        except trio.EndOfChannel:
            if self._why is not None:
                raise self._why from None
            raise

    async def aclose(self) -> None:
        """See `Pipe`."""
        self.turn_away()
        await trio.lowlevel.checkpoint()

    def turn_away(self) -> None:
        """Close it before anybody has seen it."""
        self._closed = True
        self._line.forget(self._number)
        self._messages.close()

    # --- from the line ---

    def opened(self) -> None:
        """The service has found the peer."""
        self._opened.set()

    def put(self, message: bytes) -> bool:
        """A message came; False when the channel has to end for it."""
        try:
            self._deliver.send_nowait(message)
        except trio.WouldBlock:
            self.broken(ServiceUnavailable(f"more than {_WAITING} messages came that nobody read"))
            return False
        except trio.BrokenResourceError:  # closed by us
            return False
        return True

    def ended(self, code: str) -> None:
        """The other end, or the service, has closed the channel."""
        self._ended = code
        if code == "left":
            self._why = PeerLeft("the peer's connection to the signaling service broke")
        elif code != "closed":
            self._why = ServiceUnavailable(f"the signaling service ended the channel: {code}")
        self._over()

    def broken(self, why: HandclaspError) -> None:
        """Nothing comes any more."""
        self._why = why
        self._over()

    def _over(self) -> None:
        self._opened.set()
        self._deliver.close()


def _broken(what: str) -> ServiceRefused:
    return ServiceRefused("malformed", f"the signaling service broke its protocol: {what}")
