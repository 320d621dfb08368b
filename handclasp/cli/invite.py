"""``handclasp invite``: a website in the terminal."""

from __future__ import annotations

import json
import time
from pathlib import Path

import trio

from handclasp.accounts import verify_message, verify_typed_data
from handclasp.errors import ConfigurationError, ConnectionLost, DeadlineExceeded, LinkRefused, RequestFailed
from handclasp.node import open_node
from handclasp.protocols.wallet import LinkedWallet, RemoteWallet, Step, invite, open_wallet
from handclasp.scope import open_scope

from .pairing import preload, transport
from .terminal import Output, qr_code, read_line, shown

_HELP = """Requests: personal_sign TEXT · eth_signTypedData_v4 FILE.json · eth_accounts · quit"""


async def run(
    output: Output,
    service: str,
    origin: str,
    chain: int,
    *,
    lifetime: int,
    ice_servers: tuple[str, ...],
    loopback: bool,
) -> None:
    """Invite, link, then send what the person types until the input ends or the wallet leaves."""
    async with open_node(transports=[transport(ice_servers, loopback=loopback)]) as node:
        async with (
            invite(
                node, service=service, origin=origin, chains=[chain], lifetime=lifetime, observe=output.step
            ) as pending,
            open_scope() as scope,
        ):
            uri = str(pending.invitation)
            output.step(Step.INVITED)
            output.event(
                "invitation",
                f"{qr_code(uri)}\n[bold]{uri}[/bold]\n\n"
                f"Scan it, or give it to [bold]handclasp wallet[/bold]; it is good for {lifetime} s.",
                uri=uri,
            )
            scope.start_soon(_preload, output)
            linked = await pending.linked()
        output.event(
            "linked",
            f"\n[green]linked[/green] {linked.account.address} on {linked.account.chain}",
            account=str(linked.account),
        )
        async with open_wallet(node, linked) as wallet:
            await wallet.create_session()
            output.step(Step.SESSION_CREATED)
            output.event("session", _HELP)
            await _converse(output, linked, wallet)


async def _preload(output: Output) -> None:
    await trio.to_thread.run_sync(preload)
    output.event("loaded", "")


async def _converse(output: Output, linked: LinkedWallet, wallet: RemoteWallet) -> None:
    async with open_scope() as scope:
        scope.start_soon(_end_with, linked)
        while True:
            line = await read_line("> ")
            if line is None or line in {"quit", "exit"}:
                return
            if line:
                await _request(output, wallet, line)


async def _end_with(linked: LinkedWallet) -> None:
    await linked.connection.wait_closed()
    raise ConnectionLost("the wallet disconnected")


async def _request(output: Output, wallet: RemoteWallet, line: str) -> None:
    method, _, argument = line.partition(" ")
    started = time.perf_counter()
    try:
        result = await _send(wallet, method, argument)
    except (RequestFailed, DeadlineExceeded, ConfigurationError, LinkRefused) as exc:
        output.error(exc)
        return
    took = (time.perf_counter() - started) * 1000
    if method == "personal_sign":
        output.step(Step.SIGNED)
    output.event(
        "result",
        f"{shown(str(result))}  [dim]{took:.1f} ms[/dim]",
        method=method,
        result=result,
        ms=round(took, 2),
    )


async def _send(wallet: RemoteWallet, method: str, argument: str) -> object:
    """Send one typed request; a signature is verified before it is shown."""
    match method:
        case "eth_accounts":
            return await wallet.accounts()
        case "personal_sign":
            signature = await wallet.personal_sign(argument)
            verify_message(argument, signature, wallet.address)
            return signature
        case "eth_signTypedData_v4":
            typed = await _read_json(Path(argument))
            signature = await wallet.sign_typed_data(typed)
            verify_typed_data(typed, signature, wallet.address)
            return signature
        case _:
            raise ConfigurationError(f"there is no request {method!r}. {_HELP}")


async def _read_json(path: Path) -> dict[str, object]:
    try:
        value: object = json.loads(await trio.Path(path).read_text())
    except (OSError, ValueError) as exc:
        raise ConfigurationError(f"{path}: {exc}") from None
    if not isinstance(value, dict):
        raise ConfigurationError(f"{path}: not a JSON object")
    return value  # pyright: ignore[reportUnknownVariableType] - json gives str keys
