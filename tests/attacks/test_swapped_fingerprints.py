"""C8: somebody who could change the SDP after all never sits in a connection that either side reports."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable

import pytest
import trio

from handclasp import Identity
from handclasp.abc import Connection, Context
from handclasp.discovery.memory import MemoryChannel
from handclasp.errors import ConnectionLost, FingerprintMismatch, HandclaspError
from handclasp.transports.webrtc import DataChannel, webrtc
from handclasp.transports.webrtc.aiortc import AiortcEngine
from handclasp.transports.webrtc.sdp import Kind, SignalingMessage

WEBSITE, WALLET = Identity.generate(), Identity.generate()
ENGINE = AiortcEngine(addresses=["127.0.0.1"])


class Line:
    """The signaling channel of two peers, cut through: the attacker holds both inner ends."""

    def __init__(self) -> None:
        from_website, to_website = trio.open_memory_channel[bytes](64), trio.open_memory_channel[bytes](64)
        from_wallet, to_wallet = trio.open_memory_channel[bytes](64), trio.open_memory_channel[bytes](64)
        binding = secrets.token_bytes(32)  # known to the two, not to the attacker
        self.website = MemoryChannel(WALLET.peer_id, binding, from_website[0], to_website[1], offers=True)
        self.wallet = MemoryChannel(WEBSITE.peer_id, binding, from_wallet[0], to_wallet[1], offers=False)
        self.heard_from_website, self.say_to_website = from_website[1], to_website[0]
        self.heard_from_wallet, self.say_to_wallet = from_wallet[1], to_wallet[0]


async def upgrade_both(line: Line, attack: Callable[[Line], object]) -> list[Connection | HandclaspError]:
    """Connect over the line while *attack* holds its middle; what each side got."""
    results: list[Connection | HandclaspError] = []
    both_know = trio.Event()

    async def side(identity: Identity, channel: MemoryChannel) -> None:
        async with webrtc(engine=ENGINE)(Context(identity)) as transport:
            try:
                connection = await transport.upgrade(channel)
            except HandclaspError as exc:
                results.append(exc)
            else:
                results.append(connection)
            if len(results) == 2:
                both_know.set()
            await both_know.wait()  # who closes earlier takes the connection from the other
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(attack, line)
        nursery.start_soon(side, WEBSITE, line.website)
        nursery.start_soon(side, WALLET, line.wallet)
    return results


async def pass_on(source: trio.MemoryReceiveChannel[bytes], target: trio.MemorySendChannel[bytes]) -> None:
    async for message in source:
        await target.send(message)


async def leave_alone(line: Line) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pass_on, line.heard_from_website, line.say_to_wallet)
        nursery.start_soon(pass_on, line.heard_from_wallet, line.say_to_website)


async def name_another_certificate(line: Line) -> None:
    def swap(message: bytes) -> bytes:
        signal = SignalingMessage.from_bytes_untrusted(message)
        sdp = re.sub(r"(a=fingerprint:\S+ )[0-9A-F]{2}:", r"\g<1>00:", signal.data)
        assert sdp != signal.data
        return bytes(SignalingMessage(signal.kind, sdp))

    await line.say_to_wallet.send(swap(await line.heard_from_website.receive()))
    await line.say_to_website.send(swap(await line.heard_from_wallet.receive()))


async def terminate_dtls_on_both_sides(line: Line) -> None:
    """The attacker is a WebRTC peer to each of them, and passes on what they say to each other."""
    async with ENGINE.open() as session:
        to_website, to_wallet = await session.create_peer(()), await session.create_peer(())
        try:
            toward_wallet = to_wallet.open_channel("init")

            def join(toward_website: DataChannel) -> None:
                toward_website.on_message = toward_wallet.send
                toward_wallet.on_message = toward_website.send

            to_website.on_channel = join
            offer = SignalingMessage.from_bytes_untrusted(await line.heard_from_website.receive())
            answer = await to_website.create_answer(offer.data)
            await line.say_to_wallet.send(
                bytes(SignalingMessage(Kind.SDP_OFFER, await to_wallet.create_offer()))
            )
            await to_wallet.accept_answer(
                SignalingMessage.from_bytes_untrusted(await line.heard_from_wallet.receive()).data
            )
            await line.say_to_website.send(bytes(SignalingMessage(Kind.SDP_ANSWER, answer)))
            await trio.sleep_forever()
        finally:
            await to_website.close()
            await to_wallet.close()


async def test_left_alone_the_two_connect() -> None:
    results = await upgrade_both(Line(), leave_alone)
    assert all(isinstance(result, Connection) for result in results)


@pytest.mark.parametrize(
    ("attack", "error"),
    [(name_another_certificate, ConnectionLost), (terminate_dtls_on_both_sides, FingerprintMismatch)],
)
async def test_c8_a_man_in_the_middle_of_the_sdp_gets_no_connection(
    attack: Callable[[Line], object], error: type[HandclaspError]
) -> None:
    results = await upgrade_both(Line(), attack)
    assert len(results) == 2
    assert not any(isinstance(result, Connection) for result in results)
    assert any(isinstance(result, error) for result in results)
    assert all(isinstance(result, error | ConnectionLost) for result in results)
