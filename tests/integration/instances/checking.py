"""What must hold of every run of an imported instance, by its journal."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from swarm.store.records import RunRecord, StepRecord
from tests.integration.instances.expected import Expected, critical_path


def seconds_between(start: str | None, end: str | None) -> float:
    assert start is not None
    assert end is not None
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()


def check_run(run: RunRecord, steps: Sequence[StepRecord], expected: Expected) -> None:
    """Every step ran once, after all before it, gave what it should; the times fit together."""
    assert run.status == "succeeded", (run.error_step, run.error)
    assert sorted(step.step_id for step in steps) == sorted(expected.parents)
    found = {step.step_id: step for step in steps}
    early = [
        (step, parent)
        for step, parents in expected.parents.items()
        for parent in parents
        if (found[step].started_at or "") < (found[parent].completed_at or "~")
    ]
    assert early == [], "steps that started before what they wait for had ended"
    wrong = [step for step in expected.parents if found[step].outputs != expected.outputs[step]]
    assert wrong == []
    waited_for = {parent for parents in expected.parents.values() for parent in parents}
    last = {step for step in expected.parents if step not in waited_for}
    assert run.outputs == {"digests": {step: expected.outputs[step]["digest"] for step in last}}
    durations = {
        step: seconds_between(record.started_at, record.completed_at)
        for step, record in found.items()
    }
    assert seconds_between(run.started_at, run.completed_at) >= critical_path(
        expected.parents, durations
    )
