"""The signaling service: where two meet, a website and a wallet or any two peers, until they talk directly.

It forwards sealed messages and forgets them; docs/protocols/mailbox.md and presence.md are what it speaks. It shares
nothing with the peers but those pages.

=====================  =====================================================================
`create_app`           the service as an ASGI application, for a server or framework you have
`serve`                the same with a server around it: blocks until it is told to stop
`Settings`             limits and lifetimes, each with its reason
=====================  =====================================================================

The names load when they are used: importing this package imports nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .app import create_app
    from .server import serve
    from .settings import Settings

__all__ = ["Settings", "create_app", "serve"]

_HOMES = {"Settings": "settings", "create_app": "app", "serve": "server"}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(f".{home}", __name__), name)
    globals()[name] = value  # the next use does not come here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
