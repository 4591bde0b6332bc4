"""What the command line, the server and the Python API ask of the engine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Protocol

from msgspec import Struct, field

from swarm.engine.events import RunEvent
from swarm.engine.invocations import GuestListener
from swarm.kernel.json import JsonObject, JsonValue
from swarm.sandbox.ports import InvocationResult, Isolation
from swarm.store.records import NO_ITEM, InvocationRecord, RunRecord, StepRecord


class RunRequest(Struct, frozen=True):
    """What is needed to start a run."""

    workflow: str
    """``name`` or ``name@version``."""
    inputs: JsonObject = field(default_factory=dict)
    """As given; checked against the workflow's declared inputs, defaults applied."""
    mounts: dict[str, str] = field(default_factory=dict)
    """Local directories that file values in ``inputs`` refer to: ``{reference: absolute path}``."""
    isolation: Isolation = Isolation.SANDBOX
    trigger_type: str = "manual"
    idempotency_key: str | None = None
    """A request with the same workflow name and key gives the run that the first one started."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Besides those of the workflow."""
    priority: int | None = None
    """Before or after other runs; the workflow's own when None."""


class ForkRequest(Struct, frozen=True):
    """How a run is to be repeated with something changed."""

    origin: str
    """Id, or the start of one, of the run to repeat."""
    from_steps: tuple[str, ...] | None = None
    """Steps to run again, with all that depend on them; the results of the others are taken over.
    None runs all."""
    inputs: JsonObject | None = None
    """Changed inputs of the run, over its own."""
    step_inputs: Mapping[str, JsonObject] = field(default_factory=dict)
    """Changed inputs of steps, by step id, over what their definitions give."""
    pinned: Mapping[str, JsonObject | None] = field(default_factory=dict)
    """Steps that are not run: their outputs, or None for those that they had."""
    latest: bool = False
    """Whether agents and workflows are those registered now, not those of the origin."""


class Runs(Protocol):
    """Starts, drives and follows runs."""

    async def create(self, request: RunRequest) -> RunRecord:
        """Check the request, pin the workflow and its agents, and record the run durably.

        Raises:
            NotFoundError: no such workflow or agent; offers the nearest names.
            RefusedError: the workflow is disabled.
            InputError: the inputs do not fit what is declared.
        """
        ...

    async def start(self, run_id: str) -> bool:
        """Hand the run to a long-lived host if one is up, else drive it in this process.

        Returns True if this process drives it. Returns at once; use :meth:`follow` or
        :meth:`wait` to see it end.
        """
        ...

    async def start_detached(self, run: RunRecord) -> None:
        """Hand the run to a host that outlives this process, starting one if none is up."""
        ...

    def follow(self, run_id: str) -> AsyncIterator[RunEvent]:
        """The events of a run from now on, wherever it is driven, up to ``run.finished``.

        Steps that already ended are told first, as ``step.finished``. A run that nobody drives
        and that has not ended gives what is recorded and then stops without ``run.finished``.
        """
        ...

    async def wait(self, run_id: str) -> RunRecord:
        """Wait until the run has ended (or its driver has died) and return it."""
        ...

    async def orphans(self) -> list[RunRecord]:
        """Runs that have not ended and whose host is gone (or never took them up)."""
        ...

    async def resume(self, run_ids: Sequence[str] = (), *, latest: bool = False) -> list[RunRecord]:
        """Take over orphaned runs (all, when none is named) and drive them here.

        A named run that failed or was cancelled is reopened: finished steps are kept, the others
        run again; with ``latest`` by the agents and called workflows that are registered now, so
        that what was mended is used. Returns the runs taken.

        Raises:
            ConflictError: a live host drives the run, or it already succeeded.
        """
        ...

    async def retry(self, run_id: str) -> RunRecord:
        """Record a new run of the same workflow with the same inputs (not yet started)."""
        ...

    async def fork(self, request: ForkRequest) -> RunRecord:
        """Record a run that repeats another with something changed (not yet started).

        Raises:
            NotFoundError: no such run or step; InputError: changed inputs do not fit.
            ConflictError: a result that is to be taken over is not there.
        """
        ...

    async def answer(
        self,
        run_id: str,
        step_id: str | None,
        *,
        approved: bool,
        values: JsonObject | None = None,
        by: str = "",
        comment: str = "",
        item_index: int = NO_ITEM,
    ) -> StepRecord:
        """Answer a step that waits for an approval; the run goes on at once.

        Args:
            step_id: may be None where only one step of the run waits for one.

        Raises:
            NotFoundError: no such step waits; ConflictError: it has just been answered.
            InputError: the values do not fit the form.
        """
        ...

    async def send_event(
        self, name: str, key: str | None, payload: JsonValue, event_id: str | None = None
    ) -> tuple[str, list[str]]:
        """Put an event into the inbox and wake the runs that wait for it.

        Returns the event's id and the ids of those runs. The same ``event_id`` counts once.
        """
        ...

    async def cancel(self, run_id: str) -> RunRecord:
        """Ask for cancellation, reach the host that drives the run, and wait for its end."""
        ...

    async def get(self, run_id_or_prefix: str) -> RunRecord:
        """The run with this id or the only one that starts so.

        Raises:
            NotFoundError: none does; InvalidError: several do.
        """
        ...

    async def logs(self, run_id: str) -> list[JsonObject]:
        """What the run's agents logged: ``{time, step_id, attempt, stream, level, message}``."""
        ...


class AgentInvoker(Protocol):
    """Calls one agent outside any run (``swarm agent run``)."""

    async def invoke(
        self,
        agent: str,
        inputs: JsonObject,
        *,
        listener: GuestListener,
        mounts: dict[str, str] | None = None,
        isolation: Isolation = Isolation.SANDBOX,
    ) -> tuple[InvocationRecord, InvocationResult]:
        """Validate, sandbox, call, validate, record. Outputs are in the result.

        Raises:
            NotFoundError, InputError, RefusedError, SandboxUnavailable
        """
        ...
