"""The lines of a sign-in message: their labels, their order, and a reader that takes one after the other.

Only the layout is here, by way of a `Profile`; what may stand in a field is in
`handclasp.accounts.siwx_fields`. Every refusal is a `LinkRefused` with the field's name.
"""

from __future__ import annotations

import re
from typing import Final

from handclasp.errors import LinkRefused

from .profiles import PROFILES, Profile

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
OPTIONAL: Final = frozenset({"expiration_time", "not_before", "request_id"})
_FIRST_LINE: Final = re.compile(
    rf"(.*) wants you to sign in with your ({'|'.join(p.blockchain for p in PROFILES.values())}) account:",
    re.DOTALL,  # a carriage return in the domain is the domain's fault
)
_BY_BLOCKCHAIN: Final = {profile.blockchain: profile for profile in PROFILES.values()}


def first_line(origin: str, profile: Profile) -> str:
    """Who asks, and for what kind of account."""
    return f"{origin} wants you to sign in with your {profile.blockchain} account:"


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

    def take_origin(self) -> tuple[Profile, str | None, str]:
        """Profile, scheme and domain from the first line."""
        match = _FIRST_LINE.fullmatch(self.take("domain"))
        if match is None:
            raise LinkRefused("message", "does not begin as EIP-4361 and CAIP-122 demand")
        origin, blockchain = match.groups()
        scheme, separator, domain = origin.partition("://")
        profile = _BY_BLOCKCHAIN[blockchain]
        return (profile, scheme, domain) if separator else (profile, None, origin)

    def take_statement(self, profile: Profile) -> str | None:
        """The statement between its empty lines, or None if as many stand there as the profile demands."""
        if self.take("statement"):
            raise LinkRefused("statement", "does not stand between two empty lines")
        line = self._peek()
        if profile.empty_lines == 1 and line is not None and line.startswith(LABELS["uri"]):
            return None
        if not self.take("statement"):
            if profile.empty_lines == 1:
                raise LinkRefused("statement", "is empty: leave it out, with the line that follows it")
            return None
        if self.take("statement"):
            raise LinkRefused("statement", "does not stand between two empty lines")
        return line

    def take_fields(self, order: tuple[str, ...]) -> dict[str, str]:
        """What stands after the labels of *order*, which have to come in that order; some may be left out."""
        fields: dict[str, str] = {}
        for name in order:
            line = self._peek()
            if line is not None and line.startswith(LABELS[name]):
                fields[name] = line.removeprefix(LABELS[name])
                self._next += 1
            elif name not in OPTIONAL:
                raise LinkRefused(name, "is missing, or does not stand in its place")
        return fields

    def take_resources(self) -> tuple[str, ...]:
        """The list of resources, or none if another line comes next."""
        label = LABELS["resources"]
        line = self._peek()
        if line is None or not line.startswith(label):
            return ()
        if line != label:
            raise LinkRefused("resources", "do not begin on a line of their own")
        self._next += 1
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
