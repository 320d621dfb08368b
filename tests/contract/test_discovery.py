"""Every way to find peers keeps the contract."""

from __future__ import annotations

from handclasp.testing import check_discovery

from .backends import DISCOVERY, DiscoveryBackend, cases


@cases(DISCOVERY, "discovery")
async def test_discovery(backend: DiscoveryBackend) -> None:
    async with backend.open() as factory:
        await check_discovery(factory, **backend.options)
