"""How far a database's schema has come."""

from __future__ import annotations

from msgspec import Struct


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

    @property
    def is_current(self) -> bool:
        return self.version == self.known
