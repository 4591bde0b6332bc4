"""Journal commits of many runs at once, and the locks that keep transactions apart.

SQLite has one writer at a time. Here transactions run side by side, each statement sees what is
committed when it begins, and what is read may be changed before the reader commits. So:

- Who writes a run's rows holds the lock of its row in ``workflow_runs``: from the check of the
  epoch to the COMMIT nobody takes the run over. A batch takes its locks in one statement, in the
  order of ids, so that two batches do not wait for each other.
- Who gives a run up, answers it or cancels it holds that lock, too: the one who comes second sees
  what the first has done, and no wake-up is lost.
- Events have a lock of their name: shared for runs that are given up while they wait for it,
  exclusive for who puts one into the inbox.
- Places under a ``concurrency_limit`` are counted and taken under a lock of their key.

Locks that are not of rows are advisory ones of the transaction: they work behind a pooler.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from typing import Final

from swarm.kernel.errors import OwnershipLost
from swarm.store.postgres.companion import Companion
from swarm.store.records import EventRecord, RunRecord, StepRecord, TakenRun
from swarm.store.sql import creation
from swarm.store.sql.cached import CACHED
from swarm.store.sql.connection import Connection, Row, Value
from swarm.store.sql.consequences import ADD_USAGE, Consequences
from swarm.store.sql.creation import EncodedRun
from swarm.store.sql.journal import (
    CLAIM,
    FEW_STEPS,
    TAKE,
    Commit,
    ownership_lost,
    taken_run,
)
from swarm.store.sql.rows import INVOCATIONS, RUNS, STEPS, Upsert

_LOCK_RUNS: Final = (
    "SELECT id, epoch, owner FROM workflow_runs WHERE id = ANY(?) ORDER BY id FOR NO KEY UPDATE"
)
_LOCK_RUN: Final = "SELECT 1 FROM workflow_runs WHERE id = ? FOR NO KEY UPDATE"
_LOCK_PLACES: Final = (
    "SELECT CASE WHEN status = 'pending' THEN pg_advisory_xact_lock(hashtextextended("
    "'places ' || project_id || ' ' || concurrency_key, 0)) END FROM workflow_runs "
    "WHERE id = ? AND concurrency_key IS NOT NULL AND concurrency_limit IS NOT NULL"
)
"""The state is no condition of the search: it would be looked up in an index of states, with all
entries that runs have left behind there."""
_LOCK_AWAITED: Final = (
    "SELECT pg_advisory_xact_lock_shared(lock) FROM (SELECT DISTINCT "
    "hashtextextended('event ' || project_id || ' ' || wait_name, 0) AS lock "
    "FROM step_executions WHERE run_id = ? AND status = 'waiting' AND wait_kind = 'event' "
    "AND wait_name IS NOT NULL ORDER BY lock) AS awaited"
)
_LOCK_EVENT: Final = (
    "SELECT pg_advisory_xact_lock(hashtextextended('event ' || ?::text || ' ' || ?::text, 0))"
)
_LOCK_SECRETS: Final = "SELECT pg_advisory_xact_lock(hashtextextended('secrets', 0))"
_FIRST_STEPS: Final = (
    f"SELECT {', '.join(f'step.{name}' for name in STEPS.columns)} "
    "FROM unnest(?::text[]) AS run(id) CROSS JOIN LATERAL ("
    "SELECT * FROM step_executions WHERE run_id = run.id ORDER BY rowid "
    f"LIMIT {FEW_STEPS + 1}) AS step ORDER BY step.rowid"
)
_SIZES: Final = (32, 16, 8, 7, 6, 5, 4, 3, 2, 1)
"""Rows in one statement: each statement costs about as much as five rows in it."""
_CACHED: Final = Upsert(CACHED, key=("key",))
_STEPS: Final = Upsert(
    STEPS, key=("run_id", "step_id", "item_index"), keep=("id", "project_id"), sizes=_SIZES
)
_INVOCATIONS: Final = Upsert(
    INVOCATIONS,
    key=("id",),
    keep=("run_id", "agent_id", "step_id", "item_index", "project_id"),
    sizes=_SIZES,
)
_NUMBERS: Final = frozenset(
    {
        "cancel_requested",
        "concurrency_limit",
        "depth",
        "format_version",
        "parent_item_index",
        "priority",
        "total_api_tokens",
        "total_cost_micros",
        "total_vm_time_ms",
        "tree_api_tokens",
        "tree_cost_micros",
        "tree_vm_time_ms",
    }
)
"""Columns of a run that hold whole numbers; all others hold text."""


def lock_run(connection: Connection, run_id: str) -> None:
    connection.execute(_LOCK_RUN, (run_id,))


def lock_event(connection: Connection, event: EventRecord) -> None:
    connection.execute(_LOCK_EVENT, (event.project_id, event.name))


def lock_secrets(connection: Connection) -> None:
    """Keep others from storing secrets: whether one is there is asked before it is stored."""
    connection.execute(_LOCK_SECRETS)


def lock_awaited(connection: Connection, run_id: str) -> None:
    """Keep events away that the run's steps wait for."""
    connection.execute(_LOCK_AWAITED, (run_id,))


class Claim:
    """A claim that was sent; it is read when the whole batch has been sent."""

    __slots__ = ("_answer",)

    def __init__(
        self, connection: Connection, run_id: str, owner: str, expected_owner: str | None
    ) -> None:
        connection.execute(_LOCK_PLACES, (run_id,))
        self._answer = connection.execute(CLAIM, (owner, run_id, expected_owner))

    def read(self) -> RunRecord | None:
        row = self._answer.fetchone()
        return None if row is None else RUNS.decode(row)


class Taking:
    """Claims of runs that nobody owns, which were sent as :class:`Claim` is."""

    __slots__ = ("_runs", "_steps")

    def __init__(self, connection: Connection, run_ids: Sequence[str], owner: str) -> None:
        ids = list(run_ids)
        self._runs = connection.execute(TAKE, (owner, ids))
        self._steps = connection.execute(_FIRST_STEPS, (ids,))

    def read(self) -> list[TakenRun]:
        steps: dict[str, list[StepRecord]] = {}
        for step in map(STEPS.decode, self._steps.fetchall()):
            steps.setdefault(step.run_id, []).append(step)
        runs = map(RUNS.decode, self._runs.fetchall())
        return [taken_run(run, steps.get(run.id, [])) for run in runs]


def commit_all(
    connection: Connection, commits: Sequence[Commit], companions: Sequence[Companion] = ()
) -> list[OwnershipLost | None]:
    """Apply those ``commits``, in order, whose run is still theirs; an error for each other."""
    ids = {commit.run_id for commit in commits}
    for commit in commits:
        more = commit.changes.consequences
        if more is not None and more.usage is not None:
            ids.add(str(more.usage[-1]))
    locked = connection.execute(_LOCK_RUNS, (sorted(ids),)).fetchall()
    claims = {run_id: (epoch, owner) for run_id, epoch, owner in locked}
    outcomes: list[OwnershipLost | None] = []
    fields: dict[str, dict[str, Value]] = {}
    steps: list[Row] = []
    invocations: list[Row] = []
    consequences: list[Consequences] = []
    for commit in commits:
        epoch, owner = claims.get(commit.run_id, (None, None))
        if epoch != commit.epoch or commit.owner not in (None, owner):
            outcomes.append(ownership_lost(commit.run_id))
            continue
        changes = commit.changes
        if changes.assignments:
            names = _names(changes.assignments)
            fields.setdefault(commit.run_id, {}).update(zip(names, changes.values, strict=True))
        steps += changes.steps
        invocations += changes.invocations
        if changes.consequences is not None:
            consequences.append(changes.consequences)
        outcomes.append(None)
    _set_fields(connection, fields)
    if consequences:
        _apply(connection, consequences, companions)
    _STEPS.run(connection, _STEPS.distinct(steps))
    _INVOCATIONS.run(connection, _INVOCATIONS.distinct(invocations))
    return outcomes


def _set_fields(connection: Connection, fields: Mapping[str, Mapping[str, Value]]) -> None:
    """Set the fields of each run: runs that have the same fields in one statement."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for run_id, values in fields.items():
        groups.setdefault(tuple(values), []).append((run_id, *values.values()))
    for names, rows in groups.items():
        start = 0
        for size in _SIZES:
            while len(rows) - start >= size:
                chunk = rows[start : start + size]
                connection.execute(_update(names, size), list(chain.from_iterable(chunk)))
                start += size


def _apply(
    connection: Connection, parts: Sequence[Consequences], companions: Sequence[Companion]
) -> None:
    results = _CACHED.distinct(chain.from_iterable(part.cached for part in parts))
    # In the order of keys, and of ids below: two batches would else wait for each other.
    _CACHED.run(connection, sorted(results, key=lambda row: str(row[0])))
    create_unless_there(
        connection, [child for part in parts for child in part.children], companions
    )
    usage: dict[Value, list[int]] = {}
    for part in parts:
        if part.usage is not None:
            *used, root_id = part.usage
            total = usage.setdefault(root_id, [0, 0, 0])
            for index, more in enumerate(used):
                total[index] += int(more or 0)
    for root_id in sorted(usage, key=str):
        connection.execute(ADD_USAGE, (*usage[root_id], root_id))


def create_unless_there(
    connection: Connection, runs: Iterable[EncodedRun], companions: Sequence[Companion]
) -> None:
    """Insert the runs that are not there by their ids."""
    distinct = {run.record.id: run for run in runs}
    sent = [
        (distinct[run_id], connection.execute(creation.INSERT_UNLESS_THERE, distinct[run_id].run))
        for run_id in sorted(distinct)
    ]
    new = [run for run, answer in sent if answer.rowcount]
    creation.PUT_STEPS.run(connection, [step for run in new for step in run.steps])
    for run in new:
        creation.add_attributes(connection, run)
    if new:
        for companion in companions:
            companion.created(connection, [run.record for run in new])


@lru_cache(256)
def _names(assignments: str) -> tuple[str, ...]:
    """The columns in ``name = ?, name = ?``."""
    return tuple(part.partition(" ")[0] for part in assignments.split(", "))


@lru_cache(1024)
def _update(names: tuple[str, ...], size: int) -> str:
    """An UPDATE of ``size`` runs; of each, its id and the values of ``names`` are given."""
    marks = ", ".join("?::bigint" if name in _NUMBERS else "?::text" for name in names)
    rows = ", ".join([f"(?::text, {marks})"] * size)
    changes = ", ".join(f"{name} = new.{name}" for name in names)
    return (
        f"UPDATE workflow_runs AS run SET {changes} "
        f"FROM (VALUES {rows}) AS new(id, {', '.join(names)}) WHERE run.id = new.id"
    )
