"""How log lines look: text for people, or one JSON object a line. What is in them is the loggers' matter."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime

from .journal import describe

_TEXT = "%(asctime)s %(levelname)-7s %(name)s %(message)s"


class JsonLines(logging.Formatter):
    """``{"at", "level", "logger", "message"}``, and ``error`` with the types and places of an exception."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, whatever is in the message."""
        line: dict[str, object] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info is not None and record.exc_info[1] is not None:
            line["error"] = describe(record.exc_info[1])
        elif record.exc_text:
            line["error"] = record.exc_text
        return json.dumps(line)


def set_up_logging(level: str, style: str) -> None:
    """Write log lines to standard error, for a program that is the service: *style* is ``text`` or ``json``."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if style == "json" else logging.Formatter(_TEXT))
    logging.basicConfig(level=level.upper(), handlers=[handler])
