"""The rows of the database, as the ports speak of them.

Fields that hold JSON are plain Python values here; times are UTC text (see ``kernel.clock``).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal, TypeAlias

from msgspec import Struct, field

from swarm.kernel.json import JsonObject

DEFAULT_PROJECT = "default"
DEFAULT_ORGANIZATION = "default"
"""The organization of every project, until there are others."""
NOT_HERE = "/dev/null"
"""Where the files of imported agents and workflows are said to lie: a folder that never is."""
NO_ITEM = -1
"""``item_index`` of a step that is not expanded by ``for_each``."""
RUN_FORMAT = 1
"""What a Swarm must understand to drive a run: raised with each release whose workflows, or whose
records of runs that are under way, an older Swarm would misread. A run takes the format of the
newest Swarm that made or drove it, and none that knows only older ones takes it up."""
StepKey: TypeAlias = tuple[str, int]
"""A step's id and item index: one step execution of a run."""


class RunState(StrEnum):
    """How far a run has come."""

    PENDING = "pending"
    RUNNING = "running"
    WAITING = "waiting"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether it has ended."""
        return self in (RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED)


class StepState(StrEnum):
    """How far a step, or an item of one, has come in its run."""

    PENDING = "pending"
    RUNNING = "running"
    WAITING = "waiting"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"

    @property
    def is_final(self) -> bool:
        """Whether it has ended."""
        return self not in (StepState.PENDING, StepState.RUNNING, StepState.WAITING)


class AgentRecord(Struct, frozen=True):
    """A registered agent: one name, version and digest."""

    id: str
    name: str
    version: str
    digest: str
    path: str
    """Folder of the pinned copy, below ``packages/``."""
    source: str
    """Folder or archive that it was registered from."""
    definition: JsonObject
    """The whole manifest in normal form (``AgentDefinition`` dumped by alias)."""
    description: str = ""
    capabilities: tuple[str, ...] = ()
    inputs_schema: JsonObject = field(default_factory=dict)
    outputs_schema: JsonObject = field(default_factory=dict)
    runtime: str = "python"
    memory_mb: int = 128
    timeout_seconds: float = 300
    triggers: tuple[JsonObject, ...] = ()
    author: str = ""
    tags: tuple[str, ...] = ()
    environment_digest: str | None = None
    active: bool = True
    """False for a digest that a later registration of the same version replaced, or after
    ``unregister``; live runs may still be pinned to it."""
    created_at: str = ""
    updated_at: str = ""
    project_id: str = DEFAULT_PROJECT


class GrantRecord(Struct, frozen=True):
    """One permission given to one package digest."""

    id: str
    digest: str
    permission: str
    """``network``, ``secrets``, ``models``, ``memory`` or ``agents``."""
    value: str
    created_at: str = ""
    project_id: str = DEFAULT_PROJECT


class WorkflowRecord(Struct, frozen=True):
    """A registered workflow: one name, version and digest."""

    id: str
    name: str
    version: str
    digest: str
    path: str
    definition: JsonObject
    """The whole workflow in normal form (``WorkflowDefinition`` dumped by alias)."""
    description: str = ""
    trigger_type: str = "manual"
    trigger_config: JsonObject = field(default_factory=dict)
    enabled: bool = True
    active: bool = True
    author: str = ""
    tags: tuple[str, ...] = ()
    created_at: str = ""
    updated_at: str = ""
    project_id: str = DEFAULT_PROJECT


class RunRecord(Struct, frozen=True):
    """One execution of a workflow."""

    id: str
    workflow_id: str
    """The record of the very digest that it is pinned to; such records are never changed."""
    workflow_name: str
    workflow_version: str
    status: RunState = RunState.PENDING
    current_step: str | None = None
    trigger_type: str = "manual"
    trigger_data: JsonObject = field(default_factory=dict)
    inputs: JsonObject = field(default_factory=dict)
    """The validated inputs, defaults applied."""
    variables: JsonObject = field(default_factory=dict)
    """The workflow's variables, evaluated once when the run was created."""
    outputs: JsonObject | None = None
    step_results: JsonObject = field(default_factory=dict)
    """Written once, when the run ends: ``{step id: {status, outputs | error}}``."""
    agents: JsonObject = field(default_factory=dict)
    """Pins: ``{agent reference as written: agent record id}``."""
    workflows: JsonObject = field(default_factory=dict)
    """Pins of called workflows: ``{workflow reference as written: workflow record id}``."""
    overrides: JsonObject = field(default_factory=dict)
    """Changed inputs of a fork's steps: ``{step id: {input: value}}``."""
    mounts: JsonObject = field(default_factory=dict)
    """Local directories granted read-only to this run: ``{artifact reference: absolute path}``."""
    isolation: str = "sandbox"
    idempotency_key: str | None = None
    """Unique among the runs of a workflow's name."""
    priority: int = 0
    concurrency_key: str | None = None
    concurrency_limit: int | None = None
    runs_on: tuple[str, ...] = ()
    """Labels that a worker must have to drive it."""
    wake_at: str | None = None
    """When a waiting run goes on by itself."""
    labels: JsonObject = field(default_factory=dict)
    owner: str | None = None
    """Host that drives it."""
    epoch: int = 0
    """Counts owners; a write that carries an older one does nothing."""
    format_version: int = RUN_FORMAT
    """See :data:`RUN_FORMAT`."""
    cancel_requested: bool = False
    origin_run_id: str | None = None
    """The run that this one retries, forks or replays."""
    parent_run_id: str | None = None
    """The run that called it, with its step and item."""
    parent_step_id: str | None = None
    parent_item_index: int | None = None
    root_run_id: str | None = None
    """The first caller; None for a run that nobody called."""
    depth: int = 0
    """How many callers are above it."""
    started_at: str | None = None
    completed_at: str | None = None
    error: str | None = None
    error_code: str | None = None
    error_step: str | None = None
    total_vm_time_ms: int = 0
    total_api_tokens: int = 0
    total_cost_micros: int = 0
    """Millionths of a US dollar."""
    tree_vm_time_ms: int = 0
    """What it and all that it called used; kept where it is nobody's child."""
    tree_api_tokens: int = 0
    tree_cost_micros: int = 0
    created_at: str = ""
    imported_at: str | None = None
    """When it came from another database. Such a run cannot be taken up again."""
    project_id: str = DEFAULT_PROJECT


class StepRecord(Struct, frozen=True):
    """One step (or one item of it) in one run; its attempts are invocations."""

    id: str
    run_id: str
    step_id: str
    item_index: int = NO_ITEM
    agent_id: str | None = None
    agent_name: str | None = None
    agent_version: str | None = None
    status: StepState = StepState.PENDING
    vm_id: str | None = None
    """The sandbox of the latest attempt."""
    isolation: str | None = None
    inputs: JsonObject | None = None
    outputs: JsonObject | None = None
    queued_at: str | None = None
    started_at: str | None = None
    completed_at: str | None = None
    duration_ms: int | None = None
    api_tokens_used: int = 0
    error: str | None = None
    error_code: str | None = None
    retry_count: int = 0
    item_count: int | None = None
    """How many items ``for_each`` gave; set on the step's own row, that of no item."""
    attempt: int = 0
    """Attempts begun over the run's life; while the step is running, the one under way."""
    attempt_started_at: str | None = None
    invocation_id: str | None = None
    """The invocation of the latest attempt; its own row is written when it ends."""
    child_run_id: str | None = None
    """The run of the workflow that the step calls."""
    reused_from: str | None = None
    """The run whose result stands here: from the cache, or of a forked or replayed run."""
    cost_micros: int = 0
    wait_kind: str | None = None
    """What a waiting step waits for: ``timer``, ``approval`` or ``event``."""
    wait_name: str | None = None
    wait_key: str | None = None
    wait_details: JsonObject | None = None
    wake_at: str | None = None
    """When the wait ends by itself."""
    project_id: str = DEFAULT_PROJECT

    @property
    def key(self) -> StepKey:
        """The step's id and item index."""
        return self.step_id, self.item_index


class InvocationRecord(Struct, frozen=True):
    """One attempt of a step, or one call of an agent outside any run."""

    id: str
    agent_id: str
    agent_name: str
    agent_version: str
    digest: str
    status: str
    """``running``, ``ok``, ``error``, ``timeout``, ``oom``, ``killed`` or ``invalid_output``."""
    run_id: str | None = None
    step_id: str | None = None
    item_index: int = NO_ITEM
    attempt: int = 1
    sandbox_id: str | None = None
    isolation: str = "sandbox"
    layers: tuple[str, ...] = ()
    started_at: str | None = None
    completed_at: str | None = None
    wall_ms: int | None = None
    cpu_ms: int | None = None
    peak_memory_bytes: int | None = None
    output_bytes: int | None = None
    log_bytes: int | None = None
    tokens: int = 0
    cost_micros: int = 0
    error: str | None = None
    error_code: str | None = None
    project_id: str = DEFAULT_PROJECT


class SecretScope(StrEnum):
    """Whose runs may read a secret."""

    ORGANIZATION = "organization"
    PROJECT = "project"
    WORKFLOW = "workflow"


class SecretIdentity(Struct, frozen=True):
    """Which secret is meant: unique in a home."""

    name: str
    workflow: str | None = None
    """The workflow whose runs alone may read it, in all its versions; None: the whole project."""
    project_id: str = DEFAULT_PROJECT
    organization_id: str | None = None
    """The organization whose projects may all read it. Its secrets have no project or workflow of
    their own: ``workflow`` is None, and ``project_id`` does not count."""

    @classmethod
    def of_organization(
        cls, name: str, organization_id: str = DEFAULT_ORGANIZATION
    ) -> SecretIdentity:
        return cls(name, organization_id=organization_id)

    @property
    def scope(self) -> SecretScope:
        if self.organization_id is not None:
            return SecretScope.ORGANIZATION
        return SecretScope.PROJECT if self.workflow is None else SecretScope.WORKFLOW

    @property
    def owner(self) -> str:
        """Id of the organization or project that it belongs to."""
        return self.project_id if self.organization_id is None else self.organization_id

    def __str__(self) -> str:
        if self.scope is SecretScope.ORGANIZATION:
            return f"{self.name} of the organization"
        return self.name if self.workflow is None else f"{self.name} of workflow {self.workflow}"


class SecretRecord(Struct, frozen=True):
    """A secret as it is stored: sealed. Unique by scope, its owner, workflow and name."""

    id: str
    name: str
    scope: SecretScope
    encrypted_value: bytes
    wrapped_key: bytes
    """The value's data key, encrypted with a master key."""
    key_id: str
    """The master key that ``wrapped_key`` needs; empty if Swarm did not seal the value."""
    workflow_id: str | None = None
    """The newest version of the workflow when the secret was set."""
    workflow_name: str | None = None
    """Of the scope ``workflow``: the workflow whose runs, of any version, may read it."""
    created_at: str = ""
    updated_at: str = ""
    project_id: str = DEFAULT_PROJECT
    organization_id: str | None = None
    """Of the scope ``organization``: whose it is."""

    @property
    def identity(self) -> SecretIdentity:
        return SecretIdentity(self.name, self.workflow_name, self.project_id, self.organization_id)


class RunAttribute(Struct, frozen=True):
    """Something to find a run by."""

    kind: Literal["label", "input"]
    name: str
    value: str


class AnswerRecord(Struct, frozen=True):
    """What a person decided on a waiting step."""

    run_id: str
    step_id: str
    item_index: int
    data: JsonObject
    """``{approved: bool, by, comment, values: {...}}``."""
    created_at: str
    project_id: str = DEFAULT_PROJECT


class EventRecord(Struct, frozen=True):
    """An event in the inbox; every run that waits for it may have it."""

    id: str
    name: str
    key: str | None
    payload: Any
    """Plain JSON."""
    received_at: str
    project_id: str = DEFAULT_PROJECT


class CachedResult(Struct, frozen=True):
    """The outputs of a step that may be used again until ``expires_at``."""

    key: str
    outputs: JsonObject
    run_id: str
    step_id: str
    created_at: str
    expires_at: str
    project_id: str = DEFAULT_PROJECT


ArchiveEntry: TypeAlias = RunRecord | StepRecord | InvocationRecord | AnswerRecord | RunAttribute
"""What a run consists of: the run first, then all that belongs to it."""


class Usage(Struct, frozen=True):
    """Use to be added to what was used before."""

    vm_time_ms: int = 0
    tokens: int = 0
    cost_micros: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.vm_time_ms + other.vm_time_ms,
            self.tokens + other.tokens,
            self.cost_micros + other.cost_micros,
        )


class RunFilter(Struct, frozen=True):
    """Which runs to list; None means any."""

    workflow: str | None = None
    states: tuple[RunState, ...] = ()
    owner: str | None = None
    attributes: tuple[RunAttribute, ...] = ()
    """All of them must be the run's."""
    created_after: str | None = None
    """UTC text; runs created at this very moment are listed too."""
    created_before: str | None = None
    """UTC text; runs created at this very moment are not listed."""
    parent_run_id: str | None = None
    """Only the runs that this one called."""
    called: bool = True
    """Whether runs that other runs called are listed too."""
    limit: int = 50
    before_id: str | None = None
    """Only runs older than this one: ids sort by creation, so this is the page's cursor."""
    documents: bool = True
    """False leaves inputs, outputs, step_results and the like empty: they may be large,
    and a list of runs does not show them."""
    project_id: str = DEFAULT_PROJECT


class RunChanges(Struct, frozen=True):
    """What one journal commit changes; all of it happens, or none."""

    steps: tuple[StepRecord, ...] = ()
    """Whole rows, inserted or replaced by (run, step, item)."""
    invocations: tuple[InvocationRecord, ...] = ()
    """Whole rows, inserted or replaced by id."""
    run: dict[str, Any] = field(default_factory=dict)
    """Fields of :class:`RunRecord` to set."""
    cached: tuple[CachedResult, ...] = ()
    """Results to use again, inserted or replaced by key."""
    tree_usage: tuple[str, Usage] | None = None
    """The root of the tree of runs, and what to add to its ``tree_...`` fields."""
    children: tuple[NewRun, ...] = ()
    """Runs to create, those that exist by id left alone."""


class TakenRun(Struct, frozen=True):
    """A run as it was claimed."""

    run: RunRecord
    steps: tuple[StepRecord, ...] | None
    """In the order they were created; None if they are many."""


class NewRun(Struct, frozen=True):
    """A run to be recorded, with its steps and what it can be found by."""

    run: RunRecord
    steps: tuple[StepRecord, ...] = ()
    attributes: tuple[RunAttribute, ...] = ()
