"""Candidates that a browser hides behind an mDNS name (draft-ietf-mmusic-mdns-ice-candidates), resolved on the network.

Whoever resolves them asks all of the local network, so this takes place in a network of its own.
"""

from __future__ import annotations

import json
import subprocess

import pytest

from ...namespaces import LOOPBACK, command  # noqa: TID252 - tests are no installed package

# sys.argv: whether the one who hides offers, whether the candidates trickle, whether anybody answers for the name.
SCRIPT = """
import json, sys, uuid, trio
from pathlib import Path
from zeroconf import ServiceInfo, Zeroconf
from handclasp.abc import Context, SignalingChannel
from handclasp.discovery.memory import memory_channel_pair
from handclasp.errors import ConnectionLost
from handclasp.identity import Identity
from handclasp.transports.webrtc import transport as transport_module, webrtc
from handclasp.transports.webrtc.aiortc import AiortcEngine
from handclasp.transports.webrtc.sdp import Kind, SignalingMessage

hider_offers, trickles, answered = map(json.loads, sys.argv[1:])
name = f"{uuid.uuid4()}.local"
hidden = []
MDNS_PORT = ":14E9 "  # 5353

class Rewriting(SignalingChannel):
    def __init__(self, channel, rewrite):
        self._channel, self._rewrite = channel, rewrite

    peer = property(lambda self: self._channel.peer)
    offers = property(lambda self: self._channel.offers)
    binding = property(lambda self: self._channel.binding)

    async def send(self, message):
        for each in self._rewrite(SignalingMessage.from_bytes_untrusted(message)):
            await self._channel.send(bytes(each))

    async def receive(self):
        return await self._channel.receive()

    async def aclose(self):
        await self._channel.aclose()

def split(sdp):
    lines = sdp.splitlines(keepends=True)
    candidates = [line.strip()[2:] for line in lines if line.startswith("a=candidate:")]
    return "".join(line for line in lines if "candidate" not in line), candidates

def hide(message):
    hidden.append(message.data.replace(" 127.0.0.1 ", f" {name} "))
    if not trickles:
        return [SignalingMessage(message.kind, hidden[0])]
    description, candidates = split(hidden[0])
    trickled = [json.dumps({"candidate": text, "sdpMid": "0"}) for text in candidates] + ["null"]
    messages = [(message.kind, description), *((Kind.ICE_CANDIDATE, text) for text in trickled)]
    return [SignalingMessage(*each) for each in messages]

def tell_none(message):  # so that only who resolves the name can begin
    return [SignalingMessage(message.kind, split(message.data)[0])]

async def echo(connection):
    stream = await connection.accept_stream()
    await stream.send_all(await stream.receive_some())

async def main():
    if not answered:
        transport_module.CONNECT_TIMEOUT = 3.0
    responder = await trio.to_thread.run_sync(Zeroconf)
    if answered:  # a service is what it answers for; the name is that of its host
        host = {"server": name + ".", "parsed_addresses": ["127.0.0.1"]}
        service = ServiceInfo("_x._udp.local.", "x._x._udp.local.", 1, **host)
        responder.loop.call_soon_threadsafe(responder.registry.async_add, service)
    offerer, answerer = memory_channel_pair(*(Identity.generate().peer_id for _ in range(2)))
    hider, resolver = (offerer, answerer) if hider_offers else (answerer, offerer)
    connections = []
    async def upgrade(channel):
        connections.append(await transport.upgrade(channel))
    async with webrtc(engine=AiortcEngine(addresses=["127.0.0.1"]))(Context(Identity.generate())) as transport:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(upgrade, Rewriting(hider, hide))
                nursery.start_soon(upgrade, Rewriting(resolver, tell_none))
        except* ConnectionLost:
            json.dump("lost", sys.stdout)
        else:
            ours, theirs = connections
            async with ours, theirs, trio.open_nursery() as nursery:
                nursery.start_soon(echo, theirs)
                async with await ours.open_stream() as stream:
                    await stream.send_all(b"hello")
                    json.dump((await stream.receive_some()).decode(), sys.stdout)
        await trio.to_thread.run_sync(responder.close)
        assert MDNS_PORT not in Path("/proc/net/udp").read_text(), "a resolver was left behind"
    assert f" {name} " in hidden[0] and " 127.0.0.1 " not in hidden[0], hidden

trio.run(main)
"""


def outcome(*, hider_offers: bool, trickles: bool, answered: bool) -> str:
    flags = (json.dumps(flag) for flag in (hider_offers, trickles, answered))
    done = subprocess.run(
        command(LOOPBACK, "-W", "error", "-c", SCRIPT, *flags),
        check=True,
        stdout=subprocess.PIPE,
        timeout=150,
    )
    result: str = json.loads(done.stdout)
    return result


@pytest.mark.parametrize("trickles", [False, True], ids=["in the SDP", "trickled"])
@pytest.mark.parametrize("hider_offers", [False, True], ids=["answerer hides", "offerer hides"])
def test_a_peer_behind_an_mdns_name_is_reached(*, hider_offers: bool, trickles: bool) -> None:
    assert outcome(hider_offers=hider_offers, trickles=trickles, answered=True) == "hello"


@pytest.mark.parametrize("trickles", [False, True], ids=["in the SDP", "trickled"])
def test_a_name_that_nobody_answers_for_leads_nowhere_and_holds_up_nobody(*, trickles: bool) -> None:
    assert outcome(hider_offers=True, trickles=trickles, answered=False) == "lost"
