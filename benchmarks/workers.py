"""The processes that a benchmark drives: ``python -m benchmarks.workers ROLE``, JSON lines in and out.

``bare-offerer`` and ``bare-answerer`` are aiortc and nothing else, on plain asyncio: the floor that the
others are compared with. ``website`` and ``wallet`` are handclasp. Every worker stays alive between
repetitions, so that no figure contains an import.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

MESSAGE = b"m" * 400  # bytes: about what a personal_sign request and its answer weigh
ROUND_TRIPS = 60


def tell(**fields: object) -> None:
    print(json.dumps({"at": time.time(), **fields}), flush=True)


# --- aiortc and nothing else ---


async def bare(*, offers: bool) -> None:
    import aiortc

    reader = asyncio.StreamReader(limit=1 << 20)
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )

    async def command() -> dict[str, Any]:
        line = await reader.readline()
        if not line:
            raise SystemExit
        return json.loads(line)

    tell(ready=True)
    while True:
        order = await command()
        peer = aiortc.RTCPeerConnection(aiortc.RTCConfiguration(iceServers=[]))
        opened = asyncio.Event()
        answers: asyncio.Queue[bytes] = asyncio.Queue()
        if offers:
            channel = peer.createDataChannel("bench")
            _bind_to_loopback(peer)
            channel.on("open", opened.set)
            channel.on("message", answers.put_nowait)
            await peer.setLocalDescription(await peer.createOffer())
            tell(sdp=peer.localDescription.sdp)
            answer = await command()
            await peer.setRemoteDescription(aiortc.RTCSessionDescription(answer["sdp"], "answer"))
        else:

            def accept(channel: aiortc.RTCDataChannel, opened: asyncio.Event = opened) -> None:
                channel.on("message", channel.send)
                opened.set()

            peer.on("datachannel", accept)
            await peer.setRemoteDescription(aiortc.RTCSessionDescription(order["sdp"], "offer"))
            _bind_to_loopback(peer)
            await peer.setLocalDescription(await peer.createAnswer())
            tell(sdp=peer.localDescription.sdp)
        await opened.wait()
        tell(open=True)
        if offers:
            times = []
            for _ in range(ROUND_TRIPS):
                start = time.perf_counter()
                channel.send(MESSAGE)
                await answers.get()
                times.append((time.perf_counter() - start) * 1000)
            tell(round_trip=statistics.median(times))
        await command()  # both have measured
        await peer.close()
        tell(closed=True)


def _bind_to_loopback(peer: Any) -> None:
    """The bare connection binds to the address that ours binds to, and to nothing else."""
    connection = peer.sctp.transport.transport.iceGatherer._connection
    gather = connection.get_component_candidates

    async def get_component_candidates(component: int, addresses: list[str], timeout: float = 5) -> Any:
        return await gather(component, ["127.0.0.1"], timeout)

    connection.get_component_candidates = get_component_candidates


# --- handclasp ---


async def website(service: str) -> None:
    from handclasp import open_node
    from handclasp.cli.peer import preload, transport
    from handclasp.cli.terminal import read_line
    from handclasp.protocols.wallet import Step, invite, open_wallet

    preload()

    def observe(step: Step) -> None:
        tell(step=step.key)

    async with open_node(transports=[transport((), loopback=True)]) as node:
        tell(ready=True)
        while await read_line():
            async with invite(
                node, service=service, origin="http://localhost:8787", observe=observe
            ) as pending:
                tell(uri=str(pending.invitation))
                linked = await pending.linked()
            async with open_wallet(node, linked) as wallet:
                await wallet.create_session()
                signed, plain = [], []
                for number in range(ROUND_TRIPS):
                    start = time.perf_counter()
                    await wallet.accounts()
                    plain.append((time.perf_counter() - start) * 1000)
                    start = time.perf_counter()
                    await wallet.personal_sign(f"handclasp benchmark {number:04}")
                    signed.append((time.perf_counter() - start) * 1000)
            tell(round_trip=statistics.median(signed), unsigned=statistics.median(plain))
            await linked.connection.aclose()


async def wallet() -> None:
    import trio

    from handclasp import Invitation, open_node
    from handclasp.accounts import LocalAccount
    from handclasp.cli.peer import preload, transport
    from handclasp.cli.terminal import read_line
    from handclasp.cli.wallet import ApproveEverything
    from handclasp.protocols.wallet import PROTOCOL, LinkRequest, Step, Wallet

    preload()
    account = LocalAccount.generate()
    account.sign_message("warm")

    class Person(ApproveEverything):
        """Reads the prompt until the connection is there: people take longer than that."""

        connected = trio.Event()

        async def approve_link(self, request: LinkRequest) -> bool:
            await self.connected.wait()
            return True

    def observe(step: Step) -> None:
        tell(step=step.key)
        if step is Step.WALLET_CONNECTED:
            person.connected.set()

    person = Person()
    ours = Wallet(account, person)
    async with open_node(transports=[transport((), loopback=True)], protocols={PROTOCOL: ours.serve}) as node:
        tell(ready=True)
        while uri := await read_line():
            person.connected = trio.Event()
            times = []
            for number in range(20):
                start = time.perf_counter()
                account.sign_message(f"handclasp benchmark {number:04}")
                times.append((time.perf_counter() - start) * 1000)
            tell(step=Step.READ.key)
            connection = await ours.link(
                node, Invitation.from_text_untrusted(uri, now=time.time()), observe=observe
            )
            tell(signature=statistics.median(times))
            await connection.wait_closed()


def main(role: str, *arguments: str) -> None:
    import trio

    roles: dict[str, Callable[[], None]] = {
        "bare-offerer": lambda: asyncio.run(bare(offers=True)),
        "bare-answerer": lambda: asyncio.run(bare(offers=False)),
        "website": lambda: trio.run(website, *arguments),
        "wallet": lambda: trio.run(wallet),
    }
    roles[role]()


if __name__ == "__main__":
    main(*sys.argv[1:])
