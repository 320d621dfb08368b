"""Which STUN and TURN servers the two of a mailbox use, and passwords for them that are good for some minutes.

Source: coturn's ``use-auth-secret`` (draft-uberti-behave-turn-rest-00): the user name is the time until which it is
good and a name, the password is base64(HMAC-SHA-1(secret, user name)). The TURN server knows the secret, too.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable

from .settings import IceSettings


class IceServers:
    """What the service hands out.

    Args:
        settings: the servers, and the secret that is shared with those of TURN.
        clock: seconds since 1970; the TURN server's clock must not be far from it.
    """

    def __init__(self, settings: IceSettings, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._clock = clock

    def answer(self, party: bytes, *, is_claimed: bool) -> dict[str, object]:
        """The body of ``GET /ice`` for one party of a mailbox; relays only once the two have met.

        Anybody can open a mailbox, and whoever gets a password can use the relay for anything: so it takes two.
        The name in the password stays the same for a party, so that the TURN server's quotas count, and leads
        nowhere: it is a keyed hash of *party*.
        """
        settings, servers = self._settings, list[dict[str, object]]()
        if settings.stun:
            servers.append({"urls": list(settings.stun)})
        if settings.turn and settings.secret is not None and is_claimed:
            key = settings.secret.reveal()
            name = hmac.new(key, b"handclasp/1 turn name" + party, hashlib.sha256).hexdigest()[:16]
            username = f"{int(self._clock() + settings.life)}:{name}"
            credential = base64.b64encode(hmac.digest(key, username.encode(), "sha1")).decode()
            servers.append({"urls": list(settings.turn), "username": username, "credential": credential})
        more = bool(settings.turn) and not is_claimed
        return {"ice_servers": servers, "expires_in": int(settings.life), "more": more}
