"""The store over the tables of an SQL database; implements every port of ``store.ports``.

What differs between databases is behind three ports: who writes, who reads, who copies it all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from msgspec.structs import replace

from swarm.kernel.clock import now_text
from swarm.store.records import (
    DEFAULT_ORGANIZATION,
    DEFAULT_PROJECT,
    AgentRecord,
    AnswerRecord,
    ArchiveEntry,
    CachedResult,
    EventRecord,
    GrantRecord,
    InvocationRecord,
    NewRun,
    RunChanges,
    RunFilter,
    RunRecord,
    RunState,
    SecretIdentity,
    SecretRecord,
    StepRecord,
    TakenRun,
    WorkflowRecord,
)
from swarm.store.sql import (
    agents,
    cached,
    creation,
    exchange,
    history,
    inbox,
    journal,
    secrets,
    upkeep,
    waits,
    workflows,
)
from swarm.store.sql.connection import Connection
from swarm.store.sql.kept import Kept
from swarm.store.sql.rows import AGENTS, GRANTS, INVOCATIONS, SECRETS, WORKFLOWS

T = TypeVar("T")

PURGED_RUNS_PER_COMMIT = 20
"""Runs deleted in one transaction, so that other writers get their turn in between."""


class Writer(Protocol):
    """Runs operations, each whole or not at all; what has returned is durable."""

    async def submit(self, operation: Callable[[Connection], T], rows: int | None = None, /) -> T:
        """Run ``operation``, which writes ``rows`` rows at most (None: nobody knows)."""
        ...

    async def commit(self, commit: journal.Commit) -> None:
        """Apply a journal commit; raises OwnershipLost if its epoch is not the run's."""
        ...

    async def close(self) -> None: ...


class Readers(Protocol):
    """Runs queries, which see all that is committed."""

    async def run(self, query: Callable[[Connection], T], /) -> T:
        """Run a query of any length."""
        ...

    async def look_up(self, query: Callable[[Connection], T], /) -> T:
        """Run a query that reads a few rows by their key."""
        ...

    async def close(self) -> None: ...


class Copies(Protocol):
    """Copies of the whole database, and whether it is sound; see ``store.ports.Backups``."""

    async def check(self) -> list[str]: ...

    async def make(self, target: Path, *, replace: bool) -> int: ...


class SqlStore:
    """One open database; see ``store.ports`` for what each method promises."""

    def __init__(self, writer: Writer, readers: Readers, copies: Copies) -> None:
        self._writer = writer
        self._readers = readers
        self._copies = copies
        self._agents = Kept(AGENTS)
        self._workflows = Kept(WORKFLOWS)

    async def close(self) -> None:
        await self._writer.close()
        await self._readers.close()

    # Agents

    async def add_agent(
        self, agent: AgentRecord, grants: Sequence[GrantRecord] = ()
    ) -> AgentRecord:
        time = now_text()
        agent = replace(
            agent,
            active=True,
            created_at=agent.created_at or time,
            updated_at=agent.updated_at or time,
        )
        row = AGENTS.encode(agent)
        grant_rows = [
            GRANTS.encode(replace(grant, created_at=grant.created_at or time)) for grant in grants
        ]
        return await self._writer.submit(
            lambda connection: agents.add(connection, agent, row, grant_rows)
        )

    async def remove_agent(
        self, name: str, version: str | None = None, project_id: str = DEFAULT_PROJECT
    ) -> int:
        time = now_text()
        return await self._writer.submit(
            lambda connection: agents.remove(connection, name, version, project_id, time)
        )

    async def get_agent(self, agent_id: str) -> AgentRecord | None:
        return await self._readers.look_up(lambda connection: agents.get(connection, agent_id))

    async def list_agents(
        self, name: str | None = None, project_id: str = DEFAULT_PROJECT
    ) -> list[AgentRecord]:
        read = self._readers.run if name is None else self._readers.look_up
        return await read(
            lambda connection: agents.list_active(connection, self._agents, name, project_id)
        )

    async def list_grants(
        self, digest: str, project_id: str = DEFAULT_PROJECT
    ) -> list[GrantRecord]:
        return await self._readers.look_up(
            lambda connection: agents.list_grants(connection, digest, project_id)
        )

    # Workflows

    async def add_workflow(self, workflow: WorkflowRecord) -> WorkflowRecord:
        time = now_text()
        workflow = replace(
            workflow,
            active=True,
            created_at=workflow.created_at or time,
            updated_at=workflow.updated_at or time,
        )
        row = workflows.encode(workflow)
        return await self._writer.submit(
            lambda connection: workflows.add(connection, workflow, row)
        )

    async def get_workflow(self, workflow_id: str) -> WorkflowRecord | None:
        return await self._readers.look_up(
            lambda connection: workflows.get(connection, workflow_id)
        )

    async def list_workflows(
        self, name: str | None = None, project_id: str = DEFAULT_PROJECT
    ) -> list[WorkflowRecord]:
        read = self._readers.run if name is None else self._readers.look_up
        return await read(
            lambda connection: workflows.list_active(connection, self._workflows, name, project_id)
        )

    async def set_workflow_enabled(
        self, name: str, enabled: bool, project_id: str = DEFAULT_PROJECT
    ) -> int:
        time = now_text()
        return await self._writer.submit(
            lambda connection: workflows.set_enabled(connection, name, enabled, project_id, time)
        )

    # Runs

    async def create_run(self, new: NewRun) -> RunRecord:
        encoded = creation.encode(new)
        return await self._writer.submit(
            lambda connection: creation.create(connection, encoded), encoded.rows
        )

    async def claim_run(
        self, run_id: str, owner: str, expected_owner: str | None
    ) -> RunRecord | None:
        return await self._writer.submit(
            lambda connection: journal.claim(connection, run_id, owner, expected_owner), 1
        )

    async def take_runs(self, run_ids: Sequence[str], owner: str) -> list[TakenRun]:
        return await self._writer.submit(
            lambda connection: journal.take(connection, run_ids, owner), len(run_ids)
        )

    async def commit(
        self, run_id: str, epoch: int, changes: RunChanges, *, owner: str | None = None
    ) -> None:
        encoded = journal.encode_changes(changes)
        await self._writer.commit(journal.Commit(run_id, epoch, encoded, owner))

    async def reopen_run(
        self, run_id: str, owner: str | None, changes: RunChanges
    ) -> RunRecord | None:
        encoded = journal.encode_reopening(changes)
        steps = [step.key for step in changes.steps]
        return await self._writer.submit(
            lambda connection: journal.reopen(connection, run_id, owner, encoded, steps)
        )

    async def release_run(
        self, run_id: str, epoch: int, changes: RunChanges, *, owner: str | None = None
    ) -> bool:
        commit = journal.Commit(run_id, epoch, journal.encode_changes(changes), owner)
        return await self._writer.submit(
            lambda connection: waits.release(connection, commit), commit.rows
        )

    async def request_cancel(self, run_id: str) -> RunRecord | None:
        return await self._writer.submit(
            lambda connection: journal.request_cancel(connection, run_id), 1
        )

    async def get_run(self, run_id: str) -> RunRecord | None:
        return await self._readers.look_up(lambda connection: journal.get_run(connection, run_id))

    async def find_runs(self, prefix: str, limit: int = 10) -> list[RunRecord]:
        return await self._readers.run(lambda connection: history.find(connection, prefix, limit))

    async def list_runs(self, run_filter: RunFilter) -> list[RunRecord]:
        return await self._readers.run(lambda connection: history.list_page(connection, run_filter))

    async def unfinished_runs(
        self, after: str = "", limit: int = 1000, *, begun: bool = False
    ) -> list[RunRecord]:
        return await self._readers.run(
            lambda connection: history.list_unfinished(connection, after, limit, begun=begun)
        )

    async def list_steps(self, run_id: str) -> list[StepRecord]:
        steps = await self._readers.look_up(
            lambda connection: history.list_steps(connection, run_id, limit=journal.FEW_STEPS + 1)
        )
        if len(steps) <= journal.FEW_STEPS:
            return steps
        return await self._readers.run(lambda connection: history.list_steps(connection, run_id))

    async def list_invocations(self, run_id: str) -> list[InvocationRecord]:
        return await self._readers.run(
            lambda connection: history.list_invocations(connection, run_id)
        )

    async def record_invocation(self, invocation: InvocationRecord) -> None:
        row = INVOCATIONS.encode(invocation)
        await self._writer.submit(lambda connection: journal.record_invocation(connection, row), 1)

    async def purge_runs(self, completed_before: str, limit: int = 1000) -> list[str]:
        purged: list[str] = []
        while len(purged) < limit:
            count = min(PURGED_RUNS_PER_COMMIT, limit - len(purged))

            def purge(connection: Connection, count: int = count) -> list[str]:
                return journal.purge(connection, completed_before, count)

            deleted = await self._writer.submit(purge)
            purged += deleted
            if len(deleted) < count:
                break
        return purged

    async def run_owners(self, run_ids: Sequence[str]) -> dict[str, tuple[RunState, str | None]]:
        return await self._readers.run(lambda connection: history.owners(connection, run_ids))

    async def delete_runs(self, run_ids: Sequence[str]) -> list[str]:
        deleted: list[str] = []
        for first in range(0, len(run_ids), PURGED_RUNS_PER_COMMIT):
            batch = run_ids[first : first + PURGED_RUNS_PER_COMMIT]

            def delete(connection: Connection, batch: Sequence[str] = batch) -> list[str]:
                return journal.delete_ended(connection, batch)

            deleted += await self._writer.submit(delete)
        return deleted

    # Waits

    async def due_runs(self, moment: str, limit: int = 1000) -> list[str]:
        return await self._readers.run(lambda connection: waits.due(connection, moment, limit))

    async def ready_runs(self, moment: str, limit: int = 1000) -> list[str]:
        return await self._readers.run(lambda connection: waits.ready(connection, moment, limit))

    async def next_wake(self, after: str | None = None) -> str | None:
        return await self._readers.run(lambda connection: waits.next_wake(connection, after or ""))

    async def queued_runs(
        self, concurrency_key: str, project_id: str, limit: int = 100
    ) -> list[RunRecord]:
        return await self._readers.run(
            lambda connection: waits.queued(connection, concurrency_key, project_id, limit)
        )

    async def answer_wait(self, answer: AnswerRecord) -> bool:
        row = waits.ANSWERS.encode(answer)
        return await self._writer.submit(lambda connection: waits.answer(connection, answer, row))

    async def list_answers(self, run_id: str) -> list[AnswerRecord]:
        return await self._readers.run(lambda connection: waits.list_answers(connection, run_id))

    async def waiting_steps(
        self, kind: str, limit: int = 100, project_id: str = DEFAULT_PROJECT
    ) -> list[StepRecord]:
        return await self._readers.run(
            lambda connection: waits.waiting_steps(connection, kind, limit, project_id)
        )

    async def add_event(self, event: EventRecord) -> list[str]:
        row = inbox.EVENTS.encode(event)
        return await self._writer.submit(lambda connection: inbox.add(connection, event, row))

    async def find_events(
        self, name: str, key: str | None, after: str, limit: int, project_id: str
    ) -> list[EventRecord]:
        return await self._readers.run(
            lambda connection: inbox.find(connection, name, key, after, limit, project_id)
        )

    async def cached_result(self, key: str, moment: str) -> CachedResult | None:
        return await self._readers.run(lambda connection: cached.get(connection, key, moment))

    # Whole runs, and the whole database

    async def archived_page(
        self, run_id: str, after: str = "", limit: int = 500
    ) -> tuple[list[ArchiveEntry], str]:
        return await self._readers.run(
            lambda connection: exchange.page(connection, run_id, after, limit)
        )

    async def adopt_agent(self, agent: AgentRecord) -> str:
        agent = replace(agent, active=False, updated_at=now_text())
        row = AGENTS.encode(agent)
        return await self._writer.submit(lambda connection: agents.adopt(connection, agent, row))

    async def adopt_workflow(self, workflow: WorkflowRecord) -> str:
        workflow = replace(workflow, active=False, updated_at=now_text())
        row = workflows.encode(workflow)
        return await self._writer.submit(
            lambda connection: workflows.adopt(connection, workflow, row)
        )

    async def restore_run(self, entries: Iterable[ArchiveEntry]) -> bool:
        return await self._writer.submit(lambda connection: exchange.restore(connection, entries))

    async def check(self) -> list[str]:
        return await self._copies.check()

    async def back_up(self, target: Path, *, replace: bool = False) -> int:
        return await self._copies.make(target, replace=replace)

    # Secrets

    async def put_secrets(self, records: Sequence[SecretRecord], *, may_replace: bool) -> None:
        rows = [(one.identity, SECRETS.encode(one)) for one in stamped_secrets(records)]
        await self._writer.submit(
            lambda connection: secrets.put(connection, rows, may_replace=may_replace)
        )

    async def get_secret(self, identity: SecretIdentity) -> SecretRecord | None:
        return await self._readers.run(lambda connection: secrets.get(connection, identity))

    async def list_secrets(
        self, project_id: str = DEFAULT_PROJECT, organization_id: str = DEFAULT_ORGANIZATION
    ) -> list[SecretRecord]:
        return await self._readers.run(
            lambda connection: secrets.list_all(connection, project_id, organization_id)
        )

    async def delete_secret(self, identity: SecretIdentity) -> bool:
        return await self._writer.submit(lambda connection: secrets.delete(connection, identity))

    async def count_secrets_by_key(self) -> dict[str, int]:
        return await self._readers.run(secrets.count_by_key)

    async def secrets_not_under(
        self, key_id: str, after: str = "", limit: int = 100
    ) -> list[SecretRecord]:
        return await self._readers.run(
            lambda connection: secrets.list_not_under(connection, key_id, after, limit)
        )

    async def rewrap_secrets(self, changes: Sequence[tuple[SecretRecord, SecretRecord]]) -> int:
        rows = [(new.wrapped_key, new.key_id, old.id, old.wrapped_key) for old, new in changes]
        return await self._writer.submit(lambda connection: secrets.rewrap(connection, rows))

    # Upkeep

    async def purge_invocations(self, started_before: str, limit: int = 1000) -> int:
        return await self._writer.submit(
            lambda connection: upkeep.purge_invocations(connection, started_before, limit)
        )

    async def purge_cached(self, expired_at: str, limit: int = 1000) -> int:
        return await self._writer.submit(
            lambda connection: cached.purge(connection, expired_at, limit)
        )

    async def purge_events(self, received_before: str, limit: int = 1000) -> int:
        return await self._writer.submit(
            lambda connection: inbox.purge(connection, received_before, limit)
        )

    async def purge_agents(self, unused_since: str) -> int:
        deleted = 0
        for agent_id in await self._readers.run(
            lambda connection: upkeep.unused_agents(connection, unused_since)
        ):

            def delete(connection: Connection, agent_id: str = agent_id) -> int:
                return upkeep.delete_agent(connection, agent_id, unused_since)

            deleted += await self._writer.submit(delete)
        return deleted

    async def digests_in_use(self) -> tuple[frozenset[str], frozenset[str]]:
        return await self._readers.run(upkeep.digests_in_use)

    async def artifacts_in_use(
        self, after: str = "", limit: int = 500
    ) -> tuple[frozenset[str], str]:
        return await self._readers.run(
            lambda connection: upkeep.artifacts_in_use(connection, after, limit)
        )

    async def artifacts_outside_runs(
        self, after: str = "", limit: int = 500
    ) -> tuple[frozenset[str], str]:
        return await self._readers.run(
            lambda connection: upkeep.artifacts_outside_runs(connection, after, limit)
        )


def stamped_secrets(records: Sequence[SecretRecord]) -> list[SecretRecord]:
    """The records with the times that they have not: now."""
    time = now_text()
    return [secrets.stamped(one, time) for one in records]
