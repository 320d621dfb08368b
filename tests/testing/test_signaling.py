"""`check_signaling` finds what is wrong with signaling, and says which claim it breaks."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager

import trio
import trio.testing

from handclasp.abc import Context, Signaling, SignalingChannel
from handclasp.discovery.memory import MemoryMeeting
from handclasp.errors import HandshakeFailed, PeerUnreachable
from handclasp.identity import PeerId
from handclasp.testing import check_signaling

from .broken import Mapped, each, fails_with


class AChannel(SignalingChannel):
    """A good channel, to be broken."""

    def __init__(self, channel: SignalingChannel) -> None:
        self.channel = channel

    @property
    def offers(self) -> bool:
        return self.channel.offers

    @property
    def peer(self) -> PeerId:
        return self.channel.peer

    @property
    def binding(self) -> bytes | None:
        return self.channel.binding

    async def send(self, message: bytes) -> None:
        await self.channel.send(message)

    async def receive(self) -> bytes:
        return await self.channel.receive()

    async def aclose(self) -> None:
        await self.channel.aclose()


class BothOffer(AChannel):
    @property
    def offers(self) -> bool:
        return True


class KnowsItself(AChannel):
    @property
    def binding(self) -> bytes | None:
        return id(self).to_bytes(32)


class KnowsOneSecret(AChannel):
    @property
    def binding(self) -> bytes | None:
        return bytes(32)


class TakesAnyLength(AChannel):
    async def send(self, message: bytes) -> None:
        await super().send(message[: self.MAX_MESSAGE])


class SwapsMessages(AChannel):
    kept = b""

    async def send(self, message: bytes) -> None:
        if message == b"message 3":
            self.kept = message
            return
        await super().send(message)
        if self.kept:
            await super().send(self.kept)
            self.kept = b""


class LosesWhatACancelledReceiverHad(AChannel):
    async def receive(self) -> bytes:
        message = await super().receive()
        await trio.lowlevel.checkpoint()
        return message


class ClosesUnheard(AChannel):
    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


CHANNELS = {
    BothOffer: "a channel opens",
    KnowsItself: "the two ends know different bindings",
    KnowsOneSecret: "two channels have the same binding",
    TakesAnyLength: "a message of 40000 bytes arrives, a longer one is refused",
    SwapsMessages: "messages keep their order",
    LosesWhatACancelledReceiverHad: "a cancelled receive loses no message",
    ClosesUnheard: "a close is heard",
}


class ASignaling(Signaling):
    """Good signaling whose channels, or itself, are to be broken."""

    def __init__(self, signaling: Signaling, kind: Callable[[SignalingChannel], SignalingChannel]) -> None:
        self.signaling = signaling
        self.kind = kind

    @property
    def address(self) -> str:
        return self.signaling.address

    def can_reach(self, address: str) -> bool:
        return self.signaling.can_reach(address)

    async def open_channel(self, address: str, peer: PeerId) -> SignalingChannel:
        return self.kind(await self.signaling.open_channel(address, peer))

    @asynccontextmanager
    async def incoming(self) -> AsyncGenerator[AsyncIterator[SignalingChannel]]:
        async with self.signaling.incoming() as channels:
            yield Mapped(channels, self.kind)


class ReachesAnything(ASignaling):
    def can_reach(self, address: str) -> bool:
        return True


class OpensToNobody(ASignaling):
    async def open_channel(self, address: str, peer: PeerId) -> SignalingChannel:
        try:
            return await super().open_channel(address, peer)
        except PeerUnreachable:
            return AChannel(None)  # type: ignore[arg-type]


class LeavesChannelsOpenWhenCancelled(ASignaling):
    async def open_channel(self, address: str, peer: PeerId) -> SignalingChannel:
        channel = await super().open_channel(address, peer)
        await trio.lowlevel.checkpoint()
        return channel


class WrapsErrorsOfIncoming(ASignaling):
    @asynccontextmanager
    async def incoming(self) -> AsyncGenerator[AsyncIterator[SignalingChannel]]:
        async with trio.open_nursery(), super().incoming() as channels:
            yield channels


SIGNALING = {
    ReachesAnything: "is no address: can_reach says no",
    OpensToNobody: "refuses",
    LeavesChannelsOpenWhenCancelled: "a channel is closed by the end of a task that was cancelled",
    WrapsErrorsOfIncoming: "comes out of the backend and its incoming() as it is",
}


async def signaling_suite(make: Callable[[Signaling], Signaling]) -> None:
    meeting = MemoryMeeting()

    @asynccontextmanager
    async def factory(context: Context) -> AsyncGenerator[Signaling]:
        async with meeting.backend(context) as backend:
            yield make(backend)

    await check_signaling(factory)


@each(CHANNELS)
async def test_a_broken_channel_is_found_out(
    kind: Callable[[SignalingChannel], SignalingChannel], claim: str, clock: trio.testing.MockClock
) -> None:
    await fails_with(claim, signaling_suite(lambda backend: ASignaling(backend, kind)))


@each(SIGNALING)
async def test_broken_signaling_is_found_out(
    kind: Callable[..., Signaling], claim: str, clock: trio.testing.MockClock
) -> None:
    await fails_with(claim, signaling_suite(lambda backend: kind(backend, AChannel)))


class BreaksInItsHandshake(AChannel):
    heard = False

    async def receive(self) -> bytes:
        try:
            message = await super().receive()
        except trio.EndOfChannel:
            if self.heard:
                raise
            raise HandshakeFailed("the other end went away") from None
        self.heard = True
        return message


class BreaksForWhoListens(ASignaling):
    @asynccontextmanager
    async def incoming(self) -> AsyncGenerator[AsyncIterator[SignalingChannel]]:
        async with super().incoming() as channels:
            yield Mapped(channels, BreaksInItsHandshake)


async def test_a_channel_whose_opener_is_cancelled_may_break(clock: trio.testing.MockClock) -> None:
    await signaling_suite(lambda backend: BreaksForWhoListens(backend, AChannel))


async def test_signaling_that_is_only_wrapped_passes(clock: trio.testing.MockClock) -> None:
    await signaling_suite(lambda backend: ASignaling(backend, AChannel))
