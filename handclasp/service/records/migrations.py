"""Schema versions: numbered SQL files, each applied once, in a transaction, by one process at a time."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

from handclasp.errors import ConfigurationError

from .database import Cursor

_NAME = re.compile(r"(\d{4})_[a-z_]+\.sql")


@dataclass(frozen=True)
class Migration:
    """The step to one version."""

    version: int
    statements: tuple[str, ...]


def migrations(dialect: str) -> tuple[Migration, ...]:
    """Every migration of a dialect, from version 1 without gaps."""
    found: list[Migration] = []
    for file in files(f"{__package__}.schema").joinpath(dialect).iterdir():
        name = _NAME.fullmatch(file.name)
        if name is not None:
            found.append(Migration(int(name[1]), _statements(file.read_text())))
    found.sort(key=lambda migration: migration.version)
    if [migration.version for migration in found] != list(range(1, len(found) + 1)):
        raise ConfigurationError(f"the schema files for {dialect} are incomplete: install handclasp again")
    return tuple(found)


def migrate(cursor: Cursor, steps: Sequence[Migration]) -> None:
    """Bring a schema to the last of *steps*, from whatever version it has.

    The caller has a transaction open and a lock that every other process that migrates waits for.

    Raises:
        ConfigurationError: the schema is newer than the last step.
    """
    cursor.run("CREATE TABLE IF NOT EXISTS schema_version (version INTEGER NOT NULL)")
    rows = cursor.run("SELECT version FROM schema_version")
    version = int(str(rows[0][0])) if rows else 0
    if version > len(steps):
        raise ConfigurationError(
            f"the database has schema version {version}, this program knows {len(steps)}: update it"
        )
    if version == len(steps):
        return
    for step in steps[version:]:
        for statement in step.statements:
            cursor.run(statement)
    cursor.run("DELETE FROM schema_version")
    cursor.run("INSERT INTO schema_version (version) VALUES (:version)", version=len(steps))


def _statements(text: str) -> tuple[str, ...]:
    # Our own files: no semicolon stands inside of a statement.
    return tuple(statement.strip() for statement in text.split(";") if statement.strip())
