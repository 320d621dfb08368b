"""`check_connection` finds what is wrong with a connection, and says which claim it breaks."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import trio
import trio.testing

from handclasp.abc import Connection, Path, Stream
from handclasp.identity import Identity, PeerId
from handclasp.testing import check_connection
from handclasp.transports.memory import memory_connection_pair

from .broken import AStream, each, fails_with, leaky

pytestmark = leaky


class AConnection(Connection):
    """A good connection, to be broken."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    @property
    def peer(self) -> PeerId:
        return self.connection.peer

    @property
    def address(self) -> str:
        return self.connection.address

    @property
    def streams(self) -> int:
        return self.connection.streams

    async def open_stream(self) -> Stream:
        return await self.connection.open_stream()

    async def accept_stream(self) -> Stream:
        return await self.connection.accept_stream()

    async def wait_closed(self) -> None:
        await self.connection.wait_closed()

    async def path(self) -> Path:
        return await self.connection.path()

    async def aclose(self) -> None:
        await self.connection.aclose()


class NamesNobody(AConnection):
    @property
    def address(self) -> str:
        return "/memory/0"


class HasAStrangePath(AConnection):
    async def path(self) -> Path:
        return Path("tunnel", "/memory/0", "/memory/0")  # type: ignore[arg-type]


class ResetsAllStreamsWithOne(AConnection):
    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self.opened: list[Stream] = []

    async def open_stream(self) -> Stream:
        opened = self.opened

        class Contagious(AStream):
            async def reset(self) -> None:
                for stream in opened:
                    await stream.reset()

        stream = await super().open_stream()
        opened.append(stream)
        return Contagious(stream)


class CountsOnlyItsOwn(AConnection):
    opened = 0

    @property
    def streams(self) -> int:
        return self.opened

    async def open_stream(self) -> Stream:
        self.opened += 1
        return await super().open_stream()


class CountsAllThereEverWere(AConnection):
    most = 0

    @property
    def streams(self) -> int:
        self.most = max(self.most, super().streams)
        return self.most


class LosesWhatACancelledAcceptorHad(AConnection):
    async def accept_stream(self) -> Stream:
        stream = await super().accept_stream()
        await trio.lowlevel.checkpoint()
        return stream


class RemembersEveryStream(AConnection):
    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self.remembered: list[Stream] = []

    async def open_stream(self) -> Stream:
        self.remembered.append(await super().open_stream())
        return self.remembered[-1]


class HasRoomForFewStreams(AConnection):
    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self.room = trio.Semaphore(30)

    async def open_stream(self) -> Stream:
        room = self.room

        class Counted(AStream):
            closed = False

            async def aclose(self) -> None:
                if not self.closed:
                    self.closed = True
                    room.release()
                await super().aclose()

        await room.acquire()
        return Counted(await super().open_stream())


class WaitsForTheSlowest(AConnection):
    """All streams share a window, as in SCTP."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self.sending = trio.Lock()

    async def open_stream(self) -> Stream:
        sending = self.sending

        class Queued(AStream):
            async def send_all(self, data: Any) -> None:
                async with sending:
                    await super().send_all(data)

        return Queued(await super().open_stream())


class DropsWhatWasSent(AConnection):
    async def open_stream(self) -> Stream:
        self.last = await super().open_stream()
        return self.last

    async def aclose(self) -> None:
        if hasattr(self, "last"):
            await self.last.reset()
        await super().aclose()


class ForgetsThatItIsClosed(AConnection):
    async def path(self) -> Path:
        return Path("memory", "/memory/0", "/memory/0")


class LeavesAFile(AConnection):
    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self.sockets = socket.socketpair()


CONNECTIONS = {
    NamesNobody: "each end names the other",
    HasAStrangePath: "path() tells the way",
    ResetsAllStreamsWithOne: "a reset ends its stream and nothing else",
    CountsOnlyItsOwn: "each stream counts at both ends while it is open",
    CountsAllThereEverWere: "a stream that is over at both ends does not count any more",
    LosesWhatACancelledAcceptorHad: "a cancelled accept_stream loses no stream",
    RemembersEveryStream: "finished streams are forgotten",
    HasRoomForFewStreams: "50 streams are open at the same time",
    WaitsForTheSlowest: "a reader that pauses while 1048576 bytes wait for it does not hold up other streams",
    DropsWhatWasSent: "arrives with its end of file",
    ForgetsThatItIsClosed: "after the peer's close: ConnectionLost",
    LeavesAFile: "a connection that was closed leaves nothing behind",
}


async def connection_suite(kind: Callable[[Connection], Connection], **options: Any) -> None:
    async def make_pair() -> tuple[Connection, Connection]:
        ours, theirs = memory_connection_pair(Identity.generate().peer_id, Identity.generate().peer_id)
        return kind(ours), kind(theirs)

    await check_connection(make_pair, streams=50, at_once=50, paused_bytes=2**20, **options)


@each(CONNECTIONS)
async def test_a_broken_connection_is_found_out(
    kind: Callable[[Connection], Connection], claim: str, clock: trio.testing.MockClock
) -> None:
    await fails_with(claim, connection_suite(kind))


async def test_a_connection_that_is_only_wrapped_passes(clock: trio.testing.MockClock) -> None:
    await connection_suite(AConnection)
