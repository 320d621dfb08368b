"""Every transport keeps the contract."""

from __future__ import annotations

import pytest

from handclasp.testing import check_transport

from .backends import TRANSPORTS, TransportBackend, cases, open_transport


@cases(TRANSPORTS, "transport")
async def test_a_transport(backend: TransportBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    if backend.dial_timeout is not None:
        monkeypatch.setattr(*backend.dial_timeout, 2.0)
    async with open_transport(backend) as (factory, signaling):
        await check_transport(factory, signaling, quiet=backend.quiet)
