"""A text as the bytes that every namespace signs some form of."""

from __future__ import annotations

from handclasp.errors import ProtocolViolation


def encode(text: str) -> bytes:
    """The UTF-8 of *text*.

    Raises:
        ProtocolViolation: *text* has a lone surrogate, which JSON can carry.
    """
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise ProtocolViolation("the text to sign is not valid Unicode") from None
