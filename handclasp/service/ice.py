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

    def public(self) -> dict[str, object]:
        """Those that anybody may use, for somebody who has no partner yet."""
        servers = [{"urls": list(self._settings.stun)}] if self._settings.stun else []
        return {"ice_servers": servers, "expires_in": round(self._settings.life)}

    def for_party(self, party: bytes) -> dict[str, object]:
        """All of them, for one party of a claimed mailbox.

        The name in the credential stays the same for a party, so that the TURN server's quotas count, and leads
        nowhere: it is a keyed hash of *party*.
        """
        answer = self.public()
        secret = self._settings.secret
        if not self._settings.turn or secret is None:
            return answer
        key = secret.reveal()
        name = hmac.new(key, b"handclasp/1 turn name" + party, hashlib.sha256).hexdigest()[:16]
        username = f"{int(self._clock() + self._settings.life)}:{name}"
        credential = base64.b64encode(hmac.digest(key, username.encode(), "sha1")).decode()
        relays = {"urls": list(self._settings.turn), "username": username, "credential": credential}
        return {**answer, "ice_servers": [*_servers_of(answer), relays]}


def _servers_of(answer: dict[str, object]) -> list[object]:
    servers = answer["ice_servers"]
    return [*servers] if isinstance(servers, list) else []
