"""Flow control of one stream, without I/O.

Libwebrtc and browsers acknowledge data before anyone has read it, and where a stack does have a receive window, as
aiortc does here, all streams share it: one slow reader would stop the others, and with them what the peer has to say
about its own. So each end declares in its description how many bytes may wait unread in one stream, and reports in
libp2p's frames how many were read so far, as yamux and QUIC do. Who declares nothing, like other libp2p peers, is
neither limited nor sent reports: then the stack's window is all there is.

Wire: docs/protocols/webrtc.md.
"""

from __future__ import annotations

from handclasp.errors import ProtocolViolation

#: Bytes that may wait unread in one stream: what 100 MB/s need on a path of 20 ms.
WINDOW = 2 * 1024 * 1024

_NAME = "a=x-handclasp-window:"
_STEP = WINDOW // 8  # bytes read from one report to the next
_DIGITS = 15  # far more than any memory


def declare(sdp: str) -> str:
    """The description with our declaration; who does not know the attribute ignores it (RFC 8866 section 5.13)."""
    return f"{sdp}{_NAME}{WINDOW}\r\n"


def window_untrusted(sdp: str) -> int | None:
    """The window that the peer's description declares, in bytes; None when it declares none, or nonsense."""
    for line in sdp.splitlines():
        text = line.removeprefix(_NAME)
        if line.startswith(_NAME) and text.isascii() and text.isdecimal() and len(text) <= _DIGITS:
            return int(text) or None
    return None


class SendCredit:
    """How much may be sent on one stream until the peer reports that it has read more.

    Args:
        window: what the peer declared, more than 0.
    """

    def __init__(self, window: int) -> None:
        self._window = window
        self._sent = 0
        self._read = 0

    @property
    def room(self) -> int:
        """Bytes that may be sent now."""
        return self._window - (self._sent - self._read)

    def spend(self, size: int) -> None:
        """Count bytes as sent."""
        self._sent += size

    def reported_untrusted(self, read: int) -> None:
        """Take the peer's report.

        Raises:
            ProtocolViolation: more than was sent, or less than before.
        """
        if not self._read <= read <= self._sent:
            raise ProtocolViolation("a peer reports to have read what was not sent")
        self._read = read


class ReadReports:
    """What to report to the peer about one stream."""

    def __init__(self) -> None:
        self._read = 0
        self._reported = 0

    def read(self, size: int) -> int | None:
        """Count bytes as read; returns the report that is due, if one is."""
        self._read += size
        if self._read - self._reported < _STEP:
            return None
        self._reported = self._read
        return self._read
