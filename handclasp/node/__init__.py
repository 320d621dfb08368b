"""A peer: identity, connections and protocols over any discovery and transport."""

from .node import Node, open_node

__all__ = ["Node", "open_node"]
