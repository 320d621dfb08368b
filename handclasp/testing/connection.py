"""The contract suite for `handclasp.abc.Connection`."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import trio
import trio.testing

from handclasp.abc import Connection, Stream
from handclasp.errors import ConnectionLost

from .cancellation import check_nothing_lost
from .claims import PATIENCE, claim, eventually, raises, read_all
from .leftovers import Leftovers
from .stream import MIB, Upload

#: Makes both ends of a fresh connection.
ConnectionPairMaker: TypeAlias = Callable[[], Awaitable[tuple[Connection, Connection]]]

_LITTLE = 32 * 1024  # bytes that any backend takes without anybody reading
_ROUNDS = 50
_KINDS = {"memory", "direct", "relayed"}


async def check_connection(
    make_pair: ConnectionPairMaker,
    *,
    streams: int = 10_000,
    at_once: int = 500,
    paused_bytes: int = 30 * MIB,
    quiet: float = 0.02,
) -> None:
    """Check that connections keep what `handclasp.abc.Connection` promises.

    - each end names the other, its address, and a path;
    - either end opens streams, which the other can accept before anything is sent on them;
    - streams do not mix, and a reset ends one of them only;
    - `streams` counts those that are open, at both ends, until both are through with them;
    - *streams* streams one after the other, none of which stays in memory, and *at_once* at the same time;
    - a cancelled `accept_stream` loses no stream;
    - a paused reader does not hold up the other streams: *paused_bytes* wait for it;
    - `aclose` delivers what was sent, also to a peer that accepts and reads only afterwards; then streams break;
    - closing is seen by the other end, wakes whoever waits, may be repeated, and is done at once when cancelled;
    - afterwards each method raises what the contract says, and no task, thread, socket or file is left.

    Args:
        make_pair: called a few times; the suite closes what it gets.
        streams: how many one after the other; fewer are faster.
        at_once: how many at the same time.
        paused_bytes: how much is sent to the reader that pauses.
        quiet: see `Leftovers.settled`; raise it where other processes or threads take part in cleaning up.

    Raises:
        AssertionError: a claim does not hold; which one is in the error's notes.
    """
    await _check_names(make_pair)
    await _check_streams_of_both_ends(make_pair)
    await _check_reset_ends_one_stream(make_pair)
    await _check_count(make_pair)
    await _check_cancelled_accept(make_pair)
    await _check_sequence(make_pair, streams)
    await _check_at_once(make_pair, at_once)
    await _check_paused_reader(make_pair, paused_bytes)
    await _check_close_delivers(make_pair)
    await _check_close_delivers_to_those_who_come_late(make_pair)
    await _check_close_is_seen(make_pair, quiet)
    await _check_own_close(make_pair)
    await _check_cancelled_close(make_pair)


# --- while it lasts ---


async def _check_names(make_pair: ConnectionPairMaker) -> None:
    ours, theirs = await make_pair()
    async with ours, theirs:
        with claim("each end names the other"):
            assert ours.peer != theirs.peer
            for end in (ours, theirs):
                assert end.address.startswith("/"), f"{end.address!r} is not a multiaddr"
                assert end.address.endswith(f"/p2p/{end.peer}"), f"{end.address!r} does not name {end.peer}"
        with claim("path() tells the way that the bytes take"):
            for end in (ours, theirs):
                path = await end.path()
                assert path.kind in _KINDS, f"{path.kind!r} is not a kind of path"
                assert path.local.startswith("/"), f"{path.local!r} is not a multiaddr"
                assert not path.remote or path.remote.startswith("/"), f"{path.remote!r} is not a multiaddr"


async def _check_streams_of_both_ends(make_pair: ConnectionPairMaker) -> None:
    ours, theirs = await make_pair()
    async with ours, theirs:
        for opener, acceptor in ((ours, theirs), (theirs, ours)):
            with claim(
                "a stream can be accepted before anything is sent on it, and the acceptor may speak first"
            ):
                async with await opener.open_stream() as outgoing, await acceptor.accept_stream() as incoming:
                    await incoming.send_all(b"hello")
                    await incoming.send_eof()
                    assert await read_all(outgoing) == b"hello"
        with claim("streams do not mix"):
            async with trio.open_nursery() as answering:
                answering.start_soon(_echo, ours)
                answering.start_soon(_echo, theirs)
                async with trio.open_nursery() as asking:
                    for number in range(20):
                        asking.start_soon(_ask, ours, bytes([number]) * 5_000)
                        asking.start_soon(_ask, theirs, bytes([100 + number]) * 5_000)
                answering.cancel_scope.cancel()


async def _check_reset_ends_one_stream(make_pair: ConnectionPairMaker) -> None:
    ours, theirs = await make_pair()
    with claim("a reset ends its stream and nothing else"):
        async with ours, theirs:
            one, its_end = await ours.open_stream(), await theirs.accept_stream()
            other, others_end = await ours.open_stream(), await theirs.accept_stream()
            async with one, its_end, other, others_end:
                await one.reset()
                with raises(trio.BrokenResourceError):
                    await its_end.receive_some()
                await other.send_all(b"still here")
                await other.send_eof()
                assert await read_all(others_end) == b"still here"


async def _check_count(make_pair: ConnectionPairMaker) -> None:
    ours, theirs = await make_pair()
    async with ours, theirs:
        with claim("each stream counts at both ends while it is open, whoever opened it"):
            held: list[Stream] = []
            assert (ours.streams, theirs.streams) == (0, 0)
            for opener, acceptor in ((ours, theirs), (theirs, ours), (ours, theirs)):
                held += await opener.open_stream(), await acceptor.accept_stream()
                there = len(held) // 2
                assert (ours.streams, theirs.streams) == (there, there), f"{there} streams are open"
        with claim("a stream that is over at both ends does not count any more, however it ended"):
            closed, its_end, ended, ends_end, was_reset, resets_end = held
            await closed.aclose()
            await its_end.aclose()
            for end in (ended, ends_end):
                await end.send_eof()
            for end in (ended, ends_end):
                assert not await read_all(end)
                await end.aclose()
            await was_reset.reset()
            await resets_end.aclose()
            await eventually(lambda: not ours.streams and not theirs.streams)


async def _check_cancelled_accept(make_pair: ConnectionPairMaker) -> None:
    ours, theirs = await make_pair()
    with claim("a cancelled accept_stream loses no stream"):
        async with ours, theirs:
            await check_nothing_lost(ours.open_stream, theirs.accept_stream)


async def _check_sequence(make_pair: ConnectionPairMaker, count: int) -> None:
    ours, theirs = await make_pair()
    alive: weakref.WeakSet[Stream] = weakref.WeakSet()
    async with ours, theirs, trio.open_nursery() as nursery:
        nursery.start_soon(_echo, theirs)
        with claim(f"{count} streams one after the other each carry a reply", within=10 * PATIENCE):
            for number in range(count):
                alive.add(await _ask(ours, b"question %d" % number))
        with claim("finished streams are forgotten"):
            for _ in range(_ROUNDS):  # the last ones may still say goodbye
                gc.collect()
                if len(alive) <= 1:
                    break
                await trio.testing.wait_all_tasks_blocked(0.01)
            assert len(alive) <= 1, f"{len(alive)} of {count} finished streams are still in memory"
        nursery.cancel_scope.cancel()


async def _check_at_once(make_pair: ConnectionPairMaker, count: int) -> None:
    ours, theirs = await make_pair()
    present, everybody = 0, trio.Event()

    async def hold(stream: Stream) -> None:
        nonlocal present
        async with stream:
            question = await read_all(stream)
            present += 1
            if present == count:
                everybody.set()
            await everybody.wait()
            await stream.send_all(question)

    async def accept(nursery: trio.Nursery) -> None:
        while True:
            nursery.start_soon(hold, await theirs.accept_stream())

    async with ours, theirs, trio.open_nursery() as answering:
        answering.start_soon(accept, answering)
        with claim(f"{count} streams are open at the same time", within=5 * PATIENCE):
            async with trio.open_nursery() as asking:
                for number in range(count):
                    asking.start_soon(_ask, ours, b"question %d" % number)
        answering.cancel_scope.cancel()


async def _check_paused_reader(make_pair: ConnectionPairMaker, size: int) -> None:
    ours, theirs = await make_pair()
    async with ours, theirs:
        outgoing, paused = await ours.open_stream(), await theirs.accept_stream()
        async with outgoing, paused, trio.open_nursery() as nursery:
            nursery.start_soon(_echo, theirs)
            upload = Upload(outgoing, size)
            nursery.start_soon(upload.send)
            await upload.wait_stalled()
            with claim(f"a reader that pauses while {size} bytes wait for it does not hold up other streams"):
                await _ask(ours, b"question")
            with claim("a reader that had paused gets it all", within=5 * PATIENCE):
                await upload.receive(paused)
            nursery.cancel_scope.cancel()


# --- when it ends ---


async def _check_close_delivers(make_pair: ConnectionPairMaker) -> None:
    ours, theirs = await make_pair()
    received: dict[int, bytes] = {}

    async def read(number: int, stream: Stream) -> None:
        async with stream:
            received[number] = await read_all(stream)

    with claim("what was sent before a connection was closed arrives with its end of file"):
        async with ours, theirs, trio.open_nursery() as nursery:
            for number in range(3):
                stream = await ours.open_stream()
                nursery.start_soon(read, number, await theirs.accept_stream())
                await stream.send_all(bytes([number]) * MIB)
                await stream.send_eof()
            await ours.aclose()
    assert received == {number: bytes([number]) * MIB for number in range(3)}, (
        "a close of the connection overtook what was sent"
    )


async def _check_close_delivers_to_those_who_come_late(make_pair: ConnectionPairMaker) -> None:
    ours, theirs = await make_pair()
    async with ours, theirs:
        ended, incoming = await ours.open_stream(), await theirs.accept_stream()
        await ended.send_all(bytes(_LITTLE))
        await ended.send_eof()
        cut = await ours.open_stream()
        await cut.send_all(bytes(_LITTLE))
        with claim("the other end sees that a connection was closed"):
            await ours.aclose()
            await theirs.wait_closed()
        with claim("what arrived before a connection was closed can be read afterwards"):
            assert await read_all(incoming) == bytes(_LITTLE)
        with claim("a stream that was opened before its connection was closed can be accepted afterwards"):
            incoming = await theirs.accept_stream()
            received = 0
            with raises(trio.BrokenResourceError):
                while chunk := await incoming.receive_some():
                    received += len(chunk)
            assert received == _LITTLE, f"{received} of {_LITTLE} bytes could be read"


async def _check_close_is_seen(make_pair: ConnectionPairMaker, quiet: float) -> None:
    leftovers = Leftovers()
    ours, theirs = await make_pair()
    async with ours, theirs:
        with claim("the peer's close wakes whoever waits, with ConnectionLost or trio.BrokenResourceError"):
            outgoing, incoming = await ours.open_stream(), await theirs.accept_stream()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_expect, ConnectionLost, theirs.accept_stream)
                nursery.start_soon(_expect, trio.BrokenResourceError, incoming.receive_some)
                nursery.start_soon(theirs.wait_closed)
                nursery.start_soon(ours.wait_closed)
                await trio.testing.wait_all_tasks_blocked(0.01)
                await ours.aclose()
        with claim("after the peer's close: ConnectionLost, and trio.BrokenResourceError for streams"):
            for method in (theirs.open_stream, theirs.accept_stream, theirs.path):
                await _expect(ConnectionLost, method)
            await _expect(trio.BrokenResourceError, lambda: incoming.send_all(b"x"))
        with claim("after our own close the streams are of no more use"):
            with raises(trio.BrokenResourceError, trio.ClosedResourceError):
                await outgoing.send_all(b"x")
            with raises(trio.BrokenResourceError, trio.ClosedResourceError):
                await outgoing.receive_some()
    with claim("a connection that was closed leaves nothing behind"):
        left = await leftovers.settled(quiet=quiet)
        assert not left, f"left behind: {', '.join(sorted(left))}"


async def _check_own_close(make_pair: ConnectionPairMaker) -> None:
    ours, theirs = await make_pair()
    async with ours, theirs:
        with claim("our own close wakes whoever waits, with trio.ClosedResourceError"):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_expect, trio.ClosedResourceError, ours.accept_stream)
                await trio.testing.wait_all_tasks_blocked(0.01)
                await ours.aclose()
    ours, theirs = await make_pair()
    async with ours, theirs:
        with claim("after our own close: trio.ClosedResourceError, whatever still waited to be accepted"):
            await theirs.open_stream()
            await trio.testing.wait_all_tasks_blocked(0.05)  # until it has arrived
            await ours.aclose()
            await ours.aclose()
            await ours.wait_closed()
            for method in (ours.open_stream, ours.accept_stream, ours.path):
                await _expect(trio.ClosedResourceError, method)
            await theirs.wait_closed()


async def _check_cancelled_close(make_pair: ConnectionPairMaker) -> None:
    ours, theirs = await make_pair()
    async with ours, theirs:
        with claim("a cancelled aclose closes at once"):
            stream = await ours.open_stream()
            await stream.send_all(b"never read")
            await trio.aclose_forcefully(ours)
            await _expect(trio.ClosedResourceError, ours.open_stream)
            await ours.wait_closed()
        with claim("the other end sees that a connection was closed at once"):
            await theirs.wait_closed()


# --- what the checks do with streams ---


async def _ask(connection: Connection, question: bytes) -> Stream:
    """Send *question* to `_echo` at the other end; returns the stream, closed."""
    async with await connection.open_stream() as stream:
        await stream.send_all(question)
        await stream.send_eof()
        answer = await read_all(stream)
        assert answer == question, f"{question[:40]!r} was answered with {answer[:40]!r}"
        return stream


async def _echo(connection: Connection) -> None:
    """Answer every stream with what came on it."""

    async def answer(stream: Stream) -> None:
        async with stream:
            await stream.send_all(await read_all(stream))

    async with trio.open_nursery() as nursery:
        while True:
            nursery.start_soon(answer, await connection.accept_stream())


async def _expect(kind: type[BaseException], method: Callable[[], Awaitable[object]]) -> None:
    with raises(kind):
        await method()
