"""Flow control for a stack that acknowledges messages before anyone has read them, without I/O.

libwebrtc has no receive window that an application could keep closed, so a slow reader would collect everything.
Engines that declare so in their description (`declare`) tell each other, in a text message on the channel
itself, how many bytes were read from it so far; libp2p's frames are binary messages, so the two do not mix. Who
has not declared it neither gets nor has to understand any of this.
"""

from __future__ import annotations

from handclasp.errors import ProtocolViolation

#: Bytes that may wait unread in one channel. Above the 1 MiB of the default engine: one report
#: comes for every eighth of it, and takes a round trip.
WINDOW = 2 * 1024 * 1024

_ATTRIBUTE = f"a=x-handclasp-window:{WINDOW}"
_NAME = "a=x-handclasp-window:"
_STEP = WINDOW // 8
_DIGITS = 20  # of a 64-bit number


def declare(sdp: str) -> str:
    """The description with our declaration; who does not know the attribute ignores it (RFC 8866 section 5.13)."""
    return f"{sdp}{_ATTRIBUTE}\r\n"


def window_untrusted(sdp: str) -> int | None:
    """The window that the peer's description declares, in bytes; None when it declares none, or nonsense."""
    for line in sdp.splitlines():
        text = line.removeprefix(_NAME)
        if line.startswith(_NAME) and text.isascii() and text.isdecimal() and len(text) <= _DIGITS:
            return int(text)
    return None


class SendCredit:
    """How much may be sent on one channel until the peer reports that it has read more.

    Args:
        window: what the peer declared, or None for a peer that reports nothing.
    """

    def __init__(self, window: int | None) -> None:
        self._window = window
        self._sent = 0
        self._read = 0

    def allows(self, size: int) -> bool:
        """Whether a message of *size* bytes may go; one may always be under way, however small the window."""
        unread = self._sent - self._read
        return self._window is None or unread == 0 or unread + size <= self._window

    def spend(self, size: int) -> None:
        """Count a message as sent."""
        self._sent += size

    def reported_untrusted(self, text: str) -> None:
        """Take the peer's report.

        Raises:
            ProtocolViolation: not a number, or more than was sent, or less than before.
        """
        if not (text.isascii() and text.isdecimal() and len(text) <= _DIGITS):
            raise ProtocolViolation("a peer's report of what it has read is not a number")
        if not self._read <= int(text) <= self._sent:
            raise ProtocolViolation("a peer reports to have read what was not sent")
        self._read = int(text)


class ReadReports:
    """What to report to the peer about one channel."""

    def __init__(self) -> None:
        self._read = 0
        self._reported = 0

    def read(self, size: int) -> str | None:
        """Count bytes as read; returns the report that is due, if one is."""
        self._read += size
        if self._read - self._reported < _STEP:
            return None
        self._reported = self._read
        return str(self._read)
