"""Ping: is the peer there, and how far away.

Source: libp2p ping specification: 32 random bytes at a time, echoed, as often as the dialer likes.
"""

from __future__ import annotations

import secrets

import trio

from handclasp.abc import Stream
from handclasp.errors import ConnectionLost, ProtocolViolation
from handclasp.identity import PeerId
from handclasp.scope import deadline

__all__ = ["PROTOCOL", "answer", "measure"]

PROTOCOL = "/ipfs/ping/1.0.0"
#: Seconds to wait for an echo.
TIMEOUT = 10.0
#: Seconds that a peer may keep a ping stream open without using it.
IDLE_TIMEOUT = 120.0
_SIZE = 32  # bytes of one ping


async def answer(stream: Stream, peer: PeerId) -> None:  # noqa: ARG001 - a Handler
    """Echo until the peer has had enough."""
    with trio.move_on_after(IDLE_TIMEOUT) as idle:
        while data := await stream.receive_some(_SIZE):
            await stream.send_all(data)
            idle.deadline = trio.current_time() + IDLE_TIMEOUT


async def measure(stream: Stream) -> float:
    """Seconds for one round trip on a stream that speaks `PROTOCOL`.

    Raises:
        DeadlineExceeded: no echo within `TIMEOUT`.
        ProtocolViolation: something else came back.
        ConnectionLost: the stream broke or ended.
    """
    data = secrets.token_bytes(_SIZE)
    sent_at = trio.current_time()
    echo = b""
    with deadline(TIMEOUT, "the peer did not echo a ping"):
        try:
            await stream.send_all(data)
            while len(echo) < _SIZE:
                chunk = await stream.receive_some(_SIZE - len(echo))
                if not chunk:
                    raise ConnectionLost("the peer ended the ping stream")
                echo += chunk
        except trio.BrokenResourceError as exc:
            raise ConnectionLost(f"the ping stream broke: {exc}") from exc
    if echo != data:
        raise ProtocolViolation("the peer answered a ping with something else")
    return trio.current_time() - sent_at
