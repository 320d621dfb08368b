"""The lines of a sign-in message: their labels, their order, and a reader that takes one after the other.

Only the layout of EIP-4361 §ABNF is here; what may stand in a field is in `handclasp.accounts.siwe_fields`.
Every refusal is a `LinkRefused` with the field's name.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from handclasp.errors import LinkRefused

from .siwe_fields import parse_time

WANTS: Final = " wants you to sign in with your Ethereum account:"
LABELS: Final = {
    "uri": "URI: ",
    "version": "Version: ",
    "chain_id": "Chain ID: ",
    "nonce": "Nonce: ",
    "issued_at": "Issued At: ",
    "expiration_time": "Expiration Time: ",
    "not_before": "Not Before: ",
    "request_id": "Request ID: ",
    "resources": "Resources:",
}


class Lines:
    """The lines of a message that are not read yet."""

    def __init__(self, text: str) -> None:
        self._lines = text.split("\n")
        self._next = 0

    def _peek(self) -> str | None:
        return self._lines[self._next] if self._next < len(self._lines) else None

    def take(self, name: str) -> str:
        """The next line, whatever it is."""
        line = self._peek()
        if line is None:
            raise LinkRefused(name, "is missing")
        self._next += 1
        return line

    def take_origin(self) -> tuple[str | None, str]:
        """Scheme and domain from the first line."""
        line = self.take("domain")
        origin = line.removesuffix(WANTS)
        if origin == line:
            raise LinkRefused("message", "does not begin as EIP-4361 demands")
        scheme, separator, domain = origin.partition("://")
        return (scheme, domain) if separator else (None, origin)

    def take_statement(self) -> str | None:
        """The statement between its empty lines; without one there are two empty lines."""
        if self.take("statement"):
            raise LinkRefused("statement", "does not stand between two empty lines")
        line = self.take("statement")
        if not line:
            return None
        if self.take("statement"):
            raise LinkRefused("statement", "does not stand between two empty lines")
        return line

    def take_optional(self, name: str) -> str | None:
        """What follows the label of *name*, or None if another line comes next."""
        line = self._peek()
        if line is None or not line.startswith(LABELS[name]):
            return None
        self._next += 1
        return line.removeprefix(LABELS[name])

    def take_labelled(self, name: str) -> str:
        """What follows the label of *name*, which has to come next."""
        value = self.take_optional(name)
        if value is None:
            raise LinkRefused(name, "is missing, or does not stand in its place")
        return value

    def take_time(self, name: str) -> datetime | None:
        """The time after the label of *name*, or None if another line comes next."""
        value = self.take_optional(name)
        return None if value is None else parse_time(name, value)

    def take_resources(self) -> tuple[str, ...]:
        """The list of resources, or none if another line comes next."""
        rest = self.take_optional("resources")
        if rest is None:
            return ()
        if rest:
            raise LinkRefused("resources", "do not begin on a line of their own")
        resources: list[str] = []
        while (line := self._peek()) is not None and line.startswith("- "):
            resources.append(line.removeprefix("- "))
            self._next += 1
        if not resources:
            raise LinkRefused("resources", "are an empty list")
        return tuple(resources)

    def end(self) -> None:
        """Check that nothing is left; a trailing line feed would be an empty line."""
        line = self._peek()
        if line is None:
            return
        for name, label in LABELS.items():
            if line.startswith(label):
                raise LinkRefused(name, "stands twice, or not in its place")
        raise LinkRefused("message", "goes on after its last field")
