"""The command line: ``handclasp serve | invite | wallet | demo | peer | ping | send | receive``.

Only click is imported here: everything else loads in the command that needs it, so that
``handclasp --help`` answers at once.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from handclasp.errors import HandclaspError

if TYPE_CHECKING:
    from .terminal import Output

__all__ = ["main"]

DEFAULT_SERVICE = "ws://127.0.0.1:8787"

_service = click.option(
    "--service", default=DEFAULT_SERVICE, show_default=True, help="WebSocket URL of the signaling service."
)
_chain = click.option(
    "--chain", default=1, show_default=True, type=click.IntRange(min=1), help="EIP-155 chain id."
)
_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON event a line instead of text.")
_loopback = click.option("--loopback", is_flag=True, help="Connect on this machine only (127.0.0.1).")
_stun = click.option(
    "--ice-server",
    "ice_servers",
    multiple=True,
    metavar="URL",
    help="STUN server, e.g. stun:host:3478. May be repeated.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="handclasp")
def main() -> None:
    """Websites and wallets meet by a QR code and talk peer to peer over WebRTC."""


class _Serve(click.Command):
    """Its flags are the options of the service, which load when somebody uses the command."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        from .serve import add_flags

        add_flags(self.params)
        return super().get_params(ctx)


@main.command(cls=_Serve)
@click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    help="TOML file with any of these; HANDCLASP_SERVE_CONFIG names one, too. Flags count before the environment "
    "(HANDCLASP_SERVE_PORT), and that before the file.",
)
@_json
def serve(*, config: Path | None, as_json: bool, **given: object) -> None:
    """Run the signaling service."""
    from .serve import run
    from .terminal import open_output

    output = open_output(as_json=as_json)
    _guard(lambda: run(output, config, given), output.error)


@main.command()
@_service
@click.option(
    "--origin",
    default="http://localhost:8787",
    show_default=True,
    help="The website's origin, shown by the wallet.",
)
@click.option(
    "--lifetime",
    default=120,
    show_default=True,
    type=click.IntRange(5, 120),
    help="Seconds until the invitation expires.",
)
@_chain
@_stun
@_loopback
@_json
def invite(
    *,
    service: str,
    origin: str,
    lifetime: int,
    chain: int,
    ice_servers: tuple[str, ...],
    loopback: bool,
    as_json: bool,
) -> None:
    """Be a website: show an invitation, wait for a wallet, then send it the requests that you type."""
    from .invite import run
    from .terminal import open_output

    output = open_output(as_json=as_json)
    _run(
        output,
        lambda: run(
            output, service, origin, chain, lifetime=lifetime, ice_servers=ice_servers, loopback=loopback
        ),
    )


@main.command()
@click.argument("uri", required=False)
@click.option(
    "--keystore",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Ethereum JSON keystore (version 3). Without it: a new key, for this run only.",
)
@click.option(
    "--password-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File whose first line is the keystore's password; else you are asked.",
)
@click.option("--yes", is_flag=True, help="Approve everything without asking. For tests and demonstrations.")
@_chain
@_stun
@_loopback
@_json
def wallet(
    *,
    uri: str | None,
    keystore: Path | None,
    password_file: Path | None,
    yes: bool,
    chain: int,
    ice_servers: tuple[str, ...],
    loopback: bool,
    as_json: bool,
) -> None:
    """Be a wallet: take the invitation URI, link with the website, sign what you approve.

    Without URI the invitation is read from standard input, where no process list shows it.
    """
    from .terminal import open_output
    from .wallet import load_account, run

    output = open_output(as_json=as_json)

    async def start() -> None:
        account = load_account(output, keystore, password_file)
        await run(output, uri, account, chain, yes=yes, ice_servers=ice_servers, loopback=loopback)

    _run(output, start)


@main.command()
@click.option("--once", is_flag=True, help="End after the demonstration; otherwise the service stays up.")
@click.option(
    "--port",
    default=8787,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Port of the service; 0 takes a free one.",
)
def demo(*, once: bool, port: int) -> None:
    """Show it all: the service, a website and a wallet, each a process of its own."""
    from .demo import run
    from .terminal import TextOutput, open_console

    output = TextOutput(open_console())
    _run(output, lambda: run(output, port, once=once))


_identity = click.option(
    "--identity",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File with the peer's key, made when there is none. Without it: a new identity for this run.",
)
_discovery = click.option(
    "--discovery",
    multiple=True,
    metavar="URL",
    default=["tcp://127.0.0.1:0"],
    show_default=True,
    help="How to find and reach peers: wss://signal.example, mdns:, tcp://0.0.0.0:0, static:ADDRESS. May be repeated.",
)
_transport = click.option(
    "--transport",
    "transports",
    multiple=True,
    metavar="URL",
    default=["webrtc:"],
    show_default=True,
    help="How to connect, for example webrtc:?engine=native&ice=stun:host:3478. May be repeated.",
)


@main.command()
@_identity
@_discovery
@_transport
@click.option("--hold", multiple=True, metavar="PEER", help="Stay connected with this peer id or address.")
@click.option("--advertise", multiple=True, metavar="TOPIC", help="Be findable under this topic.")
@click.option("--find", multiple=True, metavar="TOPIC", help="Stay connected with peers under this topic.")
@click.option("--text", is_flag=True, help="Print text for people instead of one JSON event a line.")
def peer(
    *,
    identity: Path | None,
    discovery: tuple[str, ...],
    transports: tuple[str, ...],
    hold: tuple[str, ...],
    advertise: tuple[str, ...],
    find: tuple[str, ...],
    text: bool,
) -> None:
    """Run a node until interrupted; what happens to its connections is printed as JSON."""
    from .peer import PeerOptions, run_peer
    from .terminal import open_output

    output = open_output(as_json=not text)
    options = PeerOptions(identity, discovery, transports)
    _run(output, lambda: run_peer(output, options, hold=hold, advertise=advertise, find=find))


@main.command()
@click.argument("target", metavar="PEER")
@_identity
@_discovery
@_transport
@click.option("-c", "--count", default=4, show_default=True, type=click.IntRange(min=0), help="0: no end.")
@click.option(
    "--interval", default=1.0, show_default=True, type=click.FloatRange(min=0), help="Seconds between two."
)
@_json
def ping(
    *,
    target: str,
    identity: Path | None,
    discovery: tuple[str, ...],
    transports: tuple[str, ...],
    count: int,
    interval: float,
    as_json: bool,
) -> None:
    """Measure the round trip to PEER, a peer id or an address."""
    from .peer import PeerOptions, run_ping
    from .terminal import open_output

    output = open_output(as_json=as_json)
    options = PeerOptions(identity, discovery, transports)
    _run(output, lambda: run_ping(output, options, target, count=count, interval=interval))


@main.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("target", metavar="PEER")
@_identity
@_discovery
@_transport
@_json
def send(
    *,
    file: Path,
    target: str,
    identity: Path | None,
    discovery: tuple[str, ...],
    transports: tuple[str, ...],
    as_json: bool,
) -> None:
    """Send FILE to PEER, a peer id or an address, that runs 'handclasp receive'."""
    from .peer import PeerOptions, run_send
    from .terminal import open_output

    output = open_output(as_json=as_json)
    _run(output, lambda: run_send(output, PeerOptions(identity, discovery, transports), file, target))


@main.command()
@click.option(
    "--into",
    "folder",
    default=".",
    show_default=True,
    type=click.Path(exists=True, file_okay=False, writable=True, path_type=Path),
    help="Folder for the files.",
)
@click.option("--yes", is_flag=True, help="Take every file without asking.")
@click.option("--once", is_flag=True, help="End after the first file.")
@click.option(
    "--from", "senders", multiple=True, metavar="PEER", help="Take files of this peer only. May be repeated."
)
@_identity
@_discovery
@_transport
@_json
def receive(
    *,
    folder: Path,
    yes: bool,
    once: bool,
    senders: tuple[str, ...],
    identity: Path | None,
    discovery: tuple[str, ...],
    transports: tuple[str, ...],
    as_json: bool,
) -> None:
    """Take files that others send with 'handclasp send'."""
    from .peer import PeerOptions, run_receive
    from .terminal import open_output

    output = open_output(as_json=as_json)
    options = PeerOptions(identity, discovery, transports)
    _run(output, lambda: run_receive(output, options, folder, yes=yes, once=once, senders=senders))


def _run(output: Output, command: Callable[[], Awaitable[None]]) -> None:
    """Run an async command."""
    import trio

    _guard(lambda: trio.run(command), output.error)


def _guard(call: Callable[[], object], show_error: Callable[[HandclaspError], None]) -> None:
    """Turn expected errors into one sentence and an exit status: 1, or 130 when interrupted."""
    try:
        call()
    except HandclaspError as exc:
        show_error(exc)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except BaseExceptionGroup as group:
        if group.split(KeyboardInterrupt)[1] is None:
            sys.exit(130)
        raise
