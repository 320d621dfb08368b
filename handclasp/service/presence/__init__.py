"""Peers that find each other by topic and open channels by peer id: docs/protocols/presence.md."""
