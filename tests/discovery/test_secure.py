from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest
import trio
import trio.testing

from handclasp.discovery.sealed import Conversation, Kind, Message
from handclasp.discovery.secure import HANDSHAKE_TIMEOUT, Pipe, SecureChannel
from handclasp.errors import HandshakeFailed, MisuseError, PeerFault, PeerLeft, ServiceUnavailable, WrongPeer
from handclasp.identity import Identity, PeerId

ALICE = Identity.from_seed(b"a" * 32)
BOB = Identity.from_seed(b"b" * 32)
STRANGER = Identity.from_seed(b"x" * 32)
PROLOGUE = b"handclasp/1 test"


@dataclass
class QueuePipe(Pipe):
    """One end of `pipes`; counts what it carried, and may let somebody change it."""

    out: trio.MemorySendChannel[bytes]
    into: trio.MemoryReceiveChannel[bytes]
    tamper: Callable[[bytes], list[bytes]] = lambda message: [message]
    sent: list[bytes] = field(default_factory=list)

    async def send(self, message: bytes) -> None:
        self.sent.append(message)
        for delivered in self.tamper(message):
            try:
                await self.out.send(delivered)
            except trio.BrokenResourceError:
                return

    async def receive(self) -> bytes:
        return await self.into.receive()

    async def aclose(self) -> None:
        self.out.close()
        self.into.close()
        await trio.lowlevel.checkpoint()


def pipes() -> tuple[QueuePipe, QueuePipe]:
    there, back = trio.open_memory_channel[bytes](16), trio.open_memory_channel[bytes](16)
    return QueuePipe(there[0], back[1]), QueuePipe(back[0], there[1])


def channels(
    *, answerer: Identity = BOB, dialed: PeerId = BOB.peer_id, prologue: bytes = PROLOGUE
) -> tuple[SecureChannel, SecureChannel, QueuePipe, QueuePipe]:
    """The dialer's end, the answerer's, and the pipes below them."""
    near, far = pipes()
    dialer = SecureChannel(near, ALICE, dialed=dialed, prologue=PROLOGUE)
    return dialer, SecureChannel(far, answerer, dialed=None, prologue=prologue), near, far


async def meet(dialer: SecureChannel, answerer: SecureChannel) -> None:
    """Offer and answer, as the WebRTC transport does it."""

    async def offer() -> None:
        await answerer.send(b"offer")
        assert await answerer.receive() == b"answer"

    async with trio.open_nursery() as nursery:
        nursery.start_soon(offer)
        assert await dialer.receive() == b"offer"
        await dialer.send(b"answer")


async def outcome(function: Callable[..., Awaitable[object]], *args: object) -> object:
    """What *function* returns or raises."""
    try:
        return await function(*args)
    except (PeerFault, PeerLeft, ServiceUnavailable, trio.EndOfChannel) as exc:
        return exc


async def attempt(dialer: SecureChannel, answerer: SecureChannel) -> list[object]:
    """The same as `meet` where somebody interferes: what the two got from each other, errors included."""
    seen: list[object] = []

    async def one(
        channel: SecureChannel,
        first: Callable[..., Awaitable[object]],
        then: Callable[..., Awaitable[object]],
    ) -> None:
        for step in (first, then):
            got = await outcome(step)
            seen.append(got)
            if isinstance(got, Exception):
                break
        await channel.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(one, dialer, dialer.receive, lambda: dialer.send(b"answer"))
        nursery.start_soon(one, answerer, lambda: answerer.send(b"offer"), answerer.receive)
    return seen


# --- the good way ---


async def test_handshake_offer_and_answer_take_three_messages() -> None:
    dialer, answerer, near, far = channels()
    await meet(dialer, answerer)
    assert (len(near.sent), len(far.sent)) == (2, 1)
    assert (dialer.peer, answerer.peer) == (BOB.peer_id, ALICE.peer_id)
    assert (dialer.offers, answerer.offers) == (False, True)
    assert dialer.binding == answerer.binding
    assert len(dialer.binding) == 32


async def test_afterwards_each_side_talks_at_will_and_in_order() -> None:
    dialer, answerer, *_ = channels()
    await meet(dialer, answerer)
    for n in range(5):
        await dialer.send(b"to %d" % n)
        await answerer.send(b"back %d" % n)
    assert [await answerer.receive() for _ in range(5)] == [b"to %d" % n for n in range(5)]
    assert [await dialer.receive() for _ in range(5)] == [b"back %d" % n for n in range(5)]


async def test_messages_reach_from_nothing_to_the_limit() -> None:
    dialer, answerer, *_ = channels()
    await meet(dialer, answerer)
    for message in (b"", bytes(SecureChannel.MAX_MESSAGE)):
        await dialer.send(message)
        assert await answerer.receive() == message
    with pytest.raises(MisuseError):
        await dialer.send(bytes(SecureChannel.MAX_MESSAGE + 1))


async def test_nobody_reads_along() -> None:
    dialer, answerer, near, far = channels()
    await meet(dialer, answerer)
    carried = b"".join(near.sent + far.sent)
    for word in (b"offer", b"answer", ALICE.peer_id.public_key, BOB.peer_id.public_key):
        assert word not in carried


async def test_the_first_message_can_go_ahead_and_says_nothing() -> None:
    dialer, answerer, near, _ = channels()
    await dialer.greet()
    assert [len(message) for message in near.sent] == [32]  # an ephemeral key
    await dialer.greet()
    await meet(dialer, answerer)
    assert len(near.sent) == 2


@pytest.mark.parametrize("first", ["dialer", "answerer", "both", "nobody"])
async def test_either_side_may_send_first(first: str, autojump_clock: trio.testing.MockClock) -> None:
    dialer, answerer, *_ = channels()
    got: dict[str, bytes] = {}

    async def send(channel: SecureChannel, text: bytes, *, ahead: bool) -> None:
        if not ahead:
            await trio.sleep(5)  # past the patience of the handshake messages
        await channel.send(text)

    async def receive(name: str, channel: SecureChannel) -> None:
        got[name] = await channel.receive()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive, "dialer", dialer)
        nursery.start_soon(receive, "answerer", answerer)
        for name, channel in (("dialer", dialer), ("answerer", answerer)):
            nursery.start_soon(lambda c=channel, n=name: send(c, n.encode(), ahead=first in (n, "both")))
    assert got == {"dialer": b"answerer", "answerer": b"dialer"}
    assert autojump_clock.current_time() == (0 if first == "both" else 5)


async def test_what_came_while_a_sender_waited_for_its_turn_is_received_later() -> None:
    dialer, answerer, *_ = channels()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(answerer.send, b"offer")
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(answerer.send, b"candidate")
        await dialer.send(b"answer")
    assert [await dialer.receive() for _ in range(2)] == [b"offer", b"candidate"]
    assert await answerer.receive() == b"answer"


async def test_nobody_is_known_before_the_first_message() -> None:
    dialer, answerer, *_ = channels()
    for channel in (dialer, answerer):
        with pytest.raises(MisuseError):
            _ = channel.peer
        with pytest.raises(MisuseError):
            _ = channel.binding


# --- the wrong people ---


async def test_the_dialer_refuses_another_peer() -> None:
    dialer, answerer, *_ = channels(answerer=STRANGER)
    seen = await attempt(dialer, answerer)
    assert any(isinstance(each, WrongPeer) for each in seen)
    assert b"offer" not in seen
    assert b"answer" not in seen
    with pytest.raises(MisuseError):
        _ = dialer.peer


async def test_both_have_to_mean_the_same_thing() -> None:
    dialer, answerer, *_ = channels(prologue=b"handclasp/1 something else")
    seen = await attempt(dialer, answerer)
    assert any(isinstance(each, HandshakeFailed) for each in seen)
    assert b"offer" not in seen


# --- somebody in between ---


def flip(message: bytes, at: int) -> bytes:
    return message[:at] + bytes([message[at] ^ 1 << at % 8]) + message[at + 1 :]


@pytest.mark.parametrize("number", [0, 1, 2])
async def test_a_flipped_bit_in_any_byte_of_the_handshake_gives_no_channel(number: int) -> None:
    dialer, answerer, near, far = channels()
    await meet(dialer, answerer)
    lengths = [len(message) for message in (near.sent[0], far.sent[0], near.sent[1])]
    for at in range(lengths[number]):
        dialer, answerer, near, far = channels()
        attacked, index = (far, 0) if number == 1 else (near, number // 2)

        def tamper(
            message: bytes, pipe: QueuePipe = attacked, index: int = index, at: int = at
        ) -> list[bytes]:
            if len(pipe.sent) != index + 1:
                return [message]
            assert len(message) == lengths[number]
            return [flip(message, at)]

        attacked.tamper = tamper
        seen = await attempt(dialer, answerer)
        assert any(isinstance(each, HandshakeFailed) for each in seen)
        assert b"answer" not in seen
        assert number == 2 or b"offer" not in seen


@pytest.mark.parametrize("what", ["repeat", "drop", "reflect"])
async def test_a_meddled_message_ends_the_channel_for_good(what: str) -> None:
    dialer, answerer, near, far = channels()
    await meet(dialer, answerer)
    near.tamper = {
        "repeat": lambda message: [message, message],
        "drop": lambda _: [],
        "reflect": lambda _: [far.sent[-1]],
    }[what]
    await dialer.send(b"one")
    near.tamper = lambda message: [message]
    await dialer.send(b"two")
    if what == "repeat":
        assert await answerer.receive() == b"one"
    for _ in range(2):
        with pytest.raises(HandshakeFailed):
            await answerer.receive()
        with pytest.raises(HandshakeFailed):
            await answerer.send(b"three")


async def test_a_recorded_handshake_opens_no_second_channel() -> None:
    dialer, answerer, near, _ = channels()
    await meet(dialer, answerer)
    stranger, victim = pipes()
    async with SecureChannel(victim, BOB, dialed=None, prologue=PROLOGUE) as again:
        for message in near.sent:
            await stranger.send(message)
        await again.send(b"offer")
        with pytest.raises(HandshakeFailed):
            await again.receive()


async def test_a_message_of_another_kind_has_no_place_here() -> None:
    near, far = pipes()
    conversation = Conversation(ALICE, dialed=BOB.peer_id, prologue=PROLOGUE)
    answerer = SecureChannel(far, BOB, dialed=None, prologue=PROLOGUE)
    await near.send(conversation.greet())
    await answerer.send(b"offer")
    conversation.receive_untrusted(await near.receive())
    await near.send(conversation.send(Message(Kind.LINK, b"{}")))
    with pytest.raises(HandshakeFailed, match="kind"):
        await answerer.receive()


@pytest.mark.parametrize("side", ["dialer", "answerer"])
@pytest.mark.parametrize("step", ["send", "receive"])
async def test_a_peer_that_never_shakes_hands_is_given_up(
    side: str, step: str, autojump_clock: trio.testing.MockClock
) -> None:
    dialer, answerer, *_ = channels()
    channel = dialer if side == "dialer" else answerer
    started = autojump_clock.current_time()
    for _ in range(2):  # the first error is final
        with pytest.raises(PeerLeft):
            await (channel.send(b"x") if step == "send" else channel.receive())
        assert autojump_clock.current_time() - started == HANDSHAKE_TIMEOUT


async def test_a_dialer_that_greets_and_falls_silent_is_given_up(
    autojump_clock: trio.testing.MockClock,
) -> None:
    dialer, answerer, *_ = channels()
    await dialer.greet()
    with pytest.raises(PeerLeft):
        await answerer.receive()
    assert HANDSHAKE_TIMEOUT < autojump_clock.current_time() < 2 * HANDSHAKE_TIMEOUT


async def test_after_the_handshake_a_message_may_take_any_time(
    autojump_clock: trio.testing.MockClock,
) -> None:
    dialer, answerer, *_ = channels()
    await meet(dialer, answerer)

    async def later() -> None:
        await trio.sleep(100 * HANDSHAKE_TIMEOUT)
        await dialer.send(b"at last")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(later)
        assert await answerer.receive() == b"at last"
    assert autojump_clock.current_time() == 100 * HANDSHAKE_TIMEOUT


# --- closing and cancelling ---


async def test_closing_is_the_end_for_the_peer_and_for_whoever_waits() -> None:
    dialer, answerer, *_ = channels()
    await meet(dialer, answerer)
    await answerer.send(b"last words")

    async def wait() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await answerer.receive()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        await answerer.aclose()
    assert await dialer.receive() == b"last words"
    with pytest.raises(trio.EndOfChannel):
        await dialer.receive()
    await dialer.send(b"into the void")
    for step in (answerer.receive, lambda: answerer.send(b"x"), answerer.greet):
        with pytest.raises(trio.ClosedResourceError):
            await step()


@pytest.mark.parametrize("side", ["dialer", "answerer"])
async def test_the_end_of_a_peer_that_never_shook_hands_is_received(side: str) -> None:
    dialer, answerer, *_ = channels()
    gone, left = (answerer, dialer) if side == "dialer" else (dialer, answerer)
    await gone.aclose()
    await left.send(b"into the void")
    with pytest.raises(trio.EndOfChannel):
        await left.receive()


async def test_a_cancelled_receive_loses_nothing() -> None:
    dialer, answerer, *_ = channels()
    await meet(dialer, answerer)
    with trio.move_on_after(0):
        await answerer.receive()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(answerer.receive)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    await dialer.send(b"still here")
    assert await answerer.receive() == b"still here"


async def test_a_cancelled_send_ends_the_channel_rather_than_tearing_a_hole() -> None:
    dialer, answerer, near, _ = channels()
    await meet(dialer, answerer)
    async with trio.open_nursery() as nursery:
        for _ in range(17):  # the pipe holds 16
            nursery.start_soon(dialer.send, b"x")
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert len(near.sent) == 2 + 17
    with pytest.raises(ServiceUnavailable):
        await dialer.send(b"y")


@pytest.mark.parametrize("side", ["dialer", "answerer"])
async def test_a_send_that_is_cancelled_before_its_turn_does_no_harm(side: str) -> None:
    dialer, answerer, *_ = channels()
    async with trio.open_nursery() as nursery:
        nursery.start_soon((dialer if side == "dialer" else answerer).send, b"never mind")
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    await meet(dialer, answerer)
