"""One step of a run that calls an agent: its attempts, one invocation each, with retries between.

The attempt under way stands on the step's row; the invocation's own row is written once, when the
attempt has ended.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from swarm.definitions.workflow import RetryDefinition
from swarm.engine.budget import Ledger
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
    killed_record,
    started_record,
)
from swarm.engine.values import Values
from swarm.kernel.clock import from_text, now, now_text, to_text
from swarm.kernel.errors import SwarmError
from swarm.kernel.ids import new_id
from swarm.kernel.json import JsonObject, JsonValue, dump_bytes
from swarm.sandbox.ports import CallContext, Isolation, Outcome
from swarm.store.ports import RunJournal
from swarm.store.records import (
    NO_ITEM,
    CachedResult,
    InvocationRecord,
    RunChanges,
    RunRecord,
    StepRecord,
    StepState,
    Usage,
)

Publish = Callable[[EventKind, str | None, JsonObject], None]
"""Tells the followers of the run: kind, step, data."""

NEVER_RETRIED = frozenset({"invalid_input", "refused", "not_found", "budget", "rejected"})
"""Error codes that another attempt cannot mend."""


KILLED = "killed"
"""Error code of an attempt whose sandbox was killed, by nobody that has a say in the run."""
MOST_KILLS = 3
"""Attempts of a step that are made again because their sandbox was killed, besides its retries: one
host makes no more, as an agent may be what kills it."""

NO_USAGE = Usage()


class StepEnd(Struct, frozen=True):
    """How a step ended: its last row, and its last invocation if one was made."""

    step: StepRecord
    invocation: InvocationRecord | None = None
    usage: Usage = NO_USAGE
    """Of the last attempt; that of earlier ones was journalled with them."""
    cached: CachedResult | None = None


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


class StepTools(Struct, frozen=True):
    """What the steps of one run share."""

    run: RunRecord
    journal: RunJournal
    invoker: Invoker
    files: FileAccess
    values: Values
    ledger: Ledger | None
    commit: Callable[[RunChanges, Usage], Awaitable[None]]
    publish: Publish
    write_log: Callable[[str | None, int, str, str, str], None]


class StepExecution:
    """Runs the attempts of one step, or of one item of it, until it has ended for good."""

    def __init__(
        self,
        tools: StepTools,
        compiled: CompiledStep,
        agent: PinnedAgent,
        step: StepRecord,
        inputs: JsonObject,
        stored_inputs: JsonObject,
    ) -> None:
        """
        Args:
            tools: what the run's steps share.
            compiled: the step's definition.
            agent: what it calls.
            step: its row as it was before; :attr:`step` is to be journalled before :meth:`run`.
            inputs: checked.
            stored_inputs: the same as the row holds them: where they are large, a reference.
        """
        self._tools = tools
        self._definition = compiled.definition
        self._secrets = compiled.secrets
        self._agent = agent
        self._inputs = inputs
        self._wall_ms = step.duration_ms or 0
        self._tokens = 0
        self._micros = 0
        self._kills = 0
        self._cache_key = self._make_cache_key() if compiled.definition.cache else None
        attempt = {} if self._cache_key is not None else self._attempt_fields(step)
        self.step = replace(
            step,
            status=StepState.RUNNING,
            agent_id=agent.record.id,
            agent_name=agent.record.name,
            agent_version=agent.record.version,
            inputs=stored_inputs,
            started_at=step.started_at or now_text(),
            error=None,
            error_code=None,
            **attempt,
        )

    async def run(self) -> StepEnd:
        """Make attempts until one succeeds or the step may not be tried again."""
        if self._cache_key is not None:
            cached = await self._tools.journal.cached_result(self._cache_key, now_text())
            if cached is not None:
                return self._reuse(cached)
            self.step = replace(self.step, **self._attempt_fields(self.step))
            await self._tools.commit(RunChanges(steps=(self.step,)), NO_USAGE)
        while True:
            ended, outputs = await self._attempt_once()
            usage = Usage(ended.wall_ms or 0, ended.tokens, ended.cost_micros)
            self._wall_ms += usage.vm_time_ms
            if usage.tokens or usage.cost_micros:
                self.step = replace(
                    self.step,
                    api_tokens_used=self.step.api_tokens_used + usage.tokens,
                    cost_micros=self.step.cost_micros + usage.cost_micros,
                )
            if ended.status == Outcome.OK:
                return await self._succeed(ended, usage, outputs or {})
            was_killed = ended.error_code == KILLED and self._kills < MOST_KILLS
            pause = 0.0 if was_killed else self._pause_before_retry(ended.error_code)
            if pause is None:
                return StepEnd(self._ended(ended, StepState.FAILED, None), ended, usage)
            self._kills += was_killed
            await self._prepare_retry(ended, usage, pause, counts=not was_killed)

    def killed(self) -> InvocationRecord | None:
        """The invocation of the attempt that was under way when the step was given up."""
        if self.step.invocation_id is None or self.step.error_code is not None:
            return None  # none has begun, or the last is over and the next not begun yet
        started = self.step.attempt_started_at
        wall_ms = round((now() - from_text(started)).total_seconds() * 1000) if started else 0
        return replace(
            killed_record(self._started(self._context())),
            wall_ms=wall_ms,
            tokens=self._tokens,
            cost_micros=self._micros,
        )

    def _attempt_fields(self, step: StepRecord) -> dict[str, Any]:
        """The row's fields as the next attempt begins."""
        return {
            "attempt": step.attempt + 1,
            "attempt_started_at": now_text(),
            "invocation_id": new_id("inv"),
            "isolation": effective_isolation(
                self._agent, Isolation(self._tools.run.isolation), self._definition.isolation
            ),
        }

    async def _attempt_once(self) -> tuple[InvocationRecord, JsonObject | None]:
        """Make the attempt that stands on the row; its invocation as it ended, and the outputs."""
        tools, context = self._tools, self._context()
        started = self._started(context)
        services = AgentServices(
            tools.invoker.secrets(self._agent, tools.run.workflow_name),
            StepListener(self._label, self.step.attempt, tools.publish, tools.write_log),
            self._charge,
        )
        self._tokens = self._micros = 0
        wanted = self._definition.timeout_seconds or self._agent.definition.runtime.timeout_seconds
        granted, used = wanted, 0.0
        try:
            if tools.ledger is not None:
                granted = await tools.ledger.reserve(wanted)
            try:
                limit = granted if tools.ledger else self._definition.timeout_seconds
                call = self._call(context, limit)
                completed = await tools.invoker.invoke(self._agent, call, services)
                used = completed.result.usage.wall_ms / 1000
            finally:
                if tools.ledger is not None:
                    await tools.ledger.settle(granted, used)
        except SwarmError as error:
            failed = replace(
                failed_record(started, error), tokens=self._tokens, cost_micros=self._micros
            )
            return services.masked_record(failed), None
        if completed.result.traceback:
            services.log("log", "error", completed.result.traceback)
        ended = ended_record(started, completed, self._tokens, self._micros)
        if granted < wanted and ended.error_code == "timeout":
            ended = replace(
                ended,
                error_code="budget",
                error="the run's budget of sandbox time "
                f"is used up: {granted:.3g} s were left for this attempt",
            )
        return ended, completed.result.outputs

    def _call(self, context: CallContext, timeout_seconds: float | None) -> Call:
        return Call(
            inputs=self._inputs,
            context=context,
            files=self._tools.files,
            isolation=Isolation(self.step.isolation or Isolation.SANDBOX),
            timeout_seconds=timeout_seconds,
            network=self._definition.network,
            secrets=self._secrets,
            priority=self._tools.run.priority,
        )

    def _started(self, context: CallContext) -> InvocationRecord:
        isolation = Isolation(self.step.isolation or Isolation.SANDBOX)
        return started_record(
            self._agent,
            context,
            isolation,
            item_index=self.step.item_index,
            started_at=self.step.attempt_started_at,
        )

    def _context(self) -> CallContext:
        run, step, record = self._tools.run, self.step, self._agent.record
        return CallContext(
            invocation_id=step.invocation_id or "",
            idempotency_key=idempotency_key(run.id, step),
            agent=record.name,
            agent_version=record.version,
            attempt=step.attempt,
            run_id=run.id,
            step_id=step.step_id,
        )

    @property
    def _label(self) -> str:
        return step_label(self.step)

    def _charge(self, tokens: int, cost_micros: int) -> None:
        """Count what the agent says that it used; raises BudgetExceeded once that is too much."""
        self._tokens += tokens
        self._micros += cost_micros
        if self._tools.ledger is not None:
            self._tools.ledger.charge(tokens, cost_micros)
            self._tools.ledger.check()

    def _pause_before_retry(self, code: str | None) -> float | None:
        return retry_pause(self._definition.retry, self.step, code)

    async def _prepare_retry(
        self, ended: InvocationRecord, usage: Usage, pause: float, *, counts: bool
    ) -> None:
        """Journal the failed attempt, wait, and journal the next as running; ``counts`` says
        whether the failure is one of those that ``retry`` allows."""
        failed = replace(
            self.step,
            retry_count=self.step.retry_count + counts,
            error=ended.error,
            error_code=ended.error_code,
        )
        self.step = failed
        await self._tools.commit(RunChanges(steps=(failed,), invocations=(ended,)), usage)
        kinds: tuple[EventKind, EventKind] = ("step.retrying", "step.started")
        data: JsonObject = {}
        if failed.item_index != NO_ITEM:
            kinds, data = ("item.retrying", "item.started"), {"index": failed.item_index}
        self._tools.publish(
            kinds[0],
            failed.step_id,
            {
                **data,
                "attempt": failed.attempt,
                "error": ended.error,
                "error_code": ended.error_code,
                "delay_seconds": pause,
            },
        )
        await asyncio.sleep(pause)
        again = self._attempt_fields(failed)
        self.step = replace(failed, error=None, error_code=None, **again)
        await self._tools.commit(RunChanges(steps=(self.step,)), NO_USAGE)
        self._tools.publish(
            kinds[1],
            failed.step_id,
            {**data, "attempt": self.step.attempt, "agent": self._agent.reference},
        )

    async def _succeed(self, ended: InvocationRecord, usage: Usage, outputs: JsonObject) -> StepEnd:
        try:
            stored = await self._tools.values.stored(outputs)
        except SwarmError as error:
            failed = replace(ended, status="error", error=str(error), error_code=error.code)
            return StepEnd(self._ended(failed, StepState.FAILED, None), failed, usage)
        step = self._ended(ended, StepState.SUCCEEDED, stored)
        cache, key = self._definition.cache, self._cache_key
        if cache is None or key is None:
            return StepEnd(step, ended, usage)
        expires_at = to_text(now() + timedelta(seconds=cache.ttl_seconds))
        run = self._tools.run
        cached = CachedResult(
            key, stored, run.id, step.step_id, now_text(), expires_at, run.project_id
        )
        return StepEnd(step, ended, usage, cached)

    def _ended(
        self, ended: InvocationRecord, state: StepState, outputs: JsonObject | None
    ) -> StepRecord:
        # While it runs, the row tells since when; once it has ended, when its work began.
        started_at = ended.started_at if self.step.attempt == 1 else self.step.started_at
        return replace(
            self.step,
            status=state,
            outputs=outputs,
            started_at=started_at,
            vm_id=ended.sandbox_id,
            isolation=ended.isolation,
            completed_at=now_text(),
            duration_ms=self._wall_ms,
            error=ended.error,
            error_code=ended.error_code,
        )

    def _reuse(self, cached: CachedResult) -> StepEnd:
        step = replace(
            self.step,
            status=StepState.SUCCEEDED,
            outputs=cached.outputs,
            reused_from=cached.run_id,
            completed_at=now_text(),
            duration_ms=0,
        )
        return StepEnd(step)

    def _make_cache_key(self) -> str:
        """The digest of all that the result may depend on.

        Secrets are in it by name, files by digest; local directories by reference, which is new for
        each run. The key reveals nothing: it is a digest of what the journal holds too.
        """
        record = self._agent.record
        parts = {
            "project": record.project_id,
            "package": record.digest,
            "environment": record.environment_digest,
            "inputs": self._inputs,
            "network": list(self._definition.network or ()),
        }
        return hashlib.sha256(dump_bytes(parts)).hexdigest()


def idempotency_key(run_id: str, step: StepRecord) -> str:
    """What stays the same for all attempts of a step, or of one item of it."""
    key = f"{run_id}:{step.step_id}"
    return key if step.item_index == NO_ITEM else f"{key}:{step.item_index}"


def step_label(step: StepRecord) -> str:
    """How logs call a step, or an item of it: ``resize`` or ``resize[3]``."""
    return step.step_id if step.item_index == NO_ITEM else f"{step.step_id}[{step.item_index}]"


def interrupted_record(run: RunRecord, step: StepRecord, digest: str) -> InvocationRecord:
    """The invocation that a host which died had under way, closed."""
    return InvocationRecord(
        id=step.invocation_id or new_id("inv"),
        agent_id=step.agent_id or "",
        agent_name=step.agent_name or "",
        agent_version=step.agent_version or "",
        digest=digest,
        status="interrupted",
        run_id=run.id,
        step_id=step.step_id,
        item_index=step.item_index,
        attempt=step.attempt,
        isolation=step.isolation or run.isolation,
        started_at=step.attempt_started_at,
        completed_at=now_text(),
        error="the process that drove the run died",
        error_code="interrupted",
        project_id=run.project_id,
    )


def retry_pause(retry: RetryDefinition | None, step: StepRecord, code: str | None) -> float | None:
    """Seconds until the next attempt of a step that failed with ``code``; None if there is none."""
    if retry is None or code in NEVER_RETRIED or (retry.on and code not in retry.on):
        return None
    failures = step.retry_count + 1
    return None if failures >= retry.attempts else retry_delay(retry, failures)


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
