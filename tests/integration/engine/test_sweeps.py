"""Runs that nobody drives: found by pages, and taken up only by who has what they ask for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from swarm.bootstrap.assembly import Swarm, open_swarm
from swarm.engine import runs as engine_runs
from swarm.engine.api import ForkRequest, RunRequest
from swarm.kernel.configuration import checked_settings
from swarm.sandbox.ports import Isolation
from swarm.store.records import RunChanges, RunState

WORKFLOW = """\
name: labelled
version: 1.0.0
runs_on: [gpu]
steps: [{id: pause, wait: {duration: 0}}]
"""


@asynccontextmanager
async def opened(
    folder: Path, url: str, role: str, labels: tuple[str, ...] = ()
) -> AsyncIterator[Swarm]:
    settings = checked_settings({"home": folder / role, "database_url": url})
    async with open_swarm(settings, role=role, labels=labels) as swarm:
        yield swarm


async def test_a_run_that_goes_on_goes_to_a_worker_with_its_labels(
    tmp_path: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_runs, "SWEPT_AT_ONCE", 2)  # more pages than one
    (tmp_path / "workflow.yaml").write_text(WORKFLOW)
    request = RunRequest("labelled", isolation=Isolation.NONE)
    async with opened(tmp_path, postgres_url, "run") as client:
        await client.workflows.register(tmp_path / "workflow.yaml")
        first = await client.runs.create(request)
        assert await client.store.claim_run(first.id, "host_gone", None)
        failed = RunChanges(run={"status": RunState.FAILED, "owner": None, "error": "x"})
        await client.store.commit(first.id, 1, failed)
        (resumed,) = await client.runs.resume([first.id])
        again = await client.runs.retry(first.id)
        forked = await client.runs.fork(ForkRequest(first.id))
        lost = await client.runs.create(request)
        assert await client.store.claim_run(lost.id, "host_gone", None)
        ids = [resumed.id, again.id, forked.id]
        for run_id in ids[1:]:
            assert not await client.runs.start(run_id), "it has no such label"
        assert client.runs.driving == frozenset()
        (queue,) = await client.peers.queues()
        assert (queue.name, queue.waiting, queue.is_served) == ("swarm:gpu", 4, False)
        assert [run.id for run in await client.runs.orphans()] == []
        async with opened(tmp_path, postgres_url, "worker", ("gpu",)) as worker:
            working = asyncio.ensure_future(worker.runs.work(False, lambda: None))
            for run_id in (*ids, lost.id):
                run = await asyncio.wait_for(client.runs.wait(run_id), 60)
                assert run.status is RunState.SUCCEEDED, run
            working.cancel()
