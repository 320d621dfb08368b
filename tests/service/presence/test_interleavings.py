"""Random interleavings of peers, against a simple model of who is there and which channel leads where.

Every rule picks among what can be done at that moment, and the test counts what was reached: a machine whose
rules mostly find nothing to do proves nothing.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import ClassVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from handclasp.identity import Identity
from handclasp.service.presence.frames import (
    Accepted,
    Advertise,
    Challenge,
    Close,
    CloseCode,
    Closed,
    End,
    EndCode,
    Error,
    Find,
    Found,
    Gone,
    Incoming,
    Listed,
    Listen,
    Message,
    Open,
    Opened,
    Prove,
    Ready,
    Refusal,
    SendOn,
    ServerFrame,
    Unfind,
    Unlisten,
    What,
    Withdraw,
)
from handclasp.service.presence.hub import PresenceHub
from handclasp.service.settings import PresenceSettings

HOST = "signal.example"
IDENTITIES = [Identity.from_seed(bytes([n]) * 32) for n in range(3)]
TOPICS = ("aa" * 32, "bb" * 32)
LIMITS = PresenceSettings(
    advertised=1,
    records=2,
    changes=6,
    channels=2,
    incoming=3,
    channel_messages=3,
    channel_length=90_000,
    answers=3,
    burst=1_000_000,
)
BODY = "A" * 4_000


@dataclass
class Pipe:
    """One direction of a channel as the model sees it."""

    waiting: deque[str] = field(default_factory=deque[str])
    over: set[CloseCode] = field(default_factory=set[CloseCode])


@dataclass(eq=False)
class Peer:
    """A socket as it sees itself."""

    identity: Identity
    connection: int
    listens: bool = False
    over: bool = False
    advertised: dict[str, str] = field(default_factory=dict[str, str])
    sought: dict[str, dict[str, str]] = field(default_factory=dict[str, dict[str, str]])
    """What it was told, by topic."""
    mine: dict[int, Pipe] = field(default_factory=dict[int, Pipe])
    """What it is to receive, by the number of the channel."""
    coming: deque[tuple[Pipe, Peer, int]] = field(default_factory=deque)
    """Channels that it has not been told of yet, and who opened them, with which number."""
    far: dict[int, tuple[Peer, int]] = field(default_factory=dict)
    highest: int = -1

    @property
    def name(self) -> str:
        return str(self.identity.peer_id)


class Meetings(RuleBasedStateMachine):
    reached: ClassVar[Counter[str]] = Counter()

    def __init__(self) -> None:
        super().__init__()
        self.hub = PresenceHub(LIMITS)
        self.now = 0.0
        self.peers: list[Peer] = []
        self.records = self.bodies = 0

    # Coming and going

    @precondition(lambda self: len(self.present) < len(IDENTITIES))
    @rule(data=st.data())
    def come(self, data: st.DataObject) -> None:
        here = {peer.identity.peer_id for peer in self.present}
        self.connect(data.draw(st.sampled_from([each for each in IDENTITIES if each.peer_id not in here])))

    @precondition(lambda self: self.present)
    @rule(data=st.data(), really=st.sampled_from([True, False, False, False]))
    def come_again(self, data: st.DataObject, *, really: bool) -> None:
        if really:
            self.connect(self.some(data).identity)

    def connect(self, who: Identity) -> None:
        connection = self.hub.connect(HOST, self.now)
        challenge = self.hub.take(connection)
        assert isinstance(challenge, Challenge)
        signature = who.sign(f"handclasp/1 peers\n{HOST}\n{challenge.nonce}".encode())
        self.hub.receive(connection, Prove(str(who.peer_id), HOST, signature), self.now)
        assert self.hub.take(connection) == Ready()
        for peer in self.peers:
            if peer.identity is who and not peer.over:
                self.reached["replaced"] += 1
                self.read_all(peer)
                assert peer.over
        peer = Peer(who, connection, listens=True)
        self.say(peer, Listen())
        assert self.hub.take(connection) == Accepted(What.LISTEN)
        self.peers.append(peer)

    @precondition(lambda self: self.peers)
    @rule(data=st.data(), really=st.sampled_from([True, False, False, False]))
    def leave(self, data: st.DataObject, *, really: bool) -> None:
        if not really:
            return
        peer = data.draw(st.sampled_from(self.peers))
        self.peers.remove(peer)
        self.hub.disconnect(peer.connection)
        peer.over = True
        self.reached["left"] += 1

    @rule(seconds=st.sampled_from([1.0, 20.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.hub.tick(self.now)
        deadline = self.hub.next_deadline()
        assert deadline is None or deadline > self.now

    # Topics

    @property
    def present(self) -> list[Peer]:
        return [peer for peer in self.peers if not peer.over]

    def some(self, data: st.DataObject) -> Peer:
        return data.draw(st.sampled_from(self.present))

    def say(self, peer: Peer, frame: object) -> None:
        self.hub.receive(peer.connection, frame, self.now)

    @precondition(lambda self: self.present)
    @rule(data=st.data(), topic=st.sampled_from(TOPICS))
    def advertise(self, data: st.DataObject, topic: str) -> None:
        peer = self.some(data)
        self.records += 1
        record = f"record{self.records}"
        has_room = topic in peer.advertised or (
            not peer.advertised and sum(topic in other.advertised for other in self.present) < LIMITS.records
        )
        self.say(peer, Advertise(topic, record))
        if self.hub.is_over(peer.connection):  # it never reads its answers
            self.reached["slow"] += 1
        elif has_room:
            peer.advertised[topic] = record
            self.reached["advertised"] += 1
        else:
            self.reached["refused"] += 1
        self.notice_the_slow()

    @precondition(lambda self: any(peer.advertised for peer in self.present))
    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        peer = data.draw(st.sampled_from([peer for peer in self.present if peer.advertised]))
        (topic,) = peer.advertised
        del peer.advertised[topic]
        self.say(peer, Withdraw(topic))
        self.notice_the_slow()
        self.reached["withdrawn"] += 1

    @precondition(lambda self: self.present)
    @rule(data=st.data(), topic=st.sampled_from(TOPICS))
    def find(self, data: st.DataObject, topic: str) -> None:
        peer = self.some(data)
        peer.sought.setdefault(topic, {})
        self.say(peer, Find(topic))
        self.notice_the_slow()

    @precondition(lambda self: any(peer.sought for peer in self.present))
    @rule(data=st.data())
    def unfind(self, data: st.DataObject) -> None:
        peer = data.draw(st.sampled_from([peer for peer in self.present if peer.sought]))
        topic = data.draw(st.sampled_from(sorted(peer.sought)))
        self.read_answers(peer)
        peer.sought.pop(topic, None)
        self.say(peer, Unfind(topic))

    # Channels

    @precondition(lambda self: self.present)
    @rule(data=st.data(), listens=st.sampled_from([True, True, False]))
    def listen(self, data: st.DataObject, *, listens: bool) -> None:
        peer = self.some(data)
        self.read_all(peer)
        if not peer.over:
            peer.listens = listens
            self.say(peer, Listen() if listens else Unlisten())
            assert self.hub.take(peer.connection) == Accepted(What.LISTEN if listens else What.UNLISTEN)

    @precondition(lambda self: self.present)
    @rule(data=st.data(), anybody=st.sampled_from([*IDENTITIES, None, None, None, None]))
    def open(self, data: st.DataObject, anybody: Identity | None) -> None:
        peer = self.some(data)
        to = anybody or self.some(data).identity
        self.read_answers(peer)
        peer.highest += 2
        number = peer.highest
        self.say(peer, Open(number, str(to.peer_id)))
        answer = self.hub.take(peer.connection)
        targets = [each for each in self.present if each.identity is to and each.listens]
        if isinstance(answer, Opened):
            (target,) = targets
            here, there = Pipe(), Pipe()
            peer.mine[number] = here
            target.coming.append((there, peer, number))
            self.reached["opened"] += 1
        else:
            assert isinstance(answer, Closed)
            assert answer.channel == number
            is_full = sum(each % 2 for each in peer.mine) == LIMITS.channels
            assert answer.code is (CloseCode.LIMIT if targets or is_full else CloseCode.UNREACHABLE)
            self.reached[f"open: {answer.code}"] += 1

    @precondition(lambda self: any(peer.far for peer in self.present))
    @rule(data=st.data(), long=st.booleans())
    def send(self, data: st.DataObject, *, long: bool) -> None:
        peer = data.draw(st.sampled_from([peer for peer in self.present if peer.far]))
        number = data.draw(st.sampled_from(sorted(peer.far)))
        other, far_number = peer.far[number]
        self.bodies += 1
        body = f"{self.bodies:04}" + (BODY * 10 if long else "")
        self.say(peer, SendOn(number, body))
        if far_number in other.mine:
            other.mine[far_number].waiting.append(body)

    @precondition(lambda self: any(peer.mine for peer in self.present))
    @rule(data=st.data())
    def close(self, data: st.DataObject) -> None:
        peer = data.draw(st.sampled_from([peer for peer in self.present if peer.mine]))
        number = data.draw(st.sampled_from(sorted(peer.mine)))
        self.say(peer, Close(number))
        self.forget_channel(peer, number)
        self.reached["closed"] += 1

    def forget_channel(self, peer: Peer, number: int) -> None:
        peer.mine.pop(number, None)
        peer.far.pop(number, None)

    # Reading

    @precondition(lambda self: self.present)
    @rule(data=st.data())
    def read_one(self, data: st.DataObject) -> None:
        peer = self.some(data)
        frame = self.hub.take(peer.connection)
        if frame is not None:
            self.check(peer, frame)

    @precondition(lambda self: self.present)
    @rule(data=st.data())
    def read_everything(self, data: st.DataObject) -> None:
        peer = data.draw(st.sampled_from([each for each in self.present if each.coming] or self.present))
        self.read_all(peer)
        if not peer.over:
            for topic, told in peer.sought.items():
                truth = {
                    each.name: each.advertised[topic] for each in self.present if topic in each.advertised
                }
                assert told == truth
                self.reached["views compared"] += 1

    def read_all(self, peer: Peer) -> None:
        while (frame := self.hub.take(peer.connection)) is not None:
            self.check(peer, frame)

    def read_answers(self, peer: Peer) -> None:
        self.read_all(peer)

    def notice_the_slow(self) -> None:
        for peer in self.present:
            if self.hub.is_over(peer.connection):
                peer.over = True
                self.reached["slow"] += 1

    def check(self, peer: Peer, frame: ServerFrame) -> None:
        """Everything that a peer is told is true, and meant for it."""
        kind = type(frame).__name__
        self.reached[kind] += 1
        match frame:
            case Found(topic, name, record):
                (author,) = [each for each in self.present if each.name == name]
                assert author.advertised[topic] == record
                peer.sought[topic][name] = record
            case Gone(topic, name):
                assert not any(topic in each.advertised for each in self.present if each.name == name)
                peer.sought[topic].pop(name, None)
            case Incoming(number):
                pipe, opener, far_number = peer.coming.popleft()
                while far_number not in opener.mine or opener.over:  # closed before it was told
                    pipe, opener, far_number = peer.coming.popleft()
                peer.mine[number] = pipe
                peer.far[number] = (opener, far_number)
                opener.far[far_number] = (peer, number)
            case Message(number, body):
                assert peer.mine[number].waiting.popleft() == body
            case Closed(number):
                self.forget_channel(peer, number)
            case Refusal(What.FIND, topic):
                peer.sought.pop(topic)
            case End(code):
                assert code is EndCode.REPLACED
                peer.over = True
            case Error(code):
                assert code == "slow"
                peer.over = True
            case _:
                assert isinstance(frame, Accepted | Listed | Refusal)

    # What always holds

    @invariant()
    def bounds_hold(self) -> None:
        hub = self.hub
        assert hub._load.changes <= LIMITS.changes
        assert hub._load.bodies == sum(socket.outbox._length for socket in hub._sockets.values())
        for socket in hub._sockets.values():
            outbox = socket.outbox
            assert len(outbox._answers) <= LIMITS.answers
            assert outbox.count(1) <= LIMITS.channels
            assert outbox.count(0) <= LIMITS.incoming
            assert len(socket.advertised) <= LIMITS.advertised
            assert outbox._length == sum(queue.length for queue in outbox._channels.values())
            assert all(
                len(queue.frames) <= LIMITS.channel_messages + 2 for queue in outbox._channels.values()
            )
        for topic in TOPICS:
            assert len(hub._topics.records(topic)) <= LIMITS.records

    @invariant()
    def what_is_over_holds_nothing(self) -> None:
        present = {peer.connection for peer in self.present}
        assert set(self.hub._peers.values()) <= present
        for topic in TOPICS:
            assert set(self.hub._topics.finders(topic)) <= present

    def teardown(self) -> None:
        for peer in self.peers:
            self.hub.disconnect(peer.connection)
        hub = self.hub
        assert (len(hub._sockets), len(hub._peers), len(hub._topics), len(hub._expiring)) == (0, 0, 0, 0)
        assert (hub._load.bodies, hub._load.changes, hub._topics._length) == (0, 0, 0)


def test_nobody_is_told_what_is_not_for_them_and_what_leaves_is_gone() -> None:
    Meetings.reached.clear()
    run_state_machine_as_test(
        Meetings, settings=settings(max_examples=200, stateful_step_count=80, deadline=None)
    )
    wanted = {
        "Found",
        "Gone",
        "Incoming",
        "Listed",
        "Message",
        "Closed",
        "advertised",
        "closed",
        "left",
        "open: limit",
        "open: unreachable",
        "opened",
        "refused",
        "replaced",
        "slow",
        "views compared",
        "withdrawn",
    }
    rare = {what for what in wanted if Meetings.reached[what] < 10}
    assert not rare, f"hardly reached: {rare}"
