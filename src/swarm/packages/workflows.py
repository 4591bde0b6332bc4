"""Workflows as a home knows them: read, checked against the registered agents, recorded."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from swarm.definitions.agent import AgentDefinition
from swarm.definitions.loading import agent_from_json, definition_to_json, workflow_from_source
from swarm.definitions.source import Source, read_yaml
from swarm.definitions.workflow import WorkflowDefinition
from swarm.expressions.calls import calls
from swarm.expressions.checking import check_workflow
from swarm.kernel.clock import now_text
from swarm.kernel.errors import (
    DefinitionError,
    NotFoundError,
    Problem,
    SwarmError,
)
from swarm.kernel.ids import new_id
from swarm.kernel.json import dump_bytes
from swarm.kernel.settings import MIB, Settings
from swarm.packages.calls import CallTree
from swarm.packages.manifest import host_problems, time_limit_problem
from swarm.packages.places import Kind, absolute, children_with, kind_of, unreadable
from swarm.packages.references import WORKFLOWS, choose_version, split_reference
from swarm.packages.registration import AgentCatalog, FailedRegistration
from swarm.packages.scaffold import WORKFLOW_FILE
from swarm.store.ports import WorkflowRegistry
from swarm.store.records import DEFAULT_PROJECT, WorkflowRecord


@dataclass(frozen=True, slots=True)
class RegisteredWorkflow:
    """What a registration did."""

    record: WorkflowRecord
    created: bool
    """False when this very workflow was registered before."""
    replaced_digest: str | None
    """The digest that stood under the same name and version, if it was another."""


class WorkflowCatalog:
    """Registers workflows of one home and finds them again."""

    def __init__(
        self,
        registry: WorkflowRegistry,
        agents: AgentCatalog,
        settings: Settings,
        *,
        project_id: str = DEFAULT_PROJECT,
    ) -> None:
        self._registry = registry
        self._agents = agents
        self._settings = settings
        self._project_id = project_id

    async def register(self, path: Path) -> RegisteredWorkflow:
        """Register a workflow: its ``workflow.yaml``, or the folder that holds it.

        Raises:
            NotFoundError: there is no such file.
            DefinitionError: it is malformed, or does not fit the registered agents; every problem
                found is in it.
            UnavailableError: it cannot be read.
        """
        file = _workflow_file(path)
        source = await asyncio.to_thread(self._read, file)
        definition = workflow_from_source(source)
        problems = await self._problems(definition, source)
        if problems:
            raise DefinitionError(problems)
        earlier = await self._registry.list_workflows(definition.name, self._project_id)
        record = self._record(definition, file)
        stored = await self._registry.add_workflow(record)
        replaced = next((one for one in earlier if one.version == definition.version), None)
        is_other = replaced is not None and replaced.digest != stored.digest
        return RegisteredWorkflow(
            record=stored,
            created=stored.id == record.id,
            replaced_digest=replaced.digest if replaced is not None and is_other else None,
        )

    async def register_all(self, folder: Path) -> list[RegisteredWorkflow | FailedRegistration]:
        """Register every folder in ``folder`` that has a workflow; one failure stops no other.

        Those that call others of the folder are registered after them.

        Raises:
            NotFoundError: there is no such folder; UnavailableError: it cannot be read.
        """
        results: dict[Path, RegisteredWorkflow | FailedRegistration] = {}
        left = await asyncio.to_thread(children_with, folder, WORKFLOW_FILE)
        while left:
            for path in left:
                try:
                    results[path] = await self.register(path)
                except SwarmError as error:
                    results[path] = FailedRegistration(path, error)
            failed = [path for path in left if isinstance(results[path], FailedRegistration)]
            if len(failed) == len(left):
                break
            left = failed  # what they call may be there now
        return [results[path] for path in sorted(results)]

    async def validate(self, path: Path) -> list[Problem]:
        """Every problem that keeps the workflow at ``path`` from being registered.

        Raises:
            NotFoundError: there is no such file; UnavailableError: it cannot be read.
        """
        file = _workflow_file(path)
        try:
            source = await asyncio.to_thread(self._read, file)
            definition = workflow_from_source(source)
        except DefinitionError as error:
            return [*error.problems]
        return [*await self._problems(definition, source)]

    async def resolve(self, reference: str) -> WorkflowRecord:
        """The workflow that ``name`` (its highest version) or ``name@version`` means.

        Raises:
            NotFoundError: no such workflow or version; offers what there is.
        """
        name, _ = split_reference(reference)
        versions = await self._registry.list_workflows(name, self._project_id)
        return choose_version(reference, versions or await self.list(), WORKFLOWS)

    async def list(self) -> list[WorkflowRecord]:
        """The registered workflows by name, then by ascending version."""
        return await self._registry.list_workflows(project_id=self._project_id)

    async def set_enabled(self, name: str, enabled: bool) -> int:
        """Enable or disable every version of a workflow; return how many there are.

        Raises:
            NotFoundError: no such workflow; offers the nearest names.
        """
        record = await self.resolve(split_reference(name)[0])
        return await self._registry.set_workflow_enabled(record.name, enabled, self._project_id)

    def _read(self, file: Path) -> Source:
        most = self._settings.max_workflow_mb * MIB
        return read_yaml(_read(file, most), str(file), most)

    async def _problems(self, definition: WorkflowDefinition, source: Source) -> Sequence[Problem]:
        """What does not fit together, within the workflow and with the registered agents."""
        problems = [*_limit_problems(definition, source, self._settings)]
        agents, missing = await self._called_agents(definition, source)
        workflows, unknown = await self._called_workflows(definition, source)
        problems += [*missing, *unknown]
        # Thousands of steps take seconds; the loop has other things to do.
        problems += await asyncio.to_thread(
            check_workflow, definition, source, source.file, agents, workflows
        )
        return sorted(
            problems,
            key=lambda problem: (problem.line is None, problem.line or 0, problem.column or 0),
        )

    async def _called_agents(
        self, definition: WorkflowDefinition, source: Source
    ) -> tuple[dict[str, AgentDefinition], Sequence[Problem]]:
        """The agents that its steps name, by reference; and what is wrong with the others."""
        agents: dict[str, AgentDefinition] = {}
        failures: dict[str, NotFoundError] = {}
        problems: list[Problem] = []
        for placed in definition.placed_steps():
            reference = placed.step.agent
            if reference is None or reference in agents:
                continue
            if reference not in failures:
                try:
                    record = await self._agents.resolve(reference)
                    agents[reference] = agent_from_json(record.definition)
                    continue
                except NotFoundError as error:
                    failures[reference] = error
            failure = failures[reference]
            message = f"step `{placed.step.id}`: {failure.message}"
            location = (*placed.location, "agent")
            problems.append(source.problem(location, message, failure.remedy))
        return agents, problems

    async def _called_workflows(
        self, definition: WorkflowDefinition, source: Source
    ) -> tuple[dict[str, WorkflowDefinition], Sequence[Problem]]:
        """The workflows that its steps name, by reference; and what is wrong with calling them."""
        called = [*calls(definition)]
        if not called:
            return {}, []
        tree = CallTree(definition, await self.list())
        return tree.direct(called), [
            source.problem(call.location, f"step `{call.step}`: {message}", remedy)
            for call in called
            if (fault := tree.fault(call)) is not None
            for message, remedy in [fault]
        ]

    def _record(self, definition: WorkflowDefinition, file: Path) -> WorkflowRecord:
        document = definition_to_json(definition)
        time = now_text()
        return WorkflowRecord(
            id=new_id("wfl"),
            name=definition.name,
            version=definition.version,
            digest=hashlib.sha256(dump_bytes(document)).hexdigest(),
            path=str(file),
            definition=document,
            description=definition.description,
            trigger_type=definition.trigger.type,
            trigger_config=definition_to_json(definition.trigger),
            author=definition.author,
            tags=definition.tags,
            created_at=time,
            updated_at=time,
            project_id=self._project_id,
        )


def _workflow_file(path: Path) -> Path:
    path = absolute(path)
    file = path / WORKFLOW_FILE if kind_of(path) is Kind.FOLDER else path
    if kind_of(file) is not Kind.FILE:
        raise NotFoundError(
            "there is no such workflow",
            where=str(file),
            remedy=f"give a {WORKFLOW_FILE}, or the folder that holds one",
        )
    return file


def _limit_problems(
    definition: WorkflowDefinition, source: Source, settings: Settings
) -> Iterator[Problem]:
    placed_steps = [*definition.placed_steps()]
    if len(placed_steps) > settings.max_steps:
        yield source.problem(
            ("steps",),
            f"it has {len(placed_steps)} steps; a workflow may have {settings.max_steps}",
            "split the workflow, or raise the setting max_steps",
        )
    for placed in placed_steps:
        step, at = placed.step, placed.location
        yield from host_problems(step.network or (), (*at, "network"), source)
        if isinstance(step.for_each, tuple) and len(step.for_each) > settings.max_items:
            yield source.problem(
                (*at, "for_each"),
                f"`for_each` has {len(step.for_each)} items; the limit is {settings.max_items}",
                "split them over several steps, or raise the setting max_items",
            )
        if step.agent is not None:
            limit = (*at, "timeout_seconds")
            yield from time_limit_problem(step.timeout_seconds, limit, source, settings)


def _read(file: Path, max_bytes: int) -> str:
    try:
        with file.open("rb") as stream:
            data = stream.read(max_bytes + 1)
        return data.decode("utf-8-sig")
    except OSError as error:
        raise unreadable(file, error) from None
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        problem = Problem("it is not UTF-8 text", str(file), line, remedy="save it as UTF-8")
        raise DefinitionError([problem]) from None
