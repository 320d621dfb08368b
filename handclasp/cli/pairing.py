"""What the website and the wallet of the command line have in common."""

from __future__ import annotations

from importlib import import_module

from handclasp import accounts
from handclasp.abc import TransportFactory
from handclasp.transports.webrtc import IceServer, webrtc
from handclasp.transports.webrtc.aiortc import AiortcEngine


def transport(ice_servers: tuple[str, ...], *, loopback: bool) -> TransportFactory:
    """The WebRTC transport as the options describe it."""
    engine = AiortcEngine(addresses=["127.0.0.1"] if loopback else None)
    return webrtc(engine=engine, ice_servers=[IceServer(url) for url in ice_servers])


def preload() -> None:
    """Load what the pairing will need (0.7 s), so that nobody waits for it in the middle of one."""
    accounts.preload()
    for module in ("httpx", "trio_websocket"):
        import_module(module)
