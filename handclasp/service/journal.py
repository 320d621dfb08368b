"""What the service says in the log about errors: where, never what.

The message of an unexpected exception may hold what a client sent (a ``KeyError`` holds the key), so only its
type and the places in the code are written.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from typing import cast

from .buckets import Bucket

#: The server logs every frame and query string at DEBUG through these, and some at INFO.
_SERVER_LOGGERS = (
    "uvicorn",
    "uvicorn.error",
    "uvicorn.access",
    "uvicorn.asgi",
    "asyncio",
    "websockets",
    "websockets.server",
)


#: What uvicorn takes for a fault of the application: a handshake that was answered with an HTTP error. A flood of
#: handshakes would fill the log with it.
_REFUSED = "ASGI callable returned without completing handshake."
_AT_ONCE, _AFTERWARDS = 10, 0.1  # lines of one kind from the server, at once and a second
_MOST_KINDS = 100


def describe(exc: BaseException) -> str:
    """The types and places of *exc* and of those that it holds."""
    if isinstance(exc, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", exc)
        return "\n".join(describe(each) for each in group.exceptions)
    return "".join([f"{type(exc).__qualname__}\n", *traceback.format_tb(exc.__traceback__)]).rstrip()


class _FailuresOnly(logging.Filter):
    """Lets a server's warnings and errors through, without what clients sent, and not as many as clients please.

    Garbage on the wire is an error to the server, and a flood of it would fill the disk.
    """

    def __init__(self) -> None:
        super().__init__()
        self._buckets: dict[str, Bucket] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to write it; changes what is written."""
        if record.exc_info is not None and record.exc_info[1] is not None:
            record.exc_text = describe(record.exc_info[1])
            record.exc_info = None
        if record.levelno < logging.WARNING or record.msg == _REFUSED:
            return False
        record.msg = str(record.msg).partition("\n")[0]  # asyncio goes on with objects and addresses
        if len(self._buckets) >= _MOST_KINDS:
            self._buckets.clear()
        bucket = self._buckets.setdefault(record.msg, Bucket(_AT_ONCE, _AFTERWARDS))
        return bucket.spend(time.monotonic())


@contextmanager
def server_logging(level: int) -> Generator[None]:
    """For the length of a block, log what the service does from *level* on, and of its server failures only.

    The server's get a filter beside the level: levels are set by whoever configures logging last.
    """
    failures_only = _FailuresOnly()
    with ExitStack() as undo:
        for name in (*_SERVER_LOGGERS, "handclasp.service"):
            undo.callback(logging.getLogger(name).setLevel, logging.getLogger(name).level)
        logging.getLogger("handclasp.service").setLevel(level)
        for logger in map(logging.getLogger, _SERVER_LOGGERS):
            logger.setLevel(max(logging.WARNING, logger.level))
            logger.addFilter(failures_only)
            undo.callback(logger.removeFilter, failures_only)
        yield
