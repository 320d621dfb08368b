"""ASGI 3 in the few types that are needed here, and its scope as one typed object.

Source: the ASGI specification 3.0, HTTP & WebSocket 2.5, Lifespan 2.0.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias, cast

Scope: TypeAlias = Mapping[str, object]
Event: TypeAlias = Mapping[str, object]
Receive: TypeAlias = Callable[[], Awaitable[Event]]
Send: TypeAlias = Callable[[dict[str, object]], Awaitable[None]]
Headers: TypeAlias = list[tuple[bytes, bytes]]


@dataclass(frozen=True)
class Request:
    """What a client asked for; everything in it but the method's spelling is the client's."""

    method: str
    path: str
    """Below the place where the application is mounted."""

    url_length: int
    """Bytes of path and query as they were sent."""

    query: bytes
    headers: Mapping[bytes, bytes | None]
    """None for a header that was there more than once: ours are single, and two could mean two things."""

    keeps_alive: bool
    """HTTP/1, where a connection outlives a request and can be told to close."""

    @classmethod
    def from_scope(cls, scope: Scope) -> Request:
        """Read the scope of a request or of an upgrade."""
        path = cast("str", scope["path"])
        raw_path = cast("bytes | None", scope.get("raw_path")) or path.encode()
        query = cast("bytes", scope.get("query_string", b""))
        headers: dict[bytes, bytes | None] = {}
        for name, value in cast("Iterable[tuple[bytes, bytes]]", scope["headers"]):
            headers[name] = None if name in headers else value
        return cls(
            method=cast("str", scope.get("method", "GET")),
            path=path.removeprefix(cast("str", scope.get("root_path", ""))),
            url_length=len(raw_path) + len(query),
            query=query,
            headers=headers,
            keeps_alive=cast("str", scope.get("http_version", "1.1")).startswith("1"),
        )
