"""What a journal commit changes beyond its run's own rows: cached results, called runs, budgets."""

from __future__ import annotations

from msgspec import Struct

from swarm.store.records import RunChanges
from swarm.store.sql import cached, creation
from swarm.store.sql.connection import Connection, Row
from swarm.store.sql.creation import EncodedRun

ADD_USAGE = (
    "UPDATE workflow_runs SET tree_vm_time_ms = tree_vm_time_ms + ?, "
    "tree_api_tokens = tree_api_tokens + ?, tree_cost_micros = tree_cost_micros + ? WHERE id = ?"
)


class Consequences(Struct, frozen=True):
    """Rows and values, made on the caller's side."""

    cached: list[Row]
    children: list[EncodedRun]
    usage: Row | None

    @property
    def rows(self) -> int:
        """How many rows they write."""
        return 1 + len(self.cached) + sum(child.rows for child in self.children)


def encode(changes: RunChanges) -> Consequences | None:
    """Encode what ``changes`` has of it; None for nothing, as most commits have.

    Raises:
        InvalidError: a value is not JSON, or a run has too many attributes.
    """
    if not (changes.cached or changes.children or changes.tree_usage):
        return None
    usage: Row | None = None
    if changes.tree_usage is not None:
        root_id, used = changes.tree_usage
        usage = (used.vm_time_ms, used.tokens, used.cost_micros, root_id)
    return Consequences(
        [cached.CACHED.encode(result) for result in changes.cached],
        [creation.encode(child) for child in changes.children],
        usage,
    )


def apply(connection: Connection, consequences: Consequences) -> None:
    cached.put(connection, consequences.cached)
    for child in consequences.children:
        creation.create_unless_there(connection, child)
    if consequences.usage is not None:
        connection.execute(ADD_USAGE, consequences.usage)
