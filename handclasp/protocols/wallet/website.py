"""The website's side: invite a wallet, check its link, ask it for signatures."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import cast

import trio

from handclasp.abc import Connection
from handclasp.accounts import AccountId
from handclasp.discovery.signaling import Invitation, MailboxSession, open_invitation
from handclasp.discovery.signaling.invitation import LIFETIME
from handclasp.errors import LinkRefused, MisuseError, ProtocolViolation, RequestFailed
from handclasp.identity import PeerId
from handclasp.node import Node
from handclasp.protocols.jsonrpc import INTERNAL_ERROR, JsonRpcPeer, open_jsonrpc
from handclasp.scope import deadline, open_scope

from .connecting import Connecting
from .link import Pairing, verdict, verify_link_untrusted
from .sequence import Observer, Step, watch
from .sessions import METHODS
from .wallet import PROTOCOL

__all__ = ["LinkedWallet", "PendingLink", "RemoteWallet", "invite", "open_wallet"]

_DECISION_TIMEOUT = 300.0  # seconds from the scan; as long as the service keeps a claimed mailbox


class LinkedWallet:
    """A wallet that proved its account and is connected directly."""

    def __init__(self, account: AccountId, connection: Connection) -> None:
        self.account = account
        self.connection = connection

    @property
    def peer(self) -> PeerId:
        """The wallet's peer id."""
        return self.connection.peer


class PendingLink:
    """An invitation that waits for its wallet; made by `invite`."""

    def __init__(
        self,
        session: MailboxSession,
        connecting: Connecting,
        chains: frozenset[int],
        observe: Observer,
    ) -> None:
        self._session = session
        self._connecting = connecting
        self._chains = chains
        self._observe = observe

    @property
    def invitation(self) -> Invitation:
        """Show ``str(invitation)`` as a QR code or a link."""
        return self._session.invitation

    async def linked(self) -> LinkedWallet:
        """Wait until a wallet has proved its account and the direct connection is open.

        Raises:
            LinkRefused: the link does not hold, or the wallet's person declined; the wallet is told why.
            WrongPeer, HandshakeFailed, FingerprintMismatch: somebody interfered.
            ConnectionLost: there is no direct path.
            PeerLeft: the wallet disconnected in the middle.
            DeadlineExceeded: nobody took the invitation before it expired, or the wallet keeps silent.
            ServiceRefused: the service ended the pairing; the code says why.
            ServiceUnavailable: the service went away.
        """
        async with open_scope() as waiting:
            waiting.start_soon(self._connecting.watch)
            await self._session.wait_scanned()
            with deadline(_DECISION_TIMEOUT, "the wallet did not link"):
                link = await self._session.receive_link()
        account = await self._verify(link)
        return LinkedWallet(account, await self._connecting.get())

    async def _verify(self, link: bytes) -> AccountId:
        self._observe(Step.LINK_RECEIVED)
        session = self._session
        pairing = Pairing(
            session.invitation, session.peer, await session.nonce(), await session.handshake_hash()
        )
        try:
            account = await trio.to_thread.run_sync(verify_link_untrusted, link, pairing, self._chains)
        except LinkRefused as exc:
            if exc.field != "approval":
                await session.send_link(verdict(exc))
            raise
        self._observe(Step.LINKED)
        await session.send_link(verdict(None))
        return account


@asynccontextmanager
async def invite(
    node: Node,
    *,
    service: str,
    origin: str,
    chains: Iterable[int] = (1,),
    lifetime: float = LIFETIME,
    observe: Observer = lambda _: None,
) -> AsyncGenerator[PendingLink]:
    """Invite a wallet; the invitation is good while the block runs, once.

    Args:
        node: needs a transport that uses signaling, such as `handclasp.webrtc`.
        service: WebSocket URL of the signaling service.
        origin: the website's origin.
        chains: EIP-155 chain ids that may sign in.
        lifetime: seconds until the invitation expires; a service keeps an unclaimed mailbox for 120 by default.
        observe: is called with each step.

    Raises:
        ConfigurationError: *service* or *origin* cannot stand in an invitation.
        ServiceUnavailable, ServiceRefused: the service cannot be used.
    """
    opening = open_invitation(
        node.identity, service=service, origin=origin, lifetime=lifetime, watcher=watch(observe, wallet=False)
    )
    async with opening as session, open_scope() as scope:
        # At once, so that the offer is ready before anybody scans.
        connecting = Connecting(node, session.signaling, lambda: observe(Step.WEBSITE_CONNECTED))
        scope.start_soon(connecting.run)
        yield PendingLink(session, connecting, frozenset(chains), observe)


class RemoteWallet:
    """The wallet protocol as the website speaks it; made by `open_wallet`."""

    def __init__(self, rpc: JsonRpcPeer, linked: LinkedWallet) -> None:
        self._rpc = rpc
        self._linked = linked
        self._session_id: str | None = None

    @property
    def address(self) -> str:
        """The linked address in EIP-55 form."""
        return self._linked.account.address

    async def create_session(self, methods: Iterable[str] = METHODS) -> Mapping[str, object]:
        """Ask for *methods* on the linked chain (CAIP-25); returns the session as the wallet granted it.

        Raises:
            RequestFailed: 5000 when the person declined, 5100 or 5101 when the wallet has none of it.
            ConnectionLost, DeadlineExceeded: see `JsonRpcPeer.call`.
        """
        chain = self._linked.account.chain
        scopes = {
            chain.namespace: {"chains": [chain.reference], "methods": list(methods), "notifications": []}
        }
        session = _object(await self._rpc.call("wallet_createSession", {"scopes": scopes}), "session")
        session_id = session.get("sessionId")
        if not isinstance(session_id, str):
            raise ProtocolViolation("the wallet granted a session without an id")
        self._session_id = session_id
        return session

    async def request(self, method: str, params: object) -> object:
        """Ask for one method in the session, on the linked chain (CAIP-27).

        Raises:
            RequestFailed: the method failed (4001: the person declined), or was not granted (4100).
            MisuseError: there is no session yet.
            ConnectionLost, DeadlineExceeded: see `JsonRpcPeer.call`.
        """
        if self._session_id is None:
            raise MisuseError("call create_session() first")
        invocation = {
            "sessionId": self._session_id,
            "chainId": str(self._linked.account.chain),
            "request": {"method": method, "params": params},
        }
        answer = _object(await self._rpc.call("wallet_invokeMethod", invocation), "answer")
        outcome = _object(answer.get("result"), "result")
        if "error" in outcome:
            error = _object(outcome["error"], "error")
            code, message = error.get("code"), error.get("message")
            raise RequestFailed(code if isinstance(code, int) else INTERNAL_ERROR, str(message)[:1_000])
        return outcome.get("result")

    async def accounts(self) -> list[str]:
        """The addresses that the wallet granted."""
        accounts = await self.request("eth_accounts", [])
        if not isinstance(accounts, list):
            raise ProtocolViolation("the wallet answered eth_accounts with something else than a list")
        return [str(account) for account in cast("list[object]", accounts)]

    async def personal_sign(self, text: str) -> str:
        """A signature over *text* (EIP-191) by the linked account, not yet verified."""
        return _signature(await self.request("personal_sign", ["0x" + text.encode().hex(), self.address]))

    async def sign_typed_data(self, typed: Mapping[str, object]) -> str:
        """A signature over typed data (EIP-712) by the linked account, not yet verified."""
        return _signature(await self.request("eth_signTypedData_v4", [self.address, dict(typed)]))


@asynccontextmanager
async def open_wallet(node: Node, linked: LinkedWallet) -> AsyncGenerator[RemoteWallet]:
    """Speak the wallet protocol with a linked wallet while the block runs.

    Raises:
        ConnectionLost: the wallet is gone.
    """
    stream = await node.open_stream(linked.peer, PROTOCOL)
    async with open_jsonrpc(stream) as rpc:
        yield RemoteWallet(rpc, linked)


def _object(value: object, name: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise ProtocolViolation(f"the wallet answered with a malformed {name}")
    return cast("dict[str, object]", value)


def _signature(value: object) -> str:
    if not isinstance(value, str):
        raise ProtocolViolation("the wallet answered with something else than a signature")
    return value
