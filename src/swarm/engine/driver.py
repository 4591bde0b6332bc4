"""Drives one run: starts what is reachable, journals what happens, ends the run.

The journal leads: a step is recorded as running before its sandbox starts, and the commit that ends
a step also marks what it made reachable. So a process that dies at any moment leaves a journal from
which another can go on: ended steps are never run again, running ones are.

Only the driver's own task touches the state; steps report to it through a queue.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from swarm.engine.compiled import CompiledNotification, CompiledWorkflow, named_steps
from swarm.engine.events import EventKind, RunEvent
from swarm.engine.files import FileAccess
from swarm.engine.invocations import Invoker, PinnedAgent, checked_inputs
from swarm.engine.logs import RunLog
from swarm.engine.plan import Progress
from swarm.engine.steps import StepEnd, StepExecution, StepTools, failed_step
from swarm.expressions.template import Template, evaluate_condition
from swarm.kernel.clock import now_text
from swarm.kernel.errors import SwarmError
from swarm.kernel.json import JsonObject, JsonValue
from swarm.store.ports import RunJournal
from swarm.store.records import (
    InvocationRecord,
    RunChanges,
    RunRecord,
    RunState,
    StepRecord,
    StepState,
)

NOT_REACHED = "not_reached"
"""``error_code`` of a step that was never looked at because the run ended before."""


@dataclass(slots=True)
class _Batch:
    """What one commit will hold, and what follows once it is durable."""

    steps: list[StepRecord] = field(default_factory=list)
    invocations: list[InvocationRecord] = field(default_factory=list)
    run: dict[str, Any] = field(default_factory=dict)
    starting: list[StepExecution] = field(default_factory=list)
    events: list[tuple[EventKind, str | None, JsonObject]] = field(default_factory=list)

    def changes(self) -> RunChanges:
        return RunChanges(tuple(self.steps), tuple(self.invocations), self.run)


class RunDriver:
    """Drives one claimed run to its end."""

    def __init__(
        self,
        run: RunRecord,
        workflow: CompiledWorkflow,
        agents: Mapping[str, PinnedAgent],
        *,
        journal: RunJournal,
        invoker: Invoker,
        files: FileAccess,
        log: RunLog,
        publish: Callable[[RunEvent], object],
    ) -> None:
        """
        Args:
            run: as it was claimed; every commit carries its epoch.
            workflow: what the run is pinned to.
            agents: the pinned agents by their references in the steps.
            journal: where all is recorded.
            invoker: runs the invocations.
            files: what file values may refer to.
            log: receives what agents log.
            publish: receives what happens, once it is durable.
        """
        self._run = run
        self._workflow = workflow
        self._agents = agents
        self._journal = journal
        self._log = log
        self._log_failed = False
        self._publish_event = publish
        self._steps: dict[str, StepRecord] = {}
        self._attempts: dict[str, int] = {}
        self._results: dict[str, JsonObject] = {}
        self._progress = Progress(workflow.plan)
        self._running: dict[str, asyncio.Task[StepEnd]] = {}
        self._ends: asyncio.Queue[StepEnd | BaseException | None] = asyncio.Queue()
        self._cancelling = run.cancel_requested
        self._scope: dict[str, JsonValue] = {
            "inputs": run.inputs,
            "trigger": run.trigger_data,
            "config": dict(workflow.definition.config),
            "variables": run.variables,
            "run": {"id": run.id, "workflow": run.workflow_name, "started_at": run.started_at},
        }
        self._tools = StepTools(run, invoker, files, self._commit, self._publish, self._write_log)

    def cancel(self) -> None:
        """End the run as cancelled: running sandboxes are killed, nothing further starts."""
        self._cancelling = True
        self._ends.put_nowait(None)

    async def drive(self) -> RunRecord:
        """Drive to the end and return the run as it ended.

        Cancelling this coroutine kills the sandboxes and leaves the run as it stands, to be
        resumed.

        Raises:
            OwnershipLost: another host has taken the run over.
            DatabaseError: the journal cannot be written; the run can be resumed later.
        """
        try:
            await self._begin()
            while self._running and not self._cancelling:
                await self._next_ends()
            if self._run.status.is_final:
                return self._run
            return await self._end_cancelled()
        finally:
            await self._kill_running()
            self._log.close()

    async def _begin(self) -> None:
        """Read how far the run has come and start what is reachable."""
        steps = await self._journal.list_steps(self._run.id)
        self._steps = {step.step_id: step for step in steps}
        interrupted = await self._read_attempts()
        ended = {}
        for step in steps:
            if step.status.is_final:
                ended[step.step_id] = step.status
                self._results[step.step_id] = step_result(step)
        self._progress = Progress(self._workflow.plan, ended)
        resumed = self._run.started_at is not None
        started_at = self._run.started_at or now_text()
        self._scope["run"] = {**self._scope["run"], "started_at": started_at}
        batch = _Batch(invocations=interrupted)
        batch.run = {"status": RunState.RUNNING, "started_at": started_at}
        self._run = replace(self._run, status=RunState.RUNNING, started_at=started_at)
        batch.events.append(("run.started", None, {"resumed": resumed}))
        if not self._cancelling:
            self._start_reachable(self._progress.reachable(), batch)
        await self._apply(batch)

    async def _read_attempts(self) -> list[InvocationRecord]:
        """Count attempts made so far; return those that a dead host left running, closed."""
        interrupted: list[InvocationRecord] = []
        if self._run.started_at is None:
            return interrupted
        for invocation in await self._journal.list_invocations(self._run.id):
            step_id = invocation.step_id or ""
            self._attempts[step_id] = max(self._attempts.get(step_id, 0), invocation.attempt)
            if invocation.status == "running":
                interrupted.append(
                    replace(
                        invocation,
                        status="interrupted",
                        completed_at=now_text(),
                        error="the process that drove the run died",
                        error_code="interrupted",
                    )
                )
        return interrupted

    async def _next_ends(self) -> None:
        """Wait for steps to end, and journal all that have together."""
        ends = [await self._ends.get()]
        while not self._ends.empty():
            ends.append(self._ends.get_nowait())
        batch = _Batch()
        reachable: list[str] = []
        for end in ends:
            if isinstance(end, BaseException):
                raise end
            if end is not None:
                reachable += self._note_end(end, batch)
        # A failure may have been noted after an earlier end made steps reachable.
        self._start_reachable([] if self._progress.failed else reachable, batch)
        await self._apply(batch)

    def _note_end(self, end: StepEnd, batch: _Batch) -> list[str]:
        step = end.step
        self._running.pop(step.step_id, None)
        if end.invocation is not None:
            batch.invocations.append(end.invocation)
        total = self._run.total_vm_time_ms + end.wall_ms
        self._run = replace(self._run, total_vm_time_ms=total)
        batch.run["total_vm_time_ms"] = total
        return self._record_end(step, batch)

    def _record_end(self, step: StepRecord, batch: _Batch) -> list[str]:
        self._steps[step.step_id] = step
        self._results[step.step_id] = step_result(step)
        batch.steps.append(step)
        batch.events.append(
            (
                "step.finished",
                step.step_id,
                {
                    "status": str(step.status),
                    "error": step.error,
                    "error_code": step.error_code,
                    "duration_ms": step.duration_ms,
                },
            )
        )
        return self._progress.end(step.step_id, step.status)

    def _start_reachable(self, reachable: list[str], batch: _Batch) -> None:
        """Start, skip or fail each reachable step, and whatever that makes reachable."""
        pending = list(reversed(reachable))
        while pending and not self._progress.failed:
            step_id = pending.pop()
            try:
                execution = self._start_or_skip(step_id)
            except SwarmError as error:
                pending += reversed(
                    self._record_end(failed_step(self._steps[step_id], error), batch)
                )
                continue
            if execution is None:
                skipped = replace(
                    self._steps[step_id], status=StepState.SKIPPED, completed_at=now_text()
                )
                pending += reversed(self._record_end(skipped, batch))
                continue
            self._steps[step_id] = execution.step
            batch.steps.append(execution.step)
            batch.invocations.append(execution.invocation)
            batch.starting.append(execution)
            batch.run["current_step"] = step_id
        if not batch.starting and not self._running:
            self._end_run(batch)

    def _start_or_skip(self, step_id: str) -> StepExecution | None:
        """The step's execution, ready to be journalled and run; None if it is skipped.

        Raises:
            ExpressionError, InputError: its condition or inputs cannot be had.
        """
        compiled = self._workflow.steps[step_id]
        if self._progress.is_skipped(step_id):
            return None
        scope = self._scope_for(compiled.steps_named)
        if compiled.when is not None and not evaluate_condition(compiled.when, scope):
            return None
        agent = self._agents[compiled.definition.agent or ""]
        inputs = checked_inputs(agent, compiled.inputs.evaluate(scope), compiled.secrets)
        attempt = self._attempts.get(step_id, 0) + 1
        running = replace(
            self._steps[step_id],
            status=StepState.RUNNING,
            agent_id=agent.record.id,
            agent_name=agent.record.name,
            agent_version=agent.record.version,
            inputs=inputs,
            started_at=self._steps[step_id].started_at or now_text(),
        )
        return StepExecution(self._tools, compiled, agent, running, attempt)

    def _scope_for(self, steps: Iterable[str]) -> dict[str, JsonValue]:
        """The names an expression sees; only the steps it reads, so that cost stays flat."""
        results = {step: self._results[step] for step in steps if step in self._results}
        return {**self._scope, "steps": results}

    async def _apply(self, batch: _Batch) -> None:
        """Make the batch durable, then tell followers and start sandboxes."""
        if batch.steps or batch.invocations or batch.run:
            await self._commit(batch.changes())
        for event in batch.events:
            self._publish(*event)
        for execution in batch.starting:
            step_id = execution.step.step_id
            self._publish(
                "step.started",
                step_id,
                {
                    "attempt": execution.invocation.attempt,
                    "agent": f"{execution.step.agent_name}@{execution.step.agent_version}",
                },
            )
            task = asyncio.create_task(execution.run(), name=f"{self._run.id}:{step_id}")
            task.add_done_callback(self._report_end)
            self._running[step_id] = task

    def _report_end(self, task: asyncio.Task[StepEnd]) -> None:
        """Pass a step's end to the driver; an error (a failed journal, a bug) ends the drive."""
        if not task.cancelled():
            self._ends.put_nowait(task.exception() or task.result())

    def _end_run(self, batch: _Batch) -> None:
        """Decide how the run ended; it is journalled with the last step."""
        error: SwarmError | None = None
        outputs: JsonObject | None = None
        failed = next(
            (
                step
                for step in self._steps.values()
                if step.status is StepState.FAILED
                and self._workflow.steps[step.step_id].definition.on_error == "fail"
            ),
            None,
        )
        if failed is None:
            try:
                scope = self._scope_for(named_steps(self._workflow.outputs))
                outputs = self._workflow.outputs.evaluate(scope)
            except SwarmError as caught:
                error = caught
        ended: dict[str, Any] = {"status": RunState.SUCCEEDED, "outputs": outputs}
        if failed is not None:
            ended = {
                "status": RunState.FAILED,
                "error": failed.error,
                "error_code": failed.error_code,
                "error_step": failed.step_id,
            }
        elif error is not None:
            ended = {"status": RunState.FAILED, "error": str(error), "error_code": error.code}
        self._close_run(ended, batch)

    def _close_run(self, ended: dict[str, Any], batch: _Batch) -> None:
        unreached = (
            StepState.CANCELLED if ended["status"] is RunState.CANCELLED else StepState.SKIPPED
        )
        for step_id in self._progress.unreached:
            step = replace(
                self._steps[step_id],
                status=unreached,
                completed_at=now_text(),
                error_code=NOT_REACHED,
            )
            self._steps[step_id] = step
            self._results[step_id] = step_result(step)
            batch.steps.append(step)
        self._run = replace(self._run, **ended, completed_at=now_text())
        batch.run |= {
            **ended,
            "completed_at": self._run.completed_at,
            "step_results": {step: self._results[step] for step in self._steps},
        }
        self._notify(batch)
        batch.events.append(
            (
                "run.finished",
                None,
                {
                    "status": str(self._run.status),
                    "outputs": self._run.outputs,
                    "error": self._run.error,
                    "error_code": self._run.error_code,
                    "error_step": self._run.error_step,
                },
            )
        )

    async def _end_cancelled(self) -> RunRecord:
        """Kill what runs and journal the run as cancelled."""
        killed = await self._kill_running()
        batch = _Batch()
        while not self._ends.empty():  # what ended before the kill reached it stands
            end = self._ends.get_nowait()
            if isinstance(end, StepEnd):
                killed.remove(end.step.step_id)
                self._note_end(end, batch)
        for step_id in killed:
            self._record_end(
                replace(
                    self._steps[step_id],
                    status=StepState.CANCELLED,
                    completed_at=now_text(),
                    error="the run was cancelled",
                    error_code="cancelled",
                ),
                batch,
            )
        self._close_run(
            {
                "status": RunState.CANCELLED,
                "error": "the run was cancelled",
                "error_code": "cancelled",
            },
            batch,
        )
        await self._apply(batch)
        return self._run

    async def _kill_running(self) -> list[str]:
        """Cancel the running steps, wait until their sandboxes are gone, return their ids."""
        running, self._running = self._running, {}
        for task in running.values():
            task.cancel()
        for task in running.values():
            with contextlib.suppress(asyncio.CancelledError):
                await task
        return list(running)

    def _notify(self, batch: _Batch) -> None:
        """Send the run's notifications. Written before the commit: at least once."""
        notifications: tuple[CompiledNotification, ...] = ()
        if self._run.status is RunState.SUCCEEDED:
            notifications = self._workflow.on_success
        elif self._run.status is RunState.FAILED:
            notifications = self._workflow.on_error
        for notification in notifications:
            level, message = self._notification_text(notification)
            self._write_log(None, 0, "notify", level, message)
            batch.events.append(("notify", None, {"level": level, "message": message}))

    def _notification_text(self, notification: CompiledNotification) -> tuple[str, str]:
        template: Template = notification.message
        scope = self._scope_for(named_steps(template))
        scope["error"] = {
            "message": self._run.error,
            "code": self._run.error_code,
            "step": self._run.error_step,
        }
        try:
            return notification.definition.level, str(template.evaluate(scope))
        except SwarmError as error:
            return "error", f"a notification could not be written: {error}"

    async def _commit(self, changes: RunChanges) -> None:
        await self._journal.commit(self._run.id, self._run.epoch, changes)

    def _publish(self, kind: EventKind, step_id: str | None, data: JsonObject) -> None:
        self._publish_event(RunEvent(self._run.id, kind, step_id, data))

    def _write_log(
        self, step_id: str | None, attempt: int, stream: str, level: str, message: str
    ) -> None:
        """Keep a line; should that fail, say so once and go on: the work matters more."""
        try:
            self._log.append(step_id, attempt, stream, level, message)
        except SwarmError as error:
            if not self._log_failed:
                self._log_failed = True
                self._publish(
                    "log", None, {"stream": "log", "level": "error", "message": str(error)}
                )


def step_result(step: StepRecord) -> JsonObject:
    """What expressions and ``step_results`` see of an ended step."""
    result: JsonObject = {"status": str(step.status), "outputs": step.outputs or {}, "error": None}
    if step.error is not None or step.status is StepState.FAILED:
        result["error"] = {"message": step.error, "code": step.error_code}
    return result
