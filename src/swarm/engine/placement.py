"""Which runs go to whom: what decides it, as the processes that drive runs are told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from swarm.dispatch.ports import Placement
from swarm.kernel.errors import ConflictError
from swarm.store.records import RUN_FORMAT, RunRecord, RunState


def placement(run: RunRecord) -> Placement:
    """The run, for a process that is to take it up."""
    return Placement(run.id, run.priority, run.runs_on, run.format_version)


def is_understood(run: RunRecord) -> bool:
    """Whether this Swarm can drive the run."""
    return run.format_version <= RUN_FORMAT


def refuse_newer(run: RunRecord) -> None:
    """Refuse to drive what only a newer Swarm understands.

    Raises:
        ConflictError: it is such a run.
    """
    if not is_understood(run):
        raise ConflictError(
            f"run {run.id} was recorded by a newer Swarm (format {run.format_version}); this one "
            f"understands runs up to format {RUN_FORMAT}",
            remedy="upgrade this Swarm, or leave the run to a newer worker",
        )


def foremost(
    runs: Sequence[RunRecord], counts: Counter[tuple[str, str]] | None = None
) -> list[RunRecord]:
    """Runs without those that would only find the places of their concurrency key taken: of the
    pending ones, as many as may go on at once. ``counts`` are those of the runs before."""
    counts = Counter() if counts is None else counts
    kept = []
    for run in sorted(runs, key=lambda run: -run.priority):
        if run.status is RunState.PENDING and run.concurrency_key is not None:
            key = (run.project_id, run.concurrency_key)
            counts[key] += 1
            if counts[key] > (run.concurrency_limit or len(runs)):
                continue
        kept.append(run)
    return kept
