"""What nothing refers to any more: queries that find it, and statements that delete it."""

from __future__ import annotations

import re

from swarm.store.sql.connection import Connection

_DOCUMENTS = {
    "workflow_runs": ("trigger_data", "inputs", "variables", "outputs", "overrides"),
    "step_executions": ("inputs", "outputs", "wait_details"),
    "answers": ("data",),
}
"""Columns that may hold references to artifacts."""
_LARGE_RESULTS = (
    "SELECT step_results FROM workflow_runs WHERE id >= ? AND id <= ? "
    "AND step_results >= '{\"$artifact\":' AND step_results < '{\"$artifact\";'"
)
"""What a run's step_results hold, its steps do; but where they are large, they are an artifact
themselves."""
OUTSIDE_RUNS = {
    "events": "SELECT rowid, payload FROM events WHERE rowid > ? ORDER BY rowid LIMIT ?",
    "step_cache": "SELECT rowid, outputs FROM step_cache WHERE rowid > ? ORDER BY rowid LIMIT ?",
}
_MARK = "sha256:"
_REFERENCE = re.compile(rf"{_MARK}[0-9a-f]{{64}}")

DELETE_DIRECT_INVOCATIONS = (
    "DELETE FROM invocations WHERE id IN (SELECT id FROM invocations "
    "INDEXED BY idx_invocations_direct WHERE run_id IS NULL AND started_at < ? LIMIT ?)"
)
_UNUSED_AGENTS = (
    "SELECT id FROM agents WHERE active = 0 AND updated_at < ? "
    "AND id NOT IN (SELECT agent_id FROM invocations) "
    "AND id NOT IN (SELECT agent_id FROM step_executions WHERE agent_id IS NOT NULL) "
    "AND id NOT IN (SELECT pin.value FROM workflow_runs, json_each(workflow_runs.agents) AS pin)"
)
_DELETE_AGENT = "DELETE FROM agents WHERE id = ? AND active = 0 AND updated_at < ?"
_DELETE_GRANTS = "DELETE FROM grants WHERE digest NOT IN (SELECT digest FROM agents)"


def purge_invocations(connection: Connection, started_before: str, limit: int) -> int:
    return connection.execute(DELETE_DIRECT_INVOCATIONS, (started_before, limit)).rowcount


def unused_agents(connection: Connection, unused_since: str) -> list[str]:
    """Ids of inactive agents that nothing refers to.

    A reading connection can ask, and the answer stays right: nothing new ever refers to an agent
    that is inactive, and one that is registered again is no longer ``updated_at`` before then.
    """
    return [agent_id for (agent_id,) in connection.execute(_UNUSED_AGENTS, (unused_since,))]


def delete_agent(connection: Connection, agent_id: str, unused_since: str) -> int:
    """Delete one such agent, and the grants of packages that are gone with it."""
    deleted = connection.execute(_DELETE_AGENT, (agent_id, unused_since)).rowcount
    connection.execute(_DELETE_GRANTS)
    return deleted


def digests_in_use(connection: Connection) -> tuple[frozenset[str], frozenset[str]]:
    """Packages and environments of all agents recorded, inactive ones too."""
    rows = connection.execute("SELECT digest, environment_digest FROM agents").fetchall()
    environments = frozenset(environment for _, environment in rows if environment is not None)
    return frozenset(package for package, _ in rows), environments


def artifacts_in_use(connection: Connection, after: str, limit: int) -> tuple[frozenset[str], str]:
    """References to artifacts in ``limit`` runs after the id ``after``; the last run's id."""
    ids = [
        run_id
        for (run_id,) in connection.execute(
            "SELECT id FROM workflow_runs WHERE id > ? ORDER BY id LIMIT ?", (after, limit)
        )
    ]
    found: set[str] = set()
    if ids:
        for table, columns in _DOCUMENTS.items():
            key = "id" if table == "workflow_runs" else "run_id"
            for column in columns:
                rows = connection.execute(
                    f"SELECT {column} FROM {table} WHERE {key} >= ? AND {key} <= ? "
                    f"AND instr({column}, '{_MARK}') > 0",
                    (ids[0], ids[-1]),
                )
                found.update(*(_REFERENCE.findall(text) for (text,) in rows))
        rows = connection.execute(_LARGE_RESULTS, (ids[0], ids[-1]))
        found.update(*(_REFERENCE.findall(text) for (text,) in rows))
    return frozenset(found), ids[-1] if ids else ""


def artifacts_outside_runs(
    connection: Connection, after: str, limit: int
) -> tuple[frozenset[str], str]:
    """References in ``limit`` events and cached results after the place ``after``; the next place.

    A place is the name of a table and the number of a row in it.
    """
    tables = list(OUTSIDE_RUNS)
    table, _, row = after.partition(" ")
    first = tables.index(table) if table else 0
    found: set[str] = set()
    for number, name in enumerate(tables[first:]):
        start = int(row or 0) if number == 0 else 0
        rows = connection.execute(OUTSIDE_RUNS[name], (start, limit)).fetchall()
        found.update(*(_REFERENCE.findall(text) for _, text in rows))
        limit -= len(rows)
        if not limit:
            return frozenset(found), f"{name} {rows[-1][0]}"
    return frozenset(found), ""
