"""What the signaling service says, taken with care: in time, bounded, and of the right kind."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Generator
from contextlib import contextmanager
from typing import cast

import trio

from handclasp.errors import ProtocolViolation, ServiceUnavailable
from handclasp.jsontext import parse_json_untrusted

__all__ = [
    "LONGEST_ANSWER",
    "decode_untrusted",
    "encode",
    "object_untrusted",
    "optional_text_of",
    "promptly",
    "short",
    "text_of",
]

#: Seconds for one HTTP request, a WebSocket handshake or an acknowledgement.
TIMEOUT = 10.0
#: Bytes of a frame or of an HTTP answer; the service's own limit.
LONGEST_ANSWER = 96 * 1024


@contextmanager
def promptly(complaint: str) -> Generator[None]:
    """The block has `TIMEOUT`; otherwise `ServiceUnavailable` with *complaint*."""
    try:
        with trio.fail_after(TIMEOUT):
            yield
    except trio.TooSlowError:
        raise ServiceUnavailable(f"{complaint} within {TIMEOUT:.0f} s") from None


def object_untrusted(data: str | bytes) -> dict[str, object]:
    """The JSON object that *data* is.

    Raises:
        ProtocolViolation: it is none.
    """
    try:
        value = parse_json_untrusted(data)
    except ValueError:
        raise ProtocolViolation("something that is not JSON") from None
    if not isinstance(value, dict):
        raise ProtocolViolation("JSON that is not an object")
    return cast("dict[str, object]", value)


def text_of(frame: dict[str, object], name: str) -> str:
    """The text in a field.

    Raises:
        ProtocolViolation: there is none.
    """
    value = frame.get(name)
    if not isinstance(value, str):
        raise ProtocolViolation(f"no text in '{name}'")
    return value


def optional_text_of(frame: dict[str, object], name: str) -> str | None:
    """The text in a field, None where there is no such field."""
    return text_of(frame, name) if name in frame else None


def short(value: object) -> str:
    """Whatever the service sent, fit for an error message."""
    return str(value)[:200] if value is not None else "unknown"


def encode(body: bytes) -> str:
    """base64url without padding."""
    return base64.urlsafe_b64encode(body).rstrip(b"=").decode()


def decode_untrusted(body: str) -> bytes:
    """What `encode` has made.

    Raises:
        ProtocolViolation: it has not made this.
    """
    try:
        return base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        raise ProtocolViolation("'body' is not base64url") from None
