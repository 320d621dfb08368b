"""One party's end of a mailbox on a signaling service, over HTTP and one WebSocket after the other.

A socket may break, or the instance of the service behind it die: the party comes back and goes on where it was. What
it had not heard to be accepted it says again, under the same number, so that it counts once; what it had received is
not told again.

Source: docs/protocols/mailbox.md. The service is not trusted: it can drop, delay, repeat or
invent messages, and what it says is bounded and checked like anything from the network.
"""

from __future__ import annotations

import math
import random
import secrets
from collections import deque
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from handclasp.errors import HandclaspError, ProtocolViolation, ServiceRefused, ServiceUnavailable
from handclasp.scope import open_scope

from .answers import encode, promptly, short, text_of
from .frames import Accepted, Crowded, End, Event, Frame, Incoming, Presence, Ready, frame_untrusted
from .http import HttpClient, open_http
from .ice import Offered, offered_untrusted
from .moments import Moment, Watcher
from .websocket import CLOSE_TIMEOUT, ServiceSocket, open_socket

__all__ = ["Crowded", "Event", "Incoming", "Mailbox", "Presence", "claim_mailbox", "open_mailbox"]

_WAITING = 256  # frames that wait for a slow reader; a mailbox holds no more messages than that

#: Seconds that a party tries to come back before it says that the service is gone: a person waits no longer than
#: ten, and the service keeps the place of a party for five.
_PATIENCE = 8.0
#: Seconds of them for one attempt: behind one address there may be an instance that hangs, and one that does not.
_ATTEMPT = 3.0
_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 1.0


@dataclass(eq=False)
class _Line:
    """A socket that the service has let us in on, or is about to."""

    socket: ServiceSocket
    said: int = 0
    """The highest number of ours that was said on it."""

    unanswered: deque[int] = field(default_factory=deque[int])
    """Those of them that were not accepted yet, in order."""

    reading: trio.CancelScope = field(default_factory=trio.CancelScope)


class Mailbox:
    """Made by `open_mailbox` (website) or `claim_mailbox` (wallet).

    Attributes:
        connected: set when the service was reached for the first time, or never will be.
        ended: set when the mailbox is over.
    """

    def __init__(self, service: str, http: HttpClient, claim: dict[str, object] | None) -> None:
        self._service = service
        self._http = http
        self._claim = claim  # how we come in as long as we have no token
        self._token: str | None = None
        self._nonce: str | None = None
        self._line: _Line | None = None
        self._saying = trio.Lock()
        self._ready = trio.Event()
        self._sent = self._seen = 0  # the last numbers of ours and of the other party's
        self._unaccepted: dict[int, dict[str, object]] = {}
        self._told: dict[type[Event], Event] = {}
        self._let_in = False
        self._attempt = trio.CancelScope()
        self._news = trio.Event()  # set, and replaced, at each acknowledgement
        self._over: HandclaspError | None = None
        self.connected = trio.Event()
        self.ended = trio.Event()  # set with the reason in `_over`
        self._deliver, self._events = trio.open_memory_channel[Event](_WAITING)

    def admit(self, token: str, nonce: str) -> None:
        """Take note of what `GET /challenge` gave."""
        self._token, self._nonce = token, nonce

    async def wait_ready(self) -> None:
        """Wait until the service has let us in.

        Raises:
            ServiceRefused: it did not.
            ServiceUnavailable: it went away, or does not answer.
        """
        with promptly("the service did not let us in"):
            await self._ready.wait()
        self._check()

    async def nonce(self) -> str:
        """The nonce that the sign-in message has to carry; once known it stays known.

        Raises:
            ServiceRefused, ServiceUnavailable: see `wait_ready`.
        """
        if self._nonce is None:
            await self.wait_ready()
        if self._nonce is None:
            raise ServiceRefused("malformed", "the service gave no nonce")
        return self._nonce

    async def publish(self, topic: str, body: bytes) -> None:
        """Send one message to the other party; returns once the service has it.

        Cancelled, it may arrive all the same.

        Raises:
            ServiceRefused: the mailbox is over, or we may not publish to *topic*.
            ServiceUnavailable: the service went away, or does not answer.
        """
        self._check()
        self._sent = number = self._sent + 1
        self._unaccepted[number] = {"type": "publish", "topic": topic, "body": encode(body), "n": number}
        with promptly("the service did not acknowledge a message"):
            await self._say_unaccepted()
            await self._wait_accepted(number)

    async def post_link(self, body: bytes) -> None:
        """Use up the nonce and deliver *body* to the website. Asked again when the answer is lost.

        Raises:
            ServiceRefused: code ``nonce`` when it is wrong, used or expired.
            ServiceUnavailable: the service went away, or does not answer.
        """
        content: dict[str, object] = {"nonce": await self.nonce(), "body": encode(body)}
        with promptly("the service did not acknowledge a message"):
            await self._wait_accepted(self._sent)
        self._sent += 1
        content["n"] = self._sent
        deadline = trio.current_time() + _PATIENCE
        for pause in _pauses():
            try:
                await self._http.request("POST", "/link", self._token, content)
            except ServiceUnavailable:
                if trio.current_time() >= deadline:
                    raise
            except ServiceRefused as refused:
                if refused.code != "full" or trio.current_time() >= deadline:
                    self._sent -= 1
                    raise
            else:
                return
            self._check()
            await trio.sleep(pause)

    async def ice_servers(self) -> Offered:
        """The STUN and TURN servers that the service has for this party.

        Raises:
            ServiceRefused: it declined, or answers what makes no sense.
            ServiceUnavailable: it went away, or does not answer.
        """
        if self._token is None:
            await self.wait_ready()
        answer = await self._http.request("GET", "/ice", self._token, None)
        try:
            return offered_untrusted(answer, self._service)
        except ProtocolViolation as exc:
            raise ServiceRefused("malformed", f"the service answered GET /ice with {exc}") from None

    async def receive(self) -> Event:
        """Wait for the next event.

        Raises:
            ServiceRefused: the mailbox is over; the code says why.
            ServiceUnavailable: the service went away.
        """
        try:
            return await self._events.receive()
        except trio.EndOfChannel:
            self._check()
            raise

    def check_reached(self) -> None:
        """Raise if there was nobody to talk to.

        Raises:
            ServiceUnavailable: the service cannot be reached.
        """
        if isinstance(self._over, ServiceUnavailable):
            raise self._over

    async def close(self) -> None:
        """End the mailbox for both sides; harmless when it is over."""
        line = self._line
        if self._over is None and line is not None:
            try:
                await line.socket.send({"type": "close"})
            except (ServiceUnavailable, trio.BrokenResourceError):
                return

    # --- inside ---

    def _check(self) -> None:
        if self._over is not None:
            raise self._over

    async def _wait_accepted(self, number: int) -> None:
        while any(each <= number for each in self._unaccepted):
            self._check()
            await self._news.wait()
        # What was accepted has been, also when the peer has read it and closed the mailbox by now.

    async def _say_unaccepted(self) -> None:
        """Say what was not said yet on this socket. Without one, whoever makes the next will."""
        async with self._saying:
            line = self._line
            if line is None:
                return
            try:
                for number, frame in list(self._unaccepted.items()):
                    if number > line.said:
                        line.said = number
                        line.unanswered.append(number)
                        await line.socket.send(frame)
            except (ServiceUnavailable, trio.BrokenResourceError):
                line.reading.cancel()
            except trio.Cancelled:
                line.reading.cancel()  # half a frame may be out
                raise

    async def stay(self) -> None:
        """Be connected, again and again, until the mailbox is over."""
        pauses, deadline = _pauses(), None
        why: HandclaspError
        try:
            while self._over is None:
                self._let_in = False
                patience = math.inf if deadline is None else min(deadline, trio.current_time() + _ATTEMPT)
                why = ServiceUnavailable("the signaling service does not answer")
                with trio.CancelScope(deadline=patience) as self._attempt:
                    why = await self._stay_once()
                now = trio.current_time()
                if self._let_in or deadline is None:
                    pauses, deadline = _pauses(), now + _PATIENCE
                if not self.connected.is_set() or now >= deadline:
                    self._finish(why)
                else:
                    await trio.sleep(next(pauses))
        finally:
            self._finish(ServiceUnavailable("the mailbox was closed"))

    async def _stay_once(self) -> HandclaspError:
        """Be connected once; returns why no longer."""
        try:
            async with open_socket(self._service, "/ws") as socket:
                self.connected.set()
                line = _Line(socket)
                with line.reading:
                    return await self._talk(line)
                return ServiceUnavailable("the signaling service does not take messages")
        except ServiceUnavailable as exc:
            return exc
        finally:
            self._line = None

    async def _talk(self, line: _Line) -> HandclaspError:
        try:
            await line.socket.send(self._first_frame())
            async with open_scope() as scope:
                self._line = line
                scope.start_soon(self._say_unaccepted)
                while self._over is None:
                    frame = frame_untrusted(await line.socket.receive())
                    if isinstance(frame, End) and frame.is_temporary:
                        return ServiceRefused(frame.code, frame.detail)
                    self._take(line, frame)
        except trio.BrokenResourceError:
            pass
        except ProtocolViolation as exc:
            self._finish(ServiceRefused("malformed", f"the signaling service broke its protocol: {exc}"))
        except trio.WouldBlock:
            self._finish(ServiceRefused("limit", f"more than {_WAITING} messages came that nobody read"))
        return ServiceUnavailable("the signaling service closed the connection")

    def _first_frame(self) -> dict[str, object]:
        if self._token is None and self._claim is not None:
            return self._claim
        return {"type": "subscribe", "token": self._token, "after": self._seen}

    def _finish(self, why: HandclaspError) -> None:
        """The mailbox is over; the first reason stays."""
        if self._over is None:
            self._over = why
        self.ended.set()
        self.connected.set()
        self._ready.set()
        self._news.set()
        self._deliver.close()

    def _take(self, line: _Line, frame: Frame) -> None:
        match frame:
            case Ready(token, nonce):
                self._token, self._nonce = token or self._token, nonce or self._nonce
                self._let_in, self._attempt.deadline = True, math.inf
                self._ready.set()
            case Accepted():
                if line.unanswered:
                    self._unaccepted.pop(line.unanswered.popleft(), None)
                self._news.set()
                self._news = trio.Event()
            case End(code, detail):
                self._finish(ServiceRefused(code, detail))
            case Incoming():
                self._take_message(frame)
            case Presence() | Crowded():
                if frame != self._told.get(type(frame)):  # else it is told again on a new socket
                    self._told[type(frame)] = frame
                    self._deliver.send_nowait(frame)

    def _take_message(self, message: Incoming) -> None:
        if message.n != self._seen + 1:  # a new socket begins after what we said that we have seen
            raise ProtocolViolation(f"message {short(message.n)} after message {self._seen}")
        self._seen = message.n
        self._deliver.send_nowait(message)


def _pauses() -> Generator[float]:
    """How long to wait before each further attempt; not all who lost the same instance come back at once."""
    pause = _FIRST_PAUSE
    while True:
        yield random.uniform(pause / 2, pause)  # noqa: S311 - spreads load, keeps no secret
        pause = min(pause * 2, _LONGEST_PAUSE)


@asynccontextmanager
async def open_mailbox(
    service: str, mailbox: str, watcher: Watcher = lambda _: None
) -> AsyncGenerator[Mailbox]:
    """Open a new mailbox as the website and subscribe to it while the block runs.

    Raises:
        ServiceUnavailable: the service cannot be reached.
        ServiceRefused: it declined.
    """
    async with open_http(service) as http:
        challenge = await http.request("GET", f"/challenge?mailbox={mailbox}", None, None)
        try:
            token, nonce = text_of(challenge, "token"), text_of(challenge, "nonce")
        except ProtocolViolation as exc:
            raise ServiceRefused("malformed", f"the service answered GET /challenge with {exc}") from None
        watcher(Moment.CHALLENGED)
        end = Mailbox(service, http, None)
        end.admit(token, nonce)
        async with _staying(end):
            await end.wait_ready()
            watcher(Moment.SUBSCRIBED)
            yield end


@asynccontextmanager
async def claim_mailbox(service: str, mailbox: str) -> AsyncGenerator[Mailbox]:
    """Claim the mailbox as the wallet while the block runs. Messages may be published at once.

    Raises:
        ServiceUnavailable: the service cannot be reached.
    """
    # With *by*, a claim whose answer is lost can be repeated, by us and nobody else.
    claim: dict[str, object] = {"type": "claim", "mailbox": mailbox, "by": secrets.token_hex(32)}
    async with open_http(service) as http, _staying(Mailbox(service, http, claim)) as end:
        yield end


@asynccontextmanager
async def _staying(mailbox: Mailbox) -> AsyncGenerator[Mailbox]:
    """Connect, and stay connected while the block runs."""
    async with open_scope() as scope:
        scope.start_soon(mailbox.stay)
        try:
            await mailbox.connected.wait()
            mailbox.check_reached()
            yield mailbox
        finally:
            with trio.move_on_after(CLOSE_TIMEOUT, shield=True):
                await mailbox.close()
                await mailbox.ended.wait()
