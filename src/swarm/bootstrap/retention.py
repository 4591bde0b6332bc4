"""Old runs and calls go: their rows, logs and the copies of their files."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import suppress
from pathlib import Path

from msgspec.structs import replace

from swarm.engine.logs import log_path
from swarm.kernel.clock import ago_text, now_text
from swarm.kernel.home import Home
from swarm.store.ports import Store
from swarm.store.records import RunFilter, RunRecord, RunState

SECONDS_PER_DAY = 86_400
BATCH = 200
"""Runs deleted at a time, so that no commit blocks other writers for long."""


def run_files(home: Home, run_id: str) -> Path:
    """The folder with readable copies of the files that a run gave."""
    return home.artifacts / "runs" / run_id


async def purge_expired(store: Store, home: Home, days: float) -> list[str]:
    """Delete runs that ended longer ago than ``days``, oldest first, at most ``BATCH`` of them,
    and all that is kept of calls outside runs and of events as old as that. Results that steps
    may use again go once they have expired.

    Returns:
        The ids of the runs that are gone.
    """
    before = ago_text(days * SECONDS_PER_DAY)
    purged = await store.purge_runs(before, BATCH)
    while await store.purge_invocations(before, BATCH) == BATCH:
        pass
    while await store.purge_events(before, BATCH) == BATCH:
        pass
    while await store.purge_cached(now_text(), BATCH) == BATCH:
        pass
    await asyncio.to_thread(_remove_files, home, purged)
    await asyncio.to_thread(_remove_invocation_files, home, days)
    if len(purged) < BATCH:
        await _remove_strays(store, home, days)
    return purged


async def ended_runs(
    store: Store, before: str, states: Collection[RunState] = ()
) -> AsyncIterator[list[RunRecord]]:
    """The runs that ended, or were imported, before the moment ``before``, a batch at a time,
    newest first, without their documents; those in one of ``states``, if some are given."""
    wanted = tuple(state for state in states or RunState if state.is_final)
    page = RunFilter(states=wanted, created_before=before, limit=BATCH, documents=False)
    while wanted and (runs := await store.list_runs(page)):
        yield [run for run in runs if (run.imported_at or run.completed_at or before) < before]
        page = replace(page, before_id=runs[-1].id)


async def delete_runs(store: Store, home: Home, run_ids: Sequence[str]) -> list[str]:
    """Delete runs that have ended, with their logs and the copies of their files; return ids."""
    deleted = await store.delete_runs(run_ids)
    await asyncio.to_thread(_remove_files, home, deleted)
    return deleted


def _remove_files(home: Home, run_ids: list[str]) -> None:
    for run_id in run_ids:
        log_path(home.run_logs, run_id).unlink(missing_ok=True)
        shutil.rmtree(run_files(home, run_id), ignore_errors=True)


async def _remove_strays(store: Store, home: Home, days: float) -> None:
    """Remove what is left here of runs that another machine of the same database has deleted."""
    old = await asyncio.to_thread(_runs_with_old_files, home, days)
    if old:
        known = await store.run_owners(old)
        await asyncio.to_thread(_remove_files, home, [each for each in old if each not in known])


def _runs_with_old_files(home: Home, days: float) -> list[str]:
    before = time.time() - days * SECONDS_PER_DAY
    found = []
    logs, copies = home.run_logs.glob("run_*.jsonl"), (home.artifacts / "runs").glob("run_*")
    for path in (*logs, *copies):
        with suppress(FileNotFoundError):  # another process was faster
            if path.stat().st_mtime < before:
                found.append(path.name.partition(".")[0])
    return found


def _remove_invocation_files(home: Home, days: float) -> None:
    """Remove old copies of what agents gave outside any run; nothing else lists them."""
    before = time.time() - days * SECONDS_PER_DAY
    for folder in (home.artifacts / "runs").glob("inv_*"):
        try:
            expired = folder.stat().st_mtime < before
        except FileNotFoundError:  # another process was faster
            continue
        if expired:
            shutil.rmtree(folder, ignore_errors=True)
