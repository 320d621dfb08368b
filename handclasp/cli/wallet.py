"""``handclasp wallet``: a wallet in the terminal."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click
import trio

from handclasp.accounts import LocalAccount
from handclasp.discovery.signaling import Invitation
from handclasp.errors import ConfigurationError
from handclasp.node import open_node
from handclasp.protocols.wallet import (
    PROTOCOL,
    Approver,
    LinkRequest,
    Proposal,
    SigningRequest,
    Step,
    Wallet,
    check_origin,
)

from .pairing import preload, transport
from .terminal import Output, ask, describe_link, describe_session, describe_signature, read_line


def load_account(output: Output, keystore: Path | None, password_file: Path | None) -> LocalAccount:
    """The account to sign with."""
    preload()
    if keystore is None:
        account = LocalAccount.generate()
        output.event(
            "account", f"a new account for this run: [bold]{account.address}[/bold]", address=account.address
        )
        return account
    if password_file is not None:
        password = password_file.read_text().splitlines()[0] if password_file.stat().st_size else ""
    else:
        password = click.prompt(f"Password of {keystore}", hide_input=True)
    account = LocalAccount.from_keystore(keystore, password)
    output.event("account", f"account [bold]{account.address}[/bold]", address=account.address)
    return account


async def run(
    output: Output,
    uri: str | None,
    account: LocalAccount,
    chain: int,
    *,
    yes: bool,
    ice_servers: tuple[str, ...],
    loopback: bool,
) -> None:
    """Take the invitation, link, and answer requests until the website leaves."""
    text = uri if uri is not None else await read_line("Paste the invitation: ")
    if not text:
        raise ConfigurationError("there is no invitation: give its URI as the argument, or on standard input")
    invitation = Invitation.from_text_untrusted(text.strip(), now=time.time())
    output.step(Step.READ)
    if uri is None and not yes and not sys.stdin.isatty():
        raise ConfigurationError(
            "standard input gave the invitation, so nobody can be asked there: add --yes or pass the URI"
        )
    approver = ApproveEverything() if yes else _Person(output)
    asked = {} if yes else {"origin_check": check_origin}  # with --yes nobody looks at it
    wallet = Wallet(account, approver, chains=(chain,), **asked)
    factory = transport(ice_servers, loopback=loopback)
    async with open_node(transports=[factory], protocols={PROTOCOL: wallet.serve}) as node:
        connection = await wallet.link(node, invitation, observe=output.step)
        output.event(
            "linked",
            f"\n[green]linked[/green] with {invitation.origin}; waiting for its requests",
            origin=invitation.origin,
        )
        await connection.wait_closed()
        output.event("left", "the website disconnected")


class ApproveEverything(Approver):
    """``--yes`` asks nobody: for tests and demonstrations."""

    async def approve_link(self, request: LinkRequest) -> bool:  # noqa: ARG002
        """Yes."""
        return True

    async def approve_session(self, proposal: Proposal) -> bool:  # noqa: ARG002
        """Yes."""
        return True

    async def approve_signature(self, request: SigningRequest) -> bool:  # noqa: ARG002
        """Yes."""
        return True


class _Person(Approver):
    """Asks in the terminal, one question at a time."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._one_at_a_time = trio.Lock()

    async def approve_link(self, request: LinkRequest) -> bool:
        return await self._ask(describe_link(request), "Link?")

    async def approve_session(self, proposal: Proposal) -> bool:
        return await self._ask(describe_session(proposal), "Allow it to ask?")

    async def approve_signature(self, request: SigningRequest) -> bool:
        return await self._ask(describe_signature(request), "Sign?")

    async def _ask(self, text: str, question: str) -> bool:
        async with self._one_at_a_time:
            self._output.event("question", text, question=question)
            return await ask(question)
