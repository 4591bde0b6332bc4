"""An SQLite database and a plain connection to it, as ``sqlite3`` would open one."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from swarm.kernel.settings import Settings
from swarm.store.records import AgentRecord, RunRecord, StepRecord, WorkflowRecord
from swarm.store.sqlite import SqliteStore, open_store

WORKFLOW = WorkflowRecord(
    id="wf_1",
    name="echo-chain",
    version="1.0.0",
    digest="sha256:b",
    path="/sources/echo-chain",
    definition={"steps": [{"id": "first"}], "on_error": [{"notify": {"type": "log"}}]},
)
AGENT = AgentRecord(
    id="agent_1",
    name="echo",
    version="1.0.0",
    digest="sha256:a",
    path="/packages/a",
    source="/sources/echo",
    definition={"name": "echo"},
)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "registry.db"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, durability="normal", database_timeout_seconds=0.3)


@pytest.fixture
async def store(database: Path, settings: Settings) -> AsyncIterator[SqliteStore]:
    """An open store with one agent and one workflow."""
    store = await open_store(database, settings)
    await store.add_agent(AGENT)
    await store.add_workflow(WORKFLOW)
    yield store
    await store.close()


@pytest.fixture
def plain(store: SqliteStore, database: Path) -> Iterator[sqlite3.Connection]:
    """Another program's connection to the database of ``store``."""
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        yield connection


MakeRun = Callable[..., tuple[RunRecord, list[StepRecord]]]


@pytest.fixture
def make_run() -> MakeRun:
    """A run with an id, and its steps: ``make_run("run_1", "first", "second")``."""

    def make(run_id: str, *step_ids: str) -> tuple[RunRecord, list[StepRecord]]:
        run = RunRecord(run_id, WORKFLOW.id, WORKFLOW.name, WORKFLOW.version)
        steps = [StepRecord(f"step_{run_id}_{name}", run_id, name) for name in step_ids]
        return run, steps

    return make
