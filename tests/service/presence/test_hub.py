from __future__ import annotations

import gc
import tracemalloc
from dataclasses import dataclass

import pytest

from handclasp.identity import Identity
from handclasp.service.frames import Refused
from handclasp.service.presence.frames import (
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
    Incoming,
    Listed,
    Listen,
    Message,
    Open,
    Opened,
    Prove,
    Ready,
    Refusal,
    RefusalCode,
    SendOn,
    ServerFrame,
    Unfind,
    Unlisten,
    What,
    Withdraw,
)
from handclasp.service.presence.hub import PresenceHub
from handclasp.service.settings import PresenceSettings
from handclasp.service.strict import BODY_LENGTH

HOST = "signal.example"
ALICE, BOB, CAROL = (Identity.from_seed(bytes([n]) * 32) for n in range(3))
TOPIC, OTHER = "aa" * 32, "bb" * 32


def proof(who: Identity, nonce: str, *, host: str = HOST, signed_host: str = "") -> Prove:
    text = f"handclasp/1 peers\n{signed_host or host}\n{nonce}".encode()
    return Prove(str(who.peer_id), host, who.sign(text))


@dataclass
class Client:
    """A peer's socket."""

    hub: PresenceHub
    connection: int
    identity: Identity

    @property
    def name(self) -> str:
        return str(self.identity.peer_id)

    def say(self, *frames: ClientFrame, now: float = 0) -> None:
        for frame in frames:
            self.hub.receive(self.connection, frame, now)

    def heard(self) -> list[ServerFrame]:
        frames: list[ServerFrame] = []
        while (frame := self.hub.take(self.connection)) is not None:
            frames.append(frame)
        return frames


def come(hub: PresenceHub, who: Identity) -> Client:
    connection = hub.connect(HOST, 0)
    challenge = hub.take(connection)
    assert isinstance(challenge, Challenge)
    client = Client(hub, connection, who)
    client.say(proof(who, challenge.nonce))
    assert client.heard() == [Ready()]
    return client


def meet(**limits: float) -> tuple[PresenceHub, Client, Client]:
    """A hub where Alice and Bob are, and Bob listens."""
    hub = PresenceHub(PresenceSettings(**limits))
    alice, bob = come(hub, ALICE), come(hub, BOB)
    bob.say(Listen())
    assert bob.heard() == [Accepted(What.LISTEN)]
    return hub, alice, bob


def connected(**limits: float) -> tuple[PresenceHub, Client, Client]:
    """The same with a channel: number 1 for Alice, 2 for Bob."""
    hub, alice, bob = meet(**limits)
    alice.say(Open(1, bob.name))
    assert alice.heard() == [Opened(1)]
    assert bob.heard() == [Incoming(2)]
    return hub, alice, bob


# --- who it is ---


@pytest.mark.parametrize("what", ["another key", "another nonce", "another host", "signed for another host"])
def test_a_proof_that_is_not_for_this_socket_and_this_service_is_refused(what: str) -> None:
    hub = PresenceHub(PresenceSettings())
    connection = hub.connect(HOST, 0)
    challenge = hub.take(connection)
    assert isinstance(challenge, Challenge)
    good = proof(ALICE, challenge.nonce)
    bad = {
        "another key": Prove(good.peer, HOST, proof(BOB, challenge.nonce).signature),
        "another nonce": proof(ALICE, "00" * 32),
        "another host": proof(ALICE, challenge.nonce, host="evil.example"),
        "signed for another host": proof(ALICE, challenge.nonce, signed_host="evil.example"),
    }[what]
    hub.receive(connection, bad, 0)
    last = hub.take(connection)
    assert isinstance(last, Error)
    assert last.code == "unauthorized"
    assert last.close_status == 1008
    hub.receive(connection, good, 0)  # too late
    assert hub.take(connection) is None


def test_the_hosts_of_the_settings_count_and_not_what_the_client_asked_for() -> None:
    hub = PresenceHub(PresenceSettings(hosts=("one.example", "two.example:8443")))
    for host, is_good in (("one.example", True), ("two.example:8443", True), ("three.example", False)):
        connection = hub.connect("three.example", 0)
        challenge = hub.take(connection)
        assert isinstance(challenge, Challenge)
        hub.receive(connection, proof(ALICE, challenge.nonce, host=host), 0)
        assert (hub.take(connection) == Ready()) is is_good


def test_a_request_without_one_host_header_proves_nothing() -> None:
    hub = PresenceHub(PresenceSettings())
    connection = hub.connect(None, 0)
    challenge = hub.take(connection)
    assert isinstance(challenge, Challenge)
    hub.receive(connection, proof(ALICE, challenge.nonce, host="None"), 0)
    assert isinstance(hub.take(connection), Error)


def test_no_two_challenges_are_alike() -> None:
    hub = PresenceHub(PresenceSettings())
    assert len({hub.take(hub.connect(HOST, 0)) for _ in range(50)}) == 50


def test_nothing_counts_before_the_proof_and_there_is_only_one() -> None:
    for frame in (Find(TOPIC), Listen(), Open(1, str(BOB.peer_id)), Advertise(TOPIC, "AA")):
        hub = PresenceHub(PresenceSettings())
        connection = hub.connect(HOST, 0)
        hub.take(connection)
        hub.receive(connection, frame, 0)
        last = hub.take(connection)
        assert isinstance(last, Error)
        assert (last.code, last.detail) == ("malformed", "type: prove first")
    alice = come(PresenceHub(PresenceSettings()), ALICE)
    alice.say(proof(ALICE, "00" * 32))
    assert [type(frame) for frame in alice.heard()] == [Error]


def test_a_newer_socket_of_the_same_peer_replaces_the_older_and_takes_nothing_over() -> None:
    hub, alice, bob = connected()
    bob.say(Advertise(TOPIC, "AA"))
    alice.say(Find(TOPIC))
    alice.heard()
    again = come(hub, BOB)
    assert bob.heard()[-1] == End(EndCode.REPLACED)
    assert sorted(map(repr, alice.heard())) == sorted(
        map(repr, [Closed(1, CloseCode.LEFT), Gone(TOPIC, bob.name)])
    )
    alice.say(Open(3, bob.name))
    assert alice.heard() == [Closed(3, CloseCode.UNREACHABLE)]
    bob.say(Advertise(TOPIC, "AA"), Listen())  # it is over
    assert bob.heard() == []
    hub.disconnect(bob.connection)
    again.say(Listen())
    alice.say(Open(5, bob.name))
    assert alice.heard() == [Opened(5)]


# --- topics ---


def test_who_is_there_is_told_then_the_end_of_the_list_then_each_change() -> None:
    hub, alice, bob = meet()
    carol = come(hub, CAROL)
    alice.say(Advertise(TOPIC, "AA"))
    carol.say(Advertise(OTHER, "BB"))
    bob.say(Find(TOPIC))
    assert bob.heard() == [Found(TOPIC, alice.name, "AA"), Listed(TOPIC)]
    carol.say(Advertise(TOPIC, "CC"))
    alice.say(Advertise(TOPIC, "DD"))
    assert bob.heard() == [Found(TOPIC, carol.name, "CC"), Found(TOPIC, alice.name, "DD")]
    carol.say(Withdraw(TOPIC))
    hub.disconnect(alice.connection)
    assert bob.heard() == [Gone(TOPIC, carol.name), Gone(TOPIC, alice.name)]
    bob.say(Unfind(TOPIC))
    carol.say(Advertise(TOPIC, "EE"))
    assert bob.heard() == []


def test_of_many_changes_the_last_is_told_once() -> None:
    _, alice, bob = meet()
    bob.say(Find(TOPIC))
    bob.heard()
    for n in range(50):
        alice.say(Advertise(TOPIC, f"A{n}"))
    assert bob.heard() == [Found(TOPIC, alice.name, "A49")]
    alice.say(Withdraw(TOPIC), Advertise(TOPIC, "AA"), Withdraw(TOPIC))
    assert bob.heard() == [Gone(TOPIC, alice.name)]


def test_finding_again_lists_again() -> None:
    _, alice, bob = meet()
    alice.say(Advertise(TOPIC, "AA"))
    for _ in range(2):
        bob.say(Find(TOPIC))
        assert bob.heard() == [Found(TOPIC, alice.name, "AA"), Listed(TOPIC)]


def test_a_topic_or_a_withdrawal_of_nothing_is_nothing() -> None:
    _, alice, bob = meet()
    bob.say(Find(TOPIC))
    assert bob.heard() == [Listed(TOPIC)]
    alice.say(Withdraw(TOPIC), Unfind(TOPIC))
    assert alice.heard() == [Accepted(What.WITHDRAW, TOPIC)]
    assert bob.heard() == []


def test_topics_records_and_findings_are_limited_and_the_socket_goes_on() -> None:
    hub, alice, bob = meet(advertised=1, sought=1, records=1, records_length=10)
    alice.say(Advertise(TOPIC, "AA"), Advertise(OTHER, "AA"), Advertise(TOPIC, "BB"))
    assert alice.heard() == [
        Accepted(What.ADVERTISE, TOPIC),
        Refusal(What.ADVERTISE, OTHER, RefusalCode.LIMIT),
        Accepted(What.ADVERTISE, TOPIC),
    ]
    bob.say(Advertise(TOPIC, "CC"), Advertise(OTHER, "C" * 9))
    assert bob.heard() == [
        Refusal(What.ADVERTISE, TOPIC, RefusalCode.FULL),
        Refusal(What.ADVERTISE, OTHER, RefusalCode.FULL),
    ]
    bob.say(Find(TOPIC), Find(OTHER))
    assert set(bob.heard()) == {
        Refusal(What.FIND, OTHER, RefusalCode.LIMIT),
        Found(TOPIC, alice.name, "BB"),
        Listed(TOPIC),
    }
    hub.disconnect(alice.connection)
    bob.heard()
    bob.say(Advertise(TOPIC, "C" * 10))  # the room is free again
    assert Accepted(What.ADVERTISE, TOPIC) in bob.heard()


def test_whoever_has_most_untold_makes_room_for_the_others() -> None:
    hub, alice, bob = meet(changes=5)
    carol = come(hub, CAROL)
    for n, client in enumerate((alice, bob)):
        client.say(Advertise(TOPIC, f"A{n}"))
    carol.say(Find(TOPIC))  # two records and the end of the list
    bob.say(Find(OTHER), Advertise(OTHER, "BB"))
    assert not hub.is_over(carol.connection)
    alice.say(Advertise(OTHER, "AA"))
    (last,) = carol.heard()
    assert isinstance(last, Error)
    assert (last.code, last.close_status) == ("slow", 1013)
    assert bob.heard()[-3:] == [Listed(OTHER), Found(OTHER, bob.name, "BB"), Found(OTHER, alice.name, "AA")]


def test_any_number_of_slow_finders_may_leave_at_once() -> None:
    # Each advertises, too: its leaving is news for the others, and the last straw for the next one.
    count = 600
    hub = PresenceHub(PresenceSettings(changes=count, records=count))
    clients = [come(hub, Identity.generate()) for _ in range(count)]
    for client in clients:
        client.say(Find(TOPIC))
        client.heard()
    for client in clients:
        client.say(Advertise(TOPIC, "AA"))
        if client is not clients[-1]:
            for other in clients:
                other.heard()
    assert not any(hub.is_over(client.connection) for client in clients)
    clients[0].say(Advertise(TOPIC, "BB"))
    clients[1].say(Advertise(TOPIC, "BB"))
    left = [client for client in clients if not hub.is_over(client.connection)]
    assert hub._load.changes <= count
    assert len(left) < count // 2
    assert set(hub._topics.records(TOPIC)) == {client.name for client in left}


# --- channels ---


def test_messages_go_to_the_other_end_and_nobody_else() -> None:
    hub, alice, bob = connected()
    carol = come(hub, CAROL)
    alice.say(SendOn(1, "AA"), SendOn(1, "BB"))
    bob.say(SendOn(2, "CC"))
    assert bob.heard() == [Message(2, "AA"), Message(2, "BB")]
    assert alice.heard() == [Message(1, "CC")]
    assert carol.heard() == []


def test_what_follows_an_open_at_once_arrives() -> None:
    _, alice, bob = meet()
    alice.say(Open(1, bob.name), SendOn(1, "AA"), Close(1))
    assert alice.heard() == [Opened(1)]
    assert bob.heard() == []  # it was over before it was told
    alice.say(Open(3, bob.name), SendOn(3, "AA"))
    assert bob.heard() == [Incoming(4), Message(4, "AA")]


def test_what_was_sent_before_a_close_arrives_before_it() -> None:
    _, alice, bob = connected()
    alice.say(SendOn(1, "AA"), Close(1))
    assert bob.heard() == [Message(2, "AA"), Closed(2, CloseCode.CLOSED)]
    bob.say(SendOn(2, "BB"), Close(2))  # crossed it
    assert (alice.heard(), bob.heard()) == ([], [])


def test_whoever_is_not_there_or_does_not_listen_is_unreachable() -> None:
    hub, alice, bob = meet()
    carol = come(hub, CAROL)
    alice.say(Open(1, carol.name))
    carol.say(Listen(), Unlisten())
    alice.say(Open(3, carol.name))
    alice.say(Open(5, str(Identity.generate().peer_id)))
    hub.disconnect(bob.connection)
    alice.say(Open(7, bob.name))
    assert alice.heard() == [Closed(number, CloseCode.UNREACHABLE) for number in (1, 3, 5, 7)]


def test_a_peer_can_open_a_channel_to_itself() -> None:
    hub, _, bob = meet()
    bob.say(Open(1, bob.name), SendOn(1, "AA"), SendOn(2, "BB"))
    assert sorted(map(repr, bob.heard())) == sorted(
        map(repr, [Opened(1), Incoming(2), Message(2, "AA"), Message(1, "BB")])
    )
    hub.disconnect(bob.connection)


@pytest.mark.parametrize("number", [0, 2, 1])
def test_a_number_of_a_channel_is_odd_and_never_comes_again(number: int) -> None:
    _, alice, bob = connected()
    alice.say(Open(number, bob.name))
    (last,) = alice.heard()
    assert isinstance(last, Error)
    assert last.code == "malformed"
    assert bob.heard() == [Closed(2, CloseCode.LEFT)]


@pytest.mark.parametrize("frame", [SendOn(3, "AA"), SendOn(2, "AA"), SendOn(0, "AA"), Close(5), Close(4)])
def test_a_channel_that_never_was_cannot_be_used(frame: ClientFrame) -> None:
    _, alice, bob = connected()
    alice.say(frame)
    if frame == SendOn(0, "AA"):  # the number before the first
        assert alice.heard() == []
    else:
        assert [type(each) for each in alice.heard()] == [Error]
    assert Message(2, "AA") not in bob.heard()


def test_a_channel_lives_for_a_minute() -> None:
    hub, alice, bob = connected()
    assert hub.next_deadline() == 60
    hub.tick(59.9)
    assert (alice.heard(), bob.heard()) == ([], [])
    hub.tick(60)
    assert alice.heard() == [Closed(1, CloseCode.EXPIRED)]
    assert bob.heard() == [Closed(2, CloseCode.EXPIRED)]
    assert hub.next_deadline() is None


def test_a_frame_that_comes_before_the_timer_finds_its_channel_expired() -> None:
    _, alice, bob = connected()
    alice.say(SendOn(1, "AA"), now=60)
    assert bob.heard() == [Closed(2, CloseCode.EXPIRED)]


def test_channels_are_limited_on_both_sides_until_their_end_was_told() -> None:
    hub, alice, bob = meet(channels=2, incoming=3)
    carol = come(hub, CAROL)
    alice.say(Open(1, bob.name), Open(3, bob.name), Open(5, bob.name))
    assert alice.heard()[-1] == Closed(5, CloseCode.LIMIT)
    carol.say(Open(1, bob.name), Open(3, bob.name))
    assert carol.heard() == [Opened(1), Closed(3, CloseCode.LIMIT)]
    assert len(bob.heard()) == 3
    alice.say(Close(1))  # Bob does not read: his end still counts
    carol.say(Open(5, bob.name))
    assert carol.heard() == [Closed(5, CloseCode.LIMIT)]
    assert bob.heard() == [Closed(2, CloseCode.CLOSED)]
    carol.say(Open(7, bob.name))
    assert carol.heard() == [Opened(7)]


def test_a_flood_ends_its_channel_and_leaves_the_receiver_its_others() -> None:
    hub, alice, bob = connected(channel_messages=4)
    carol = come(hub, CAROL)
    carol.say(Open(1, bob.name))
    for _ in range(5):
        alice.say(SendOn(1, "AA"))
    carol.say(SendOn(1, "CC"))
    assert alice.heard() == [Closed(1, CloseCode.LIMIT)]
    heard = bob.heard()
    assert heard.count(Message(2, "AA")) == 4
    assert heard[-1] == Closed(2, CloseCode.LIMIT)
    assert Message(4, "CC") in heard
    assert heard.index(Message(4, "CC")) < 4  # each channel in its turn


def test_bodies_are_limited_by_channel_by_socket_and_in_all() -> None:
    long = "A" * BODY_LENGTH
    hub, alice, bob = connected(channel_length=2 * BODY_LENGTH)
    for _ in range(3):
        alice.say(SendOn(1, long))
        bob.heard()
    assert alice.heard() == [Closed(1, CloseCode.LIMIT)]
    for limit in ("socket_length", "waiting_length"):
        lengths = {
            "socket_length": 2 * BODY_LENGTH,
            "waiting_length": 2 * BODY_LENGTH,
            limit: 2 * BODY_LENGTH,
        }
        hub, alice, bob = connected(**lengths)
        alice.say(Open(3, bob.name), SendOn(1, long), SendOn(3, long), SendOn(3, "AA"))
        assert Closed(3, CloseCode.LIMIT) in alice.heard()
        bob.heard()
        alice.say(SendOn(1, long), SendOn(1, long))
        assert alice.heard() == []
        assert hub._load.bodies == 2 * BODY_LENGTH


# --- those who ask too much ---


def test_whoever_asks_and_does_not_read_is_slow() -> None:
    _, alice, bob = meet(answers=4)
    for number in range(1, 11, 2):
        alice.say(Open(number, str(CAROL.peer_id)))
    (last,) = alice.heard()
    assert isinstance(last, Error)
    assert (last.code, last.close_status) == ("slow", 1013)
    assert bob.heard() == []


def test_nothing_that_others_do_makes_a_peer_look_slow() -> None:
    hub, alice, bob = connected(answers=4)
    bob.say(Find(TOPIC))
    for n in range(100):
        alice.say(Advertise(TOPIC, f"A{n}"), SendOn(1, "AA"), now=n)
        alice.say(Open(2 * n + 3, bob.name), Close(2 * n + 3), now=n)
        alice.heard()
    assert not hub.is_over(bob.connection)


def test_what_makes_work_for_others_is_limited_in_its_rate() -> None:
    _, alice, bob = meet(burst=10, rate=2)
    for n in range(10):
        alice.say(Advertise(TOPIC, f"A{n}"), now=100)
    alice.say(Find(TOPIC), Withdraw(TOPIC), now=101)  # two more a second
    assert not any(isinstance(frame, Error) for frame in alice.heard())
    alice.say(Open(1, bob.name), now=101)
    (last,) = alice.heard()
    assert isinstance(last, Error)
    assert (last.code, last.close_status) == ("limit", 1008)


def test_a_full_service_says_so_and_takes_the_next_when_one_has_left() -> None:
    hub, alice, _ = meet(sockets=2)
    refused = hub.connect(HOST, 0)
    last = hub.take(refused)
    assert isinstance(last, Error)
    assert (last.code, last.close_status) == ("full", 1013)
    assert hub.is_over(refused)
    hub.disconnect(refused)
    hub.disconnect(alice.connection)
    come(hub, CAROL)


def test_a_shutdown_reaches_everybody_and_whoever_comes_after() -> None:
    hub, alice, bob = connected()
    hub.shutdown()
    for client in (alice, bob):
        assert client.heard()[-1] == End(EndCode.SHUTDOWN)
    assert End(EndCode.SHUTDOWN).close_status == 1001
    assert hub.take(hub.connect(HOST, 0)) == End(EndCode.SHUTDOWN)
    alice.say(Advertise(TOPIC, "AA"))
    assert alice.heard() == []


def test_a_refusal_from_outside_ends_the_socket_once() -> None:
    hub, alice, bob = connected()
    for _ in range(2):
        hub.refuse(alice.connection, Refused("malformed", "frame: is not JSON", 400))
    assert alice.heard() == [Error("malformed", "frame: is not JSON")]
    assert bob.heard() == [Closed(2, CloseCode.LEFT)]


def test_the_log_names_nobody() -> None:
    hub, alice, _ = meet()
    alice.say(Advertise(TOPIC, "AA"))
    hub.disconnect(alice.connection)
    _, notes = hub.drain()
    text = repr(notes)
    assert "a peer came, 2 now" in text
    assert "a peer left, 1 now" in text
    assert "12D3" not in text
    assert TOPIC not in text


# --- memory ---


def test_what_waits_to_be_told_takes_about_a_hundred_bytes_each_and_nothing_stays_behind() -> None:
    count = 300
    identities = [Identity.generate() for _ in range(count)]

    def crowd(hub: PresenceHub) -> None:
        clients = [come(hub, who) for who in identities]
        for client in clients:
            client.say(Advertise(TOPIC, f"A{client.connection}"), Find(TOPIC), Listen())
        changes = hub._load.changes
        assert changes >= count * count // 2
        held.append((tracemalloc.get_traced_memory()[0] - before) / changes)
        for number, client in enumerate(clients):
            client.say(Open(1, clients[number - 1].name), SendOn(1, "A" * 1_000))
        for client in clients:
            hub.disconnect(client.connection)

    held: list[float] = []
    hub = PresenceHub(PresenceSettings())
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        after: list[int] = []
        for _ in range(8):
            crowd(hub)
            hub.drain()
            gc.collect()
            after.append(tracemalloc.get_traced_memory()[0] - before)
    finally:
        tracemalloc.stop()
    assert max(held) < 150, held
    assert after[-1] < 300_000, after  # 8 times 300 sockets: 125 bytes of each would be more
