"""The heart of the presence protocol: who is told of whom, and which channel leads where. No clock, socket or log.

Time goes in as *now* (seconds, never backwards), frames go in through `receive`, and what is to be sent is taken with
`take` once a connection's number has come out of `drain`. `next_deadline` says when to call `tick`.

Source: docs/protocols/presence.md.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from dataclasses import dataclass, field

from handclasp.identity import PeerId
from handclasp.service.buckets import Bucket
from handclasp.service.frames import Refused
from handclasp.service.settings import PresenceSettings

from .frames import (
    COSTLY,
    ORDER,
    Accepted,
    Advertise,
    Challenge,
    ClientFrame,
    Close,
    CloseCode,
    Closed,
    End,
    EndCode,
    Error,
    Find,
    Found,
    Gone,
    Listed,
    Listen,
    Open,
    Opened,
    Prove,
    Ready,
    Refusal,
    RefusalCode,
    SendOn,
    ServerFrame,
    Stage,
    Unfind,
    Unlisten,
    What,
    Withdraw,
)
from .outbox import Change, Load, Outbox
from .topics import Topics


@dataclass(eq=False)
class _End:
    """One end of a channel."""

    connection: int
    number: int
    sent: int = 0
    """Characters of message bodies so far."""

    other: _End | None = None
    """Set as long as the channel exists."""


@dataclass
class _Socket:
    """A peer's connection, or what may become one."""

    outbox: Outbox
    host: str | None
    nonce: str
    tokens: float
    frames: Bucket
    tokens_at: float = 0.0
    stage: Stage = Stage.NEW
    peer: str | None = None
    listens: bool = False
    advertised: set[str] = field(default_factory=set[str])
    sought: set[str] = field(default_factory=set[str])
    ends: dict[int, _End] = field(default_factory=dict[int, _End])
    highest: list[int] = field(default_factory=lambda: [0, -1])
    """The highest even and the highest odd number of a channel so far."""


@dataclass(frozen=True)
class Note:
    """Something for the log. It names nobody."""

    event: str


class PresenceHub:
    """Every peer of a service."""

    def __init__(self, settings: PresenceSettings) -> None:
        self._settings = settings
        self._load = Load()
        self._topics = Topics(settings)
        self._sockets: dict[int, _Socket] = {}
        self._peers: dict[str, int] = {}
        self._expiring: OrderedDict[_End, float] = (
            OrderedDict()
        )  # of each channel the dialer's end, first due first
        self._slow: list[
            int
        ] = []  # a list and not a call: one that leaves can be the last straw for the next
        self._woken: dict[int, None] = {}
        self._notes: list[Note] = []
        self._connections = 0
        self._stopped = False

    # Time

    def next_deadline(self) -> float | None:
        """When `tick` has something to do next, or None."""
        return next(iter(self._expiring.values()), None)

    def tick(self, now: float) -> None:
        """End what is over at *now*. `receive` does this first: a late timer changes no answer."""
        while (due := self.next_deadline()) is not None and due <= now:
            self._end_channel(next(iter(self._expiring)), CloseCode.EXPIRED)

    def population(self) -> int:
        """How many peers are here."""
        return len(self._peers)

    # What comes out

    def drain(self) -> tuple[list[int], list[Note]]:
        """The connections that have something to take since the last call, and what is to be noted."""
        woken, notes = list(self._woken), self._notes
        self._woken, self._notes = {}, []
        return woken, notes

    def take(self, connection: int) -> ServerFrame | None:
        """What to send to a connection next, or None."""
        taken = self._sockets[connection].outbox.take()
        if not isinstance(taken, Change):
            return taken
        if taken.peer is None:
            return Listed(taken.topic)
        record = self._topics.records(taken.topic).get(taken.peer)
        if record is None:
            return Gone(taken.topic, taken.peer)
        return Found(taken.topic, taken.peer, record)

    def is_over(self, connection: int) -> bool:
        """Whether nothing counts any more that the connection says."""
        return self._sockets[connection].stage is Stage.OVER

    # Sockets

    def connect(self, host: str | None, now: float) -> int:
        """Take in a socket whose client asked for *host*; end it with `disconnect`, always."""
        self._connections += 1
        connection = self._connections
        socket = _Socket(
            outbox=Outbox(self._settings, self._load),
            host=host,
            nonce=secrets.token_hex(32),
            tokens=self._settings.burst,
            frames=Bucket(self._settings.frames_burst, self._settings.frames_rate),
            tokens_at=now,
        )
        self._sockets[connection] = socket
        if self._stopped:
            self._dismiss(connection, End(EndCode.SHUTDOWN))
        elif len(self._sockets) > self._settings.sockets:
            self._dismiss(connection, Error("full", "the service has no room: try again in a minute"))
        else:
            self._answer(connection, Challenge(socket.nonce))
        return connection

    def receive(self, connection: int, frame: ClientFrame, now: float) -> None:
        """Take in one frame. A client at fault gets an `Error` and loses its socket; nothing is raised."""
        self.tick(now)
        socket = self._sockets[connection]
        if socket.stage is Stage.OVER:
            return  # it was told so, and what was still under way is void
        try:
            self._obey(connection, socket, frame, now)
        except Refused as refused:
            self.refuse(connection, refused)
        self._dismiss_slow()

    def refuse(self, connection: int, refused: Refused) -> None:
        """End a socket by the fault of its client."""
        if self._sockets[connection].stage is not Stage.OVER:
            self._dismiss(connection, Error(refused.code, refused.detail))
            self._dismiss_slow()

    def disconnect(self, connection: int) -> None:
        """Take note that a socket is gone."""
        self._leave(connection)
        self._sockets.pop(connection).outbox.clear()
        self._woken.pop(connection, None)
        self._dismiss_slow()

    def shutdown(self) -> None:
        """End every socket; nothing can be done afterwards."""
        self._stopped = True
        for connection, socket in self._sockets.items():
            if socket.stage is not Stage.OVER:
                self._dismiss(connection, End(EndCode.SHUTDOWN))

    # What a client may ask

    def _obey(self, connection: int, socket: _Socket, frame: ClientFrame, now: float) -> None:
        if not socket.frames.spend(now):
            rate = self._settings.frames_rate
            raise Refused("limit", f"at most {rate:g} frames a second, in the long run", 429)
        stage = ORDER.get((socket.stage, type(frame)))
        if stage is None:
            wanted = "prove first" if socket.stage is Stage.NEW else "only one proof"
            raise Refused("malformed", f"type: {wanted}", 400)
        socket.stage = stage
        if isinstance(frame, COSTLY):
            self._spend(socket, now)
        match frame:
            case Prove():
                self._prove(connection, socket, frame)
            case Advertise() | Withdraw() | Find() | Unfind():
                self._obey_on_topic(connection, socket, frame)
            case Listen() | Unlisten():
                socket.listens = isinstance(frame, Listen)
                self._answer(connection, Accepted(What.LISTEN if socket.listens else What.UNLISTEN))
            case Open(number, peer):
                self._open(connection, socket, number, peer, now)
            case SendOn(number, body):
                self._send(socket, number, body)
            case Close(number):
                self._close(socket, number)

    def _obey_on_topic(
        self, connection: int, socket: _Socket, frame: Advertise | Withdraw | Find | Unfind
    ) -> None:
        match frame:
            case Advertise(topic, record):
                self._advertise(connection, socket, topic, record)
            case Withdraw(topic):
                self._withdraw(socket, topic)
                self._answer(connection, Accepted(What.WITHDRAW, topic))
            case Find(topic):
                self._find(connection, socket, topic)
            case Unfind(topic):
                self._unfind(connection, socket, topic)

    def _prove(self, connection: int, socket: _Socket, proof: Prove) -> None:
        hosts = self._settings.hosts or (socket.host,)
        text = f"handclasp/1 peers\n{proof.host}\n{socket.nonce}".encode()
        if proof.host not in hosts:
            raise Refused("unauthorized", "the proof is for another host than this service", 401)
        if not PeerId.from_text_untrusted(proof.peer).verify(proof.signature, text):
            raise Refused("unauthorized", "the proof does not verify", 401)
        earlier = self._peers.get(proof.peer)
        if earlier is not None:
            self._dismiss(earlier, End(EndCode.REPLACED))
        socket.peer = proof.peer
        self._peers[proof.peer] = connection
        self._answer(connection, Ready())
        self._notes.append(Note(f"a peer came, {len(self._peers)} now"))

    def _advertise(self, connection: int, socket: _Socket, topic: str, record: str) -> None:
        peer = _peer_of(socket)
        if topic not in socket.advertised and len(socket.advertised) >= self._settings.advertised:
            self._answer(connection, Refusal(What.ADVERTISE, topic, RefusalCode.LIMIT))
        elif not self._topics.put(topic, peer, record):
            self._answer(connection, Refusal(What.ADVERTISE, topic, RefusalCode.FULL))
        else:
            socket.advertised.add(topic)
            self._answer(connection, Accepted(What.ADVERTISE, topic))
            self._tell(topic, peer)

    def _withdraw(self, socket: _Socket, topic: str) -> None:
        peer = _peer_of(socket)
        if topic in socket.advertised:
            socket.advertised.remove(topic)
            self._topics.remove(topic, peer)
            self._tell(topic, peer)

    def _find(self, connection: int, socket: _Socket, topic: str) -> None:
        if topic not in socket.sought and len(socket.sought) >= self._settings.sought:
            self._answer(connection, Refusal(What.FIND, topic, RefusalCode.LIMIT))
            return
        socket.sought.add(topic)
        self._topics.find(topic, connection)
        self._woken[connection] = None
        for peer in (*self._topics.records(topic), None):
            self._tell_one(socket, topic, peer)

    def _unfind(self, connection: int, socket: _Socket, topic: str) -> None:
        socket.sought.discard(topic)
        socket.outbox.forget(topic)
        self._topics.unfind(topic, connection)

    def _open(self, connection: int, socket: _Socket, number: int, peer: str, now: float) -> None:
        if number % 2 == 0 or number <= socket.highest[1]:
            raise Refused("malformed", "channel: must be odd, and higher than each before", 400)
        socket.highest[1] = number
        there = self._peers.get(peer)
        target = None if there is None else self._sockets[there]
        if socket.outbox.count(1) >= self._settings.channels:
            self._answer(connection, Closed(number, CloseCode.LIMIT))
        elif there is None or target is None or not target.listens:
            self._answer(connection, Closed(number, CloseCode.UNREACHABLE))
        elif target.outbox.count(0) >= self._settings.incoming:
            self._answer(connection, Closed(number, CloseCode.LIMIT))
        else:
            target.highest[0] += 2
            near, far = _End(connection, number), _End(there, target.highest[0])
            near.other, far.other = far, near
            socket.ends[number], target.ends[far.number] = near, far
            socket.outbox.add(number, incoming=False)
            target.outbox.add(far.number, incoming=True)
            self._expiring[near] = now + self._settings.channel_life
            self._answer(connection, Opened(number))
            self._woken[there] = None

    def _send(self, socket: _Socket, number: int, body: str) -> None:
        end = _end_of(socket, number)
        if end is None or end.other is None:
            return
        end.sent += len(body)
        receiver = self._sockets[end.other.connection].outbox
        if end.sent > self._settings.channel_length or not receiver.put(end.other.number, body):
            self._end_channel(end, CloseCode.LIMIT)
        else:
            self._woken[end.other.connection] = None

    def _close(self, socket: _Socket, number: int) -> None:
        end = _end_of(socket, number)
        if end is not None:
            self._end_channel(end, CloseCode.CLOSED)
        socket.outbox.drop(number)  # it has the last word itself

    # What they are made of

    def _spend(self, socket: _Socket, now: float) -> None:
        earned = (now - socket.tokens_at) * self._settings.rate
        socket.tokens = min(self._settings.burst, socket.tokens + earned) - 1
        socket.tokens_at = now
        if socket.tokens < 0:
            raise Refused(
                "limit", f"at most {self._settings.rate:g} such frames a second, in the long run", 429
            )

    def _tell(self, topic: str, peer: str) -> None:
        for connection in self._topics.finders(topic):
            self._woken[connection] = None
            self._tell_one(self._sockets[connection], topic, peer)

    def _tell_one(self, socket: _Socket, topic: str, peer: str | None) -> None:
        if self._load.changes >= self._settings.changes:
            self._make_room()
        socket.outbox.tell(topic, peer)

    def _make_room(self) -> None:
        """Let go of those with the most untold changes, until a quarter of the room is free: this is not done often."""
        for connection in sorted(self._sockets, key=lambda each: -self._sockets[each].outbox.untold):
            if self._load.changes <= self._settings.changes * 3 // 4:
                break
            self._sockets[connection].outbox.forget_all()
            self._slow.append(connection)

    def _dismiss_slow(self) -> None:
        """Let go of those who do not read; that they leave may be too much for others in turn."""
        while self._slow:
            connection = self._slow.pop()
            if connection in self._sockets and not self.is_over(connection):
                self._dismiss(connection, _slow())

    def _end_channel(self, end: _End, code: CloseCode) -> None:
        """End a channel at both ends."""
        for side in (end, end.other):
            if side is not None:
                self._expiring.pop(side, None)
                socket = self._sockets[side.connection]
                del socket.ends[side.number]
                socket.outbox.close(Closed(side.number, code))
                self._woken[side.connection] = None
                side.other = None

    def _leave(self, connection: int) -> None:
        """Take away everything of a socket."""
        socket = self._sockets[connection]
        while socket.ends:
            self._end_channel(next(iter(socket.ends.values())), CloseCode.LEFT)
        for topic in list(socket.sought):
            self._unfind(connection, socket, topic)
        for topic in list(socket.advertised):
            self._withdraw(socket, topic)
        if socket.peer is not None and self._peers.get(socket.peer) == connection:
            del self._peers[socket.peer]
            self._notes.append(Note(f"a peer left, {len(self._peers)} now"))

    def _dismiss(self, connection: int, last: End | Error) -> None:
        self._sockets[connection].stage = Stage.OVER
        self._leave(connection)
        self._sockets[connection].outbox.finish(last)
        self._woken[connection] = None

    def _answer(self, connection: int, frame: ServerFrame) -> None:
        if self._sockets[connection].outbox.answer(frame):
            self._woken[connection] = None
        else:
            self._slow.append(connection)


def _peer_of(socket: _Socket) -> str:
    if socket.peer is None:
        raise Refused("unauthorized", "prove who you are first", 401)
    return socket.peer


def _end_of(socket: _Socket, number: int) -> _End | None:
    """The end of a channel, None where the channel is over.

    Raises:
        Refused: there never was one.
    """
    if number > socket.highest[number % 2]:
        raise Refused("malformed", "channel: there is none of this number", 400)
    return socket.ends.get(number)


def _slow() -> Error:
    return Error("slow", "this socket does not read what is sent to it: connect again")
