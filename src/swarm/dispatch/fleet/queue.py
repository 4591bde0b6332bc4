"""The queue of runs that nobody drives: jobs of Procrastinate, each a hint to look at one run.

A job names a run and waits in the queue of the labels that the run asks for, and of its format: a
worker of an older Swarm, which does not understand it, takes none from there. A host takes it out
and tries to claim the run: who drives a run is decided by the run's own row. So a job may be lost
with the host that has just taken it (the sweep makes another) or be there twice (the second finds
the run taken).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import Any, Final, LiteralString

from swarm.dispatch.ports import Placement
from swarm.kernel.errors import InvalidError

TASK: Final = "swarm.drive"
MAX_LABELS = 8
"""Labels of one host: it listens to the queue of each set of them."""
_MAX_QUEUE_NAME = 40
"""Characters: the name of the channel that Procrastinate notifies, with its prefix, has 63."""
CHANNEL_PREFIX: Final = "procrastinate_queue_v1#"

ENQUEUE: Final[LiteralString] = """
SELECT procrastinate_defer_jobs_v1(array_agg(ROW(
    new.queue, 'swarm.drive', new.priority, NULL, new.run_id,
    jsonb_build_object('run_id', new.run_id), NULL
)::procrastinate_job_to_defer_v1))
FROM unnest(%s::text[], %s::text[], %s::integer[]) AS new(run_id, queue, priority)
WHERE NOT EXISTS (
    SELECT 1 FROM procrastinate_jobs AS job
    WHERE job.queueing_lock = new.run_id AND job.status = 'todo'
)
"""
TAKE: Final[LiteralString] = """
WITH taken AS (
    DELETE FROM procrastinate_jobs WHERE id = ANY(ARRAY(
        SELECT id FROM procrastinate_jobs WHERE status = 'todo' AND queue_name = ANY(%s)
        ORDER BY priority DESC, id LIMIT %s FOR UPDATE SKIP LOCKED
    )) RETURNING id, priority, queueing_lock
)
SELECT queueing_lock FROM taken WHERE set_config('synchronous_commit', 'off', true) = 'off'
ORDER BY priority DESC, id
"""
"""Takes up to so many jobs out of these queues; gives their runs.

It does not wait for the disk. If a crash of the server undoes it, the jobs are there again, and
whoever takes them then finds whose the runs are."""
QUEUES: Final[LiteralString] = """
SELECT job.queue_name, count(*), extract(epoch FROM now() - min(event.at))
FROM procrastinate_jobs AS job
JOIN procrastinate_events AS event ON event.job_id = job.id AND event.type = 'deferred'
WHERE job.status = 'todo' GROUP BY job.queue_name ORDER BY job.queue_name
"""


def queue_of(labels: Iterable[str], format_version: int = 1) -> str:
    """The queue of runs of this format that ask for exactly these labels."""
    ordered = sorted(set(labels))
    base = "swarm" if format_version == 1 else f"swarm@{format_version}"
    if not ordered:
        return base
    name = f"{base}:" + "+".join(ordered)
    if len(name.encode()) <= _MAX_QUEUE_NAME:
        return name
    return f"{base}:#" + hashlib.sha256(name.encode()).hexdigest()[:24]


def queues_for(labels: Iterable[str], format_version: int = 1) -> list[str]:
    """The queues of all runs that a host with these labels can drive, up to this format.

    Raises:
        InvalidError: there are too many labels.
    """
    ordered = sorted(set(labels))
    if len(ordered) > MAX_LABELS:
        raise InvalidError(
            f"a host may have {MAX_LABELS} labels; these are {len(ordered)}",
            remedy="start another worker for some of them",
        )
    sets = [some for count in range(len(ordered) + 1) for some in combinations(ordered, count)]
    return [queue_of(some, number) for number in range(1, format_version + 1) for some in sets]


def enqueue_values(runs: Sequence[Placement]) -> tuple[list[Any], list[Any], list[Any]]:
    """The values of :data:`ENQUEUE`."""
    once = {run.run_id: run for run in runs}.values()
    return (
        [run.run_id for run in once],
        [queue_of(run.runs_on, run.format_version) for run in once],
        [run.priority for run in once],
    )
