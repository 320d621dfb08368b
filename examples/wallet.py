"""A wallet in forty lines: `python examples/wallet.py 'handclasp:1?…'`

The other half of the website in the README. It makes a new account for the run and asks you
in the terminal before it proves or signs anything; `--yes` agrees to everything.
"""

import sys
import time

import trio

from handclasp import Invitation, open_node, webrtc
from handclasp.accounts import LocalAccount
from handclasp.protocols.wallet import PROTOCOL, Approver, LinkRequest, Proposal, SigningRequest, Wallet


class Person(Approver):
    """Asks whoever sits at the terminal."""

    async def approve_link(self, request: LinkRequest) -> bool:
        return await ask(f"Prove {request.account} to {request.origin} (as it claims to be)?")

    async def approve_session(self, proposal: Proposal) -> bool:
        return await ask(
            f"Let it ask for {', '.join(scope.methods[0] for scope in proposal.scopes)} and more?"
        )

    async def approve_signature(self, request: SigningRequest) -> bool:
        return await ask(f"Sign this?\n{request.shown}\n")


async def ask(question: str) -> bool:
    if "--yes" in sys.argv:
        return True
    answer = await trio.to_thread.run_sync(input, f"{question} [y/N] ", abandon_on_cancel=True)
    return answer.strip().lower() == "y"


async def main(uri: str) -> None:
    invitation = Invitation.from_text_untrusted(uri, now=time.time())
    wallet = Wallet(LocalAccount.generate(), Person())
    async with open_node(transports=[webrtc()], protocols={PROTOCOL: wallet.serve}) as node:
        connection = await wallet.link(node, invitation)
        print(f"linked {wallet.account} with {invitation.origin}")
        await connection.wait_closed()


if __name__ == "__main__":
    trio.run(main, sys.argv[1])
