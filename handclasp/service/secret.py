"""Secrets that the service is given: long enough, nobody's example, and never in a log."""

from __future__ import annotations

from pathlib import Path

from handclasp.errors import ConfigurationError

_SHORTEST = 32  # bytes: 256 bits of hexadecimal digits and more; HMAC-SHA-1 gains nothing beyond 64
_FEWEST_LETTERS = 8  # different ones: "aaaa…" and "12121212…" are no secrets
_LONGEST = 4096  # bytes of a file with a secret in it
#: What manuals and examples print; whoever scans for open relays tries these first.
_KNOWN = (
    *("changeme", "change-me", "change_me", "replaceme", "replace-me", "replace_me", "insecure", "example"),
    *("your-secret", "your_secret", "yoursecret", "north", "logen"),
)


class Secret:
    """A secret; ``reveal`` gives it, and nothing else shows it.

    Raises:
        ConfigurationError: it is too short, or one that everybody knows. The message does not repeat it.
    """

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        if len(value) < _SHORTEST:
            raise ConfigurationError(
                f"a secret has at least {_SHORTEST} bytes, not {len(value)}: openssl rand -hex 32 makes one"
            )
        text = value.decode("latin-1").lower()
        if len(set(value)) < _FEWEST_LETTERS or any(known in text for known in _KNOWN):
            raise ConfigurationError(
                "this secret is a known example, or no random one: openssl rand -hex 32 makes one"
            )
        self._value = value

    @classmethod
    def from_file(cls, path: Path) -> Secret:
        """The first line of a file.

        Raises:
            ConfigurationError: the file cannot be read, or what is in it is no secret.
        """
        try:
            with path.open("rb") as file:
                value = file.read(_LONGEST).splitlines()
        except OSError as exc:
            raise ConfigurationError(f"the secret in {path} cannot be read: {exc.strerror}") from None
        return cls(value[0].strip() if value else b"")

    def reveal(self) -> bytes:
        """The secret itself."""
        return self._value

    def __repr__(self) -> str:
        return "<Secret>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._value == other._value

    def __hash__(self) -> int:
        return hash(self._value)
