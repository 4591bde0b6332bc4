"""The asynchronous client: one open home, and what a program does with it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import datetime
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from msgspec.structs import replace

from swarm.bootstrap.assembly import open_swarm
from swarm.client.handle import RunHandle
from swarm.client.session import Drive, Session, checked_drive, closed, isolation_level
from swarm.definitions.loading import agent_from_json, workflow_from_json
from swarm.engine.api import RunRequest
from swarm.engine.invocations import GuestListener
from swarm.engine.remedies import failure_remedy
from swarm.kernel.clock import to_text
from swarm.kernel.configuration import load_settings
from swarm.kernel.errors import ConflictError, InvocationFailed
from swarm.kernel.json import JsonValue
from swarm.kernel.settings import Settings
from swarm.sandbox.ports import Isolation, Outcome
from swarm.store.attributes import search_text
from swarm.store.records import (
    AgentRecord,
    InvocationRecord,
    RunAttribute,
    RunFilter,
    RunRecord,
    RunState,
    StepRecord,
    WorkflowRecord,
)

PAGE = 50
"""Runs that are read at a time."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What an agent gave that was called outside any run."""

    outputs: dict[str, Any]
    """What it returned; files and directories in it are :class:`File`."""
    record: InvocationRecord
    """What is recorded of the call: its sandbox, times, memory, tokens and cost."""


@dataclass(frozen=True, slots=True)
class SentEvent:
    """An event that was put into the inbox."""

    id: str
    """As given, or made."""
    run_ids: tuple[str, ...]
    """The runs that had a step waiting for it."""


class Client:
    """An open home of Swarm, for programs with an event loop.

    ::

        async with swarm.Client() as client:
            outputs = await client.run("echo-chain", {"message": "Hello"})

    Any number of clients, commands and workers may use one home at once. A client belongs to the
    event loop in which it was opened; :class:`SyncClient` is for programs without one.

    The runs that a client drives itself stop when it is closed. They are not lost: any process of
    the home can carry them on (:meth:`resume_interrupted`, ``swarm runs resume``, a worker). With
    ``drive="worker"`` runs go on without the client.
    """

    def __init__(
        self,
        home: str | PathLike[str] | None = None,
        *,
        settings: Mapping[str, object] | None = None,
        environment: Mapping[str, str] | None = None,
        drive: Drive = "here",
    ) -> None:
        """
        Args:
            home: the folder that holds everything; by default ``SWARM_HOME``, else ``~/.swarm``.
            settings: settings by their names, over those of the environment and the home. A worker
                does not get them.
            environment: the variables that settings are read from; ``os.environ`` when None.
            drive: ``here``: this process drives the runs that it starts. ``worker``: a worker does,
                which is started if none is up and ends when idle.

        Raises:
            InvalidError: a setting is unknown or malformed, or ``drive`` is.
        """
        variables = dict(os.environ if environment is None else environment)
        if home is not None:
            variables["SWARM_HOME"] = str(Path(home).expanduser().absolute())
        self._settings = load_settings(variables, settings)
        self._drive = checked_drive(drive)
        self._session: Session | None = None
        self._closing = AsyncExitStack()

    def __repr__(self) -> str:
        state = "closed" if self._session is None else "open"
        return f"<{type(self).__name__} {self._settings.home} {state}>"

    # -- open and close --------------------------------------------------------------------------

    async def open(self) -> Client:
        """Open the home, made if it is not there, and return the client itself.

        Raises:
            UnavailableError: the home or its database cannot be used.
            ConflictError: the client is open already.
        """
        if self._session is not None:
            raise ConflictError("the client is open already", remedy="make another one")
        async with AsyncExitStack() as opening:
            opened = await opening.enter_async_context(open_swarm(self._settings, role="client"))
            self._session = Session(opened, self._drive)
            opening.push_async_callback(self._session.close)
            self._closing = opening.pop_all()
        return self

    async def close(self) -> None:
        """Stop driving runs, destroy every sandbox and close the home. A closed client does nothing
        when it is closed again, and may be opened again."""
        closing, self._closing = self._closing, AsyncExitStack()
        self._session = None
        await closing.aclose()

    async def __aenter__(self) -> Client:
        return await self.open()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self._settings

    @property
    def _open(self) -> Session:
        if self._session is None:
            raise closed()
        return self._session

    # -- agents and workflows --------------------------------------------------------------------

    async def register_agent(
        self, path: str | PathLike[str], *, grant: bool | None = None
    ) -> AgentRecord:
        """Register the agent at ``path``, a package's folder or an ``.apkg`` archive.

        Args:
            path: a copy is made of it.
            grant: whether it gets what its manifest requests; by default a folder does, and an
                archive only what was granted before.

        Raises:
            NotFoundError: there is no package.
            DefinitionError: its manifest cannot be used; has every problem.
            RefusedError: it requests more than it is granted.
            DependencyError: its dependencies cannot be installed.
        """
        return (await self._open.swarm.agents.register(Path(path), grant=grant)).record

    async def register_workflow(self, path: str | PathLike[str]) -> WorkflowRecord:
        """Register the workflow at ``path``, a ``workflow.yaml`` or the folder that holds it.

        Raises:
            NotFoundError: there is no workflow.
            DefinitionError: it cannot be used; has every problem.
        """
        return (await self._open.swarm.workflows.register(Path(path))).record

    async def agents(self) -> list[AgentRecord]:
        """The registered agents by name, then by ascending version."""
        return await self._open.swarm.agents.list()

    async def workflows(self) -> list[WorkflowRecord]:
        """The registered workflows by name, then by ascending version."""
        return await self._open.swarm.workflows.list()

    async def agent(self, reference: str) -> AgentRecord:
        """The agent that ``name`` (its highest version) or ``name@version`` means.

        Raises:
            NotFoundError: there is none; offers the nearest names.
        """
        return await self._open.swarm.agents.resolve(reference)

    async def workflow(self, reference: str) -> WorkflowRecord:
        """The workflow that ``name`` (its highest version) or ``name@version`` means.

        Raises:
            NotFoundError: there is none; offers the nearest names.
        """
        return await self._open.swarm.workflows.resolve(reference)

    async def invoke(
        self,
        agent: str,
        inputs: Mapping[str, object] | None = None,
        *,
        isolation: Isolation | str = Isolation.SANDBOX,
        listener: GuestListener | None = None,
    ) -> Reply:
        """Call one agent in a fresh sandbox, outside any run.

        Cancelling this kills the sandbox.

        Args:
            agent: ``name`` or ``name@version``.
            inputs: by name; see :meth:`start` for files.
            isolation: how strong the sandbox is at least.
            listener: hears what the agent logs, and its progress, while it runs.

        Raises:
            InvocationFailed: the agent failed; has the code, its traceback and a remedy.
            NotFoundError: there is no such agent.
            InputError: the inputs do not fit what it declares.
            SandboxUnavailable: this machine cannot isolate it.
        """
        session = self._open
        record = await self.agent(agent)
        declared = agent_from_json(record.definition).inputs
        values, mounts = await session.taken(inputs, declared)
        invocation, result = await session.swarm.invoker.invoke(
            f"{record.name}@{record.version}",
            values,
            listener=listener or GuestListener(),
            mounts=mounts,
            isolation=isolation_level(isolation),
        )
        if result.outcome is not Outcome.OK:
            raise InvocationFailed(
                result.error or str(result.outcome),
                invocation_id=invocation.id,
                code=result.error_code,
                traceback=result.traceback,
                remedy=failure_remedy(result.error, result.error_code),
            )
        return Reply(await session.shown(result.outputs, mounts), invocation)

    # -- runs ------------------------------------------------------------------------------------

    async def run(
        self,
        workflow: str,
        inputs: Mapping[str, object] | None = None,
        *,
        labels: Mapping[str, str] | None = None,
        priority: int | None = None,
        idempotency_key: str | None = None,
        isolation: Isolation | str = Isolation.SANDBOX,
        timeout: float | None = None,
    ) -> dict[str, Any]:
        """Start a run, wait until it has ended, and return its outputs.

        The arguments are those of :meth:`start`; ``timeout``, the result and what else can be
        raised are those of :meth:`RunHandle.result`. Cancelling this leaves the run alone.
        """
        handle = await self.start(
            workflow,
            inputs,
            labels=labels,
            priority=priority,
            idempotency_key=idempotency_key,
            isolation=isolation,
        )
        return await handle.result(timeout)

    async def start(
        self,
        workflow: str,
        inputs: Mapping[str, object] | None = None,
        *,
        labels: Mapping[str, str] | None = None,
        priority: int | None = None,
        idempotency_key: str | None = None,
        isolation: Isolation | str = Isolation.SANDBOX,
    ) -> RunHandle:
        """Start a run of a workflow and return at once; the run is recorded durably by then.

        Args:
            workflow: ``name`` or ``name@version``.
            inputs: by name, plain JSON values. A file is given as a :class:`pathlib.Path`, as
                ``bytes``, or as a :class:`File` of an earlier result; a directory as a path, which
                the run sees read-only and as it is by then. Text is never taken for a path.
            labels: to find the run by, besides those of the workflow.
            priority: before (greater) or after other runs; by default the workflow's own.
            idempotency_key: with the same key and workflow, one run is started however often this
                is called: every call gets a handle of it.
            isolation: how strong the sandboxes are at least.

        Raises:
            NotFoundError: there is no such workflow, or nothing at a path.
            RefusedError: the workflow is disabled.
            InputError: the inputs do not fit what it declares.
            ConflictError: the key was used with other inputs.
            UnavailableError: no worker could be started.
        """
        session = self._open
        record = await self.workflow(workflow)
        declared = workflow_from_json(record.definition).inputs
        values, mounts = await session.taken(inputs, declared)
        request = RunRequest(
            workflow=f"{record.name}@{record.version}",
            inputs=values,
            mounts=mounts,
            isolation=isolation_level(isolation),
            idempotency_key=idempotency_key,
            labels=dict(labels or {}),
            priority=priority,
        )
        starting = asyncio.create_task(self._create(session, request))
        return RunHandle(session, (await session.finish(starting)).id)

    async def _create(self, session: Session, request: RunRequest) -> RunRecord:
        return await session.drive(await session.swarm.runs.create(request))

    async def get_run(self, run_id: str) -> RunHandle:
        """A handle of the run with this id, or the only one whose id starts so.

        Raises:
            NotFoundError: there is none; InvalidError: there are several.
        """
        return RunHandle(self._open, (await self._open.swarm.runs.get(run_id)).id)

    async def runs(
        self,
        *,
        workflow: str | None = None,
        states: Sequence[RunState | str] = (),
        labels: Mapping[str, str] | None = None,
        inputs: Mapping[str, object] | None = None,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        parent: str | None = None,
        called: bool = True,
        limit: int | None = None,
    ) -> AsyncGenerator[RunRecord, None]:
        """The runs of the home, newest first, read page by page as they are asked for.

        Args:
            workflow: only runs of the workflow with this name.
            states: only runs in one of these states.
            labels: only runs with all of these labels.
            inputs: only runs with these values of inputs that the workflow lists under ``search``.
            created_after: only runs created then or later; an aware time.
            created_before: only runs created before then; an aware time.
            parent: only runs that the run with this id called.
            called: whether runs that other runs called are listed too.
            limit: at most so many.
        """
        searched = [RunAttribute("label", *pair) for pair in (labels or {}).items()]
        searched += [
            RunAttribute("input", name, search_text(value))
            for name, value in (inputs or {}).items()
        ]
        wanted = RunFilter(
            workflow=workflow,
            states=tuple(RunState(state) for state in states),
            attributes=tuple(searched),
            created_after=to_text(created_after) if created_after else None,
            created_before=to_text(created_before) if created_before else None,
            parent_run_id=parent,
            called=called,
        )
        left = limit
        while left is None or left > 0:
            size = PAGE if left is None else min(PAGE, left)
            page = await self._open.swarm.runs.list_runs(replace(wanted, limit=size))
            for run in page:
                yield await self._open.whole_run(run)
            if len(page) < size:
                return
            wanted = replace(wanted, before_id=page[-1].id)
            left = None if left is None else left - size

    async def resume_interrupted(self) -> list[RunHandle]:
        """Carry on, in this process, every run that nobody drives because its process has ended.

        Finished steps are not run again. Waiting runs whose time has come go on as well.
        """
        session = self._open
        await session.tidy()
        return [RunHandle(session, run.id) for run in await session.swarm.runs.resume()]

    # -- waiting runs ----------------------------------------------------------------------------

    async def waiting(
        self, kind: Literal["approval", "event", "timer"] = "approval", *, limit: int = 100
    ) -> list[StepRecord]:
        """The steps that wait, oldest first.

        Args:
            kind: what they wait for: the ``approval`` of a person (its form and message are in
                ``wait_details``), an ``event``, or a ``timer``.
            limit: at most so many.
        """
        return await self._open.swarm.store.waiting_steps(kind, limit)

    async def send_event(
        self,
        name: str,
        payload: JsonValue = None,
        *,
        key: str | None = None,
        event_id: str | None = None,
    ) -> SentEvent:
        """Put an event into the inbox, and wake the runs that wait for it.

        It stays there, for steps that come to wait for it later.

        Args:
            name: what steps wait for.
            payload: JSON that they get.
            key: which of the things called so; steps may wait for one alone.
            event_id: the same id counts once, however often it is sent.

        Raises:
            InvalidError: the name, key or id is empty or too long.
            InputError: the payload is too large.
        """
        sent, runs = await self._open.swarm.runs.send_event(name, key, payload, event_id)
        return SentEvent(sent, tuple(runs))
