"""The service on the website's own origin: mailboxes, and sessions for whoever proved an account.

The mailboxes are those of `create_app`, spoken to as any client does; what is in front of them keeps other origins
out, opens a mailbox together with a sign-in, and answers everything about sessions. Without mailboxes it is the
website's own half beside a shared service.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from typing import cast

import anyio

from handclasp.errors import HandclaspError, RecordsUnavailable

from .app import SignalingApp, create_app
from .asgi import Event, Headers, Receive, Request, Scope, Send
from .counts import Counts
from .door import Door
from .frames import Refused
from .journal import describe
from .proof import answer_proof_untrusted
from .records import Records, SqliteRecords
from .routes import Answer, ClientGone, check_url_untrusted, refusal
from .settings import Settings
from .signin import Sessions, SignatureVerifier, SignedIn, SignInSettings
from .signin.link import Eip155
from .signin.origins import OriginRule
from .signin.routes import Challenge, SignInRoutes, private
from .signin.sessions import unauthorized

__all__ = ["WELL_KNOWN", "SignInApp", "create_embedded_app", "create_sign_in_app"]

#: Where wallets ask whether a page is the website's (docs/protocols/origin-proof.md); below the origin's root.
WELL_KNOWN = "/.well-known/handclasp"

_logger = logging.getLogger("handclasp.service")
_OK = 200
_DROPPED = (b"content-length", b"transfer-encoding", b"cookie", b"authorization")
_DEFAULTS = Settings()
_EIP155 = Eip155()


class SignInApp:
    """Sessions of one website, with or without mailboxes; made by `create_embedded_app` and `create_sign_in_app`.

    Mount it below any path, and once more at `WELL_KNOWN`; or put it `handclasp.service.beside.beside` the website.
    """

    def __init__(
        self, sessions: Sessions, signaling: SignalingApp | None, settings: Settings = _DEFAULTS
    ) -> None:
        self.sessions = sessions
        self._door = Door(settings, Counts())
        self._signaling = signaling
        self._routes = SignInRoutes(sessions, None if signaling is None else self._open_mailbox)
        self._rule = OriginRule(sessions.settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection as ASGI 3 says."""
        try:
            if scope["type"] == "lifespan":
                await self._serve_lifespan(scope, receive, send)
            elif scope["type"] == "websocket":
                await self._serve_socket(scope, receive, send)
            elif scope["type"] == "http":
                await self._serve_request(scope, receive, send)
        except OSError:  # ASGI: what `send` raises when the client is gone
            _logger.debug("a connection broke")

    async def signed_in(self, scope: Scope) -> SignedIn | None:
        """Who makes a request or upgrade of the website around, by its ASGI scope; None for nobody.

        For everything but GET, HEAD and OPTIONS the Origin has to be the website's own: that is the protection
        from requests that other sites forge.

        Raises:
            Refused: ``forbidden``: the origin is another one, or missing. Answer 403.
            RecordsUnavailable: the database does not answer. Answer 503.
        """
        return await self._routes.signed_in_untrusted(scope)

    async def require(self, scope: Scope) -> SignedIn:
        """As `signed_in`, for what only those who are signed in may do.

        Raises:
            Refused: ``unauthorized``, ``forbidden`` or ``unavailable``, with the HTTP status to answer.
        """
        try:
            signed_in = await self.signed_in(scope)
        except RecordsUnavailable:
            raise Refused(
                "unavailable", "the service cannot remember at the moment: try again", 503
            ) from None
        if signed_in is None:
            raise unauthorized()
        return signed_in

    async def shut_down(self) -> None:
        """Say goodbye to every socket and close the records. Lifespan calls this; mounted, call it yourself."""
        if self._signaling is not None:
            await self._signaling.shut_down()
        await self.sessions.records.aclose()

    async def _serve_lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        event = await receive()
        try:
            await self.sessions.records.open()
        except HandclaspError as exc:
            await send({"type": "lifespan.startup.failed", "message": str(exc)})
            return
        if self._signaling is None:
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await self.shut_down()
            await send({"type": "lifespan.shutdown.complete"})
            return
        started: list[Event] = [event]

        async def receive_again() -> Event:
            return started.pop() if started else await receive()

        async def close_first(event: dict[str, object]) -> None:
            if event["type"] == "lifespan.shutdown.complete":
                await self.sessions.records.aclose()
            await send(event)

        await self._signaling(scope, receive_again, close_first)

    async def _serve_socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            self._rule.mailbox_untrusted(Request.from_scope(scope).headers)
        except Refused:
            allowed = False
        else:
            allowed = self._signaling is not None
        if self._signaling is None or not allowed:
            await receive()
            await send({"type": "websocket.close"})  # before accept: the server answers 403
            return
        await self._signaling(scope, receive, send)

    async def _serve_request(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request.from_scope(scope)
        try:
            answer = await self._answer_untrusted(scope, request, receive)
            if answer is None and self._signaling is not None:
                origin = self._rule.mailbox_untrusted(request.headers)
                await self._signaling(scope, receive, _for_origin(send, origin))
                return
            answer = answer or private(refusal(Refused("not_found", "there is nothing at this path", 404)))
        except Refused as refused:
            answer = private(refusal(refused))
        except ClientGone:
            return
        except Exception as exc:  # noqa: BLE001 - the boundary: a server would log the message with what is in it
            _logger.error("a request failed by a fault of the service: %s", describe(exc))  # noqa: TRY400 - same
            answer = private(refusal(Refused("internal", "the service failed, not you: try again", 500)))
        await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
        await send({"type": "http.response.body", "body": answer.content(), "more_body": False})

    async def _answer_untrusted(self, scope: Scope, request: Request, receive: Receive) -> Answer | None:
        """The answer of this layer; None for a path of the mailboxes."""
        check_url_untrusted(request)
        is_proof = _full_path(scope).startswith(f"{WELL_KNOWN}/")
        if is_proof or self._routes.has(request.path):  # the mailboxes have a door of their own
            self._door.admit_untrusted(scope, request, anyio.current_time())
        if is_proof:
            peer = _full_path(scope).removeprefix(f"{WELL_KNOWN}/")
            return await answer_proof_untrusted(self.sessions, request, peer)
        if self._routes.has(request.path):
            return await self._routes.answer_untrusted(scope, request, receive)
        return None

    async def _open_mailbox(self, scope: Scope, mailbox: str) -> Challenge:
        """Ask the mailboxes for one as a client would, in the name of the client that asked here."""
        if self._signaling is None:
            raise Refused("not_found", "there are no mailboxes here", 404)
        sent: list[dict[str, object]] = []

        async def receive() -> Event:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def keep(event: dict[str, object]) -> None:
            sent.append(event)

        path = f"{scope.get('root_path', '')}/challenge"
        headers = cast("Iterable[tuple[bytes, bytes]]", scope["headers"])
        inner = {
            **scope,
            "method": "GET",
            "path": path,
            "raw_path": path.encode(),
            "query_string": f"mailbox={mailbox}".encode(),
            "headers": [(name, value) for name, value in headers if name not in _DROPPED],
        }
        await self._signaling(inner, receive, keep)
        status = cast("int", sent[0]["status"])
        fields: dict[str, object] = json.loads(
            b"".join(cast("bytes", event.get("body", b"")) for event in sent)
        )
        if status != _OK:
            raise Refused(str(fields["error"]), str(fields["detail"]), status)
        return Challenge(str(fields["token"]), str(fields["nonce"]), int(str(fields["expires_in"])))


def create_embedded_app(
    sign_in: SignInSettings,
    *,
    records: Records | None = None,
    settings: Settings = _DEFAULTS,
    verifier: SignatureVerifier = _EIP155,
) -> SignInApp:
    """Make a service for a website's own origin: mailboxes and sessions.

    Args:
        sign_in: who may sign in from where.
        records: what remembers; default memory, which forgets everybody when the process ends.
        settings: limits of the mailboxes and by address, and the proxies in front.
        verifier: of the accounts' signatures.
    """
    return SignInApp(_sessions(sign_in, records, verifier), create_app(settings), settings)


def create_sign_in_app(
    sign_in: SignInSettings,
    *,
    records: Records | None = None,
    settings: Settings = _DEFAULTS,
    verifier: SignatureVerifier = _EIP155,
) -> SignInApp:
    """Make the sessions of a website whose mailboxes are on a shared service; arguments as `create_embedded_app`.

    Of *settings* only the limits by address and the proxies count.
    """
    return SignInApp(_sessions(sign_in, records, verifier), None, settings)


def _sessions(sign_in: SignInSettings, records: Records | None, verifier: SignatureVerifier) -> Sessions:
    return Sessions(sign_in, SqliteRecords(None) if records is None else records, verifier=verifier)


def _full_path(scope: Scope) -> str:
    """The path below the origin's root: servers and frameworks differ in whether ``path`` has ``root_path`` in it."""
    path, root = cast("str", scope["path"]), cast("str", scope.get("root_path", ""))
    return path if path.startswith(root) else root + path


def _for_origin(send: Send, origin: str | None) -> Send:
    """Sends the mailboxes' answers without their permission for everybody; *origin* has passed the allow-list."""

    async def filtered(event: dict[str, object]) -> None:
        if event["type"] == "http.response.start":
            headers: Headers = [
                header
                for header in cast("Headers", event["headers"])
                if header[0] != b"access-control-allow-origin"
            ]
            if origin is not None:
                headers += [(b"access-control-allow-origin", origin.encode()), (b"vary", b"origin")]
            event = {**event, "headers": headers}
        await send(event)

    return filtered
