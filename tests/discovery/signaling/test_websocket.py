"""The WebSocket to the service, at its end."""

from __future__ import annotations

import pytest
import trio

from handclasp.discovery.signaling import websocket
from handclasp.discovery.signaling.websocket import open_socket
from handclasp.errors import ServiceUnavailable
from handclasp.testing import Leftovers, open_service

from .balancer import open_balancer

#: Seconds; what waits for them has missed the farewell, which is there in milliseconds.
LONG = 10.0


@pytest.mark.parametrize("cancelled", [True, False])
async def test_the_end_of_a_block_hears_the_farewell_of_the_service_also_when_it_is_cancelled(
    monkeypatch: pytest.MonkeyPatch, *, cancelled: bool
) -> None:
    monkeypatch.setattr(websocket, "CLOSE_TIMEOUT", LONG)
    async with open_service() as url, Leftovers().none():
        before = trio.current_time()
        with trio.CancelScope() as scope:
            async with open_socket(url, "/peers") as socket:
                await socket.receive()
                if cancelled:
                    scope.cancel()
                    await trio.sleep_forever()
        assert trio.current_time() - before < LONG


async def test_a_service_that_hangs_up_before_it_answers_is_not_waited_for() -> None:
    async with open_balancer() as nobody, Leftovers().none():
        with trio.fail_after(LONG / 2), pytest.raises(ServiceUnavailable, match="hung up"):
            async with open_socket(nobody.url, "/ws"):
                pass
