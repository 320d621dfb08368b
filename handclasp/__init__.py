"""Websites and wallets meet by a QR code and talk peer to peer over WebRTC.

Everything public is importable from here and loads when it is used; ``import handclasp``
itself costs almost nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .discovery.signaling import Invitation, signaling
    from .identity import Identity, PeerId
    from .node import Node, open_node
    from .transports.webrtc import webrtc

__version__ = "0.1.0"
__all__ = ["Identity", "Invitation", "Node", "PeerId", "open_node", "signaling", "webrtc"]

_HOME = {
    "Identity": "identity",
    "Invitation": "discovery.signaling",
    "Node": "node",
    "PeerId": "identity",
    "open_node": "node",
    "signaling": "discovery.signaling",
    "webrtc": "transports.webrtc",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'handclasp' has no attribute {name!r}")
    value: object = getattr(import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
