"""The wallet's side: link with a website, ask the person, answer requests."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import trio

from handclasp.abc import Connection, Stream
from handclasp.accounts import AccountId, ChainId, LocalAccount
from handclasp.discovery.signaling import Invitation, MailboxSession, join
from handclasp.errors import InvitationRefused, LinkRefused, RequestFailed
from handclasp.identity import PeerId
from handclasp.node import Node
from handclasp.protocols.jsonrpc import METHOD_NOT_FOUND, open_jsonrpc
from handclasp.scope import Result, deadline, open_scope

from .connecting import Connecting
from .link import DECLINED, Pairing, check_verdict_untrusted, sign_link
from .origin import OriginCheck, OriginLevel
from .sequence import Observer, Step, watch
from .sessions import (
    CHAINS_UNSUPPORTED,
    METHODS,
    METHODS_UNSUPPORTED,
    REJECTED,
    UNAUTHORIZED,
    UNKNOWN_SESSION,
    Invocation,
    Scope,
    Session,
    parse_invocation_untrusted,
    parse_scopes_untrusted,
)
from .signing import SigningRequest, prepare_untrusted

__all__ = ["PROTOCOL", "Approver", "LinkRequest", "Proposal", "Wallet"]

#: The protocol id of the wallet protocol (docs/protocols/wallet.md).
PROTOCOL = "/handclasp/wallet/1.0.0"
_HANDSHAKE_TIMEOUT = 30.0  # seconds; a website is a program, it answers at once


@dataclass(frozen=True)
class LinkRequest:
    """A website wants to be linked with this account. *level* says how far its origin can be believed.

    Show the origin as verified only if ``level.is_verified``; otherwise it is what the QR code *claims*.
    """

    origin: str
    service: str
    website: PeerId
    account: AccountId
    level: OriginLevel = OriginLevel.CLAIMED


@dataclass(frozen=True)
class Proposal:
    """A linked website asks for a session: what it would get if the person agrees."""

    origin: str
    scopes: tuple[Scope, ...]


class Approver(ABC):
    """Asks the wallet's person. Each method may take as long as the person does; it may be cancelled."""

    @abstractmethod
    async def approve_link(self, request: LinkRequest) -> bool:
        """Whether to prove the account to this website."""

    @abstractmethod
    async def approve_session(self, proposal: Proposal) -> bool:
        """Whether to grant these scopes."""

    @abstractmethod
    async def approve_signature(self, request: SigningRequest) -> bool:
        """Whether to sign; show ``request.shown`` and the origin."""


@dataclass
class _Website:
    """A linked website."""

    origin: str
    decided: trio.Event = field(default_factory=trio.Event)
    """Set once the website has accepted or refused the link."""
    sessions: dict[str, Session] = field(default_factory=dict[str, Session])


async def _ask_nobody(_: Invitation) -> OriginLevel:
    await trio.lowlevel.checkpoint()
    return OriginLevel.CLAIMED


class Wallet:
    """One account that websites can link with and ask for signatures.

    ::

        wallet = Wallet(account, approver)
        async with open_node(transports=[webrtc()], protocols={PROTOCOL: wallet.serve}) as node:
            await wallet.link(node, invitation)
            ...

    Args:
        account: whose key signs.
        approver: asks the person.
        chains: EIP-155 chain ids; the first one is named in the sign-in message.
        origin_check: finds out how far a website's origin can be believed, while the handshake runs;
            `check_origin` asks the origin itself. Default: nobody is asked, every origin is *claimed*.
    """

    def __init__(
        self,
        account: LocalAccount,
        approver: Approver,
        *,
        chains: tuple[int, ...] = (1,),
        origin_check: OriginCheck = _ask_nobody,
    ) -> None:
        self._account = account
        self._approver = approver
        self._chains = chains
        self._origin_check = origin_check
        self._websites: dict[PeerId, _Website] = {}

    @property
    def account(self) -> AccountId:
        """The account that is linked, on its first chain."""
        return AccountId(ChainId("eip155", str(self._chains[0])), self._account.address)

    async def link(
        self, node: Node, invitation: Invitation, *, observe: Observer = lambda _: None
    ) -> Connection:
        """Take an invitation: prove the account to the website and connect directly.

        The connection is made while the person still decides. It stays open afterwards, and
        `serve` answers what the website asks over it.

        Raises:
            InvitationRefused: it is over, was used before, or demands a policy that this wallet does not have.
            WrongPeer, HandshakeFailed, FingerprintMismatch: somebody interfered.
            LinkRefused: the person or the website said no; the field says why.
            ConnectionLost: there is no direct path.
            DeadlineExceeded: the website, or a service in between, keeps silent.
            PeerLeft, ServiceRefused, ServiceUnavailable: the pairing ended early.
        """
        if invitation.expires <= time.time():
            raise InvitationRefused("expires", "it has expired: ask the website for a new one")
        if invitation.policy != "open":
            raise InvitationRefused(
                "policy", f"the website demands {invitation.policy!r}, which this wallet cannot check yet"
            )
        async with (
            join(node.identity, invitation, watcher=watch(observe, wallet=True)) as session,
            open_scope() as scope,
        ):
            connecting = Connecting(node, session.signaling, lambda: observe(Step.WALLET_CONNECTED))
            level = Result[OriginLevel]()
            scope.start_soon(connecting.run)
            scope.start_soon(level.of, lambda: self._origin_check(invitation))
            async with open_scope() as deciding:
                deciding.start_soon(connecting.watch)  # nobody goes on reading a prompt that is in vain
                link = await self._sign(session, level, observe)
            await self._prove(session, link, observe)
            return await connecting.get()

    async def _sign(self, session: MailboxSession, level: Result[OriginLevel], observe: Observer) -> bytes:
        """The link, once the person agrees."""
        invitation = session.invitation
        # Only after the handshake is the website known to be the one in the QR code.
        with deadline(_HANDSHAKE_TIMEOUT, "the website did not answer the handshake"):
            handshake_hash = await session.handshake_hash()
        request = LinkRequest(
            invitation.origin, invitation.service, session.peer, self.account, await level.get()
        )
        if not await self._approver.approve_link(request):
            await session.send_link(DECLINED)
            raise LinkRefused("approval", "you declined")
        observe(Step.APPROVED)
        pairing = Pairing(invitation, session.identity.peer_id, await session.nonce(), handshake_hash)
        return await trio.to_thread.run_sync(sign_link, pairing, self._account, self._chains[0])

    async def _prove(self, session: MailboxSession, link: bytes, observe: Observer) -> None:
        # Before the website can know that it is linked: its first stream may overtake its verdict.
        website = self._websites[session.peer] = _Website(session.invitation.origin)
        try:
            await session.post_link(link)
            observe(Step.LINK_POSTED)
            with deadline(_HANDSHAKE_TIMEOUT, "the website did not answer the link"):
                check_verdict_untrusted(await session.receive_link())
        except BaseException:
            del self._websites[session.peer]
            raise
        finally:
            website.decided.set()

    async def serve(self, stream: Stream, peer: PeerId) -> None:
        """The handler of `PROTOCOL` for `open_node`."""
        pending = self._websites.get(peer)
        if pending is not None:
            await pending.decided.wait()
        website = self._websites.get(peer)
        if website is None:  # never linked, or the link was refused
            await stream.reset()
            return

        async def answer(method: str, params: object) -> object:
            return await self._answer(website, method, params)

        async with open_jsonrpc(stream, answer) as rpc:
            await rpc.wait_closed()

    async def _answer(self, website: _Website, method: str, params: object) -> object:
        if method == "wallet_createSession":
            return await self._create_session(website, parse_scopes_untrusted(params))
        if method == "wallet_invokeMethod":
            return await self._invoke(website, parse_invocation_untrusted(params))
        raise RequestFailed(METHOD_NOT_FOUND, f"this wallet has no method {method[:100]}")

    async def _create_session(self, website: _Website, proposed: tuple[Scope, ...]) -> object:
        chains = frozenset(f"eip155:{chain}" for chain in self._chains)
        granted = tuple(
            scope for scope in (s.grant(chains, self._account.address) for s in proposed) if scope
        )
        if not granted:
            if any(chain in chains for scope in proposed for chain in scope.chains):
                raise RequestFailed(
                    METHODS_UNSUPPORTED,
                    f"none of the methods is supported; this wallet has {', '.join(METHODS)}",
                )
            raise RequestFailed(
                CHAINS_UNSUPPORTED,
                f"none of the chains is supported; this wallet has {', '.join(sorted(chains))}",
            )
        if not await self._approver.approve_session(Proposal(website.origin, granted)):
            raise RequestFailed(5000, "the person declined the session")
        session = Session(granted)
        website.sessions[session.session_id] = session
        return session.to_json()

    async def _invoke(self, website: _Website, call: Invocation) -> object:
        session = website.sessions.get(call.session_id)
        if session is None:
            raise RequestFailed(UNKNOWN_SESSION, "there is no such session")
        if not session.allows(call.chain, call.method):
            raise RequestFailed(UNAUTHORIZED, f"{call.method} on {call.chain} was not granted")
        try:
            if call.method == "eth_accounts":
                return call.answer({"result": [self._account.address]})
            request = prepare_untrusted(self._account, website.origin, call.chain, call.method, call.params)
            if not await self._approver.approve_signature(request):
                raise RequestFailed(REJECTED, "the person declined")  # noqa: TRY301 - answered like any other
            return call.answer({"result": request.sign()})
        except RequestFailed as exc:  # a method's own error goes inside the result (CAIP-27)
            return call.answer({"error": {"code": exc.code, "message": exc.message}})
