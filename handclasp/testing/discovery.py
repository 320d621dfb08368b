"""The contract suite for `handclasp.abc.Discovery`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Collection
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager

import trio

from handclasp.abc import Context, Discovery, DiscoveryFactory, PeerRecord
from handclasp.errors import MisuseError
from handclasp.identity import Identity, PeerId

from .cancellation import cancel_everywhere
from .claims import PATIENCE, claim, raises

#: Any text is a topic: these look like paths, options, patterns, blanks and nothing, and differ in little.
_TOPICS = ("tea", "Tea", "tea ", "te", "tea/green", "../tea", "/tea", "-tea", "te*", "tea\nparty", "茶", "")


async def check_discovery(
    factory: DiscoveryFactory, *, quiet: float = 0.1, patience: float = PATIENCE, settled: float = 0.02
) -> None:
    """Check that discovery keeps what `handclasp.abc.Discovery` promises.

    - who is there is found, then those who come, each once per change, with all their addresses;
    - whoever leaves is not found any more, also when the block ended with an error or was cancelled;
    - topics are separate, however alike, and may be any text of 255 bytes; a longer one is a `MisuseError`;
    - several peers under one topic, several topics of one peer, several finders, and a finder that does
      not look at what was found holds up nobody;
    - what a node advertises itself is found by it, too;
    - a block's own error comes out as it is;
    - cancelling `advertise` and `find` at each of their awaits leaves no task, thread, socket or file behind.

    Others may be in the same place, for example on the same network: only peers of the suite's own count.

    Args:
        factory: what an application passes to `handclasp.open_node`; it is opened once for each peer.
        quiet: seconds without anything more being found, after which there is nothing more.
        patience: seconds in which a change has to be seen.
        settled: see *quiet* of `Leftovers.settled`; raise it where other processes or threads take part in
            cleaning up.

    Raises:
        AssertionError: a claim does not hold; which one is in the error's notes.
    """
    check = _Check(factory, quiet, patience)
    await check.those_who_are_there_and_those_who_come()
    await check.leaving()
    await check.changes()
    await check.bare_errors()
    await check.topics()
    await check.long_topics()
    await check.crowds()
    await check.cancellation(settled)


class _Check:
    def __init__(self, factory: DiscoveryFactory, quiet: float, patience: float) -> None:
        self._factory = factory
        self._quiet = quiet
        self._patience = patience
        self._ours: set[PeerId] = set()

    @asynccontextmanager
    async def _peer(self) -> AsyncGenerator[tuple[PeerId, Discovery]]:
        identity = Identity.generate()
        self._ours.add(identity.peer_id)
        async with self._factory(Context(identity)) as backend:
            assert isinstance(backend, Discovery), f"{type(backend).__qualname__} is no Discovery"
            yield identity.peer_id, backend

    @asynccontextmanager
    async def _two(self) -> AsyncGenerator[tuple[PeerId, Discovery, PeerId, Discovery]]:
        async with self._peer() as (alice, ours), self._peer() as (bob, theirs):
            yield alice, ours, bob, theirs

    def _claim(self, sentence: str) -> AbstractContextManager[None]:
        """A claim, with time for each of its changes to take all the patience there is.

        It is a cancel scope, and a backend's blocks may hold nurseries: one that begins in a claim ends in it.
        """
        return claim(sentence, within=20 * (self._patience + PATIENCE))

    async def _expect(self, found: AsyncIterator[PeerRecord], *records: PeerRecord) -> None:
        """These are found next, in any order, and then nothing more."""
        due = set(records)
        with trio.move_on_after(self._patience):
            while due:
                record = await self._next(found)
                assert record in due, f"{record} was found; due were {due}"
                due.remove(record)
        assert not due, f"within {self._patience:.0f} s were not found: {due}"
        more = await self._collect(found)
        assert not more, f"{more} was found again, or out of nowhere"

    async def _collect(self, found: AsyncIterator[PeerRecord]) -> list[PeerRecord]:
        """What is found until nothing more is."""
        records: list[PeerRecord] = []
        while True:
            with trio.move_on_after(self._quiet):
                records.append(await self._next(found))
                continue
            return records

    async def _next(self, found: AsyncIterator[PeerRecord]) -> PeerRecord:
        """The next that is not a stranger."""
        while (record := await anext(found)).peer not in self._ours:
            pass
        return record

    async def _wait_gone(self, backend: Discovery, topic: str, gone: Collection[PeerId]) -> None:
        """Look anew until none of these is found; what a backend remembers may take a moment to fade."""
        with trio.move_on_after(self._patience):
            while True:
                async with backend.find(topic) as found:
                    if not {record.peer for record in await self._collect(found)} & set(gone):
                        return
        raise AssertionError(f"after {self._patience:.0f} s one of these is still found: {gone}")

    # --- the claims ---

    async def those_who_are_there_and_those_who_come(self) -> None:
        async with self._two() as (alice, ours, bob, theirs):
            present, comer = PeerRecord(alice, _addresses(alice, 2)), PeerRecord(bob, _addresses(bob, 1))
            bare = PeerRecord(alice)
            with self._claim("who is there is found, with all addresses"):
                async with ours.advertise("tea", present), theirs.find("tea") as found:
                    await self._expect(found, present)
                    with self._claim("who comes is found, also by the node that advertises it"):
                        async with theirs.advertise("tea", comer):
                            await self._expect(found, comer)
            with self._claim("who has no addresses is found, too"):
                async with theirs.find("coffee") as found, ours.advertise("coffee", bare):
                    await self._expect(found, bare)

    async def changes(self) -> None:
        async with self._two() as (alice, ours, _, theirs), theirs.find("tea") as found:
            with self._claim("a peer that comes again with other addresses is found again"):
                one, *others = _addresses(alice, 3)
                for addresses in ((one,), (one, *others), tuple(others), (one,)):
                    record = PeerRecord(alice, addresses)
                    async with ours.advertise("tea", record):
                        await self._expect(found, record)

    async def leaving(self) -> None:
        async with self._two() as (alice, ours, _, theirs):
            record = PeerRecord(alice, _addresses(alice, 1))
            with self._claim("whoever stopped advertising is not found any more"):
                async with ours.advertise("tea", record), theirs.find("tea") as found:
                    await self._expect(found, record)
                await self._wait_gone(theirs, "tea", [alice])
            with self._claim("whoever was cancelled while advertising is not found any more"):
                with trio.CancelScope() as scope:
                    async with ours.advertise("tea", record):
                        scope.cancel()
                        await trio.lowlevel.checkpoint()
                await self._wait_gone(theirs, "tea", [alice])
            with self._claim(
                "one who leaves does not take along who has the same topic, nor its own other topics"
            ):
                async with ours.advertise("milk", record), theirs.find("milk") as milk:
                    async with ours.advertise("tea", record):
                        pass
                    await self._expect(milk, record)

    async def topics(self) -> None:
        with self._claim("topics are separate, however alike"):
            async with self._two() as (alice, ours, _, theirs), AsyncExitStack() as stack:
                records = {
                    topic: PeerRecord(alice, (f"/memory/{number}/p2p/{alice}",))
                    for number, topic in enumerate(_TOPICS)
                }
                for topic, record in records.items():
                    await stack.enter_async_context(ours.advertise(topic, record))
                for topic, record in records.items():
                    with self._claim(f"topic {topic!r} holds what was advertised under it"):
                        async with theirs.find(topic) as found:
                            await self._expect(found, record)

    async def long_topics(self) -> None:
        async with self._two() as (alice, ours, _, theirs):
            record = PeerRecord(alice, _addresses(alice, 1))
            for letter in ("x", "é"):  # one byte, two bytes
                longest = letter * (Discovery.MAX_TOPIC // len(letter.encode()))
                with self._claim(f"a topic may have {len(longest.encode())} bytes"):
                    async with ours.advertise(longest, record), theirs.find(longest) as found:
                        await self._expect(found, record)
                with self._claim(
                    f"a topic of {len(longest.encode()) + len(letter.encode())} bytes is a MisuseError"
                ):
                    with raises(MisuseError):
                        async with ours.advertise(longest + letter, record):
                            pass
                    with raises(MisuseError):
                        async with theirs.find(longest + letter):
                            pass

    async def crowds(self) -> None:
        with self._claim(
            "ten peers under one topic are found by two finders, and nobody waits for one that is not looked at"
        ):
            async with self._peer() as (_, one), self._peer() as (_, other):
                async with (
                    one.find("tea"),
                    one.find("tea") as first,
                    other.find("tea") as second,
                    AsyncExitStack() as stack,
                ):
                    records: list[PeerRecord] = []
                    for _ in range(10):
                        peer, backend = await stack.enter_async_context(self._peer())
                        records.append(PeerRecord(peer, _addresses(peer, 1)))
                        await stack.enter_async_context(backend.advertise("tea", records[-1]))
                    await self._expect(first, *records)
                    await self._expect(second, *records)

    async def bare_errors(self) -> None:
        async with self._peer() as (alice, backend):

            async def advertise() -> None:
                async with backend.advertise("tea", PeerRecord(alice)):
                    raise _Mine

            async def find() -> None:
                async with backend.find("tea"):
                    raise _Mine

            for use in (advertise, find):
                with (
                    self._claim(f"an error of the block comes out of {use.__name__} as it is"),
                    raises(_Mine),
                ):
                    await use()

    async def cancellation(self, settled: float) -> None:
        async with self._two() as (alice, ours, _, theirs):
            record = PeerRecord(alice, _addresses(alice, 1))

            async def advertise() -> None:
                async with ours.advertise("tea", record):
                    await trio.lowlevel.checkpoint()

            async def find() -> None:
                async with theirs.find("coffee") as found:
                    await self._next(found)

            with self._claim("an advertise that is cancelled anywhere leaves nothing behind"):
                await cancel_everywhere(advertise, quiet=settled)
                await self._wait_gone(theirs, "tea", [alice])
            with self._claim("a find that is cancelled anywhere leaves nothing behind"):
                async with ours.advertise("coffee", record):
                    await cancel_everywhere(find, quiet=settled)

        async def open_and_close() -> None:
            async with self._peer():
                await trio.lowlevel.checkpoint()

        with self._claim("a backend that is cancelled while it opens or closes leaves nothing behind"):
            await cancel_everywhere(open_and_close, quiet=settled)


def _addresses(peer: PeerId, count: int) -> tuple[str, ...]:
    return tuple(f"/ip4/192.0.2.{number}/tcp/4001/p2p/{peer}" for number in range(1, count + 1))


class _Mine(Exception):
    pass
