"""How far a database's schema has come, and which Swarms may use it as it is.

Versions count the migrations. While machines are upgraded one after the other, processes of two
versions are at one database, so each migration says in its first line which of them it allows::

    -- Works with Swarms that know version 3

A process that knows at least that version goes on in the upgraded database: what it does not know
was added, with defaults. An older one is refused. A migration without that line works with its own
version and newer ones only. A process that is *newer* than the schema is refused until that is
upgraded.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

from msgspec import Struct

_OLDEST: Final = re.compile(r"-- Works with Swarms that know version (\d+)\n")
Refuse: TypeAlias = Callable[[int], None]
"""Called before an upgrade that older Swarms cannot work with, with the version that they must
know; raises a SwarmError if some are at work."""


def refuse_nothing(oldest: int) -> None:
    """Whoever upgrades knows that nobody is at work."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One step of the schema's history."""

    version: int
    name: str
    script: str

    @property
    def oldest(self) -> int:
        """The version that a Swarm must know to work in a database with this migration."""
        found = _OLDEST.match(self.script)
        return self.version if found is None else int(found[1])


def load_migrations(folder: Path) -> tuple[Migration, ...]:
    """The migrations in ``folder`` in order. Raises ValueError if a number is missing or double."""
    migrations = []
    for number, path in enumerate(sorted(folder.glob("*.sql")), start=1):
        version, _, name = path.stem.partition("_")
        if int(version) != number:
            raise ValueError(f"{path.name} should be number {number:04}")
        migrations.append(Migration(number, name, path.read_text("utf-8")))
    return tuple(migrations)


def oldest_of(migrations: Sequence[Migration]) -> int:
    """The version that a Swarm must know once all of these are applied; 0 if there are none."""
    return max((one.oldest for one in migrations), default=0)


class AppliedMigration(Struct, frozen=True):
    """A migration that was applied."""

    version: int
    name: str
    applied_at: str


class SchemaStatus(Struct, frozen=True):
    """The version of a database's schema. Each kind of database counts its own versions."""

    version: int
    """0: it has no tables yet."""
    known: int
    """The version that this Swarm speaks."""
    applied: tuple[AppliedMigration, ...] = ()
    oldest: int = 0
    """The version that a Swarm must know to use this database."""

    @property
    def fitness(self) -> Literal["new", "older", "current", "newer", "too new"]:
        """How the schema stands to this Swarm; ``newer`` can be used all the same."""
        if not self.version:
            return "new"
        if self.version <= self.known:
            return "current" if self.version == self.known else "older"
        return "newer" if self.oldest <= self.known else "too new"

    @property
    def is_usable(self) -> bool:
        """Whether this Swarm may use the database as it is."""
        return self.fitness in ("current", "newer")
