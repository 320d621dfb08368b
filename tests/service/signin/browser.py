"""A browser with its cookie jar, a page that runs in it, and the wallet that the page is linked with."""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TypeAlias

import anyio

from handclasp.accounts import LocalAccount
from handclasp.discovery.signaling import Invitation
from handclasp.identity import Identity
from handclasp.protocols.wallet.link import Pairing
from handclasp.service.signin.link import proof_text

ORIGIN = "https://shop.example"
ACCOUNT = LocalAccount.generate()
COOKIE = "__Host-handclasp"
App: TypeAlias = Callable[..., Awaitable[None]]


@dataclass(frozen=True)
class Reply:
    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def json(self) -> dict:
        return json.loads(self.body)

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]

    @property
    def error(self) -> tuple[int, str]:
        return self.status, self.json()["error"]


class Browser:
    """Sends what a browser sends, and keeps cookies as one does. *app* is any ASGI application."""

    def __init__(self, app: App, *, at: str = "", origin: str | None = ORIGIN) -> None:
        self.app = app
        self.at = at
        self.origin = origin
        self.jar: dict[str, str] = {}

    async def request(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        headers: dict[str, str | None] | None = None,
        cookies: list[str] | None = None,
    ) -> Reply:
        """One request, as from a page of this origin. A header that is None is left out."""
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        all_headers: dict[str, str | None] = {"host": "shop.example"}
        if method != "GET":
            all_headers |= {"origin": self.origin, "sec-fetch-site": "same-origin"}
        if body is not None:
            all_headers["content-type"] = "application/json"
        all_headers |= headers or {}
        pairs = [(k, v) for k, v in all_headers.items() if v is not None]
        lines = [f"{k}={v}" for k, v in self.jar.items()] if cookies is None else cookies
        if lines:
            pairs.append(("cookie", "; ".join(lines)))
        reply = await asgi(self.app, method, self.at + path, pairs, data)
        for line in reply.all("set-cookie"):
            pair, *attributes = line.split("; ")
            name, _, value = pair.partition("=")
            assert {"Path=/", "Secure", "HttpOnly", "SameSite=Strict"} < set(attributes), line
            assert not any(attribute.startswith("Domain") for attribute in attributes), line
            if "Max-Age=0" in attributes:
                self.jar.pop(name, None)
            else:
                self.jar[name] = value
        return reply

    async def get(self, path: str, **options: dict) -> Reply:
        return await self.request("GET", path, **options)

    async def post(self, path: str, body: object = None, **options: dict) -> Reply:
        return await self.request("POST", path, {} if body is None else body, **options)


async def asgi(
    app: App, method: str, target: str, headers: list[tuple[str, str]], body: bytes = b""
) -> Reply:
    path, _, query = target.partition("?")
    events: list[dict] = []
    left = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> dict:
        if not left:
            await anyio.sleep_forever()  # the client waits for its answer
        return left.pop()

    async def send(event: dict) -> None:
        events.append(event)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "scheme": "https",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in headers],
        "client": ("192.0.2.1", 50000),
        "server": ("shop.example", 443),
    }
    await app(scope, receive, send)
    start = next(event for event in events if event["type"] == "http.response.start")
    data = b"".join(event.get("body", b"") for event in events if event["type"] == "http.response.body")
    return Reply(start["status"], [(k.decode().lower(), v.decode()) for k, v in start["headers"]], data)


@dataclass
class Page:
    """A page that shows an invitation: in a browser, with a mailbox and an identity of its own."""

    browser: Browser
    identity: Identity = field(default_factory=Identity.generate)
    mailbox: str = field(default_factory=lambda: secrets.token_hex(16))
    wallet: Identity = field(default_factory=Identity.generate)
    origin: str = ORIGIN
    nonce: str = "0" * 32
    challenge: str = ""
    issued_at: datetime | None = None

    async def begin(self) -> Reply:
        reply = await self.browser.post(
            "/session/begin", {"mailbox": self.mailbox, "peer": str(self.identity.peer_id)}
        )
        if reply.status == 200:
            self.challenge = reply.json()["challenge"]
            self.nonce = reply.json().get("nonce", self.nonce)
        return reply

    def signed(self, account: LocalAccount = ACCOUNT, **changes: object) -> dict[str, str]:
        """What the wallet signs and the page hands on; *changes* are made to the message before it is signed."""
        invitation = Invitation(
            "wss://signal.example", self.origin, self.identity.peer_id, bytes(16), 2_000_000_000
        )
        now = (self.issued_at or datetime.now(UTC)).replace(microsecond=0)
        pairing = Pairing(invitation, self.wallet.peer_id, self.nonce, b"h" * 32)
        message = replace(pairing.message(account.address, 1, now), request_id=self.mailbox)
        text = str(replace(message, **changes))
        return self.proved({"message": text, "signature": account.sign_message(text)})

    def proved(self, link: dict[str, str], **other: object) -> dict[str, str]:
        """*link* with the page's own proof."""
        origin, challenge = str(other.get("origin", self.origin)), str(other.get("challenge", self.challenge))
        proof = self.identity.sign(proof_text(origin, challenge, link["message"]))
        return {**link, "mailbox": self.mailbox, "proof": base64url(proof)}

    async def link(self, link: dict[str, str] | None = None) -> Reply:
        return await self.browser.post("/session/link", self.signed() if link is None else link)

    async def code(self, account: LocalAccount = ACCOUNT) -> str:
        assert (await self.begin()).status == 200
        reply = await self.link(self.signed(account))
        assert reply.status == 200, reply
        return reply.json()["code"]

    async def redeem(self, code: str) -> Reply:
        return await self.browser.post("/session/redeem", {"code": code})

    async def sign_in(self, account: LocalAccount = ACCOUNT) -> dict:
        reply = await self.redeem(await self.code(account))
        assert reply.status == 200, reply
        return reply.json()


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


__all__ = ["ACCOUNT", "COOKIE", "ORIGIN", "Browser", "Page", "Reply", "asgi", "base64url"]
