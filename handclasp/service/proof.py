"""The origin's word that a page is its own: ``GET /.well-known/handclasp/<peer id>``.

A wallet asks the origin itself, over TLS, whether the peer id in an invitation is one of its pages': only then is
the origin shown as verified. Source: docs/protocols/origin-proof.md.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from handclasp.errors import ProtocolViolation, RecordsUnavailable
from handclasp.identity import PeerId

from .asgi import Headers, Request
from .frames import Refused
from .routes import Answer, refusal

if TYPE_CHECKING:
    from .signin import Sessions


async def answer_proof_untrusted(sessions: Sessions, request: Request, peer: str) -> Answer:
    """The answer to a wallet: whether *peer* is a page of this website that is waiting for a wallet now."""
    try:
        answer = await _prove_untrusted(sessions, request, peer)
    except Refused as refused:
        answer = refusal(refused)
        if refused.status == 405:  # noqa: PLR2004 - RFC 9110 §15.5.6: it names the methods
            answer = replace(answer, headers=[(b"allow", b"GET")])
    except RecordsUnavailable:
        answer = refusal(Refused("unavailable", "the service cannot remember at the moment: try again", 503))
    return replace(answer, headers=[*_headers(answer), *answer.headers])


async def _prove_untrusted(sessions: Sessions, request: Request, peer: str) -> Answer:
    if request.method != "GET":
        raise Refused("method", "use GET", 405)
    try:
        website = str(PeerId.from_text_untrusted(peer))
    except ProtocolViolation:
        raise _unknown() from None
    origin = await sessions.origin_of(website)
    if origin is None:
        raise _unknown()
    return Answer(200, {"origin": origin, "peer": website}, [])


def _headers(answer: Answer) -> Headers:
    return [
        (
            b"access-control-allow-origin",
            b"*",
        ),  # wallets that are web pages ask, too; there is no cookie in it
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
        (b"content-type", b"application/json"),
        (b"content-length", str(len(answer.content())).encode()),
    ]


def _unknown() -> Refused:
    return Refused("not_found", "no page of this website waits for a wallet under this name", 404)
