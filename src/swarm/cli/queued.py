"""Why a run has not begun."""

from __future__ import annotations

from swarm.cli.terminal import clean
from swarm.dispatch.ports import Peers, Placement
from swarm.store.records import RunRecord, RunState


async def queued_note(peers: Peers, run: RunRecord) -> str | None:
    """Why a run that was started has to wait for its turn; None if it need not.

    Args:
        peers: the processes that could drive it.
        run: as it is recorded now.
    """
    if run.status not in (RunState.PENDING, RunState.RUNNING) or run.owner is not None:
        return None
    if not await peers.serves(Placement(run.id, run.priority, run.runs_on, run.format_version)):
        if run.runs_on:
            which = f"worker with the {'label' if len(run.runs_on) == 1 else 'labels'} "
            which += ", ".join(run.runs_on)
            remedy = "swarm worker " + " ".join(f"--label {label}" for label in run.runs_on)
        else:
            which, remedy = "worker", "swarm worker"
        return clean(f"run {run.id} waits for a {which}; none is there: {remedy}")
    key, limit = run.concurrency_key, run.concurrency_limit
    if key is None:
        return None
    at_once = "one run goes" if limit == 1 else f"{limit} runs go"
    return clean(
        f"run {run.id} is queued: {at_once} on at once with the concurrency key {key}; it starts "
        "when another one has ended"
    )
