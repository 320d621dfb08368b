"""Random interleavings of two mailboxes, their parties and a thief, against a simple model of the protocol."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from handclasp.service.frames import (
    PUBLISHER,
    Accepted,
    Claim,
    Close,
    Crowded,
    End,
    Error,
    Message,
    Publish,
    Ready,
    Refused,
    Role,
    Subscribe,
    Topic,
)
from handclasp.service.hub import Hub
from handclasp.service.seats import Delivery
from handclasp.service.settings import Settings

IDS = ("11" * 16, "22" * 16)
GRACE, OPEN, CLAIMED, MESSAGES = 5, 120, 300, 6

ids = st.sampled_from(IDS)
roles = st.sampled_from(list(Role))
topics = st.sampled_from(list(Topic))
steps = st.sampled_from([0.0, 0.5, 2.0, 4.5, 5.0, 30.0, 120.0, 300.0])


@dataclass
class Device:
    """One party as it sees itself."""

    token: str | None = None
    connection: int | None = None
    seen: list[str] = field(default_factory=list)
    gone_at: float | None = None


@dataclass
class Room:
    """A mailbox as the protocol describes it."""

    id: str
    nonce: str
    ends_at: float
    devices: dict[Role, Device] = field(default_factory=lambda: {role: Device() for role in Role})
    published: dict[Role, list[str]] = field(default_factory=lambda: {role: [] for role in Role})
    nonce_used: bool = False
    claimed: bool = False
    over: bool = False


class Interleavings(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.hub = Hub(Settings(messages=MESSAGES))
        self.now = 0.0
        self.rooms: dict[str, Room] = {}
        self.past: list[tuple[str, str]] = []  # tokens and nonces of mailboxes that are over
        self.strangers: list[int] = []  # sockets that were refused and have not hung up yet
        self.counter = 0
        self.finished: list[Room] = []  # over since the last look

    # The model's clock

    def advance(self, seconds: float) -> None:
        """Let time pass; afterwards the model knows which mailboxes are over."""
        self.now += seconds
        for room in list(self.rooms.values()):
            away = [device.gone_at + GRACE for device in room.devices.values() if device.gone_at is not None]
            if min([room.ends_at, *away]) <= self.now:
                self.finish(room)

    def finish(self, room: Room) -> None:
        room.over = True
        del self.rooms[room.id]
        for device in room.devices.values():
            if device.token is not None:
                self.past.append((device.token, room.nonce))

    # What the sockets get

    def deliver(self) -> dict[int, list[object]]:
        """Carry every frame to its device and check that it may have it."""
        frames: dict[int, list[object]] = {}
        for effect in self.hub.drain():
            if isinstance(effect, Delivery):
                frames.setdefault(effect.connection, []).append(effect.frame)
        owners = {
            device.connection: (room, role)
            for room in self.all_rooms
            for role, device in room.devices.items()
            if device.connection is not None
        }
        for connection, got in frames.items():
            for frame in got:
                if isinstance(frame, Message):
                    assert connection in owners, "a message went to a third party"
                    room, role = owners[connection]
                    device = room.devices[role]
                    assert PUBLISHER[frame.topic] is role.other
                    assert frame.n == len(device.seen) + 1, "a message came twice, or one is missing"
                    assert frame.body == room.published[role][frame.n - 1]
                    device.seen.append(frame.body)
                if isinstance(frame, Crowded):
                    assert connection in owners
                if isinstance(frame, End | Error):
                    assert frame is got[-1], "something came after the last word"
        return frames

    @property
    def all_rooms(self) -> list[Room]:
        return [*self.rooms.values(), *self.finished]

    def settle(self) -> dict[int, list[object]]:
        self.finished = []
        before = list(self.rooms.values())
        self.advance(0)
        self.finished = [room for room in before if room.over]
        frames = self.deliver()
        for room in self.finished:
            self.let_go(room, frames)
        return frames

    def let_go(self, room: Room, frames: dict[int, list[object]]) -> None:
        for device in room.devices.values():
            if device.connection is not None:
                assert isinstance(frames[device.connection][-1], End)
                self.hub.disconnect(device.connection, self.now)
                device.connection = None

    def refused_as(self, connection: int, code: str) -> None:
        frames = self.settle()
        (error,) = frames[connection]
        assert isinstance(error, Error)
        assert error.code == code
        self.strangers.append(connection)

    # Rules

    @rule(mailbox=ids)
    def open(self, mailbox: str) -> None:
        if mailbox in self.rooms:
            with pytest.raises(Refused, match="crowded"):
                self.hub.open(mailbox, self.now)
        else:
            challenge = self.hub.open(mailbox, self.now)
            room = Room(mailbox, challenge.nonce, self.now + OPEN)
            room.devices[Role.WEBSITE].token = challenge.token
            self.rooms[mailbox] = room
        self.settle()

    @rule(mailbox=ids)
    def claim(self, mailbox: str) -> None:
        room = self.rooms.get(mailbox)
        connection = self.hub.connect()
        if room is None or room.claimed:
            self.hub.receive(connection, Claim(mailbox), self.now)
            self.refused_as(connection, "unauthorized" if room is None else "crowded")
            return
        wallet = room.devices[Role.WALLET]
        wallet.connection = connection
        room.claimed, room.ends_at = True, self.now + CLAIMED
        self.hub.receive(connection, Claim(mailbox), self.now)
        ready = self.settle()[connection][0]
        assert isinstance(ready, Ready)
        assert ready.nonce == room.nonce
        wallet.token = ready.token

    @rule(mailbox=ids, role=roles)
    def subscribe(self, mailbox: str, role: Role) -> None:
        room = self.rooms.get(mailbox)
        if room is None or room.devices[role].token is None:
            return
        device = room.devices[role]
        older, device.connection, device.gone_at = device.connection, self.hub.connect(), None
        self.hub.receive(device.connection, Subscribe(device.token, len(device.seen)), self.now)
        frames = self.settle()
        assert isinstance(frames[device.connection][0], Ready)
        if older is not None:
            assert isinstance(frames[older][-1], End)
            self.strangers.append(older)

    @rule(mailbox=ids, role=roles, topic=topics, over_http=st.booleans())
    def publish(self, mailbox: str, role: Role, topic: Topic, over_http: bool) -> None:  # noqa: FBT001
        room = self.rooms.get(mailbox)
        if room is None or room.devices[role].token is None:
            return
        device = room.devices[role]
        self.counter += 1
        body = f"{self.counter:04d}"
        inbox = room.published[role.other]
        allowed = "forbidden" if PUBLISHER[topic] is not role else "limit" if len(inbox) >= MESSAGES else None
        if allowed is None:
            inbox.append(body)
        if over_http:
            if allowed is None:
                self.hub.publish(device.token, topic, body, self.now)
            else:
                with pytest.raises(Refused, match=allowed):
                    self.hub.publish(device.token, topic, body, self.now)
            self.settle()
        elif device.connection is not None:
            self.hub.receive(device.connection, Publish(topic, body), self.now)
            if allowed is not None:
                connection, device.connection, device.gone_at = device.connection, None, self.now
                self.refused_as(connection, allowed)
            else:
                assert self.settle()[device.connection] == [Accepted()]
        elif allowed is None:
            inbox.pop()

    @rule(mailbox=ids, other=ids)
    def link(self, mailbox: str, other: str) -> None:
        """Use a nonce, often the own one."""
        room, source = self.rooms.get(mailbox), self.rooms.get(other)
        if room is None or source is None or room.devices[Role.WALLET].token is None:
            return
        inbox = room.published[Role.WEBSITE]
        good = room is source and not room.nonce_used and len(inbox) < MESSAGES
        token = room.devices[Role.WALLET].token
        if good:
            room.nonce_used = True
            self.counter += 1
            inbox.append(f"{self.counter:04d}")
            self.hub.link(token, source.nonce, inbox[-1], self.now)
        elif room is source and not room.nonce_used:
            room.nonce_used = True
            with pytest.raises(Refused, match="limit"):
                self.hub.link(token, source.nonce, "AAAA", self.now)
        else:
            with pytest.raises(Refused, match="nonce"):
                self.hub.link(token, source.nonce, "AAAA", self.now)
        self.settle()

    @rule(mailbox=ids, role=roles)
    def hang_up(self, mailbox: str, role: Role) -> None:
        room = self.rooms.get(mailbox)
        if room is not None and room.devices[role].connection is not None:
            device = room.devices[role]
            self.hub.disconnect(device.connection, self.now)
            device.connection, device.gone_at = None, self.now
        self.settle()

    @rule(mailbox=ids, role=roles)
    def close(self, mailbox: str, role: Role) -> None:
        room = self.rooms.get(mailbox)
        if room is None or room.devices[role].connection is None:
            return
        self.hub.receive(room.devices[role].connection, Close(), self.now)
        self.finish(room)
        self.finished = [room]
        self.let_go(room, self.deliver())

    @rule(seconds=steps)
    def wait(self, seconds: float) -> None:
        self.finished = []
        before = list(self.rooms.values())
        self.advance(seconds)
        self.finished = [room for room in before if room.over]
        self.hub.tick(self.now)
        frames = self.deliver()
        for room in self.finished:
            self.let_go(room, frames)

    @rule()
    def strangers_hang_up(self) -> None:
        while self.strangers:
            self.hub.disconnect(self.strangers.pop(), self.now)
        self.settle()

    @precondition(lambda self: self.past)
    @rule(data=st.data())
    def what_is_over_is_unauthorized(self, data: st.DataObject) -> None:
        token, nonce = data.draw(st.sampled_from(self.past))
        with pytest.raises(Refused, match="unauthorized"):
            self.hub.publish(token, Topic.OFFER, "AA", self.now)
        with pytest.raises(Refused, match="unauthorized"):
            self.hub.link(token, nonce, "AA", self.now)
        connection = self.hub.connect()
        self.hub.receive(connection, Subscribe(token, 0), self.now)
        self.refused_as(connection, "unauthorized")

    # Invariants

    @invariant()
    def a_connected_device_has_every_message_for_it(self) -> None:
        for room in self.rooms.values():
            for role, device in room.devices.items():
                if device.connection is not None:
                    assert device.seen == room.published[role]

    @invariant()
    def the_timer_is_set_for_the_next_end(self) -> None:
        times = [
            time
            for room in self.rooms.values()
            for time in [
                room.ends_at,
                *(device.gone_at + GRACE for device in room.devices.values() if device.gone_at is not None),
            ]
        ]
        assert self.hub.next_deadline() == min(times, default=None)

    @invariant()
    def only_what_lives_is_in_memory(self) -> None:
        connected = sum(
            device.connection is not None for room in self.rooms.values() for device in room.devices.values()
        )
        assert len(self.hub._seats) == connected + len(self.strangers)
        assert set(self.hub._mailboxes) == set(self.rooms)
        tokens = sum(
            device.token is not None for room in self.rooms.values() for device in room.devices.values()
        )
        assert len(self.hub._tokens) == tokens
        kept = sum(
            len(body) for room in self.rooms.values() for inbox in room.published.values() for body in inbox
        )
        assert self.hub._stored == kept

    def teardown(self) -> None:
        self.wait(CLAIMED)
        self.strangers_hang_up()
        assert not self.rooms
        assert not self.hub._seats
        assert not self.hub._tokens
        assert len(self.hub._timetable) == 0
        assert self.hub._stored == 0


Interleavings.TestCase.settings = settings(
    max_examples=150,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestInterleavings = Interleavings.TestCase
