"""Random interleavings of two mailboxes, their parties and a thief, against a simple model of the protocol.

Every rule picks among what can be done at that moment, and the test counts what was reached: a machine whose
rules mostly find nothing to do proves nothing.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

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
from handclasp.service.opening import name_of
from handclasp.service.seats import Delivery
from handclasp.service.settings import Settings

IDS = ("11" * 16, "22" * 16)
GRACE, OPEN, CLAIMED, NONCE, MESSAGES = 5, 120, 300, 300, 4


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
    nonce_ends_at: float
    ends_at: float
    devices: dict[Role, Device] = field(default_factory=lambda: {role: Device() for role in Role})
    published: dict[Role, list[str]] = field(default_factory=lambda: {role: [] for role in Role})
    nonce_used: bool = False
    claimed: bool = False
    over: bool = False


class Interleavings(RuleBasedStateMachine):
    reached: ClassVar[Counter[str]] = Counter()

    def __init__(self) -> None:
        super().__init__()
        self.hub = Hub(Settings(messages=MESSAGES))
        self.now = 0.0
        self.rooms: dict[str, Room] = {}
        self.past: list[tuple[str, str]] = []  # tokens and nonces of mailboxes that are over
        self.strangers: list[int] = []  # sockets that were refused and have not hung up yet
        self.finished: list[Room] = []  # over since the last look
        self.counter = 0

    # What can be done

    def places(self, *, connected: bool | None = None) -> list[tuple[Room, Role]]:
        """Every party that has its token."""
        return [
            (room, role)
            for room in self.rooms.values()
            for role, device in room.devices.items()
            if device.token is not None and connected in {None, device.connection is not None}
        ]

    def unclaimed(self) -> list[Room]:
        return [room for room in self.rooms.values() if not room.claimed]

    def claimed(self) -> list[Room]:
        return [room for room in self.rooms.values() if room.claimed]

    def next_end(self) -> float | None:
        away = [
            device.gone_at + GRACE
            for room in self.rooms.values()
            for device in room.devices.values()
            if device.gone_at is not None
        ]
        return min([*(room.ends_at for room in self.rooms.values()), *away], default=None)

    def new_body(self) -> str:
        self.counter += 1
        return f"{self.counter:04d}"

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

    @initialize(paired=st.sampled_from([True, True, True, False]))
    def begin(self, paired: bool) -> None:  # noqa: FBT001
        """Mostly with a pair that has met, where the protocol has the most to say."""
        if paired:
            self.open()
            (room,) = self.rooms.values()
            self.let_in(room)
            self.sit_down(room, Role.WEBSITE)

    @precondition(lambda self: len(self.rooms) < len(IDS))
    @rule()
    def open(self) -> None:
        mailbox = next(each for each in IDS if each not in self.rooms)
        challenge = self.hub.open(mailbox, self.now)
        room = Room(mailbox, challenge.nonce, self.now + NONCE, self.now + OPEN)
        room.devices[Role.WEBSITE].token = challenge.token
        self.rooms[mailbox] = room
        self.settle()

    @precondition(lambda self: self.unclaimed())
    @rule(data=st.data())
    def claim(self, data: st.DataObject) -> None:
        self.let_in(data.draw(st.sampled_from(self.unclaimed())))

    def let_in(self, room: Room) -> None:
        wallet = room.devices[Role.WALLET]
        wallet.connection = self.hub.connect()
        room.claimed, room.ends_at = True, self.now + CLAIMED
        self.hub.receive(wallet.connection, Claim(room.id), self.now)
        ready = self.settle()[wallet.connection][0]
        assert isinstance(ready, Ready)
        assert ready.nonce == room.nonce
        wallet.token = ready.token
        self.reached["claim"] += 1

    @rule(mailbox=st.sampled_from(IDS))
    def a_thief_comes(self, mailbox: str) -> None:
        """With the id of a mailbox that is open, claimed or over."""
        room = self.rooms.get(mailbox)
        if room is not None:
            with pytest.raises(Refused, match="crowded"):
                self.hub.open(mailbox, self.now)
        if room is None or room.claimed:
            connection = self.hub.connect()
            self.hub.receive(connection, Claim(mailbox), self.now)
            self.refused_as(connection, "unauthorized" if room is None else "crowded")
            self.reached["thief"] += room is not None

    @precondition(lambda self: self.places())
    @rule(data=st.data(), forgets=st.booleans())
    def subscribe(self, data: st.DataObject, forgets: bool) -> None:  # noqa: FBT001
        """Come for the first time, come back, or come a second time; a device may have lost what it saw."""
        room, role = data.draw(st.sampled_from(self.places()))
        device = room.devices[role]
        if forgets:
            del device.seen[len(device.seen) // 2 :]
        self.sit_down(room, role)

    def sit_down(self, room: Room, role: Role) -> None:
        device = room.devices[role]
        assert device.token is not None
        self.reached["replay"] += len(device.seen) < len(room.published[role])
        self.reached["partial replay"] += 0 < len(device.seen) < len(room.published[role])
        self.reached["back in time"] += device.gone_at is not None
        self.reached["replaced"] += device.connection is not None
        older, device.connection, device.gone_at = device.connection, self.hub.connect(), None
        self.hub.receive(device.connection, Subscribe(device.token, len(device.seen)), self.now)
        frames = self.settle()
        assert isinstance(frames[device.connection][0], Ready)
        if older is not None:
            assert isinstance(frames[older][-1], End)
            self.strangers.append(older)

    @precondition(lambda self: self.places())
    @rule(data=st.data(), count=st.integers(1, 3))
    def publish_over_http(self, data: st.DataObject, count: int) -> None:
        """Also for a party that is away."""
        room, role = data.draw(st.sampled_from(self.places()))
        topic = data.draw(st.sampled_from([each for each in Topic if PUBLISHER[each] is role]))
        inbox = room.published[role.other]
        for _ in range(count):
            if len(inbox) < MESSAGES:
                inbox.append(self.new_body())
                self.hub.publish(room.devices[role].token, topic, inbox[-1], self.now)
            else:
                with pytest.raises(Refused, match="limit"):
                    self.hub.publish(room.devices[role].token, topic, self.new_body(), self.now)
        self.settle()

    @precondition(lambda self: self.places(connected=True))
    @rule(data=st.data(), wrong=st.sampled_from([False, False, False, False, False, True]))
    def publish(self, data: st.DataObject, wrong: bool) -> None:  # noqa: FBT001
        room, role = data.draw(st.sampled_from(self.places(connected=True)))
        topic = data.draw(st.sampled_from([each for each in Topic if (PUBLISHER[each] is not role) == wrong]))
        device, inbox = room.devices[role], room.published[role.other]
        connection = device.connection
        assert connection is not None
        for _ in range(data.draw(st.integers(1, 3))):
            body = self.new_body()
            refusal = "forbidden" if wrong else "limit" if len(inbox) >= MESSAGES else None
            if refusal is not None:
                device.connection, device.gone_at = None, self.now
                self.hub.receive(connection, Publish(topic, body), self.now)
                self.refused_as(connection, refusal)
                self.reached[refusal] += 1
                return
            inbox.append(body)
            self.hub.receive(connection, Publish(topic, body), self.now)
            assert self.settle()[connection] == [Accepted()]
            self.reached["message"] += room.devices[role.other].connection is not None

    @precondition(lambda self: self.claimed())
    @rule(data=st.data())
    def link(self, data: st.DataObject) -> None:
        """Use a nonce: the own one, or that of the other mailbox."""
        room = data.draw(st.sampled_from(self.claimed()))
        source = data.draw(st.sampled_from(list(self.rooms.values())))
        inbox, body = room.published[Role.WEBSITE], self.new_body()
        good = room is source and not room.nonce_used and self.now < room.nonce_ends_at
        full = len(inbox) >= MESSAGES
        room.nonce_used |= good
        token = room.devices[Role.WALLET].token
        if good and not full:
            inbox.append(body)
            self.hub.link(token, source.nonce, body, self.now)
            self.reached["link"] += 1
        else:
            with pytest.raises(Refused, match="limit" if good else "nonce"):
                self.hub.link(token, source.nonce, body, self.now)
            self.reached["link refused"] += 1
        self.settle()

    @precondition(lambda self: self.places(connected=True))
    @rule(data=st.data())
    def hang_up(self, data: st.DataObject) -> None:
        room, role = data.draw(st.sampled_from(self.places(connected=True)))
        device = room.devices[role]
        assert device.connection is not None
        self.hub.disconnect(device.connection, self.now)
        device.connection, device.gone_at = None, self.now
        self.settle()

    @precondition(lambda self: self.places(connected=True))
    @rule(data=st.data())
    def close(self, data: st.DataObject) -> None:
        room, role = data.draw(st.sampled_from(self.places(connected=True)))
        if data.draw(st.integers(0, 7)):
            return  # seldom: a mailbox should live to see something
        connection = room.devices[role].connection
        assert connection is not None
        self.hub.receive(connection, Close(), self.now)
        self.finish(room)
        self.finished = [room]
        self.let_go(room, self.deliver())
        self.reached["closed"] += 1

    @rule(seconds=st.sampled_from([0.5, 1.0, 2.0, 2.5]))
    def wait(self, seconds: float) -> None:
        self.pass_time(seconds)

    @precondition(lambda self: self.rooms)
    @rule(missing=st.sampled_from([0.25, 0.25, 0.25, 0.25, 0.25, 0.25, 0.0, -30.0]))
    def wait_for_the_next_end(self, missing: float) -> None:
        """To the moment itself, to just before it, or too late."""
        end = self.next_end()
        assert end is not None
        self.pass_time(max(0.0, end - missing - self.now))

    @precondition(lambda self: len(self.strangers) > 3)
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

    def pass_time(self, seconds: float) -> None:
        before = list(self.rooms.values())
        self.advance(seconds)
        self.finished = [room for room in before if room.over]
        for room in self.finished:
            away = any(device.gone_at is not None for device in room.devices.values())
            self.reached["grace over" if away and room.ends_at > self.now else "expired"] += 1
        self.hub.tick(self.now)
        frames = self.deliver()
        for room in self.finished:
            self.let_go(room, frames)

    # Invariants

    @invariant()
    def a_connected_device_has_every_message_for_it(self) -> None:
        for room in self.rooms.values():
            for role, device in room.devices.items():
                if device.connection is not None:
                    assert device.seen == room.published[role]

    @invariant()
    def the_timer_is_set_for_the_next_end(self) -> None:
        assert self.hub.next_deadline() == self.next_end()

    @invariant()
    def only_what_lives_is_in_memory(self) -> None:
        connected = sum(
            device.connection is not None for room in self.rooms.values() for device in room.devices.values()
        )
        assert len(self.hub._seats) == connected + len(self.strangers)
        assert set(self.hub._names) == set(map(name_of, self.rooms))
        assert len(self.hub._mailboxes) == len(self.rooms)
        assert not self.hub._tickets
        kept = sum(
            len(body) for room in self.rooms.values() for inbox in room.published.values() for body in inbox
        )
        assert self.hub._stored == kept

    def teardown(self) -> None:
        self.pass_time(CLAIMED)
        self.strangers_hang_up()
        assert not self.rooms
        assert not self.hub._seats
        assert not self.hub._mailboxes
        assert len(self.hub._timetable) == 0
        assert self.hub._stored == 0


def test_random_interleavings() -> None:
    Interleavings.reached.clear()
    run_state_machine_as_test(
        Interleavings,
        settings=settings(max_examples=250, stateful_step_count=50, deadline=None),
    )
    expected = [
        "claim",
        "thief",
        "replay",
        "partial replay",
        "back in time",
        "replaced",
        "message",
        "forbidden",
        "limit",
        "link",
        "link refused",
        "closed",
        "grace over",
        "expired",
    ]
    assert {name: Interleavings.reached[name] for name in expected if Interleavings.reached[name] < 5} == {}
