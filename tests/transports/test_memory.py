"""The in-memory transport: the smallest implementation of the contracts, so it has to keep all of them."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from handclasp.abc import Connection, Context
from handclasp.errors import ConnectionLost, InvalidAddress, PeerUnreachable
from handclasp.identity import Identity, PeerId
from handclasp.transports.memory import WINDOW, MemoryNetwork, memory_connection_pair, memory_stream_pair


def two_peers() -> tuple[PeerId, PeerId]:
    return Identity.generate().peer_id, Identity.generate().peer_id


def a_connection() -> tuple[Connection, Connection]:
    return memory_connection_pair(*two_peers())


# --- streams ---


async def test_a_writer_waits_once_the_window_is_full() -> None:
    ours, theirs = memory_stream_pair()
    async with ours, theirs, trio.open_nursery() as nursery:
        nursery.start_soon(ours.send_all, bytes(WINDOW + 1))
        await trio.testing.wait_all_tasks_blocked()
        assert len(await theirs.receive_some(2 * WINDOW)) == WINDOW
        assert await theirs.receive_some() == b"\0"


async def test_a_reader_gets_no_more_than_it_asked_for() -> None:
    ours, theirs = memory_stream_pair()
    async with ours, theirs:
        await ours.send_all(b"abc")
        assert await theirs.receive_some(2) == b"ab"
        assert await theirs.receive_some(2) == b"c"


async def test_a_cancelled_reader_loses_nothing() -> None:
    ours, theirs = memory_stream_pair()
    async with ours, theirs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(theirs.receive_some)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        await ours.send_all(b"x")
        assert await theirs.receive_some() == b"x"


# --- connections ---


async def test_each_end_of_a_connection_names_the_other() -> None:
    one, other = two_peers()
    ours, theirs = memory_connection_pair(one, other)
    async with ours, theirs:
        assert (ours.peer, theirs.peer) == (other, one)
        assert ours.address == f"/memory/0/p2p/{other}"


async def test_either_end_opens_streams() -> None:
    ours, theirs = a_connection()
    async with ours, theirs:
        for opener, acceptor in ((ours, theirs), (theirs, ours)):
            async with await opener.open_stream() as outgoing, await acceptor.accept_stream() as incoming:
                await outgoing.send_all(b"hello")
                assert await incoming.receive_some() == b"hello"


async def test_the_peers_close_ends_waiting_for_streams_and_every_stream() -> None:
    ours, theirs = a_connection()
    async with ours, theirs:
        outgoing, incoming = await ours.open_stream(), await theirs.accept_stream()
        await theirs.aclose()
        with pytest.raises(ConnectionLost):
            await ours.accept_stream()
        with pytest.raises(ConnectionLost):
            await ours.open_stream()
        with pytest.raises(trio.BrokenResourceError):
            await outgoing.send_all(b"x")
        with pytest.raises(trio.BrokenResourceError):
            await incoming.receive_some()
        await ours.wait_closed()


async def test_a_closed_connection_opens_and_accepts_nothing() -> None:
    ours, theirs = a_connection()
    async with ours, theirs:
        await ours.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await ours.open_stream()
        with pytest.raises(trio.ClosedResourceError):
            await ours.accept_stream()
        await ours.wait_closed()


async def test_closing_wakes_whoever_waits_for_a_stream() -> None:
    ours, theirs = a_connection()

    async def wait(connection: Connection, error: type[Exception]) -> None:
        with pytest.raises(error):
            await connection.accept_stream()

    async with ours, theirs, trio.open_nursery() as nursery:
        nursery.start_soon(wait, ours, trio.ClosedResourceError)
        nursery.start_soon(wait, theirs, ConnectionLost)
        await trio.testing.wait_all_tasks_blocked()
        await ours.aclose()


async def test_what_had_arrived_with_its_end_survives_the_close_of_the_connection() -> None:
    ours, theirs = a_connection()
    async with ours, theirs:
        outgoing, incoming = await ours.open_stream(), await theirs.accept_stream()
        await outgoing.send_all(b"x")
        await outgoing.send_eof()
        assert await incoming.receive_some() == b"x"
        await ours.aclose()
        assert await incoming.receive_some() == b""


# --- the transport ---


async def test_a_dialled_peer_gets_the_connection() -> None:
    network, alice, bob = MemoryNetwork(), Identity.generate(), Identity.generate()
    async with (
        network.transport(Context(alice)) as dialer,
        network.transport(Context(bob)) as transport,
        transport.listen() as listener,
    ):
        (address,) = listener.addresses
        assert dialer.can_dial(address)
        async with await dialer.dial(address, bob.peer_id) as ours, await listener.accept() as theirs:
            assert (ours.peer, theirs.peer) == (bob.peer_id, alice.peer_id)


async def test_nobody_answers_for_a_peer_that_does_not_listen() -> None:
    network, alice, bob = MemoryNetwork(), Identity.generate(), Identity.generate()
    async with network.transport(Context(alice)) as dialer, network.transport(Context(bob)) as transport:
        address = f"{network.address}/p2p/{bob.peer_id}"
        with pytest.raises(PeerUnreachable):
            await dialer.dial(address, bob.peer_id)
        async with transport.listen():
            await (await dialer.dial(address, bob.peer_id)).aclose()
        with pytest.raises(PeerUnreachable):
            await dialer.dial(address, bob.peer_id)


async def test_an_address_of_one_peer_does_not_reach_another() -> None:
    network, alice, bob = MemoryNetwork(), Identity.generate(), Identity.generate()
    async with (
        network.transport(Context(alice)) as dialer,
        network.transport(Context(bob)) as transport,
        transport.listen(),
    ):
        with pytest.raises(PeerUnreachable):
            await dialer.dial(f"{network.address}/p2p/{alice.peer_id}", bob.peer_id)


async def test_two_networks_do_not_see_each_other() -> None:
    alice, bob = Identity.generate(), Identity.generate()
    async with (
        MemoryNetwork().transport(Context(alice)) as dialer,
        MemoryNetwork().transport(Context(bob)) as transport,
        transport.listen() as listener,
    ):
        assert not dialer.can_dial(listener.addresses[0])
        with pytest.raises(InvalidAddress):
            await dialer.dial(listener.addresses[0], bob.peer_id)


async def test_a_listener_that_accepts_nothing_refuses_when_its_backlog_is_full() -> None:
    network, alice, bob = MemoryNetwork(), Identity.generate(), Identity.generate()
    async with (
        network.transport(Context(alice)) as dialer,
        network.transport(Context(bob)) as transport,
        transport.listen() as listener,
    ):
        await dialer.dial(listener.addresses[0], bob.peer_id)

        async def dial_often() -> None:
            for _ in range(10_000):
                await dialer.dial(listener.addresses[0], bob.peer_id)

        with pytest.raises(PeerUnreachable):
            await dial_often()


async def test_a_connection_that_nobody_accepted_is_lost_when_the_listener_closes() -> None:
    network, alice, bob = MemoryNetwork(), Identity.generate(), Identity.generate()
    async with network.transport(Context(alice)) as dialer, network.transport(Context(bob)) as transport:
        async with transport.listen() as listener:
            ours = await dialer.dial(listener.addresses[0], bob.peer_id)
        async with ours:
            with pytest.raises(ConnectionLost):
                await ours.accept_stream()
