"""Events told from the journal, for followers that come late."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from swarm.engine.events import RunEvent
from swarm.store.records import RunRecord, StepRecord, StepState


class Told:
    """What a follower has been told, so that it is told once, by whomever."""

    def __init__(self) -> None:
        self._ended: set[str] = set()
        self._started: set[tuple[str, int]] = set()

    def is_new(self, event: RunEvent) -> bool:
        """Whether the event says something that was not told; from now on it was."""
        step = event.step_id or ""
        if event.kind == "step.finished":
            is_new = step not in self._ended
            self._ended.add(step)
        elif event.kind == "step.started":
            attempt = (step, event.data["attempt"])
            is_new = attempt not in self._started
            self._started.add(attempt)
        else:
            is_new = True
        return is_new


def recorded_events(steps: Iterable[StepRecord]) -> Iterator[RunEvent]:
    """The events that tell how far a run has come."""
    for step in steps:
        if step.status is StepState.RUNNING:
            yield RunEvent(
                step.run_id,
                "step.started",
                step.step_id,
                {
                    "attempt": step.retry_count + 1,
                    "agent": f"{step.agent_name}@{step.agent_version}",
                },
                time=step.started_at or "",
            )
        elif step.status.is_final:
            yield RunEvent(
                step.run_id,
                "step.finished",
                step.step_id,
                {
                    "status": str(step.status),
                    "error": step.error,
                    "error_code": step.error_code,
                    "duration_ms": step.duration_ms,
                },
                time=step.completed_at or "",
            )


def finished_event(run: RunRecord) -> RunEvent:
    """The last event of a run that has ended."""
    return RunEvent(
        run.id,
        "run.finished",
        None,
        {
            "status": str(run.status),
            "outputs": run.outputs,
            "error": run.error,
            "error_code": run.error_code,
            "error_step": run.error_step,
        },
        time=run.completed_at or "",
    )
