"""The connection that a pairing makes in the background: who hears of its failure, and when."""

from __future__ import annotations

import pytest
import trio

from handclasp import open_node
from handclasp.abc import TransportFactory
from handclasp.discovery.memory import memory_channel_pair
from handclasp.errors import ConnectionLost, DeadlineExceeded
from handclasp.identity import Identity
from handclasp.protocols.wallet import connecting
from handclasp.protocols.wallet.connecting import Connecting
from handclasp.scope import open_scope


async def test_a_connection_that_fails_lets_the_last_words_arrive_first(
    loopback_webrtc: TransportFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connecting, "_LAST_WORDS", 0.2)
    opened: list[None] = []
    async with open_node(transports=[loopback_webrtc]) as node:
        ours, theirs = memory_channel_pair(node.peer_id, Identity.generate().peer_id)
        made = Connecting(node, ours, lambda: opened.append(None))
        await theirs.aclose()
        await made.run()  # raises nothing: its errors are for those who ask
        before = trio.current_time()
        with pytest.raises(ConnectionLost):
            await made.get()
        assert trio.current_time() - before < 0.2
        with pytest.raises(ConnectionLost):
            await made.watch()
        assert trio.current_time() - before >= 0.2
    assert not opened


async def test_both_ends_get_the_connection_and_nobody_watches_for_ever(
    loopback_webrtc: TransportFactory,
) -> None:
    opened: list[str] = []
    async with (
        open_node(transports=[loopback_webrtc]) as one,
        open_node(transports=[loopback_webrtc]) as other,
    ):
        ends = memory_channel_pair(one.peer_id, other.peer_id)
        makings = [
            Connecting(node, end, lambda node=node: opened.append(str(node.peer_id)))  # type: ignore[misc]
            for node, end in zip((one, other), ends, strict=True)
        ]
        async with open_scope() as scope:
            for making in makings:
                scope.start_soon(making.run)
            assert {(await making.get()).peer for making in makings} == {one.peer_id, other.peer_id}
            for making in makings:
                await making.watch()
    assert sorted(opened) == sorted([str(one.peer_id), str(other.peer_id)])


async def test_waiting_for_a_connection_ends(
    loopback_webrtc: TransportFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connecting, "_CONNECT_TIMEOUT", 0.05)
    async with open_node(transports=[loopback_webrtc]) as node:
        ours, _silent = memory_channel_pair(node.peer_id, Identity.generate().peer_id)
        made = Connecting(node, ours, lambda: None)
        async with open_scope() as scope:
            scope.start_soon(made.run)
            with pytest.raises(DeadlineExceeded, match="no direct connection"):
                await made.get()
