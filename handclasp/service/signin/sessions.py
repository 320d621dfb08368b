"""The rules of signing in, without HTTP: who may turn what into a session.

Three secrets of 256 bits, kept as SHA-256 only: the *login* names a browser that is about to sign in, a *code* is
worth one session to that browser, the *session id* names somebody who is signed in. None of them becomes another:
signing in makes a new id, and voids the ones before it.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from handclasp.accounts import AccountId
from handclasp.errors import LinkRefused, WorldFault
from handclasp.service.frames import Refused
from handclasp.service.records import Code, Device, Linked, Outcome, Records, Session, SignIn
from handclasp.service.records.contract import NewSession

from .link import Eip155, ExpectedLink, SignatureVerifier, verify_link
from .settings import SignInSettings

_TOUCH_EVERY = 60  # seconds: a write for each request would cost more than the request
_KEEP_AFTER = 15 * 60  # seconds: a message lives 10 minutes, and clocks differ by a minute on either side
_PURGED_AT_ONCE = 100  # of each kind, with each new session: more than one sign-in leaves behind
_EIP155 = Eip155()


@dataclass(frozen=True)
class Begun:
    """A sign-in has begun: what the browser gets."""

    login: str
    """For the login cookie."""

    challenge: str
    """What the page has to sign, 64 hexadecimal digits."""

    expires_in: int


@dataclass(frozen=True)
class LinkUntrusted:
    """What the page hands on."""

    mailbox: str
    message: str
    signature: str
    proof: bytes


@dataclass(frozen=True)
class SignedIn:
    """Who is signed in."""

    account: AccountId
    device: str
    """The wallet's peer id."""

    handshake: str
    """The handshake hash of the channel in which the account signed in, 64 hexadecimal digits."""

    label: str
    """What lists call this session; opens nothing."""

    created: int
    """Unix time in seconds; the other two as well."""

    seen: int
    expires: int


class Sessions:
    """Everybody who is signed in, or about to be.

    *clock* gives Unix time in seconds.
    """

    def __init__(
        self,
        settings: SignInSettings,
        records: Records,
        *,
        verifier: SignatureVerifier = _EIP155,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.settings = settings
        self.records = records
        self._verifier = verifier
        self._clock = clock

    # Signing in

    async def begin(
        self, *, origin: str, mailbox: str, website: str, nonce: str | None, login: str | None
    ) -> Begun:
        """A page of *origin* is about to show an invitation with *mailbox* and the peer id *website*.

        A browser's *login* goes on being used while one of its sign-ins is under way: it may have several pages.

        Raises:
            Refused: ``crowded``: the mailbox was used before; ``full``.
        """
        now = self._now()
        if login is None or not await self.records.has_sign_in(digest(login), now=now):
            login = secrets.token_hex(32)
        life = self.settings.sign_in_life
        hashed = None if nonce is None else digest(nonce)
        sign_in = SignIn(mailbox, digest(login), website, origin, hashed, now, now + life)
        match await self.records.add_sign_in(sign_in, now=now, most=self.settings.sign_ins):
            case Outcome.EXISTS:
                raise Refused("crowded", "this mailbox was used before: make a new invitation", 409)
            case Outcome.FULL:
                raise Refused("full", "too many are signing in at the moment: try again in a minute", 503)
            case Outcome.ADDED:
                return Begun(login, _challenge(login, mailbox), life)

    async def link(self, login: str | None, origin: str, link: LinkUntrusted) -> str:
        """Use the sign-in up, verify the link, and give a one-time code for it.

        Raises:
            Refused: ``sign_in`` alike for one that is unknown, used, expired or another browser's; ``link``: the
                link does not hold; ``unavailable``: nobody can tell.
        """
        now = self._now()
        sign_in = None
        if login is not None:
            sign_in = await self.records.take_sign_in(
                link.mailbox, digest(login), now=now, keep_until=now + _KEEP_AFTER
            )
        if login is None or sign_in is None or sign_in.origin != origin:
            raise Refused("sign_in", "this sign-in cannot be used: begin again with a new invitation", 403)
        expected = ExpectedLink(
            origin=sign_in.origin,
            mailbox=sign_in.mailbox,
            website=sign_in.website,
            chains=frozenset(self.settings.chains),
            begun=datetime.fromtimestamp(sign_in.begun, UTC),
            challenge=_challenge(login, sign_in.mailbox),
            nonce=sign_in.nonce,
        )
        try:
            verified = await verify_link(
                link.message,
                link.signature,
                link.proof,
                expected,
                verifier=self._verifier,
                now=datetime.fromtimestamp(now, UTC),
            )
        except LinkRefused as exc:
            raise Refused("link", f"{exc.field}: {exc.reason}", 403) from None
        except WorldFault:  # the verifier had to ask somebody
            raise Refused(
                "unavailable", "the signature cannot be verified at the moment: try again", 503
            ) from None
        code = secrets.token_hex(32)
        linked = Linked(str(verified.account), str(verified.wallet), verified.handshake)
        await self.records.link(
            Code(digest(code), digest(login), linked, now + self.settings.code_life),
            now=now,
            most_devices=self.settings.devices,
        )
        return code

    async def redeem(self, login: str | None, code: str, current: str | None) -> tuple[str, SignedIn]:
        """Turn a code into a session: its id, and who it is. The session *current* of this browser ends.

        Raises:
            Refused: ``code`` alike for one that is unknown, used, expired or another browser's.
        """
        now = self._now()
        session_id = secrets.token_hex(32)
        session = None
        if login is not None:
            new = NewSession(
                digest(session_id),
                secrets.token_hex(8),
                now + self.settings.idle_life,
                now + self.settings.session_life,
            )
            session = await self.records.redeem(
                digest(code),
                digest(login),
                new,
                ends=None if current is None else digest(current),
                now=now,
                most_sessions=self.settings.sessions,
            )
        if session is None:
            raise Refused("code", "this code cannot be used: begin again with a new invitation", 403)
        await self.records.purge(now=now, most=_PURGED_AT_ONCE)
        return session_id, _signed_in(session)

    # Being signed in

    async def signed_in(self, session_id: str | None) -> SignedIn | None:
        """Who has this session id; None for one that is unknown, ended or over. Keeps it from becoming idle."""
        if session_id is None:
            return None
        now = self._now()
        hashed = digest(session_id)
        session = await self.records.session(hashed, now=now)
        if session is None:
            return None
        if now - session.seen >= _TOUCH_EVERY:
            await self.records.touch(hashed, now=now, idle_until=now + self.settings.idle_life)
        return _signed_in(session)

    async def rotate(self, session_id: str) -> tuple[str, SignedIn]:
        """Give a session a new id, as whenever what it may do changes; the old one is void at once.

        Raises:
            Refused: ``unauthorized``: there is no such session.
        """
        now = self._now()
        new = secrets.token_hex(32)
        session = await self.records.rotate(
            digest(session_id), digest(new), now=now, idle_until=now + self.settings.idle_life
        )
        if session is None:
            raise unauthorized()
        return new, _signed_in(session)

    async def log_out(self, session_id: str) -> None:
        """End a session; harmless when it is over."""
        await self.records.end_session(digest(session_id))

    # Lists

    async def sessions_of(self, account: AccountId) -> Sequence[SignedIn]:
        """Every session of an account, the latest first."""
        return [_signed_in(each) for each in await self.records.sessions_of(str(account), now=self._now())]

    async def devices_of(self, account: AccountId) -> Sequence[Device]:
        """Every linked device of an account, the latest first."""
        return await self.records.devices_of(str(account))

    async def revoke_session(self, account: AccountId, label: str) -> bool:
        """End the session of *account* that lists call *label*; False when there is none."""
        return await self.records.end_sessions_of(str(account), label=label) > 0

    async def revoke_all(self, account: AccountId) -> int:
        """End every session of an account; how many there were."""
        return await self.records.end_sessions_of(str(account))

    async def revoke_device(self, account: AccountId, peer: str) -> bool:
        """Forget a linked device and end what it opened; False when it is not linked."""
        return await self.records.revoke_device(str(account), peer)

    async def origin_of(self, website: str) -> str | None:
        """The origin whose page is signing in with the peer id *website* right now; None for nobody's."""
        return await self.records.origin_of(website, now=self._now())

    def _now(self) -> int:
        return int(self._clock())


def digest(secret: str) -> bytes:
    """What is kept of a secret."""
    return hashlib.sha256(secret.encode()).digest()


def unauthorized() -> Refused:
    """The answer to whoever has no session; one sentence for every reason."""
    return Refused("unauthorized", "nobody is signed in here, or the session is over", 401)


def _challenge(login: str, mailbox: str) -> str:
    """Different for each sign-in, and nobody can have it before the login cookie was made."""
    return hashlib.sha256(f"handclasp/1 challenge\n{login}\n{mailbox}".encode()).hexdigest()


def _signed_in(session: Session) -> SignedIn:
    linked = session.linked
    account = AccountId.from_text_untrusted(linked.account)
    times = session.created, session.seen, session.expires
    return SignedIn(account, linked.device, linked.handshake, session.label, *times)
