"""What the rooms above ask of a database. Every backend passes the same contract suite."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from msgspec import Struct

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


class AgentRegistry(Protocol):
    """Registered agents and the permissions granted to their packages."""

    async def add_agent(
        self, agent: AgentRecord, grants: Sequence[GrantRecord] = ()
    ) -> AgentRecord:
        """Register ``agent`` with its grants, in one commit.

        The same name, version and digest again changes nothing but ``updated_at``, where the
        package lies on this machine (path, source, environment) and the grants, which are added to
        those that stand; it returns the record that stands, active again if it was not. Another
        digest under the same name and version makes the earlier record inactive. Two processes
        registering at once both end with one record.
        """
        ...

    async def remove_agent(
        self, name: str, version: str | None = None, project_id: str = DEFAULT_PROJECT
    ) -> int:
        """Make the versions (or one) of an agent inactive; return how many there were."""
        ...

    async def get_agent(self, agent_id: str) -> AgentRecord | None: ...

    async def list_agents(
        self, name: str | None = None, project_id: str = DEFAULT_PROJECT
    ) -> list[AgentRecord]:
        """The active agents by name, then by ascending semantic version."""
        ...

    async def list_grants(
        self, digest: str, project_id: str = DEFAULT_PROJECT
    ) -> list[GrantRecord]: ...


class WorkflowRegistry(Protocol):
    """Registered workflows."""

    async def add_workflow(self, workflow: WorkflowRecord) -> WorkflowRecord:
        """Register ``workflow``; digests behave as for agents, and ``enabled`` is kept: versions of
        a workflow that is disabled are disabled too."""
        ...

    async def get_workflow(self, workflow_id: str) -> WorkflowRecord | None: ...

    async def list_workflows(
        self, name: str | None = None, project_id: str = DEFAULT_PROJECT
    ) -> list[WorkflowRecord]:
        """The active workflows by name, then by ascending semantic version."""
        ...

    async def set_workflow_enabled(
        self, name: str, enabled: bool, project_id: str = DEFAULT_PROJECT
    ) -> int:
        """Enable or disable every version of a workflow; return how many there are."""
        ...


class RunJournal(Protocol):
    """Runs, their steps and invocations. A commit that returned is durable."""

    async def create_run(self, new: NewRun) -> RunRecord:
        """Record a new run with its steps in one commit; return the run that stands.

        That is an earlier one when the project has one of this workflow's name with the same
        ``idempotency_key``; then nothing is changed.
        """
        ...

    async def claim_run(
        self, run_id: str, owner: str, expected_owner: str | None
    ) -> RunRecord | None:
        """Make ``owner`` the owner if ``expected_owner`` still is and the run has not ended.

        A run that is ``pending`` is claimed only while fewer than its ``concurrency_limit`` other
        runs with its ``concurrency_key`` have been claimed and not ended; to cancel it, it can be
        claimed nevertheless. ``wake_at`` is emptied.

        Returns the run with its raised epoch, or None if somebody else was faster or the limit is
        reached.
        """
        ...

    async def take_runs(self, run_ids: Sequence[str], owner: str) -> list[TakenRun]:
        """Claim those of these runs that nobody owns and that have not ended, in one commit, and
        read their steps. Left to :meth:`claim_run` are pending runs with a ``concurrency_limit``.

        A crash of the database's server may lose these claims, until something else is committed.
        """
        ...

    async def release_run(
        self, run_id: str, epoch: int, changes: RunChanges, *, owner: str | None = None
    ) -> bool:
        """Apply ``changes`` and give the run up (``owner`` becomes None) if ``epoch`` is its own
        and no answer, event or cancellation has come for it that it has not taken: none of its
        waiting steps has an answer, or an event received after its creation (by ``wait_name`` and
        ``wait_key``; None matches any key). False if there is one; then nothing is changed.

        Raises:
            OwnershipLost: the epoch is not the run's.
        """
        ...

    async def commit(
        self, run_id: str, epoch: int, changes: RunChanges, *, owner: str | None = None
    ) -> None:
        """Apply ``changes`` in one commit if ``epoch`` is still the run's.

        Args:
            run_id: the run.
            epoch: as it was claimed.
            changes: what to set.
            owner: whoever claimed it so, if that is to be compared as well: a server that crashes
                may lose a claim that it has answered, and give the next one the same epoch.

        Raises:
            OwnershipLost: it is not; nothing was changed.
        """
        ...

    async def reopen_run(
        self, run_id: str, owner: str | None, changes: RunChanges
    ) -> RunRecord | None:
        """Take an ended run up again as ``owner``, or for whoever claims it: apply ``changes``,
        set it running, raise its epoch, all in one commit. None if the run has not ended (somebody
        else reopened it).

        Its outputs, step_results, error, completed_at, wake_at and cancel_requested are emptied
        unless ``changes`` sets them, and the answers to the steps in ``changes`` are forgotten.

        Raises:
            RefusedError: the run was imported.
        """
        ...

    async def request_cancel(self, run_id: str) -> RunRecord | None:
        """Set ``cancel_requested`` unless the run has ended; return the run as it then is."""
        ...

    async def get_run(self, run_id: str) -> RunRecord | None: ...

    async def find_runs(self, prefix: str, limit: int = 10) -> list[RunRecord]:
        """Runs whose id starts with ``prefix`` (with or without ``run_``)."""
        ...

    async def list_runs(self, run_filter: RunFilter) -> list[RunRecord]:
        """Newest first. The run's JSON documents come too unless ``documents`` is False."""
        ...

    async def due_runs(self, moment: str, limit: int = 1000) -> list[str]:
        """Ids of waiting runs without an owner whose ``wake_at`` is not after ``moment``, earliest
        first."""
        ...

    async def ready_runs(self, moment: str, limit: int = 1000) -> list[str]:
        """Ids of waiting runs without an owner that can go on: those that are due, and those with
        an answer, an event or a cancellation that came when nobody could be told. An event counts
        once for a run: one whose id stands in ``wait_details["event_id"]`` of another of its steps
        was taken."""
        ...

    async def next_wake(self, after: str | None = None) -> str | None:
        """The earliest ``wake_at`` of a waiting run without an owner; the earliest after the moment
        ``after``, if that is given."""
        ...

    async def queued_runs(
        self, concurrency_key: str, project_id: str, limit: int = 100
    ) -> list[RunRecord]:
        """Pending runs with this key that nobody has claimed: highest priority first, then oldest.
        Without their documents."""
        ...

    async def answer_wait(self, answer: AnswerRecord) -> bool:
        """Record the answer to a step that waits for an approval; False if it does not wait for
        one (any more), or has been answered."""
        ...

    async def list_answers(self, run_id: str) -> list[AnswerRecord]: ...

    async def waiting_steps(
        self, kind: str, limit: int = 100, project_id: str = DEFAULT_PROJECT
    ) -> list[StepRecord]:
        """Steps that wait for this kind of thing, oldest first."""
        ...

    async def add_event(self, event: EventRecord) -> list[str]:
        """Put an event into the inbox; return the ids of the runs with a step that waits for it.
        An event whose id is there already changes nothing, and returns the same."""
        ...

    async def find_events(
        self, name: str, key: str | None, after: str, limit: int, project_id: str
    ) -> list[EventRecord]:
        """Events with this name (and key, unless None) received after the moment ``after``, oldest
        first."""
        ...

    async def cached_result(self, key: str, moment: str) -> CachedResult | None:
        """The result with this key that has not expired at ``moment``."""
        ...

    async def unfinished_runs(
        self, after: str = "", limit: int = 1000, *, begun: bool = False
    ) -> list[RunRecord]:
        """Runs that have not ended, whoever owns them, oldest first: a page of those whose ids
        come after ``after``, without their documents. Waiting runs without an owner are left out,
        and with ``begun`` those that are pending."""
        ...

    async def list_steps(self, run_id: str) -> list[StepRecord]:
        """The steps of a run in the order they were created."""
        ...

    async def list_invocations(self, run_id: str) -> list[InvocationRecord]: ...

    async def record_invocation(self, invocation: InvocationRecord) -> None:
        """Insert or replace an invocation that belongs to no run."""
        ...

    async def purge_runs(self, completed_before: str, limit: int = 1000) -> list[str]:
        """Delete ended runs completed (or imported, if they were) before then, oldest first, with
        their steps, invocations, attributes and answers; return ids. A run that was called stays
        until its caller has ended."""
        ...

    async def run_owners(self, run_ids: Sequence[str]) -> dict[str, tuple[RunState, str | None]]:
        """The states and owners of those of these runs that are recorded."""
        ...

    async def delete_runs(self, run_ids: Sequence[str]) -> list[str]:
        """Delete those of these runs that have ended, as :meth:`purge_runs`; return their ids."""
        ...


class SecretStore(Protocol):
    """Sealed secrets. No method can open one."""

    async def put_secrets(self, records: Sequence[SecretRecord], *, may_replace: bool) -> None:
        """Store all of ``records`` in one commit, or none.

        Raises:
            ConflictError: one is there already and ``may_replace`` is False.
        """
        ...

    async def get_secret(self, identity: SecretIdentity) -> SecretRecord | None: ...

    async def list_secrets(
        self, project_id: str = DEFAULT_PROJECT, organization_id: str = DEFAULT_ORGANIZATION
    ) -> list[SecretRecord]:
        """The organization's, the project's and its workflows', by name, the widest scope first."""
        ...

    async def delete_secret(self, identity: SecretIdentity) -> bool:
        """Whether it was there."""
        ...

    async def count_secrets_by_key(self) -> dict[str, int]:
        """How many secrets of the whole home each master key holds, by its id."""
        ...

    async def secrets_not_under(
        self, key_id: str, after: str = "", limit: int = 100
    ) -> list[SecretRecord]:
        """Secrets of the whole home that another master key holds, by id, after ``after``."""
        ...

    async def rewrap_secrets(self, changes: Sequence[tuple[SecretRecord, SecretRecord]]) -> int:
        """Give secrets another wrapped key, in one commit: pairs of the record as it was read and
        as it shall be. One that has changed since is left alone. Returns how many were changed."""
        ...


class Upkeep(Protocol):
    """What nothing refers to any more."""

    async def purge_invocations(self, started_before: str, limit: int = 1000) -> int:
        """Delete invocations outside runs that began before then; return how many."""
        ...

    async def purge_cached(self, expired_at: str, limit: int = 1000) -> int:
        """Delete cached results that had expired at that moment; return how many."""
        ...

    async def purge_events(self, received_before: str, limit: int = 1000) -> int:
        """Delete events received before then, oldest first; return how many."""
        ...

    async def purge_agents(self, unused_since: str) -> int:
        """Delete agents that were unregistered or replaced before then and that no run and no
        invocation refers to, with the grants of their packages; return how many."""
        ...

    async def digests_in_use(self) -> tuple[frozenset[str], frozenset[str]]:
        """The digests of the packages and of the environments that agents here have."""
        ...

    async def artifacts_in_use(
        self, after: str = "", limit: int = 500
    ) -> tuple[frozenset[str], str]:
        """The references to artifacts in at most ``limit`` runs after the id ``after``, and the id
        of the last of those runs; an empty id when there are no more."""
        ...

    async def artifacts_outside_runs(
        self, after: str = "", limit: int = 500
    ) -> tuple[frozenset[str], str]:
        """The references to artifacts in at most ``limit`` events and cached results, and what to
        give as ``after`` for those that follow; empty when these were the last."""
        ...


class RunArchive(Protocol):
    """Whole runs that leave for another database, or come from one; see ``store.transfer``."""

    async def archived_page(
        self, run_id: str, after: str = "", limit: int = 500
    ) -> tuple[list[ArchiveEntry], str]:
        """What belongs to a run, a page at a time: steps in the order they were created, then
        invocations, answers and attributes. ``after`` is what the page before gave; it gives an
        empty text at the end."""
        ...

    async def adopt_agent(self, agent: AgentRecord) -> str:
        """The id of the record with this id, or with this name, version and digest; if there is
        none, ``agent`` is recorded, inactive."""
        ...

    async def adopt_workflow(self, workflow: WorkflowRecord) -> str:
        """As :meth:`adopt_agent`."""
        ...

    async def restore_run(self, entries: Iterable[ArchiveEntry]) -> bool:
        """Record an ended run with all that belongs to it in one commit; False, and nothing is
        changed, if a run with its id is there. The entries may be read more than once, in another
        thread; the run is the first. It loses its idempotency key if that is taken.

        Raises:
            NotFoundError: its workflow, or an agent, is not there.
            ConflictError: an id is taken, or an entry is there twice.
        """
        ...


class Backups(Protocol):
    """Copies of the whole database, and whether it is sound."""

    async def check(self) -> list[str]:
        """Read the whole database and say what is wrong with it, a line for each fault; nothing if
        it is sound."""
        ...

    async def back_up(self, target: Path, *, replace: bool = False) -> int:
        """Copy what is committed to the file ``target``, for its owner's eyes only, while the
        database is in use; return its size in bytes. The copy is checked, and is there whole or
        not at all.

        Raises:
            ConflictError: ``target`` is there and ``replace`` is False, or it is the database.
            DatabaseError: it cannot be read, or the copy cannot be written.
        """
        ...


class Store(
    AgentRegistry,
    WorkflowRegistry,
    RunJournal,
    SecretStore,
    Upkeep,
    RunArchive,
    Backups,
    Protocol,
):
    """One open database."""

    async def close(self) -> None:
        """Finish pending commits and close."""
        ...


class DirectoryLimits(Struct, frozen=True):
    """What a directory that is copied into an artifact store may hold."""

    files: int
    size: int
    """In bytes."""


class ArtifactStore(Protocol):
    """Content-addressed files. A reference is ``sha256:<64 hexadecimal digits>``."""

    @property
    def directories(self) -> DirectoryLimits | None:
        """Limits of local directories given to runs, which are copied in, because another machine
        may drive the run; None where runs see them as they are."""
        ...

    async def put_bytes(self, data: bytes) -> str: ...

    async def put_file(self, path: Path) -> str:
        """Copy a file in, atomically; the same content is kept once."""
        ...

    async def put_descriptor(self, descriptor: int) -> str:
        """Copy an open regular file in, from its start."""
        ...

    def path(self, reference: str) -> Path:
        """Where the content lies, readable by everyone. It may be fetched first, so this blocks.

        Raises:
            NotFoundError: no such artifact.
            DamagedError: what was fetched is not what was put.
            UnavailableError: it cannot be fetched.
        """
        ...

    async def fetch(self, reference: str) -> Path:
        """:meth:`path`, off the event loop."""
        ...

    def held(self, references: Iterable[str]) -> AbstractContextManager[None]:
        """Keep what :meth:`path` gave, or will give, for these references where it is; of a store
        that keeps copies, those not held may go at any time and come back when asked for."""
        ...
