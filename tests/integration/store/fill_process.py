"""Fills the disk of ``fill_process.py <folder>``, and checks what the store made of it."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

from swarm.kernel.errors import DatabaseError
from swarm.kernel.settings import Settings
from swarm.store.records import (
    NewRun,
    RunChanges,
    RunRecord,
    StepRecord,
    StepState,
    WorkflowRecord,
)
from swarm.store.sqlite import SqliteStore, open_store

CHAINS = 20
BALLAST_BYTES = 300_000


async def fill(store: SqliteStore, chain: int, done: set[tuple[str, str]]) -> DatabaseError:
    """Commit steps until the disk is full; each also counts itself in its run."""
    run_id = f"run_{chain}"
    number = 0
    while True:
        step = StepRecord(f"{run_id}_{number}", run_id, f"s{number}", outputs={"text": "x" * 5000})
        try:
            await store.commit(run_id, 0, RunChanges((step,), run={"total_api_tokens": number + 1}))
        except DatabaseError as error:
            return error
        done.add((run_id, step.step_id))
        number += 1


async def main(folder: Path) -> str:
    database = folder / "registry.db"
    ballast = folder / "ballast"
    ballast.write_bytes(b"x" * BALLAST_BYTES)
    settings = Settings(home=folder)
    store = await open_store(database, settings)
    await store.add_workflow(WorkflowRecord("wf_1", "w", "1.0.0", "sha256:b", "/", {}))
    for chain in range(CHAINS):
        await store.create_run(NewRun(RunRecord(f"run_{chain}", "wf_1", "w", "1.0.0")))
    done: set[tuple[str, str]] = set()
    errors = await asyncio.gather(*(fill(store, chain, done) for chain in range(CHAINS)))
    for error in errors:
        assert "full" in error.message or "disk" in str(error.remedy), str(error)
    assert done
    for chain in range(CHAINS):
        stored = {(step.run_id, step.step_id) for step in await store.list_steps(f"run_{chain}")}
        acknowledged = {item for item in done if item[0] == f"run_{chain}"}
        assert stored == acknowledged, "all that was acknowledged, and nothing else"
        run = await store.get_run(f"run_{chain}")
        assert run is not None
        assert run.total_api_tokens == len(stored)

    ballast.unlink()
    step = StepRecord("after", "run_0", "after", status=StepState.SUCCEEDED)
    await store.commit("run_0", 0, RunChanges((step,)))
    await store.close()
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        (count,) = connection.execute("SELECT count(*) FROM step_executions").fetchone()
    assert count == len(done) + 1
    return f"ok: {len(done)} commits fitted"


if __name__ == "__main__":
    sys.stdout.write(asyncio.run(main(Path(sys.argv[1]))) + "\n")
