"""What waits for one socket. It is taken when the socket can be written to, so what is outdated is never sent.

Strangers can open channels to a socket, write on them, and advertise under topics that it finds. Whatever they do,
this stays bounded, and the socket is not at fault: changes under a topic are told once, in their latest state; each
channel has a queue of its own, and one that overflows ends alone. Answers to what the client asked make it look slow.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field

from handclasp.service.settings import PresenceSettings

from .frames import ChannelFrame, Closed, End, Error, Incoming, Message, ServerFrame


@dataclass
class Load:
    """What waits in all the outboxes of a service."""

    bodies: int = 0
    """Characters of message bodies."""

    changes: int = 0
    """Changes under topics."""


@dataclass(frozen=True)
class Change:
    """Something to tell about a topic: the state of a peer at the time it is told, or None for the end of the list."""

    topic: str
    peer: str | None


@dataclass
class _Queue:
    """What waits on one channel."""

    frames: deque[ChannelFrame] = field(default_factory=deque[ChannelFrame])
    length: int = 0


class Outbox:
    """Made for each socket; every outbox of a service shares one `Load`."""

    def __init__(self, settings: PresenceSettings, load: Load) -> None:
        self._settings = settings
        self._load = load
        self._answers: deque[ServerFrame] = deque()
        self._channels: dict[int, _Queue] = {}
        self._waiting: OrderedDict[int, None] = OrderedDict()  # channels with something in their queue
        self._changes: OrderedDict[str, OrderedDict[str | None, None]] = OrderedDict()
        self._length = 0
        self._untold = 0
        self._last: End | Error | None = None

    def take(self) -> ServerFrame | Change | None:
        """What to send next, or None."""
        if self._answers:
            return self._answers.popleft()
        if self._last is not None:
            last, self._last = self._last, None
            return last
        if self._waiting:
            return self._take_from_channel()
        if self._changes:
            return self._take_change()
        return None

    # Answers

    def answer(self, frame: ServerFrame) -> bool:
        """Add an answer to what the client asked; False when it asks and does not read."""
        if len(self._answers) >= self._settings.answers:
            return False
        self._answers.append(frame)
        return True

    def finish(self, last: End | Error) -> None:
        """The socket is over: nothing is left to be said but this."""
        self._last = last
        if isinstance(last, Error) and last.code == "slow":
            self._answers.clear()
        self.clear()

    def clear(self) -> None:
        """Forget channels and topics."""
        for number in list(self._channels):
            self.drop(number)
        self.forget_all()

    # Channels

    def count(self, parity: int) -> int:
        """How many channels with odd (1) or even (0) numbers there are, with those whose end is yet to be told."""
        return sum(number % 2 == parity for number in self._channels)

    def add(self, number: int, *, incoming: bool) -> None:
        """Make room for a channel."""
        self._channels[number] = _Queue()
        if incoming:
            self._put(number, Incoming(number))

    def put(self, number: int, body: str) -> bool:
        """Add a message; False when there is no room for it."""
        queue = self._channels[number]
        if (
            len(queue.frames) >= self._settings.channel_messages
            or self._length + len(body) > self._settings.socket_length
            or self._load.bodies + len(body) > self._settings.waiting_length
        ):
            return False
        self._count(queue, len(body))
        self._put(number, Message(number, body))
        return True

    def close(self, closed: Closed) -> None:
        """The end of a channel, behind what waits on it. One that the client never heard of vanishes."""
        queue = self._channels[closed.channel]
        if queue.frames and isinstance(queue.frames[0], Incoming):
            self.drop(closed.channel)
        else:
            self._put(closed.channel, closed)

    def drop(self, number: int) -> None:
        """Forget a channel, and what waits on it."""
        queue = self._channels.pop(number, None)
        if queue is not None:
            self._waiting.pop(number, None)
            self._count(queue, -queue.length)

    # Topics

    @property
    def untold(self) -> int:
        """How many changes wait here."""
        return self._untold

    def tell(self, topic: str, peer: str | None) -> None:
        """Tell of a change, or of the end of the list."""
        changes = self._changes.setdefault(topic, OrderedDict())
        if peer not in changes:
            changes[peer] = None
            self._count_changes(1)

    def forget(self, topic: str) -> None:
        """Tell nothing more of a topic."""
        self._count_changes(-len(self._changes.pop(topic, ())))

    def forget_all(self) -> None:
        """Tell nothing more of any topic."""
        for topic in list(self._changes):
            self.forget(topic)

    # What they are made of

    def _take_from_channel(self) -> ChannelFrame:
        number, _ = self._waiting.popitem(last=False)
        queue = self._channels[number]
        frame = queue.frames.popleft()
        if isinstance(frame, Message):
            self._count(queue, -len(frame.body))
        if isinstance(frame, Closed):
            self.drop(number)
        elif queue.frames:
            self._waiting[number] = None  # behind the others: each gets its turn
        return frame

    def _take_change(self) -> Change:
        topic, changes = self._changes.popitem(last=False)
        peer, _ = changes.popitem(last=False)
        self._count_changes(-1)
        if changes:
            self._changes[topic] = changes
        return Change(topic, peer)

    def _put(self, number: int, frame: ChannelFrame) -> None:
        self._channels[number].frames.append(frame)
        self._waiting.setdefault(number)

    def _count_changes(self, count: int) -> None:
        self._untold += count
        self._load.changes += count

    def _count(self, queue: _Queue, length: int) -> None:
        queue.length += length
        self._length += length
        self._load.bodies += length
