"""Every error that handclasp raises on purpose, sorted by whose fault it is.

::

    HandclaspError
    ├── MisuseError               you: fix the call
    │   ├── InvalidAddress
    │   ├── ConfigurationError
    │   └── PeerNotAllowed
    ├── PeerFault                 the other side broke the protocol, or said no
    │   ├── ProtocolViolation
    │   │   ├── InvitationRefused
    │   │   ├── HandshakeFailed
    │   │   └── FingerprintMismatch
    │   ├── ProtocolRefused
    │   ├── WrongPeer
    │   ├── LinkRefused
    │   └── RequestFailed
    └── WorldFault                nobody's fault: retry, or look at the network
        ├── ServiceUnavailable
        ├── ServiceRefused
        ├── PeerUnreachable
        ├── PeerLeft
        ├── ConnectionLost
        ├── DeadlineExceeded
        ├── LimitReached
        └── RecordsUnavailable

Closed and busy resources raise trio's own ``trio.ClosedResourceError`` and
``trio.BusyResourceError``; a broken stream raises ``trio.BrokenResourceError``.
"""

from __future__ import annotations


class HandclaspError(Exception):
    """The root of the tree: catch it to catch everything handclasp raises on purpose."""


class MisuseError(HandclaspError):
    """You called something in a way that cannot work; the message says what to change."""


class InvalidAddress(MisuseError):
    """The address is not a multiaddr that any transport of this node can use."""


class ConfigurationError(MisuseError):
    """A setting is missing, malformed or contradicts another; the message names it."""


class PeerNotAllowed(MisuseError):
    """This node's own allow hook refuses the peer."""


class PeerFault(HandclaspError):
    """The other side broke the protocol or refused; retrying the same thing will not help."""


class ProtocolViolation(PeerFault):
    """The peer sent something that the protocol does not allow; the connection or stream was ended."""


class InvitationRefused(ProtocolViolation):
    """The invitation is malformed, altered, expired or already used: ask the website for a new one.

    Attributes:
        field: the name of the field at fault, or ``"invitation"`` for the text as a whole.
    """

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"invitation refused: {field}: {reason}")
        self.field = field
        self.reason = reason


class HandshakeFailed(ProtocolViolation):
    """The handshake did not verify: somebody between the two devices interfered. Ask for a new invitation."""


class FingerprintMismatch(ProtocolViolation):
    """The DTLS certificates are not those that both sides announced: the connection was not handed out."""


class ProtocolRefused(PeerFault):
    """The peer has no handler for this protocol; use another one or ask its operator to update."""


class WrongPeer(PeerFault):
    """Another peer answered than the one that was asked for; the connection was closed."""


class LinkRefused(PeerFault):
    """The signed sign-in message was not accepted.

    Attributes:
        field: the field that did not match (``"nonce"``, ``"domain"``, ``"signature"``, …).
    """

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"link refused: {field}: {reason}")
        self.field = field
        self.reason = reason


class RequestFailed(PeerFault):
    """The peer answered a request with an error.

    Attributes:
        code: the JSON-RPC, EIP-1193 or CAIP-25 code (4001: the person said no).
        data: whatever the peer sent along, or None.
    """

    def __init__(self, code: int, message: str, data: object = None) -> None:
        super().__init__(f"{message} ({code})")
        self.code = code
        self.message = message
        self.data = data


class WorldFault(HandclaspError):
    """Nobody broke a rule: the network, a machine or time got in the way. Trying again may work."""


class ServiceUnavailable(WorldFault):
    """The signaling service cannot be reached or went away; check its address and that it runs."""


class ServiceRefused(WorldFault):
    """The signaling service declined.

    Attributes:
        code: the service's code: ``crowded``, ``nonce``, ``expired``, ``limit``, ``gone``, …
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{message} [{code}]")
        self.code = code


class PeerUnreachable(WorldFault):
    """No address of this peer led to a connection; the cause tells every attempt."""


class PeerLeft(WorldFault):
    """The other side disconnected before the two were done; ask it to start again."""


class ConnectionLost(WorldFault):
    """The connection to the peer broke; the cause says how."""


class DeadlineExceeded(WorldFault):
    """The other side did not answer in time."""


class LimitReached(WorldFault):
    """This node has as many connections as its limits allow: close some, or raise them."""


class RecordsUnavailable(WorldFault):
    """The service's database cannot be reached, or did not answer in time: try again when it does."""
