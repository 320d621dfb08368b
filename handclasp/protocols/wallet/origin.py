"""How far the origin in an invitation can be believed: claimed, attested or proved.

The QR code only *claims* it. The signaling service can *attest* that a browser page of that origin opened the mailbox:
worth as much as the service. *Proved* is an origin that says so itself, over TLS, about the very peer id in the
invitation. Source: docs/protocols/origin-proof.md.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import trio

from handclasp.discovery.signaling import Invitation
from handclasp.discovery.signaling.http import open_http
from handclasp.errors import HandclaspError, ServiceUnavailable

if TYPE_CHECKING:
    import httpx

__all__ = ["Fetch", "Fetched", "OriginCheck", "OriginLevel", "check_origin", "fetch_https"]

_CHECK_WITHIN = 5.0  # seconds: the person waits for the prompt, and a handshake takes about as long
_LONGEST_PROOF = 1024  # bytes: an origin, a peer id and the JSON around them have 200
_OK = 200


class OriginLevel(enum.IntEnum):
    """How far an origin can be believed; a higher one is worth more."""

    CLAIMED = 0
    """The invitation says so, and nobody else."""
    ATTESTED = 1
    """The signaling service says that a browser page of this origin opened the mailbox."""
    PROVED = 2
    """The origin itself says that the peer is one of its pages."""

    @property
    def is_verified(self) -> bool:
        """Whether the origin may be shown as verified: proved, and nothing below."""
        return self is OriginLevel.PROVED


@dataclass(frozen=True)
class Fetched:
    """What a web server answered."""

    status: int
    content_type: str
    body: bytes


#: Fetches an ``https:`` URL: verifies the certificate, follows no redirect, sends no cookie, and reads about as many
#: bytes as a proof may have. It may raise a `HandclaspError`, and it may be cancelled.
Fetch: TypeAlias = Callable[[str], Awaitable[Fetched]]
#: Finds out how far the origin of an invitation can be believed; see `check_origin`.
OriginCheck: TypeAlias = Callable[[Invitation], Awaitable[OriginLevel]]


async def fetch_https(url: str) -> Fetched:
    """The default `Fetch`, with httpx.

    Raises:
        ServiceUnavailable: there is no answer, or its certificate does not hold.
    """
    import httpx

    context = await trio.to_thread.run_sync(httpx.create_ssl_context)  # takes 20 ms and more
    client = httpx.AsyncClient(verify=context, trust_env=False, follow_redirects=False, timeout=_CHECK_WITHIN)
    try:
        async with client:
            request = client.build_request("GET", url, headers={"Accept-Encoding": "identity"})
            response = await client.send(request, stream=True)
            body = await _read_untrusted(response)
            await response.aclose()
    except httpx.HTTPError as exc:
        raise ServiceUnavailable(f"the website cannot be asked: {type(exc).__name__}") from None
    return Fetched(response.status_code, response.headers.get("content-type", ""), body)


async def _read_untrusted(response: httpx.Response) -> bytes:
    data = bytearray()
    with trio.CancelScope() as scope:
        async for piece in response.aiter_raw():
            data += piece
            if len(data) > _LONGEST_PROOF:
                scope.cancel()  # to break off would leave httpx's generators half run
    return bytes(data)


async def check_origin(invitation: Invitation, *, fetch: Fetch = fetch_https) -> OriginLevel:
    """Find out how far the origin of *invitation* can be believed, within 5 seconds.

    Asks the origin, and the signaling service only if that proves nothing. Whatever does not answer, or not as it
    should, proves nothing: no error of the network is raised.
    """
    level = OriginLevel.CLAIMED
    with trio.move_on_after(_CHECK_WITHIN):
        if await _is_proved(invitation, fetch):
            return OriginLevel.PROVED
        if await _is_attested(invitation):
            level = OriginLevel.ATTESTED
    return level


async def _is_proved(invitation: Invitation, fetch: Fetch) -> bool:
    if not invitation.origin.startswith("https://"):  # without TLS anybody on the way could answer
        return False
    url = f"{invitation.origin}/.well-known/handclasp/{invitation.peer}"
    try:
        with trio.move_on_after(_CHECK_WITHIN / 2):  # leaves time to ask the service
            return proves_untrusted(await fetch(url), invitation)
    except HandclaspError:
        pass
    return False


def proves_untrusted(fetched: Fetched, invitation: Invitation) -> bool:
    """Whether an answer proves the origin: as it is said in docs/protocols/origin-proof.md, and not nearly so."""
    media_type = fetched.content_type.partition(";")[0].strip().lower()
    if fetched.status != _OK or media_type != "application/json" or len(fetched.body) > _LONGEST_PROOF:
        return False
    try:
        pairs: object = json.loads(fetched.body.decode(), object_pairs_hook=list)
    except (ValueError, RecursionError):
        return False
    # As pairs, so that a field that is there twice is seen.
    return pairs in (
        [("origin", invitation.origin), ("peer", str(invitation.peer))],
        [("peer", str(invitation.peer)), ("origin", invitation.origin)],
    )


async def _is_attested(invitation: Invitation) -> bool:
    try:
        async with open_http(invitation.service) as http:
            answer = await http.request("GET", f"/origin?mailbox={invitation.mailbox}", None, None)
    except HandclaspError:
        return False
    return answer.get("origin") == invitation.origin
