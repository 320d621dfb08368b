"""Two parties in one mailbox who have proved who they are: signaling and link, sealed end to end."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeAlias

import trio

from handclasp.abc import IceServer, SignalingChannel
from handclasp.discovery.sealed import Conversation, Kind, Message
from handclasp.errors import (
    DeadlineExceeded,
    HandclaspError,
    HandshakeFailed,
    InvitationRefused,
    MisuseError,
    PeerLeft,
    ServiceRefused,
    ServiceUnavailable,
)
from handclasp.identity import Identity, PeerId
from handclasp.scope import open_scope

from .invitation import LIFETIME, Invitation
from .mailbox import Crowded, Event, Incoming, Mailbox, Presence, claim_mailbox, open_mailbox
from .moments import Moment, Watcher

__all__ = ["MailboxSession", "join", "open_invitation"]

_MOMENT_OF: dict[Event, Moment] = {
    Presence(here=True): Moment.JOINED,
    Presence(here=False): Moment.LEFT,
    Crowded(): Moment.CROWDED,
}

_log = logging.getLogger(__name__)

#: Seconds that a handshake message waits for something to carry.
_EARLY_DATA_PATIENCE = 3.0
_Publish: TypeAlias = Callable[[bytes], Awaitable[None]]
_WAITING = 256  # opened messages of one kind that wait for a slow reader


class MailboxSession:
    """One side of a pairing; made by `open_invitation` (website) or `join` (wallet).

    Attributes:
        invitation: what both sides know.
        identity: who this side is.
        signaling: the channel that a transport turns into a connection.
    """

    def __init__(
        self, identity: Identity, invitation: Invitation, mailbox: Mailbox, watcher: Watcher, *, wallet: bool
    ) -> None:
        self.invitation = invitation
        self.identity = identity
        self.signaling: SignalingChannel = _SealedSignaling(self, offers=not wallet)
        self._mailbox = mailbox
        self._conversation = Conversation(
            identity, dialed=invitation.peer if wallet else None, prologue=invitation.prologue
        )
        self._watcher = watcher
        self._wallet = wallet
        self._sending = trio.Lock()
        self._turn = trio.Event()  # set while `Conversation.may_send`
        self._queued = trio.Event()  # somebody wants to send, so a handshake message need not go empty
        self._over: HandclaspError | None = None
        queues = {kind: trio.open_memory_channel[bytes](_WAITING) for kind in Kind}
        self._deliver = {kind: queue[0] for kind, queue in queues.items()}
        self._opened = {kind: queue[1] for kind, queue in queues.items()}
        self._greeted = trio.Event()
        self._handshaken = trio.Event()

    @property
    def peer(self) -> PeerId:
        """Who the other side proved to be.

        Raises:
            MisuseError: nothing was received yet.
        """
        return self._conversation.peer

    async def wait_scanned(self) -> None:
        """Wait, as the website, until a wallet has taken the invitation.

        Raises:
            DeadlineExceeded: it expired first.
            PeerLeft, ServiceRefused, ServiceUnavailable: the mailbox is over.
        """
        with trio.move_on_after(self.invitation.expires - time.time()):
            await self._greeted.wait()
            if self._over is not None:
                raise self._over
            return
        raise DeadlineExceeded("nobody took the invitation before it expired: make a new one")

    async def nonce(self) -> str:
        """The service's nonce for the sign-in message of this pairing."""
        return await self._mailbox.nonce()

    async def handshake_hash(self) -> bytes:
        """32 public bytes that name this very session; waits for the handshake."""
        await self._handshaken.wait()
        secured = self._conversation.secured
        if secured is None:
            raise self._over or HandshakeFailed("the handshake did not finish")
        return secured.handshake_hash

    @property
    def binding(self) -> bytes | None:
        """32 secret bytes of this very session, once the handshake is over."""
        secured = self._conversation.secured
        return None if secured is None else secured.binding

    async def send_link(self, text: bytes) -> None:
        """Send a message of the link that the service has no part in: a verdict, or a refusal.

        Raises:
            PeerLeft, ServiceRefused, ServiceUnavailable, HandshakeFailed: the pairing is over.
        """
        await self.send(Kind.LINK, text)

    async def post_link(self, text: bytes) -> None:
        """Send the signed link, as the wallet; the service takes the nonce before it passes it on.

        Raises:
            ServiceRefused: code ``nonce`` when the nonce is used, expired or wrong.
            PeerLeft, ServiceUnavailable, HandshakeFailed: the pairing is over.
        """
        await self.send(Kind.LINK, text, publish=self._mailbox.post_link)

    async def receive_link(self) -> bytes:
        """Wait for the peer's next message of the link.

        Raises:
            HandshakeFailed, WrongPeer: somebody interfered.
            PeerLeft, ServiceRefused, ServiceUnavailable: the pairing is over.
        """
        return await self.receive(Kind.LINK)

    async def ice_servers(self) -> Sequence[IceServer]:
        """The STUN and TURN servers of the service; where it has relays, the website waits until a wallet has come.

        None when the service has none, or does not say: two peers may reach each other without.
        """
        try:
            offered = await self._mailbox.ice_servers()
            if offered.more:
                await self._greeted.wait()
                offered = await self._mailbox.ice_servers()
        except (ServiceRefused, ServiceUnavailable) as exc:
            _log.info("no ICE servers from the service: %s", exc)
            return ()
        return offered.servers

    # --- inside ---

    async def send(self, kind: Kind, text: bytes, *, publish: _Publish | None = None) -> None:
        """Seal and send one message; may wait for our turn in the handshake."""
        self._queued.set()
        # One at a time: messages have to arrive in the order in which they were sealed.
        async with self._sending:
            await self._wait_turn()
            in_handshake = self._conversation.secured is None
            sealed = self._conversation.send(Message(kind, text))
            self._note_progress()
            if in_handshake:
                self._watcher(Moment.ANSWER_SENT if self._wallet else Moment.OFFER_SENT)
            await (publish or self._publish)(sealed)

    async def receive(self, kind: Kind) -> bytes:
        """Wait for the next message of one kind."""
        try:
            return await self._opened[kind].receive()
        except trio.EndOfChannel:
            raise self._over or PeerLeft("the pairing is over") from None

    async def _publish(self, sealed: bytes) -> None:
        await self._mailbox.publish("answer" if self._wallet else "offer", sealed)

    async def _wait_turn(self) -> None:
        while self._over is None:
            if self._conversation.may_send:
                return
            await self._turn.wait()
        raise self._over

    def _note_progress(self) -> None:
        if self._conversation.secured is not None:
            self._handshaken.set()
        self._turn.set()
        self._turn = trio.Event()

    async def run(self) -> None:
        """Move messages until the mailbox is over; whoever waits for one is told why."""
        try:
            async with open_scope() as scope:
                if self._wallet:
                    await self._mailbox.publish("link", self._conversation.greet())
                    self._watcher(Moment.CLAIMED)
                while True:
                    event = await self._mailbox.receive()
                    if not isinstance(event, Incoming):
                        self._watcher(_MOMENT_OF[event])
                        continue
                    self._take_untrusted(event.body)
                    if self._conversation.may_send and self._conversation.secured is None:
                        scope.start_soon(self._answer_empty)
        except trio.WouldBlock:
            self._finish(ServiceRefused("limit", f"more than {_WAITING} messages came that nobody read"))
        except HandclaspError as exc:
            self._finish(self._why(exc))
        finally:
            self._finish(PeerLeft("the pairing was closed"))

    def _finish(self, why: HandclaspError) -> None:
        """The pairing is over; the first reason stays."""
        if self._over is None:
            self._over = why
        self._greeted.set()
        self._handshaken.set()
        self._turn.set()
        for queue in self._deliver.values():
            queue.close()

    def _take_untrusted(self, sealed: bytes) -> None:
        in_handshake = self._conversation.secured is None
        message = self._conversation.receive_untrusted(sealed)
        self._greeted.set()
        if in_handshake:
            arrived = Moment.ANSWER_RECEIVED if self._conversation.secured else Moment.SCANNED
            self._watcher(Moment.OFFER_RECEIVED if self._wallet else arrived)
        self._note_progress()
        if message is not None:
            self._deliver[message.kind].send_nowait(message.text)

    async def _answer_empty(self) -> None:
        """Go on with the handshake even if nobody has anything to send with it."""
        with trio.move_on_after(_EARLY_DATA_PATIENCE):
            await self._queued.wait()
            return
        async with self._sending:
            if self._conversation.may_send and self._conversation.secured is None:
                sealed = self._conversation.send(None)
                self._note_progress()
                await self._publish(sealed)

    def _why(self, exc: HandclaspError) -> HandclaspError:
        """The error as the person at this side should read it."""
        code = exc.code if isinstance(exc, ServiceRefused) else None
        if code == "left":
            return PeerLeft("the other side disconnected and did not come back")
        if code == "closed":
            return PeerLeft("the other side ended the pairing")
        if self._wallet and not self._handshaken.is_set():
            if code == "crowded":
                return InvitationRefused(
                    "invitation", "it was already used, by you or by somebody else: ask for a new one"
                )
            if code == "unauthorized":
                return InvitationRefused(
                    "invitation", "the service does not know it (any more): ask for a new one"
                )
        return exc


class _SealedSignaling(SignalingChannel):
    """The signaling messages of a session."""

    def __init__(self, session: MailboxSession, *, offers: bool) -> None:
        self._session = session
        self._offers = offers

    @property
    def offers(self) -> bool:
        return self._offers

    @property
    def peer(self) -> PeerId:
        return self._session.peer

    @property
    def binding(self) -> bytes | None:
        return self._session.binding

    async def ice_servers(self) -> Sequence[IceServer]:
        return await self._session.ice_servers()

    async def send(self, message: bytes) -> None:
        if len(message) > self.MAX_MESSAGE:
            raise MisuseError(f"a signaling message has at most {self.MAX_MESSAGE} bytes, not {len(message)}")
        await self._session.send(Kind.SIGNALING, message)

    async def receive(self) -> bytes:
        return await self._session.receive(Kind.SIGNALING)

    async def aclose(self) -> None:
        """The session goes on for the link; its block closes it."""
        await trio.lowlevel.checkpoint()


@asynccontextmanager
async def open_invitation(
    identity: Identity,
    *,
    service: str,
    origin: str,
    lifetime: float = LIFETIME,
    watcher: Watcher = lambda _: None,
) -> AsyncGenerator[MailboxSession]:
    """Invite a wallet, as the website; the invitation can be used once, while the block runs.

    Args:
        identity: who the website is.
        service: WebSocket URL of the signaling service, for example ``wss://signal.example``.
        origin: the website's origin, for example ``https://shop.example``.
        lifetime: seconds until the invitation expires; a service keeps an unclaimed mailbox for 120 by default.
        watcher: is called with each `Moment`.

    Raises:
        ConfigurationError: *service* or *origin* cannot stand in an invitation.
        ServiceUnavailable, ServiceRefused: the service cannot be used.
    """
    invitation = Invitation.create(
        service=service, origin=origin, peer=identity.peer_id, now=time.time(), lifetime=lifetime
    )
    async with open_mailbox(service, invitation.mailbox, watcher) as mailbox, open_scope() as scope:
        session = MailboxSession(identity, invitation, mailbox, watcher, wallet=False)
        scope.start_soon(session.run)
        yield session


@asynccontextmanager
async def join(
    identity: Identity, invitation: Invitation, *, watcher: Watcher = lambda _: None
) -> AsyncGenerator[MailboxSession]:
    """Take an invitation, as the wallet, while the block runs.

    Raises:
        ServiceUnavailable: the service cannot be reached. That the invitation was used before, or
            that somebody interferes, is raised by the session's methods.
    """
    async with claim_mailbox(invitation.service, invitation.mailbox) as mailbox, open_scope() as scope:
        session = MailboxSession(identity, invitation, mailbox, watcher, wallet=True)
        scope.start_soon(session.run)
        yield session
