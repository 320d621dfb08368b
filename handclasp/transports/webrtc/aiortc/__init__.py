"""The default engine: aiortc, tuned, on an asyncio loop that runs inside trio."""

from .engine import AiortcEngine, local_addresses

__all__ = ["AiortcEngine", "local_addresses"]
