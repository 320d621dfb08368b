"""Who comes in: not too often from one address, and from no web origin but those that may."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from .asgi import Request, Scope
from .buckets import Buckets, Places, network_of
from .counts import Counts
from .frames import Refused
from .proxies import Proxies
from .settings import Settings

#: Asked by machines that watch the service, often and from one address; costs no more than to be refused.
_ALWAYS_OPEN = frozenset({"/health", "/ready"})


class Door:
    """What every request and every upgrade passes before anything is done for it."""

    def __init__(self, settings: Settings, counts: Counts) -> None:
        self._counts = counts
        self._proxies = Proxies(settings.proxies)
        self._origins = frozenset(settings.origins)
        self._requests = Buckets(settings.address_burst, settings.address_rate, settings.addresses)
        self._sockets = Places(settings.address_sockets)

    def admit_untrusted(self, scope: Scope, request: Request, now: float) -> None:
        """Let a request in.

        Raises:
            Refused: ``limit`` when its address asks too often, ``origin`` when its web origin may not.
        """
        self._check_origin_untrusted(request)
        if request.path in _ALWAYS_OPEN:
            return
        wait = self._requests.spend(network_of(self._proxies.client_untrusted(scope)), now)
        if wait:
            self._counts.refused_addresses += 1
            raise Refused(
                "limit", "too many requests from your address: wait a moment", 429, retry_after=wait
            )

    @contextmanager
    def seat_untrusted(self, scope: Scope) -> Generator[None]:
        """Keep a place for a socket while the block runs.

        Raises:
            Refused: ``limit``: its address has too many sockets.
        """
        key = network_of(self._proxies.client_untrusted(scope))
        if not self._sockets.take(key):
            self._counts.refused_addresses += 1
            raise Refused("limit", "too many connections from your address: close some", 429, retry_after=60)
        try:
            yield
        finally:
            self._sockets.give_back(key)

    def _check_origin_untrusted(self, request: Request) -> None:
        """Programs send no Origin and hold no cookies of a browser; a page cannot leave it out (Fetch §3.2)."""
        if self._origins and b"origin" in request.headers:
            origin = request.headers[b"origin"]
            if origin is None or origin.decode("latin-1") not in self._origins:
                self._counts.refused_origins += 1
                raise Refused("origin", "pages of this origin may not use this service", 403)
