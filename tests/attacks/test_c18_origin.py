"""C18: nothing below *proved* is shown as verified, and nothing but the origin itself proves it."""

from __future__ import annotations

import datetime as dt
import functools
import json
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import trio
import trio.testing
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from handclasp.abc import TransportFactory
from handclasp.accounts import LocalAccount
from handclasp.cli.terminal import describe_link
from handclasp.discovery.signaling import Invitation
from handclasp.errors import LinkRefused, ServiceUnavailable
from handclasp.identity import Identity
from handclasp.node import open_node
from handclasp.protocols.wallet import (
    PROTOCOL,
    Fetched,
    LinkRequest,
    OriginLevel,
    Wallet,
    check_origin,
    fetch_https,
    invite,
)
from handclasp.protocols.wallet.origin import proves_untrusted
from handclasp.service.embedded import create_embedded_app
from handclasp.service.signin import SignInSettings
from handclasp.testing import open_service
from tests.service.signin.browser import Browser, Page, asgi

from .pairing import Yes

SHOP, EVIL = "https://shop.example", "https://evil.example"
PEER, OTHER = Identity.generate().peer_id, Identity.generate().peer_id
UNREACHABLE = "ws://127.0.0.1:1"  # no service listens there
INVITATION = Invitation(UNREACHABLE, SHOP, PEER, bytes(16), 2_000_000_000)
PROOF = {"origin": SHOP, "peer": str(PEER)}


def fetched(
    body: object = PROOF, *, status: int = 200, content_type: str = "application/json; charset=utf-8"
) -> Fetched:
    return Fetched(status, content_type, body if isinstance(body, bytes) else json.dumps(body).encode())


# What proves


@pytest.mark.parametrize(
    ("answer", "proves"),
    [
        (fetched(), True),
        (fetched(dict(reversed(PROOF.items()))), True),
        (fetched(status=301), False),
        (fetched(status=206), False),
        (fetched(status=404), False),
        (fetched(content_type="text/html"), False),
        (fetched(content_type=""), False),
        (fetched({"origin": SHOP, "peer": str(OTHER)}), False),
        (fetched({"origin": EVIL, "peer": str(PEER)}), False),
        (fetched({"origin": f"{SHOP}/", "peer": str(PEER)}), False),
        (fetched({"peer": str(PEER)}), False),
        (fetched({**PROOF, "more": 1}), False),
        (fetched(list(PROOF.items())), False),
        (fetched([PROOF]), False),
        (fetched(f'{{"origin": "{EVIL}", "origin": "{SHOP}", "peer": "{PEER}"}}'.encode()), False),
        (fetched(json.dumps(PROOF).encode() + b" " * 1024), False),
        (fetched(b"[" * 1000), False),
        (fetched(b"\xff"), False),
        (fetched(b"true"), False),
    ],
)
def test_c18_an_answer_proves_only_if_all_of_it_is_right(answer: Fetched, proves: bool) -> None:  # noqa: FBT001
    assert proves_untrusted(answer, INVITATION) is proves


async def test_c18_the_origin_itself_is_asked_about_the_peer_in_the_invitation() -> None:
    asked: list[str] = []

    async def fetch(url: str) -> Fetched:
        asked.append(url)
        return fetched()

    assert await check_origin(INVITATION, fetch=fetch) is OriginLevel.PROVED
    assert asked == [f"{SHOP}/.well-known/handclasp/{PEER}"]


async def test_c18_an_origin_without_tls_is_not_even_asked() -> None:
    async def fetch(url: str) -> Fetched:
        raise AssertionError(url)

    local = Invitation(UNREACHABLE, "http://localhost:3000", PEER, bytes(16), 2_000_000_000)
    assert await check_origin(local, fetch=fetch) is OriginLevel.CLAIMED


async def test_c18_an_origin_that_does_not_answer_proves_nothing_and_holds_nobody_up(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def silence(_: str) -> Fetched:
        await trio.sleep_forever()
        raise AssertionError

    async def failure(_: str) -> Fetched:
        raise ServiceUnavailable("no route")

    start = trio.current_time()
    assert await check_origin(INVITATION, fetch=silence) is OriginLevel.CLAIMED
    assert trio.current_time() - start <= 5
    assert await check_origin(INVITATION, fetch=failure) is OriginLevel.CLAIMED


async def test_c18_what_the_service_says_is_attested_and_no_more() -> None:
    async def nothing(_: str) -> Fetched:
        return fetched(status=404)

    async with open_service() as service:
        invitations = {
            origin: Invitation(service, origin, PEER, secret.to_bytes(16), 2_000_000_000)
            for secret, origin in enumerate((SHOP, EVIL))
        }
        async with httpx.AsyncClient(base_url="http" + service.removeprefix("ws")) as http:
            for origin, invitation in invitations.items():
                path = f"/challenge?mailbox={invitation.mailbox}"
                assert (await http.get(path, headers={"origin": SHOP})).status_code == 200, origin
        assert await check_origin(invitations[SHOP], fetch=nothing) is OriginLevel.ATTESTED
        assert await check_origin(invitations[EVIL], fetch=nothing) is OriginLevel.CLAIMED
        unknown = Invitation(service, SHOP, PEER, b"x" * 16, 2_000_000_000)
        assert await check_origin(unknown, fetch=nothing) is OriginLevel.CLAIMED


@pytest.mark.parametrize("level", OriginLevel)
def test_c18_only_what_is_proved_is_shown_as_verified(level: OriginLevel) -> None:
    account = Wallet(LocalAccount.generate(), Yes()).account
    text = describe_link(LinkRequest(SHOP, UNREACHABLE, PEER, account, level))
    assert level.is_verified == (level is OriginLevel.PROVED)
    assert ("not verified" in text) == (not level.is_verified)
    assert ("(verified" in text) == level.is_verified
    assert LinkRequest(SHOP, UNREACHABLE, PEER, account).level is OriginLevel.CLAIMED


# The whole way


@pytest.mark.parametrize("says", [PEER, None], ids=["another peer", "the website"])
async def test_c18_a_person_is_told_what_the_origin_says_of_the_peer(
    loopback_webrtc: TransportFactory, says: object
) -> None:
    asked: list[LinkRequest] = []

    class No(Yes):
        async def approve_link(self, request: LinkRequest) -> bool:
            asked.append(request)
            return False

    async def check(invitation: Invitation) -> OriginLevel:
        async def fetch(_: str) -> Fetched:
            return fetched({"origin": SHOP, "peer": str(says or invitation.peer)})

        return await check_origin(invitation, fetch=fetch)

    wallet = Wallet(LocalAccount.generate(), No(), origin_check=check)
    async with (
        open_service() as service,
        open_node(transports=[loopback_webrtc]) as website,
        open_node(transports=[loopback_webrtc], protocols={PROTOCOL: wallet.serve}) as node,
        invite(website, service=service, origin=SHOP) as pending,
    ):
        with pytest.raises(LinkRefused):
            await wallet.link(node, pending.invitation)
    assert [request.level for request in asked] == [OriginLevel.CLAIMED if says else OriginLevel.PROVED]


async def test_c18_a_server_vouches_for_its_pages_while_they_wait_and_for_nobody_else() -> None:
    app = create_embedded_app(SignInSettings(origins=(SHOP, "https://www.shop.example")))

    async def fetch(url: str) -> Fetched:
        reply = await asgi(app, "GET", url.removeprefix(SHOP), [("host", "shop.example")])
        return Fetched(reply.status, reply.all("content-type")[0], reply.body)

    async def level(page: Page, origin: str = SHOP) -> OriginLevel:
        invitation = Invitation(UNREACHABLE, origin, page.identity.peer_id, bytes(16), 2_000_000_000)
        return await check_origin(invitation, fetch=fetch)

    page = Page(Browser(app))
    assert await level(page) is OriginLevel.CLAIMED
    await page.begin()
    assert await level(page) is OriginLevel.PROVED
    assert await level(Page(Browser(app))) is OriginLevel.CLAIMED
    other = Page(Browser(app, origin="https://www.shop.example"))
    await other.begin()
    assert await level(other) is OriginLevel.CLAIMED  # a page of another origin of the same website
    await page.link()
    assert await level(page) is OriginLevel.CLAIMED
    evil = Page(Browser(app, origin=EVIL))
    assert (await evil.begin()).error == (403, "forbidden")
    assert await level(evil) is OriginLevel.CLAIMED


async def test_c18_a_proof_says_the_same_whatever_it_does_not_know() -> None:
    app = create_embedded_app(SignInSettings(origins=(SHOP,)))
    paths = [f"/.well-known/handclasp/{name}" for name in (PEER, OTHER, "x", "../session", "x" * 1000)]
    replies = [await asgi(app, "GET", path, []) for path in paths]
    assert {reply.error for reply in replies} == {(404, "not_found")}
    assert len({reply.body for reply in replies}) == 1
    posted = await asgi(app, "POST", paths[0], [])
    assert posted.error == (405, "method")
    assert posted.all("allow") == ["GET"]


# The default fetch, against a server of the attacker's


@asynccontextmanager
async def https_server(folder: Path, answer: bytes, *, drip: bool = False) -> AsyncGenerator[str]:
    """A server on localhost that answers everything alike; its certificate is in the folder."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "certificate.pem").write_bytes(certificate.public_bytes(pem))
    (folder / "key.pem").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "certificate.pem", folder / "key.pem")

    async def serve(stream: trio.SSLStream[trio.SocketStream]) -> None:
        try:
            await stream.receive_some()
            await stream.send_all(answer)
            while drip:
                await stream.send_all(b" " * 100)
            await stream.receive_some()
        except trio.BrokenResourceError:
            return

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(
            functools.partial(trio.serve_ssl_over_tcp, serve, 0, context, host="127.0.0.1")
        )
        port = listeners[0].transport_listener.socket.getsockname()[1]
        try:
            yield f"https://localhost:{port}/.well-known/handclasp/x"
        finally:
            nursery.cancel_scope.cancel()


def http(status: str, body: str, *headers: str, length: int | None = None) -> bytes:
    lines = [f"HTTP/1.1 {status}", "Content-Type: application/json", *headers]
    lines.append(f"Content-Length: {len(body) if length is None else length}")
    return "\r\n".join([*lines, "", body]).encode()


async def test_the_default_fetch_reads_an_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
    async with https_server(tmp_path, http("200 OK", '{"a": 1}')) as url:
        assert await fetch_https(url) == Fetched(200, "application/json", b'{"a": 1}')


async def test_c18_the_default_fetch_believes_no_unknown_certificate(tmp_path: Path) -> None:
    async with https_server(tmp_path, http("200 OK", "{}")) as url:
        with pytest.raises(ServiceUnavailable):
            await fetch_https(url)


async def test_c18_the_default_fetch_follows_no_redirect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
    async with https_server(tmp_path, http("302 Found", "", "Location: https://evil.example/")) as url:
        assert (await fetch_https(url)).status == 302


async def test_c18_the_default_fetch_reads_no_flood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
    async with https_server(tmp_path, http("200 OK", "", length=10**12), drip=True) as url:
        with trio.fail_after(5):
            assert 1024 < len((await fetch_https(url)).body) < 2**20
