"""``handclasp peer | ping | send | receive``: a node as a program."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import trio

from handclasp.abc import Handler, PeerRecord
from handclasp.errors import ConfigurationError, ProtocolViolation
from handclasp.identity import Identity, PeerId
from handclasp.multiaddr import peer_of
from handclasp.node import Event, Node, PeerLost, open_node, ping
from handclasp.node.plugins import discovery_from_url, transport_from_url
from handclasp.protocols import file
from handclasp.scope import open_scope

from .terminal import Output, ask, shown

#: Peers found under a topic that ``handclasp peer --find`` holds on to; anybody can appear there.
MAX_FOUND = 64


@dataclass(frozen=True)
class PeerOptions:
    """Who the node is and how it reaches others, as the command line says."""

    identity: Path | None
    discovery: Sequence[str]
    transports: Sequence[str]


def open_peer(
    options: PeerOptions,
    protocols: Mapping[str, Handler] | None = None,
    *,
    allow: Callable[[PeerId], bool] = lambda _: True,
) -> AbstractAsyncContextManager[Node]:
    """The node that the options describe."""
    return open_node(
        identity=Identity.load_or_create(options.identity) if options.identity else None,
        discovery=[discovery_from_url(url) for url in options.discovery],
        transports=[transport_from_url(url) for url in options.transports],
        protocols=protocols,
        allow=allow,
    )


def read_peer(text: str) -> PeerId | str:
    """A peer id, or a multiaddr that ends in one.

    Raises:
        ConfigurationError, InvalidAddress: neither.
    """
    if text.startswith("/"):
        peer_of(text)
        return text
    try:
        return PeerId.from_text_untrusted(text)
    except ProtocolViolation as exc:
        raise ConfigurationError(
            f"{text!r} is neither a peer id (12D3KooW…) nor a multiaddr (/…/p2p/12D3KooW…): {exc}"
        ) from None


# --- peer ---


async def run_peer(
    output: Output,
    options: PeerOptions,
    *,
    hold: Sequence[str],
    advertise: Sequence[str],
    find: Sequence[str],
) -> None:
    """Run a node until interrupted, and tell what happens to its connections."""
    targets = [read_peer(text) for text in hold]
    async with open_peer(options) as node, AsyncExitStack() as stack:
        _introduce(output, node)
        events = await stack.enter_async_context(node.events())
        for target in targets:
            await stack.enter_async_context(node.hold(target))
        for topic in advertise:
            await stack.enter_async_context(node.advertise(topic))
        scope = await stack.enter_async_context(open_scope())
        for topic in find:
            scope.start_soon(_hold_those_found, output, node, topic)
        async for event in events:
            _tell(output, event)


async def _hold_those_found(output: Output, node: Node, topic: str) -> None:
    """Hold on to every peer that is found under a topic."""
    held: set[PeerId] = set()
    async with AsyncExitStack() as stack, node.find(topic) as records:
        async for record in records:
            _tell_found(output, topic, record)
            if record.peer not in held and len(held) < MAX_FOUND:
                held.add(record.peer)
                await stack.enter_async_context(node.hold(record.peer))


def _introduce(output: Output, node: Node) -> None:
    addresses = "".join(f"\n  {address}" for address in node.addresses)
    output.event(
        "listening",
        f"peer [bold]{node.peer_id}[/bold]{addresses}",
        peer=str(node.peer_id),
        addresses=list(node.addresses),
    )


def _tell_found(output: Output, topic: str, record: PeerRecord) -> None:
    output.event(
        "found",
        f"found {record.peer} under {shown(topic)}",
        topic=topic,
        peer=str(record.peer),
        addresses=list(record.addresses),
    )


def _tell(output: Output, event: Event) -> None:
    peer = str(event.peer)
    if isinstance(event, PeerLost):
        output.event("lost", f"lost {peer}: {shown(event.reason)}", peer=peer, reason=event.reason)
        return
    name = {"PeerConnected": "connected", "PathChanged": "path_changed"}[type(event).__name__]
    output.event(
        name,
        f"{name.replace('_', ' ')} {peer} ({event.path.kind}, {event.path.remote})",
        peer=peer,
        address=event.address,
        path=asdict(event.path),
    )


# --- ping ---


async def run_ping(output: Output, options: PeerOptions, target: str, *, count: int, interval: float) -> None:
    """Ping a peer *count* times (0: until interrupted) and say how long it took."""
    peer = read_peer(target)
    times: list[float] = []
    async with open_peer(options) as node:
        connection = await node.connect(peer)
        path = await connection.path()
        output.event(
            "connected",
            f"connected with {connection.peer} ({path.kind}, {path.remote})",
            peer=str(connection.peer),
            address=connection.address,
            path=asdict(path),
        )
        async with await node.open_stream(connection.peer, ping.PROTOCOL) as stream:
            while not count or len(times) < count:
                if times:
                    await trio.sleep(interval)
                times.append(await ping.measure(stream))
                output.event(
                    "pong", f"{len(times):>4}  {times[-1] * 1e3:8.2f} ms", seconds=times[-1], n=len(times)
                )
    output.event(
        "summary",
        f"{len(times)} pings: least {min(times) * 1e3:.2f}, median {statistics.median(times) * 1e3:.2f}, "
        f"most {max(times) * 1e3:.2f} ms",
        least=min(times),
        median=statistics.median(times),
        most=max(times),
    )


# --- send and receive ---


async def run_send(output: Output, options: PeerOptions, path: Path, target: str) -> None:
    """Send a file to a peer that runs ``handclasp receive``."""
    peer = read_peer(target)
    size = (await trio.Path(path).stat()).st_size
    async with open_peer(options) as node:
        connection = await node.connect(peer)
        output.event(
            "connected",
            f"connected with {connection.peer} ({(await connection.path()).kind}); waiting for it to accept",
            peer=str(connection.peer),
        )
        began = trio.current_time()
        with output.progress(shown(path.name), size) as progress:
            async with await node.open_stream(connection.peer, file.PROTOCOL) as stream:
                digest = await file.send_file(stream, path, progress=progress)
        seconds = trio.current_time() - began
    output.event(
        "sent",
        f"sent {size:,} bytes in {seconds:.1f} s; the peer has it: SHA-256 {digest}",
        file=path.name,
        size=size,
        seconds=seconds,
        sha256=digest,
    )


async def run_receive(
    output: Output,
    options: PeerOptions,
    folder: Path,
    *,
    yes: bool,
    once: bool,
    senders: Sequence[str],
) -> None:
    """Take files from peers that run ``handclasp send``."""
    allowed = {_only_peer(read_peer(text)) for text in senders}
    asking = trio.Lock()  # one question at a time
    done = trio.Event()

    async def accept(offer: file.FileOffer) -> bool:
        output.event(
            "offer",
            f"{offer.peer} offers {shown(offer.name)}, {offer.size:,} bytes",
            peer=str(offer.peer),
            file=offer.name,
            size=offer.size,
        )
        async with asking:
            return yes or await ask("Take it?")

    def received(offer: file.FileOffer, path: Path) -> None:
        output.event(
            "received",
            f"received [bold]{shown(str(path))}[/bold], {offer.size:,} bytes",
            peer=str(offer.peer),
            path=str(path),
            size=offer.size,
        )
        done.set()

    def progress(offer: file.FileOffer) -> AbstractContextManager[file.Progress]:
        return output.progress(shown(offer.name), offer.size)

    handler = file.receive_into(folder, accept=accept, received=received, progress=progress)
    protocols = {file.PROTOCOL: handler}
    async with open_peer(options, protocols, allow=lambda peer: not allowed or peer in allowed) as node:
        _introduce(output, node)
        reach = node.addresses[0] if node.addresses else str(node.peer_id)
        output.event("help", f"\non the other side:  handclasp send FILE {reach}\n")
        if once:
            await done.wait()
        else:
            await trio.sleep(math.inf)


def _only_peer(target: PeerId | str) -> PeerId:
    return target if isinstance(target, PeerId) else peer_of(target)
