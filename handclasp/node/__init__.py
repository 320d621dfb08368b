"""A peer: identity, connections and protocols over any discovery and transport."""

from .connections import Limits
from .events import Event, PathChanged, PeerConnected, PeerLost
from .identify import PeerInfo
from .node import Node, open_node

__all__ = [
    "Event",
    "Limits",
    "Node",
    "PathChanged",
    "PeerConnected",
    "PeerInfo",
    "PeerLost",
    "open_node",
]
