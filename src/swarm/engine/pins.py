"""Reads what a run is pinned to: its workflow and agents, each compiled once per process."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from swarm.definitions.loading import agent_from_json
from swarm.engine.compiled import CompiledWorkflow, compile_workflow
from swarm.engine.invocations import PinnedAgent
from swarm.kernel.errors import NotFoundError
from swarm.packages.registration import AgentCatalog
from swarm.packages.workflows import WorkflowCatalog
from swarm.sandbox.ports import Program
from swarm.store.ports import Store
from swarm.store.records import AgentRecord, WorkflowRecord

KEPT = 256
"""Workflows and agents kept compiled in one process; the least recently used go first."""

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class PinnedReferences:
    """What a run and all that it calls are pinned to: record ids by reference as written."""

    agents: Mapping[str, str]
    workflows: Mapping[str, str]


class _Kept(Generic[Value]):
    """A small cache by id of what never changes for that id."""

    def __init__(self) -> None:
        self._values: OrderedDict[str, Value] = OrderedDict()

    async def get(self, key: str, make: Callable[[], Awaitable[Value]]) -> Value:
        if key in self._values:
            self._values.move_to_end(key)
            return self._values[key]
        value = self._values[key] = await make()
        while len(self._values) > KEPT:
            self._values.popitem(last=False)
        return value

    def forget(self, key: str) -> None:
        self._values.pop(key, None)


class Pins:
    """Finds agents and workflows by reference, and reads them by record id."""

    def __init__(
        self, store: Store, agents: AgentCatalog, workflows: WorkflowCatalog, fuel: int
    ) -> None:
        self._store = store
        self._agent_catalog = agents
        self._workflow_catalog = workflows
        self._fuel = fuel
        self._agents: _Kept[PinnedAgent] = _Kept()
        self._programs: _Kept[Program] = _Kept()
        self._preparing: dict[str, asyncio.Task[Program]] = {}
        self._workflows: _Kept[CompiledWorkflow] = _Kept()

    async def resolve_workflow(self, reference: str) -> WorkflowRecord:
        """The workflow called ``name`` or ``name@version``; raises NotFoundError."""
        return await self._workflow_catalog.resolve(reference)

    async def resolve_agent(self, reference: str) -> AgentRecord:
        """The agent called ``name`` or ``name@version``; raises NotFoundError."""
        return await self._agent_catalog.resolve(reference)

    async def workflow(self, workflow_id: str) -> CompiledWorkflow:
        """The compiled workflow with this record id; raises NotFoundError."""

        async def make() -> CompiledWorkflow:
            record = await self._store.get_workflow(workflow_id)
            if record is None:
                raise NotFoundError(f"the workflow record {workflow_id} is gone")
            return compile_workflow(record, self._fuel)

        return await self._workflows.get(workflow_id, make)

    async def workflow_record(self, workflow_id: str) -> WorkflowRecord:
        """The workflow with this record id; raises NotFoundError."""
        record = await self._store.get_workflow(workflow_id)
        if record is None:
            raise NotFoundError(f"the workflow record {workflow_id} is gone")
        return record

    async def references(self, workflow: CompiledWorkflow) -> PinnedReferences:
        """Resolve every agent and workflow that a run may call, directly or through others.

        Raises:
            NotFoundError: one is not registered (any more).
        """
        agents: dict[str, str] = {}
        workflows: dict[str, str] = {}
        pending = [workflow]
        while pending:
            compiled = pending.pop()
            for reference in sorted(compiled.agents - agents.keys()):
                agents[reference] = (await self.resolve_agent(reference)).id
            for reference in sorted(compiled.workflows - workflows.keys()):
                workflows[reference] = (await self.resolve_workflow(reference)).id
                pending.append(await self.workflow(workflows[reference]))
        return PinnedReferences(agents, workflows)

    async def agent(self, agent_id: str) -> PinnedAgent:
        """The agent with this record id; raises NotFoundError."""

        async def make() -> PinnedAgent:
            record = await self._store.get_agent(agent_id)
            if record is None:
                raise NotFoundError(f"the agent record {agent_id} is gone")
            return PinnedAgent(
                record,
                agent_from_json(record.definition),
                partial(self._program, record),
                await self._agent_catalog.granted(record),
            )

        return await self._agents.get(agent_id, make)

    async def _program(self, record: AgentRecord) -> Program:
        """What a sandbox needs to run an agent."""
        make = partial(self._prepared, record)
        program = await self._programs.get(record.id, make)
        if not self._agent_catalog.keep(program):
            self._programs.forget(record.id)  # collected, as nobody here had used it for long
            program = await self._programs.get(record.id, make)
        return program

    async def _prepared(self, record: AgentRecord) -> Program:
        """Many calls at once that want the same wait for one of them, as it may be fetched."""
        task = self._preparing.get(record.id)
        if task is None:
            task = asyncio.create_task(self._agent_catalog.prepare(record))
            self._preparing[record.id] = task
            task.add_done_callback(lambda _: self._preparing.pop(record.id, None))
        program = await asyncio.shield(task)
        self._agent_catalog.keep(program)
        return program

    async def agents(self, pinned: Mapping[str, str]) -> dict[str, PinnedAgent]:
        """The agents of a run by their references in its steps."""
        return {reference: await self.agent(agent_id) for reference, agent_id in pinned.items()}
