"""One pairing from both sides in this process, and what became of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import trio

from handclasp import Invitation, open_node, webrtc
from handclasp.accounts import LocalAccount
from handclasp.errors import HandclaspError
from handclasp.protocols.wallet import (
    PROTOCOL,
    Approver,
    LinkedWallet,
    LinkRequest,
    Proposal,
    SigningRequest,
    Step,
    Wallet,
    invite,
    open_wallet,
)
from handclasp.transports.webrtc.aiortc import AiortcEngine

ACCOUNT = LocalAccount.generate()
MESSAGE = "a message that only the two may know"


class Yes(Approver):
    async def approve_link(self, request: LinkRequest) -> bool:
        return True

    async def approve_session(self, proposal: Proposal) -> bool:
        return True

    async def approve_signature(self, request: SigningRequest) -> bool:
        return True


@dataclass
class Outcome:
    invitation: Invitation | None = None
    linked: LinkedWallet | None = None
    wallet_connected: bool = False
    signature: str = ""
    steps: list[Step] = field(default_factory=list)
    website_error: HandclaspError | None = None
    wallet_error: HandclaspError | None = None

    @property
    def nobody_has_a_session(self) -> bool:
        return self.linked is None and not self.wallet_connected and not self.signature


async def pair(service: str, *, edit: Callable[[str], str] = lambda uri: uri, within: float = 60) -> Outcome:
    """Let a website and a wallet pair through *service*; *edit* changes the invitation on its way.

    Both sides are cut off after *within* seconds, far more than an undisturbed pairing takes:
    an attack that makes them wait forever shows as a side with neither a session nor an error.
    """
    outcome = Outcome()
    wallet = Wallet(ACCOUNT, Yes())
    transport = webrtc(engine=AiortcEngine(addresses=["127.0.0.1"]))
    shown = trio.Event()

    async def website_side() -> None:
        async with open_node(transports=[transport]) as node:
            try:
                observe = outcome.steps.append
                async with invite(
                    node, service=service, origin="https://shop.example", observe=observe
                ) as pending:
                    outcome.invitation = pending.invitation
                    shown.set()
                    outcome.linked = await pending.linked()
                async with open_wallet(node, outcome.linked) as remote:
                    await remote.create_session()
                    outcome.signature = await remote.personal_sign(MESSAGE)
            except HandclaspError as exc:
                outcome.website_error = exc

    async def wallet_side() -> None:
        await shown.wait()
        async with open_node(transports=[transport], protocols={PROTOCOL: wallet.serve}) as node:
            try:
                invitation = Invitation.from_text_untrusted(edit(str(outcome.invitation)), now=0)
                connection = await wallet.link(node, invitation)
                outcome.wallet_connected = True
                await connection.wait_closed()
            except HandclaspError as exc:
                outcome.wallet_error = exc

    with trio.move_on_after(within):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(website_side)
            nursery.start_soon(wallet_side)
    return outcome
