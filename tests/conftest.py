"""What several tests need: WebRTC on the loopback interface, and a look at what was left behind."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable

import pytest
import trio

from handclasp.abc import Connection, Context, SignalingChannel, Transport, TransportFactory
from handclasp.discovery.memory import memory_channel_pair
from handclasp.identity import Identity
from handclasp.testing import Leftovers
from handclasp.transports.webrtc import webrtc
from handclasp.transports.webrtc.aiortc import AiortcEngine


@pytest.fixture
def loopback_webrtc() -> TransportFactory:
    """The WebRTC transport, bound to 127.0.0.1."""
    return webrtc(engine=AiortcEngine(addresses=["127.0.0.1"]))


async def upgrade_both(transport: Transport, *channels: SignalingChannel) -> list[Connection]:
    """Upgrade both ends of a signaling channel; the connections in their order."""
    made: dict[SignalingChannel, Connection] = {}

    async def upgrade(channel: SignalingChannel) -> None:
        made[channel] = await transport.upgrade(channel)

    async with trio.open_nursery() as nursery:
        for channel in channels:
            nursery.start_soon(upgrade, channel)
    return [made[channel] for channel in channels]


@pytest.fixture
def upgraded() -> Callable[..., Awaitable[list[Connection]]]:
    """``await upgraded(transport, *channels)`` connects both ends of a signaling channel."""
    return upgrade_both


@pytest.fixture
async def webrtc_pair(loopback_webrtc: TransportFactory) -> AsyncGenerator[list[Connection]]:
    """Both ends of one WebRTC connection in this process; the first one offered."""
    alice, bob = Identity.generate(), Identity.generate()
    channels = memory_channel_pair(alice.peer_id, bob.peer_id)
    async with loopback_webrtc(Context(alice)) as transport:
        ours, theirs = await upgrade_both(transport, *channels)
        async with ours, theirs:
            yield [ours, theirs]


@pytest.fixture
def leftovers() -> type[Leftovers]:
    """For ``async with leftovers().none():`` around what has to clean up after itself."""
    return Leftovers
