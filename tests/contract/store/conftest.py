"""What every backend of the store is tested with."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from swarm.kernel.clock import now_text
from swarm.kernel.ids import new_id
from swarm.kernel.settings import Settings
from swarm.store.ports import Store
from swarm.store.records import AgentRecord, RunRecord, StepRecord, WorkflowRecord
from tests.contract.store.backends import open_at

OpenStore = Callable[[], Awaitable[Store]]
BACKENDS = ("sqlite", "postgres")


@dataclass(frozen=True, slots=True)
class Samples:
    """Makes records that fit together."""

    def agent(self, **fields: Any) -> AgentRecord:
        base = AgentRecord(
            id=new_id("agent"),
            name="echo",
            version="1.0.0",
            digest="sha256:" + "a" * 64,
            path="/packages/a",
            source="/sources/echo",
            definition={"name": "echo", "inputs": [{"name": "message"}]},
        )
        return replace(base, **fields)

    def workflow(self, **fields: Any) -> WorkflowRecord:
        base = WorkflowRecord(
            id=new_id("wf"),
            name="echo-chain",
            version="1.0.0",
            digest="sha256:" + "b" * 64,
            path="/sources/echo-chain",
            definition={"name": "echo-chain", "steps": [{"id": "first"}], "variables": {"x": 1}},
        )
        return replace(base, **fields)

    def run(self, workflow: WorkflowRecord, **fields: Any) -> RunRecord:
        base = RunRecord(
            id=new_id("run"),
            workflow_id=workflow.id,
            workflow_name=workflow.name,
            workflow_version=workflow.version,
            created_at=now_text(),
        )
        return replace(base, **fields)

    def steps(self, run: RunRecord, *step_ids: str, **fields: Any) -> list[StepRecord]:
        return [
            replace(StepRecord(id=new_id("step"), run_id=run.id, step_id=step_id), **fields)
            for step_id in step_ids
        ]


@pytest.fixture
def samples() -> Samples:
    return Samples()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, durability="normal", database_timeout_seconds=5)


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    """The database that the test runs on."""
    return str(request.param)


MakeAddress = Callable[..., str]


@pytest.fixture
def make_address(
    backend: str, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[MakeAddress]:
    """Makes addresses of databases; ``empty`` ones have no tables yet."""
    pooled: list[str] = []
    made: list[str] = []
    folders = itertools.count()

    def make(*, empty: bool = False) -> str:
        if backend == "sqlite":
            return str(tmp_path / f"database-{next(folders)}" / "registry.db")
        if empty:
            server = request.getfixturevalue("postgres")
            made.append(server.create_database())
            return str(server.url(made[-1]))
        pooled.append(request.getfixturevalue("empty_databases").take())
        return pooled[-1]

    yield make
    for url in pooled:
        request.getfixturevalue("empty_databases").give_back(url)
    for name in made:
        request.getfixturevalue("postgres").drop_database(name)


@pytest.fixture
def address(make_address: MakeAddress) -> str:
    """The address of the test's database."""
    return make_address()


@pytest.fixture
async def open_another(address: str, settings: Settings) -> AsyncIterator[OpenStore]:
    """Opens one more store on the same database, as another process would."""
    opened: list[Store] = []

    async def open_one() -> Store:
        store = await open_at(address, settings)
        opened.append(store)
        return store

    yield open_one
    for store in opened:
        await store.close()


@pytest.fixture
async def store(open_another: OpenStore) -> Store:
    return await open_another()


@pytest.fixture
async def workflow(store: Store, samples: Samples) -> WorkflowRecord:
    """A registered workflow, which runs need."""
    return await store.add_workflow(samples.workflow())


@pytest.fixture
async def agent(store: Store, samples: Samples) -> AgentRecord:
    return await store.add_agent(samples.agent())
