"""The few HTTP requests of a mailbox, bounded in size and in time."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from handclasp.errors import ProtocolViolation, ServiceRefused, ServiceUnavailable
from handclasp.request_body import one_piece

from .answers import LONGEST_ANSWER, TIMEOUT, object_untrusted, promptly, short
from .websocket import CLOSE_TIMEOUT

if TYPE_CHECKING:
    import httpx

__all__ = ["HttpClient", "open_http"]


class HttpClient:
    """Made by `open_http`; the connection is made at the first request and kept."""

    def __init__(self, service: str) -> None:
        self._base = "http" + service.removeprefix("ws")  # ws: to http:, wss: to https:
        self._client: httpx.AsyncClient | None = None

    async def request(
        self, method: str, path: str, token: str | None, content: dict[str, object] | None
    ) -> dict[str, object]:
        """Ask for *path* and return the JSON object of the answer.

        Raises:
            ServiceUnavailable: the service cannot be reached, or does not answer.
            ServiceRefused: it declined; code ``malformed`` when its answer makes no sense.
        """
        import httpx

        if self._client is None:
            # Building a TLS context takes 20 ms and more: not for plain http:.
            self._client = httpx.AsyncClient(
                timeout=TIMEOUT, verify=self._base.startswith("https:"), trust_env=False
            )
        headers = {"Accept-Encoding": "identity"}  # what is small stays small
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        body = b"" if content is None else json.dumps(content).encode()
        if body:
            headers["Content-Type"] = "application/json"
        request = self._client.build_request(method, self._base + path, headers=headers, content=body)
        request.stream = one_piece(body)
        try:
            with promptly("the signaling service did not answer"):  # httpx's own are for each piece
                response = await self._client.send(request, stream=True)
                data = await _read_untrusted(response)
        except httpx.HTTPError as exc:
            raise ServiceUnavailable(
                f"the signaling service at {self._base} cannot be reached: {exc}"
            ) from exc
        try:
            answer = object_untrusted(data)
        except ProtocolViolation as exc:
            raise ServiceRefused(
                "malformed", f"the service answered {method} {path.partition('?')[0]} with {exc}"
            ) from None
        if response.status_code >= 400:  # noqa: PLR2004 - HTTP's classes of status
            raise ServiceRefused(short(answer.get("error")), short(answer.get("detail")))
        return answer

    async def aclose(self) -> None:
        """Close the connection, if there is one."""
        if self._client is not None:
            await self._client.aclose()


async def _read_untrusted(response: httpx.Response) -> bytes:
    data = bytearray()
    with trio.CancelScope() as scope:
        async for piece in response.aiter_raw():
            data += piece
            if len(data) > LONGEST_ANSWER:
                scope.cancel()  # to break off would leave httpx's generators half run
    if scope.cancelled_caught:
        raise ServiceRefused("malformed", f"the service's answer is longer than {LONGEST_ANSWER} bytes")
    return bytes(data)


@asynccontextmanager
async def open_http(service: str) -> AsyncGenerator[HttpClient]:
    """HTTP to the service at a WebSocket URL, while the block runs."""
    http = HttpClient(service)
    try:
        yield http
    finally:
        with trio.move_on_after(CLOSE_TIMEOUT, shield=True):
            await http.aclose()
