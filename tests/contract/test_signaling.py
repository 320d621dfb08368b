"""Every way to signal keeps the contract."""

from __future__ import annotations

from handclasp.testing import check_signaling

from .backends import SIGNALING, DiscoveryBackend, cases


@cases(SIGNALING, "signaling")
async def test_signaling(backend: DiscoveryBackend) -> None:
    async with backend.open() as factory:
        await check_signaling(factory, **backend.options)
