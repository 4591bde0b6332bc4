"""Finding runs by what users type."""

from __future__ import annotations

from swarm.kernel.errors import InvalidError, NotFoundError
from swarm.store.ports import RunJournal
from swarm.store.records import RunRecord

OFFERED = 5
"""Runs that are named when the start of an id is not enough."""


async def find_run(journal: RunJournal, run_id_or_prefix: str) -> RunRecord:
    """The run with this id, or the only one whose id starts so.

    Raises:
        NotFoundError: none does; InvalidError: several do.
    """
    run = await journal.get_run(run_id_or_prefix)
    if run is not None:
        return run
    found = await journal.find_runs(run_id_or_prefix, OFFERED)
    if len(found) == 1:
        return found[0]
    if found:
        raise InvalidError(
            f"{run_id_or_prefix} is the start of several runs",
            remedy="give more of the id: " + ", ".join(run.id for run in found),
        )
    raise NotFoundError(
        f"there is no run {run_id_or_prefix}", remedy="`swarm runs list` shows the runs"
    )
