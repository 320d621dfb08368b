"""Peers by a real service: finding, channels, a service that goes and comes back. Attacks are in tests/attacks."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from urllib.parse import urlsplit

import pytest
import trio

from handclasp import open_node, signaling, webrtc
from handclasp.abc import Context, PeerRecord, SignalingChannel, Stream, TransportFactory
from handclasp.discovery.signaling import answers, line, presence
from handclasp.discovery.signaling.presence import Presence, from_url
from handclasp.errors import (
    ConfigurationError,
    HandclaspError,
    MisuseError,
    PeerUnreachable,
    ServiceRefused,
    ServiceUnavailable,
)
from handclasp.identity import Identity, PeerId
from handclasp.node.plugins import discovery_from_url
from handclasp.testing import Leftovers, cancel_everywhere, open_service
from handclasp.transports.webrtc.aiortc import AiortcEngine

from ...ports import free_port  # noqa: TID252 - no installed package

PATIENCE = 60.0


@asynccontextmanager
async def open_presence(url: str, identity: Identity | None = None) -> AsyncGenerator[Presence]:
    async with signaling(url)(Context(identity or Identity.generate())) as backend:
        assert isinstance(backend, Presence)
        yield backend


def me(identity: Identity, count: int = 1) -> PeerRecord:
    return PeerRecord(identity.peer_id, tuple(f"/ip4/192.0.2.{n}/tcp/1" for n in range(count)))


async def upcoming(records: AsyncIterator[PeerRecord]) -> PeerRecord:
    with trio.fail_after(PATIENCE):
        return await anext(records)


async def greet(channel: SignalingChannel) -> None:
    if channel.offers:
        await channel.send(b"offer")
        assert await channel.receive() == b"answer"
    else:
        assert await channel.receive() == b"offer"
        await channel.send(b"answer")


# --- where it is ---


def test_a_url_names_the_backend() -> None:
    assert from_url("wss://signal.example")
    assert discovery_from_url("ws://127.0.0.1:8787")
    with pytest.raises(ConfigurationError):
        signaling("https://signal.example")


async def test_a_service_that_is_not_there_is_told_at_once() -> None:
    async with Leftovers().none():
        for scheme in ("ws", "wss"):
            with pytest.raises(ServiceUnavailable):
                async with open_presence(f"{scheme}://127.0.0.1:{free_port()}"):
                    pass


async def test_a_service_that_speaks_something_else_is_told_at_once() -> None:
    async with open_service() as url, Leftovers().none():
        for wrong in (f"wss{url.removeprefix('ws')}", f"{url}/below"):
            with pytest.raises(ServiceUnavailable):
                async with open_presence(wrong):
                    pass


async def test_a_service_of_another_name_lets_nobody_in() -> None:
    # "localhost" and 127.0.0.1 are one service, and the proof is for the name in the URL.
    async with open_service() as url:
        port = urlsplit(url).port
        async with open_presence(f"ws://localhost:{port}"), open_presence(url):
            pass


# --- finding ---


async def test_a_peer_is_not_found_by_what_somebody_else_says_about_it() -> None:
    alice, bob = Identity.generate(), Identity.generate()
    async with open_service() as url, open_presence(url, alice) as ours:
        with pytest.raises(MisuseError):
            async with ours.advertise("tea", me(bob)):
                pass


async def test_of_two_blocks_for_a_topic_the_other_one_stays() -> None:
    alice = Identity.generate()
    async with open_service() as url, open_presence(url, alice) as ours, open_presence(url) as theirs:
        async with theirs.find("tea") as records, ours.advertise("tea", me(alice, 1)):
            assert await upcoming(records) == me(alice, 1)
            async with ours.advertise("tea", me(alice, 2)):
                assert await upcoming(records) == me(alice, 2)
            assert await upcoming(records) == me(alice, 1)


async def test_one_more_than_the_service_takes_is_refused_and_the_others_stay() -> None:
    alice = Identity.generate()
    async with open_service() as url, open_presence(url, alice) as ours, open_presence(url) as theirs:
        async with trio.open_nursery() as nursery:

            async def advertise(
                topic: str, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
            ) -> None:
                async with ours.advertise(topic, me(alice)):
                    task_status.started()
                    await trio.sleep_forever()

            for n in range(64):
                await nursery.start(advertise, f"topic {n}")
            with pytest.raises(ServiceRefused) as caught:
                async with ours.advertise("one more", me(alice)):
                    pass
            assert caught.value.code == "limit"
            async with theirs.find("topic 0") as records:
                assert await upcoming(records) == me(alice)
            nursery.cancel_scope.cancel()


async def test_one_search_more_than_the_service_takes_ends_with_the_reason() -> None:
    async with open_service() as url, open_presence(url) as ours, trio.open_nursery() as nursery:

        async def find(topic: str, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
            async with ours.find(topic) as records:
                task_status.started()
                await anext(records)

        for n in range(64):
            await nursery.start(find, f"topic {n}")
        async with ours.find("one more") as records:
            with pytest.raises(ServiceRefused) as caught, trio.fail_after(PATIENCE):
                await anext(records)
        assert caught.value.code == "limit"
        nursery.cancel_scope.cancel()


# --- channels ---


async def test_only_one_part_of_a_program_takes_the_channels() -> None:
    async with open_service() as url, open_presence(url) as ours, ours.incoming():
        with pytest.raises(MisuseError):
            async with ours.incoming():
                pass


async def test_a_peer_that_leaves_ends_its_channels() -> None:
    alice = Identity.generate()
    async with open_service() as url, open_presence(url) as theirs:
        async with open_presence(url, alice) as ours, ours.incoming():
            channel = await theirs.open_channel(theirs.address, alice.peer_id)
        async with channel:
            with pytest.raises((trio.EndOfChannel, HandclaspError)), trio.fail_after(PATIENCE):
                await channel.receive()


async def test_a_channel_to_another_service_is_not_opened() -> None:
    async with open_service() as url, open_presence(url) as ours:
        for address in (
            "/ip4/127.0.0.1/tcp/1/ws",
            "/dns4/evil.example/tcp/443/wss",
            ours.address + "/webrtc",
        ):
            assert not ours.can_reach(address)
            with pytest.raises(PeerUnreachable):
                await ours.open_channel(address, Identity.generate().peer_id)


# --- a service that goes and comes back ---


async def test_everything_goes_on_when_the_service_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "LONGEST_PAUSE", 0.4)
    alice, bob, port = Identity.generate(), Identity.generate(), free_port()
    url = f"ws://127.0.0.1:{port}"
    async with trio.open_nursery() as nursery:
        stop, stopped = trio.Event(), trio.Event()

        async def serve(*, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
            async with open_service(port=port):
                task_status.started()
                await stop.wait()
            stopped.set()

        await nursery.start(serve)
        async with open_presence(url, alice) as ours, open_presence(url, bob) as theirs:
            async with (
                ours.incoming() as channels,
                theirs.find("tea") as records,
                ours.advertise("tea", me(alice)),
            ):
                assert await upcoming(records) == me(alice)
                ahead = await theirs.open_channel(ours.address, alice.peer_id)
                behind = await anext(channels)
                async with trio.open_nursery() as greeting:
                    greeting.start_soon(greet, ahead)
                    greeting.start_soon(greet, behind)
                stop.set()
                with pytest.raises(ServiceUnavailable), trio.fail_after(PATIENCE):
                    await ahead.receive()
                with pytest.raises(ServiceUnavailable), trio.fail_after(PATIENCE):
                    await behind.receive()
                with pytest.raises(ServiceUnavailable):
                    await behind.send(b"x")
                await ahead.aclose()
                await behind.aclose()
                await stopped.wait()
                stop = trio.Event()
                await nursery.start(serve)
                async with theirs.find("coffee") as more, ours.advertise("coffee", me(alice, 2)):
                    assert await upcoming(more) == me(alice, 2)
                async with open_presence(url) as newcomer, newcomer.find("tea") as anew:
                    assert await upcoming(anew) == me(alice)
                with trio.fail_after(PATIENCE):
                    while True:
                        try:
                            again = await theirs.open_channel(ours.address, alice.peer_id)
                            break
                        except PeerUnreachable:
                            await trio.lowlevel.checkpoint()
                    behind = await anext(channels)
                async with again, behind, trio.open_nursery() as greeting:
                    greeting.start_soon(greet, again)
                    greeting.start_soon(greet, behind)
        stop.set()


async def test_a_link_that_went_dead_without_a_word_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line, "KEEP_ALIVE", 0.05)
    alive = trio.Event()
    alive.set()

    async def forward(source: trio.SocketStream, sink: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async for data in source:
                await alive.wait()  # a link that is dead delivers nothing and closes nothing
                await sink.send_all(data)
            await sink.aclose()

    async with open_service() as url, trio.open_nursery() as nursery:
        port = urlsplit(url).port
        assert port is not None

        async def relay(client: trio.SocketStream) -> None:
            async with client, await trio.open_tcp_stream("127.0.0.1", port) as server:
                async with trio.open_nursery() as both:
                    both.start_soon(forward, server, client)
                    await forward(client, server)

        (listener,) = await nursery.start(partial(trio.serve_tcp, relay, 0, host="127.0.0.1"))
        nearby = f"ws://127.0.0.1:{listener.socket.getsockname()[1]}"
        monkeypatch.setattr(answers, "TIMEOUT", 1.0)
        bob = Identity.generate()
        async with open_presence(nearby, bob) as theirs, theirs.incoming() as channels:
            async with (
                await theirs.open_channel(theirs.address, bob.peer_id) as channel,
                await anext(channels),
            ):
                alive = trio.Event()
                with pytest.raises(ServiceUnavailable), trio.fail_after(PATIENCE):
                    await channel.receive()
                alive.set()
            async with theirs.find("tea") as records:
                with trio.fail_after(PATIENCE):
                    while True:
                        with suppress(ServiceUnavailable):  # it has yet to come back
                            async with theirs.advertise("tea", me(bob)):
                                assert await upcoming(records) == me(bob)
                                break
        nursery.cancel_scope.cancel()


async def test_a_record_is_signed_anew_before_it_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "REFRESH", 0.05)
    monkeypatch.setattr(presence, "LIFETIME", 1.0)
    alice = Identity.generate()
    async with open_service() as url, open_presence(url, alice) as ours, open_presence(url) as theirs:
        async with ours.advertise("tea", me(alice)):
            await trio.sleep(2.0)  # the first one expires at the end of a second, in Unix time
            async with theirs.find("tea") as records:
                assert await upcoming(records) == me(alice)


async def test_whoever_is_replaced_is_told_and_stays_away() -> None:
    alice = Identity.generate()
    async with open_service() as url, open_presence(url, alice) as first, first.find("tea") as records:
        async with open_presence(url, alice) as second, open_presence(url) as other:
            with pytest.raises(ServiceRefused) as caught, trio.fail_after(PATIENCE):
                await anext(records)
            assert caught.value.code == "replaced"
            with pytest.raises(ServiceRefused):
                async with first.advertise("tea", me(alice)):
                    pass
            with pytest.raises(PeerUnreachable):
                await first.open_channel(first.address, alice.peer_id)
            async with other.find("tea") as found, second.advertise("tea", me(alice)):
                assert await upcoming(found) == me(alice)


# --- cancelling ---


async def test_a_dial_over_the_service_that_is_cancelled_anywhere_leaves_nothing() -> None:
    alice = Identity.generate()
    async with open_service() as url:

        async def meet() -> None:
            async with (
                open_presence(url, alice) as ours,
                open_presence(url) as theirs,
                ours.incoming() as channels,
            ):
                async with await theirs.open_channel(ours.address, alice.peer_id) as ahead:
                    async with await anext(channels) as behind, trio.open_nursery() as nursery:
                        nursery.start_soon(greet, ahead)
                        await greet(behind)

        assert await cancel_everywhere(meet) > 30


# --- in a node ---


async def echo(stream: Stream, _: PeerId) -> None:
    async for chunk in stream:
        await stream.send_all(chunk)


async def test_a_node_is_reached_by_its_address_at_the_service() -> None:
    async with open_service() as url:

        def transport() -> TransportFactory:
            return webrtc(engine=AiortcEngine(addresses=["127.0.0.1"]))

        async with (
            open_node(
                discovery=[signaling(url)], transports=[transport()], protocols={"/echo/1.0.0": echo}
            ) as alice,
            open_node(discovery=[signaling(url)], transports=[transport()]) as bob,
        ):
            port = urlsplit(url).port
            address = f"/ip4/127.0.0.1/tcp/{port}/ws/webrtc/p2p/{alice.peer_id}"
            assert (await bob.connect(address)).peer == alice.peer_id
            async with await bob.open_stream(alice.peer_id, "/echo/1.0.0") as stream:
                await stream.send_all(b"hello")
                assert await stream.receive_some() == b"hello"
