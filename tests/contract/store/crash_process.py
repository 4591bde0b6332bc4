"""Commits until it is killed: ``crash_process.py <address> <home>``.

For each line on stdin it forks a child (so that a round does not pay for starting Python), prints
``child <pid>`` and waits for it. The child drives chains of commits, and prints
``<run> <step> <number>`` for each once it is acknowledged. Then comes ``ended``.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from swarm.kernel.ids import new_id
from swarm.kernel.settings import Settings
from swarm.store.ports import Store
from swarm.store.records import (
    NewRun,
    RunChanges,
    RunRecord,
    RunState,
    StepRecord,
    StepState,
    WorkflowRecord,
)
from tests.contract.store.backends import open_at

CHAINS = 8


async def chain(store: Store) -> None:
    """Finish one step after the other; each commit finishes one, starts the next and counts."""
    run_id = new_id("run")
    run = RunRecord(run_id, "wf_1", "w", "1.0.0", status=RunState.RUNNING)
    step = StepRecord(new_id("step"), run_id, "s0", status=StepState.RUNNING)
    await store.create_run(NewRun(run, (step,)))
    number = 0
    while True:
        number += 1
        done = StepRecord(step.id, run_id, step.step_id, status=StepState.SUCCEEDED)
        step = StepRecord(new_id("step"), run_id, f"s{number}", status=StepState.RUNNING)
        changes = RunChanges((done, step), run={"total_api_tokens": number})
        await store.commit(run_id, 0, changes)
        os.write(1, f"{run_id} {done.step_id} {number}\n".encode())


async def drive(address: str, settings: Settings) -> None:
    store = await open_at(address, settings)
    await store.add_workflow(WorkflowRecord("wf_1", "w", "1.0.0", "sha256:b", "/", {}))
    await asyncio.gather(*(chain(store) for _ in range(CHAINS)))


def main(address: str, home: Path) -> None:
    for _ in sys.stdin:
        child = os.fork()
        if child == 0:
            asyncio.run(drive(address, Settings(home=home)))
        os.write(1, f"child {child}\n".encode())
        os.waitpid(child, 0)
        os.write(1, b"ended\n")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
