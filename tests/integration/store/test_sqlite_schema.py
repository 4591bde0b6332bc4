"""The database as people and their tools see it: the specification's tables, in plain SQL."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from swarm.kernel.clock import from_text
from swarm.store.records import NewRun, RunAttribute, RunChanges, RunFilter, RunState, StepState
from swarm.store.sql.cached import DELETE_EXPIRED
from swarm.store.sql.creation import SAME_KEY
from swarm.store.sql.exchange import ATTRIBUTES, PAGES
from swarm.store.sql.history import UNFINISHED
from swarm.store.sql.inbox import AWAITING, DELETE_OLD, FIND, FIND_BY_KEY
from swarm.store.sql.journal import CLAIM, OLDEST_ENDED
from swarm.store.sql.pages import page_query
from swarm.store.sql.upkeep import OUTSIDE_RUNS
from swarm.store.sql.waits import ANSWERED, DUE, LIST_ANSWERS, NEWS, NEXT_WAKE, QUEUED, WAITING
from swarm.store.sqlite import SqliteStore

SPECIFICATION = Path(__file__).with_name("specification.sql")
MOMENT = "2026-01-31T12:00:00.000000Z"
LABEL = RunAttribute("label", "env", "prod")
NARROWER = {"idx_steps_status"}
"""Indexes that leave out what nobody looks for with them."""
WIDER = {"idx_runs_status"}
"""Indexes that go on in the order of ids."""
UNIQUE_WITHIN_A_PROJECT = {"agents", "workflows", "secrets", "triggers"}


@pytest.fixture
def specified() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(SPECIFICATION.read_text())
        yield connection


def tables(connection: sqlite3.Connection) -> list[str]:
    return [
        name
        for (name,) in connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
        )
    ]


def columns(connection: sqlite3.Connection, table: str) -> dict[str, tuple[Any, ...]]:
    """Name: type, default, part of the primary key, may be NULL."""
    return {
        name: (kind, default, key, not required)
        for _, name, kind, required, default, key in connection.execute(
            f"PRAGMA table_info({table})"
        )
    }


def indexes(connection: sqlite3.Connection) -> dict[str, str]:
    found = connection.execute(
        "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
    )
    return {name: re.sub(r"\s+", " ", sql) for name, sql in found}


async def test_all_that_is_specified_is_there(
    plain: sqlite3.Connection, specified: sqlite3.Connection
) -> None:
    assert set(tables(specified)) <= set(tables(plain))
    for table in tables(specified):
        ours = columns(plain, table)
        for name, (kind, default, key, nullable) in columns(specified, table).items():
            our_kind, our_default, our_key, our_nullable = ours[name]
            assert (our_kind, our_key) == (kind, key), f"{table}.{name}"
            assert our_nullable <= nullable, f"{table}.{name} takes NULL"
            if default is not None:
                assert our_default == default, f"{table}.{name}"
        references = {row[2:5] for row in specified.execute(f"PRAGMA foreign_key_list({table})")}
        assert references <= {
            row[2:5] for row in plain.execute(f"PRAGMA foreign_key_list({table})")
        }
    found = indexes(plain)
    for name in NARROWER:
        found[name], _, _ = found[name].partition(" WHERE ")
    for name in WIDER:
        found[name] = found[name].replace(", id)", ")")
    assert indexes(specified).items() <= found.items()


async def test_every_record_belongs_to_a_project(plain: sqlite3.Connection) -> None:
    for table in set(tables(plain)) - {"schema_migrations"}:
        kind, default, _, nullable = columns(plain, table)["project_id"]
        assert (kind, default, nullable) == ("TEXT", "'default'", False), table


async def test_a_version_has_one_active_row_in_a_project(plain: sqlite3.Connection) -> None:
    insert = (
        "INSERT INTO agents (id, name, version, digest, path, active, project_id) "
        "VALUES (?, 'twin', '1.0.0', ?, '/', ?, ?)"
    )
    plain.execute(insert, ("a", "1", 1, "default"))
    plain.execute(insert, ("b", "2", 0, "default"))
    plain.execute(insert, ("c", "1", 1, "other"))
    for row in (("d", "3", 1, "default"), ("e", "1", 0, "default")):
        with pytest.raises(sqlite3.IntegrityError):
            plain.execute(insert, row)


async def test_secrets_and_webhooks_are_unique_within_a_project(plain: sqlite3.Connection) -> None:
    secret = "INSERT INTO secrets (id, workflow_id, name, project_id) VALUES (?, ?, 'KEY', ?)"
    trigger = (
        "INSERT INTO triggers (id, workflow_id, type, webhook_path, project_id) "
        "VALUES (?, 'wf_1', 'webhook', ?, ?)"
    )
    for number, workflow, project in ((1, None, "default"), (2, "wf_1", "default"), (3, None, "x")):
        plain.execute(secret, (number, workflow, project))
        with pytest.raises(sqlite3.IntegrityError):
            plain.execute(secret, (number + 10, workflow, project))
    for number, path, project in ((1, "/in", "default"), (2, None, "default"), (3, "/in", "x")):
        plain.execute(trigger, (number, path, project))
    with pytest.raises(sqlite3.IntegrityError):
        plain.execute(trigger, (11, "/in", "default"))
    plain.execute(trigger, (12, None, "default"))


async def test_rows_read_well_in_plain_sql(
    store: SqliteStore, plain: sqlite3.Connection, make_run: Any
) -> None:
    run, steps = make_run("run_1", "first")
    await store.create_run(NewRun(run, tuple(steps)))
    done = replace(steps[0], status=StepState.SUCCEEDED, outputs={"b": "ü", "a": [1, None]})
    await store.commit("run_1", 0, RunChanges((done,), run={"status": RunState.SUCCEEDED}))
    await store.set_workflow_enabled("echo-chain", False)
    assert plain.execute(
        "SELECT s.status, s.outputs, r.status, r.step_results, r.cancel_requested, w.enabled, "
        "w.steps, w.on_error, json_extract(s.outputs, '$.b') "
        "FROM step_executions s JOIN workflow_runs r ON r.id = s.run_id "
        "JOIN workflows w ON w.id = r.workflow_id"
    ).fetchone() == (
        "succeeded",
        '{"b":"ü","a":[1,null]}',
        "succeeded",
        "{}",
        0,
        0,
        '[{"id":"first"}]',
        '[{"notify":{"type":"log"}}]',
        "ü",
    )
    (created,) = plain.execute("SELECT created_at FROM workflow_runs").fetchone()
    assert from_text(created)


def plan(connection: sqlite3.Connection, query: str, values: Any = ()) -> list[str]:
    return [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {query}", values)]


@pytest.mark.parametrize(
    "run_filter",
    [
        RunFilter(),
        RunFilter(before_id="run_5"),
        RunFilter(workflow="echo-chain", before_id="run_5"),
        RunFilter(states=(RunState.FAILED, RunState.RUNNING)),
        RunFilter(workflow="echo-chain", states=(RunState.FAILED,)),
        RunFilter(owner="host_1"),
        RunFilter(owner="host_1", states=(RunState.RUNNING,), workflow="echo-chain"),
        RunFilter(called=False),
        RunFilter(called=False, workflow="echo-chain", created_before=MOMENT),
        RunFilter(created_after=MOMENT, created_before=MOMENT, before_id="run_5"),
        RunFilter(parent_run_id="run_1", states=(RunState.FAILED,), created_after=MOMENT),
        RunFilter(attributes=(LABEL,), states=(RunState.FAILED,)),
    ],
)
async def test_listing_runs_reads_index_ranges_only(
    plain: sqlite3.Connection, run_filter: RunFilter
) -> None:
    query, values = page_query(run_filter)
    steps = plain.execute(f"EXPLAIN QUERY PLAN {query}", values).fetchall()
    ranges = [(parent, text) for _, parent, _, text in steps if "workflow_runs" in text]
    states = len(run_filter.states or tuple(RunState))
    if run_filter.called and not run_filter.parent_run_id:
        states *= 2
    assert len(ranges) == states
    for parent, text in ranges:
        assert re.match(r"SEARCH workflow_runs USING (COVERING )?INDEX idx_runs_\w+_state", text)
        assert "status=?" in text
        assert ("id<?" in text) == bool(run_filter.before_id or run_filter.created_before)
        assert ("id>?" in text) == bool(run_filter.created_after)
        # A range comes in order and stops at the page's length; only what it gave is sorted on.
        assert not any("TEMP B-TREE" in text for _, above, _, text in steps if above == parent)


@pytest.mark.parametrize(
    "run_filter",
    [
        RunFilter(attributes=(LABEL,)),
        RunFilter(attributes=(LABEL,), before_id="run_5", called=False),
        RunFilter(
            attributes=(LABEL, RunAttribute("input", "n", "1")),
            states=(RunState.FAILED, RunState.RUNNING),
            workflow="echo-chain",
            created_after=MOMENT,
        ),
    ],
)
async def test_looking_for_an_attribute_reads_its_range_only(
    plain: sqlite3.Connection, run_filter: RunFilter
) -> None:
    query, values = page_query(run_filter, by=LABEL)
    first, *others = plan(plain, query, values)
    assert first.startswith("SEARCH found USING PRIMARY KEY")
    assert "value=?" in first
    assert ("run_id<?" in first) == bool(run_filter.before_id)
    assert ("run_id>?" in first) == bool(run_filter.created_after)
    assert not any("SCAN" in step and step != "SCAN CONSTANT ROW" for step in others)
    assert not any("TEMP B-TREE" in step for step in others)


@pytest.mark.parametrize(
    ("query", "index", "sorts"),
    [
        (UNFINISHED, "sqlite_autoindex_workflow_runs_1", 3),
        (SAME_KEY, "idx_runs_idempotency", 0),
        (DUE, "idx_runs_wake", 0),
        (NEXT_WAKE, "idx_runs_wake", 0),
        (QUEUED, "idx_runs_queue", 0),
        (WAITING, "idx_steps_waiting ", 0),
        (LIST_ANSWERS, "sqlite_autoindex_answers_1", 0),
        (NEWS, "sqlite_autoindex_workflow_runs_1", 0),
        (CLAIM, "sqlite_autoindex_workflow_runs_1", 0),
        (ANSWERED, "sqlite_autoindex_workflow_runs_1", 0),
        (AWAITING, "sqlite_autoindex_workflow_runs_1", 0),
        (FIND, "idx_events_name", 0),
        (FIND_BY_KEY, "idx_events_key", 0),
        (DELETE_OLD, "INTEGER PRIMARY KEY", 0),
        (DELETE_EXPIRED, "sqlite_autoindex_step_cache_1", 0),
        *((query, "INTEGER PRIMARY KEY", 0) for query in OUTSIDE_RUNS.values()),
        (ATTRIBUTES, "idx_run_attributes_run", 1),
        (PAGES["step_executions"], "idx_steps_run", 0),
        (PAGES["invocations"], "idx_invocations_run", 0),
        (PAGES["answers"], "sqlite_autoindex_answers_1", 1),
        ("DELETE FROM run_attributes WHERE run_id = 'x'", "idx_run_attributes_run", 0),
        ("DELETE FROM answers WHERE run_id = 'x'", "sqlite_autoindex_answers_1", 0),
        (OLDEST_ENDED, "idx_runs_completed", 0),
        (
            "SELECT id FROM workflow_runs WHERE id >= 'run_a' AND id < 'run_b' ORDER BY id",
            "sqlite_autoindex_workflow_runs_1",
            0,
        ),
        ("SELECT * FROM step_executions WHERE run_id = 'x' ORDER BY rowid", "idx_steps_run", 0),
        *(
            (f"SELECT * FROM step_executions WHERE status = '{state}'", "idx_steps_status", 0)
            for state in ("failed", "cancelled", "waiting")
        ),
        ("SELECT * FROM invocations WHERE run_id = 'x' ORDER BY rowid", "idx_invocations_run", 0),
        ("DELETE FROM step_executions WHERE run_id = 'x'", "step_executions", 0),
        ("DELETE FROM invocations WHERE run_id = 'x'", "idx_invocations_run", 0),
    ],
)
async def test_no_query_scans_a_table_that_grows(
    plain: sqlite3.Connection, query: str, index: str, sorts: int
) -> None:
    names = dict.fromkeys(re.findall(r":(\w+)", query), "x")
    steps = plan(plain, query, names or ("x",) * query.count("?"))
    assert steps[0].startswith("SEARCH")
    assert index in steps[0]
    # What waits now is always little beside the history.
    few = (
        "idx_runs_driven",
        "idx_runs_cancelled",
        "idx_steps_waiting",
        "idx_steps_awaited",
        "SCAN answer",
        "SCAN pending",  # each a page, as it comes from its index
        "SCAN running",
        "SCAN driven",
        "SCAN found",
    )
    scans = [s for s in steps if s.startswith("SCAN") and not any(name in s for name in few)]
    assert scans == []
    assert sum("TEMP B-TREE" in step for step in steps) == sorts


async def test_runs_that_have_not_ended_are_read_from_where_the_page_begins(
    plain: sqlite3.Connection,
) -> None:
    searched = "SEARCH workflow_runs USING COVERING INDEX idx_runs_status (status=? AND id>?)"
    assert plan(plain, UNFINISHED, ["", 9] * 3 + [9]).count(searched) == 2


async def test_deleting_a_run_checks_references_by_index(plain: sqlite3.Connection) -> None:
    """SQLite looks for rows that refer to a deleted one; each such column of a table that grows
    with runs needs an index that starts with it."""
    for table in ("step_executions", "invocations", "run_attributes", "answers"):
        for row in plain.execute(f"PRAGMA foreign_key_list({table})"):
            parent, column = row[2], row[3]
            if parent == "workflow_runs":
                search = f"SELECT 1 FROM {table} WHERE {column} = 'x'"
                assert plan(plain, search)[0].startswith("SEARCH")
