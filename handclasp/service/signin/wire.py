"""The JSON of docs/protocols/sign-in.md, strictly, both ways."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import NamedTuple

from handclasp.errors import ProtocolViolation
from handclasp.identity import PeerId
from handclasp.service.records import Device
from handclasp.service.strict import (
    Object,
    base64url_untrusted,
    flat_object_untrusted,
    hex_untrusted,
    malformed,
    only_untrusted,
    text_untrusted,
)

from .sessions import LinkUntrusted, SignedIn

_MAILBOX_DIGITS = 32
_CODE_DIGITS = 64
_LABEL_DIGITS = 16
_PROOF_LENGTH = 64  # an Ed25519 signature
_LONGEST_MESSAGE = 8 * 1024  # handclasp.accounts.siwe.MAX_TEXT
_LONGEST_SIGNATURE = 16 * 1024  # characters; a contract account's may be long
_BRACKETS = 2  # an origin that is an IPv6 address stands in a message twice


class BeginUntrusted(NamedTuple):
    """The body of ``POST /session/begin``."""

    mailbox: str
    website: str


def parse_begin_untrusted(body: bytes) -> BeginUntrusted:
    """Parse the body of ``POST /session/begin``.

    Raises:
        Refused: ``malformed`` with the field at fault.
    """
    data = _object_untrusted(body)
    only_untrusted(data, "mailbox", "peer")
    return BeginUntrusted(hex_untrusted(data, "mailbox", _MAILBOX_DIGITS), peer_untrusted(data, "peer"))


def parse_link_untrusted(body: bytes) -> LinkUntrusted:
    """Parse the body of ``POST /session/link``.

    Raises:
        Refused: ``malformed`` with the field at fault.
    """
    data = _object_untrusted(body)
    only_untrusted(data, "mailbox", "message", "signature", "proof")
    proof = base64url_untrusted(data, "proof", _PROOF_LENGTH)
    return LinkUntrusted(
        mailbox=hex_untrusted(data, "mailbox", _MAILBOX_DIGITS),
        message=_short_untrusted(data, "message", _LONGEST_MESSAGE),
        signature=_short_untrusted(data, "signature", _LONGEST_SIGNATURE),
        proof=base64.urlsafe_b64decode(proof + "=" * (-len(proof) % 4)),
    )


def parse_redeem_untrusted(body: bytes) -> str:
    """Parse the body of ``POST /session/redeem``: the code.

    Raises:
        Refused: ``malformed`` with the field at fault.
    """
    data = _object_untrusted(body)
    only_untrusted(data, "code")
    return hex_untrusted(data, "code", _CODE_DIGITS)


def parse_session_untrusted(body: bytes) -> str:
    """Parse the body of ``POST /sessions/revoke``: the session's label.

    Raises:
        Refused: ``malformed`` with the field at fault.
    """
    data = _object_untrusted(body)
    only_untrusted(data, "session")
    return hex_untrusted(data, "session", _LABEL_DIGITS)


def parse_device_untrusted(body: bytes) -> str:
    """Parse the body of ``POST /devices/revoke``: the device's peer id.

    Raises:
        Refused: ``malformed`` with the field at fault.
    """
    data = _object_untrusted(body)
    only_untrusted(data, "device")
    return peer_untrusted(data, "device")


def parse_nothing_untrusted(body: bytes) -> None:
    """Check a body that is ``{}``: its media type keeps simple cross-origin requests out.

    Raises:
        Refused: ``malformed``.
    """
    only_untrusted(_object_untrusted(body))


def peer_untrusted(data: Object, name: str) -> str:
    """A peer id in its one text form."""
    text = text_untrusted(data, name)
    try:
        return str(PeerId.from_text_untrusted(text))
    except ProtocolViolation:
        raise malformed(name, "must be an Ed25519 peer id in base58btc") from None


def session_fields(signed_in: SignedIn, *, current: str | None = None) -> dict[str, object]:
    """A session as clients see it; *current* is the label of the one that asks, for lists."""
    fields: dict[str, object] = {
        "session": signed_in.label,
        "account": str(signed_in.account),
        "device": signed_in.device,
        "created": signed_in.created,
        "seen": signed_in.seen,
        "expires": signed_in.expires,
    }
    return fields if current is None else {**fields, "current": signed_in.label == current}


def device_fields(device: Device) -> Mapping[str, object]:
    """A linked device as clients see it."""
    return {
        "device": device.peer,
        "first_linked": device.first_linked,
        "last_linked": device.last_linked,
    }


def _object_untrusted(body: bytes) -> Object:
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise malformed("body of the request", "is not UTF-8") from None
    return flat_object_untrusted(text, "body of the request", brackets=_BRACKETS)


def _short_untrusted(data: Object, name: str, longest: int) -> str:
    text = text_untrusted(data, name)
    if len(text) > longest:
        raise malformed(name, f"is longer than {longest} characters")
    return text
