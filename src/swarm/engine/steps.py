"""One step of a run: its attempts, one invocation each, with retries in between."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from swarm.definitions.workflow import RetryDefinition
from swarm.engine.compiled import CompiledStep
from swarm.engine.events import EventKind
from swarm.engine.files import FileAccess
from swarm.engine.invocations import (
    AgentServices,
    Call,
    GuestListener,
    Invoker,
    PinnedAgent,
    effective_isolation,
    ended_record,
    failed_record,
    started_record,
)
from swarm.kernel.clock import now_text
from swarm.kernel.errors import InputError, RefusedError, SwarmError
from swarm.kernel.ids import new_id
from swarm.kernel.json import JsonObject, JsonValue
from swarm.sandbox.ports import CallContext, Isolation, Outcome
from swarm.store.records import InvocationRecord, RunChanges, RunRecord, StepRecord, StepState

Publish = Callable[[EventKind, str | None, JsonObject], None]
"""Tells the followers of the run: kind, step, data."""

NEVER_RETRIED = frozenset({"invalid_input", "refused", "not_found"})
"""Error codes that another attempt cannot mend."""


@dataclass(frozen=True, slots=True)
class StepEnd:
    """How a step ended: its last row, and its last invocation if one was made."""

    step: StepRecord
    invocation: InvocationRecord | None = None
    wall_ms: int = 0
    """Sandbox time of all its attempts."""


class StepListener(GuestListener):
    """Passes on what an agent tells while it runs as a step."""

    def __init__(
        self,
        step_id: str,
        attempt: int,
        publish: Publish,
        write_log: Callable[[str, int, str, str, str], None],
    ) -> None:
        self._step_id = step_id
        self._attempt = attempt
        self._publish = publish
        self._write_log = write_log

    def logged(self, stream: str, level: str, message: str) -> None:
        self._write_log(self._step_id, self._attempt, stream, level, message)
        self._publish("log", self._step_id, {"stream": stream, "level": level, "message": message})

    def progressed(self, fraction: float | None, message: str) -> None:
        self._publish("step.progress", self._step_id, {"fraction": fraction, "message": message})

    def streamed(self, value: JsonValue) -> None:
        self._publish("step.stream", self._step_id, {"value": value})


@dataclass(frozen=True, slots=True)
class StepTools:
    """What the steps of one run share."""

    run: RunRecord
    invoker: Invoker
    files: FileAccess
    commit: Callable[[RunChanges], Awaitable[None]]
    publish: Publish
    write_log: Callable[[str | None, int, str, str, str], None]


class StepExecution:
    """Runs the attempts of one step until it succeeds or may not be tried again."""

    def __init__(
        self,
        tools: StepTools,
        compiled: CompiledStep,
        agent: PinnedAgent,
        step: StepRecord,
        attempt: int,
    ) -> None:
        """``step`` is running with its inputs; ``attempt`` counts from 1 over the run's life."""
        self._tools = tools
        self._definition = compiled.definition
        self._secrets = compiled.secrets
        self._agent = agent
        self._step = step
        self._attempt = attempt
        self._wall_ms = 0
        self.invocation = self._start_invocation()

    @property
    def step(self) -> StepRecord:
        return self._step

    async def run(self) -> StepEnd:
        """Make attempts; the first invocation was journalled by the caller, with the step."""
        while True:
            ended, outputs = await self._attempt_once()
            self._wall_ms += ended.wall_ms or 0
            if ended.status == Outcome.OK:
                return self._end(ended, StepState.SUCCEEDED, outputs)
            pause = self._pause_before_retry(ended.error_code)
            if pause is None:
                return self._end(ended, StepState.FAILED, None)
            await self._prepare_retry(ended, pause)

    async def _attempt_once(self) -> tuple[InvocationRecord, JsonObject | None]:
        tools, invocation = self._tools, self.invocation
        listener = StepListener(self._step.step_id, self._attempt, tools.publish, tools.write_log)
        services = AgentServices(
            tools.invoker.secrets(self._agent, tools.run.workflow_name), listener
        )
        call = Call(
            inputs=self._step.inputs or {},
            context=self._context(invocation.id),
            files=tools.files,
            isolation=Isolation(invocation.isolation),
            timeout_seconds=self._definition.timeout_seconds,
            network=self._definition.network,
            secrets=self._secrets,
        )
        try:
            completed = await tools.invoker.invoke(self._agent, call, services)
        except SwarmError as error:
            return services.masked_record(failed_record(invocation, error)), None
        if completed.result.traceback:
            listener.logged("log", "error", completed.result.traceback)
        return ended_record(invocation, completed), completed.result.outputs

    def _start_invocation(self) -> InvocationRecord:
        run = self._tools.run
        isolation = effective_isolation(
            self._agent, Isolation(run.isolation), self._definition.isolation
        )
        return started_record(self._agent, self._context(new_id("inv")), isolation)

    def _context(self, invocation_id: str) -> CallContext:
        run, record = self._tools.run, self._agent.record
        return CallContext(
            invocation_id=invocation_id,
            idempotency_key=f"{run.id}:{self._step.step_id}",
            agent=record.name,
            agent_version=record.version,
            attempt=self._attempt,
            run_id=run.id,
            step_id=self._step.step_id,
        )

    def _pause_before_retry(self, code: str | None) -> float | None:
        retry = self._definition.retry
        if retry is None or code in NEVER_RETRIED or (retry.on and code not in retry.on):
            return None
        failures = self._step.retry_count + 1
        return None if failures >= retry.attempts else retry_delay(retry, failures)

    async def _prepare_retry(self, ended: InvocationRecord, pause: float) -> None:
        """Journal the failed attempt, wait, and journal the next as running."""
        failed = replace(
            self._step,
            retry_count=self._step.retry_count + 1,
            error=ended.error,
            error_code=ended.error_code,
        )
        await self._tools.commit(RunChanges(steps=(failed,), invocations=(ended,)))
        self._tools.publish(
            "step.retrying",
            self._step.step_id,
            {
                "attempt": self._attempt,
                "error": ended.error,
                "error_code": ended.error_code,
                "delay_seconds": pause,
            },
        )
        await asyncio.sleep(pause)
        self._attempt += 1
        self._step = replace(failed, error=None, error_code=None)
        self.invocation = self._start_invocation()
        await self._tools.commit(RunChanges(steps=(self._step,), invocations=(self.invocation,)))
        self._tools.publish(
            "step.started",
            self._step.step_id,
            {"attempt": self._attempt, "agent": self._agent.reference},
        )

    def _end(
        self, ended: InvocationRecord, state: StepState, outputs: JsonObject | None
    ) -> StepEnd:
        step = replace(
            self._step,
            status=state,
            outputs=outputs,
            vm_id=ended.sandbox_id,
            isolation=ended.isolation,
            completed_at=now_text(),
            duration_ms=self._wall_ms,
            error=ended.error,
            error_code=ended.error_code,
        )
        return StepEnd(step, ended, self._wall_ms)


def retry_delay(
    retry: RetryDefinition, failures: int, draw: Callable[[], float] = random.random
) -> float:
    """Seconds to wait after the ``failures``-th failure: exponential, capped, with jitter.

    The jitter spreads retries that would otherwise meet again ("Exponential Backoff And Jitter",
    AWS Architecture Blog, 2015): the pause is moved by at most ``retry.jitter`` of itself.
    """
    # The exponent is bounded so that a float cannot overflow before the cap applies.
    pause = retry.delay_seconds * retry.backoff ** min(failures - 1, 64)
    pause = min(pause, retry.max_delay_seconds)
    return max(0.0, pause * (1 + retry.jitter * (2 * draw() - 1)))


def failed_step(step: StepRecord, error: SwarmError) -> StepRecord:
    """A step that failed before any invocation, because its inputs cannot be had."""
    code = "invalid_input" if isinstance(error, InputError) else error.code
    if isinstance(error, RefusedError):
        code = "refused"
    moment = now_text()
    return replace(
        step,
        status=StepState.FAILED,
        started_at=step.started_at or moment,
        completed_at=moment,
        duration_ms=0,
        error=str(error),
        error_code=code,
    )
