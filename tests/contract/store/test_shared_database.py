"""What every store promises when several processes use one database, and when one is killed."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sqlite3
import sys
from collections import defaultdict
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from swarm.kernel.errors import OwnershipLost
from swarm.kernel.settings import Settings
from swarm.store.ports import Store
from swarm.store.records import NewRun, RunChanges, StepState, WorkflowRecord
from tests.contract.store.backends import open_at

HERE = Path(__file__).parent
ROUNDS = 20
PATIENCE_SECONDS = 60


async def start(program: str, *arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        str(HERE / program),
        *arguments,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )


async def test_two_stores_see_each_others_commits_and_fence_each_other(
    store: Store, open_another: Any, samples: Any, workflow: WorkflowRecord
) -> None:
    other: Store = await open_another()
    run = samples.run(workflow)
    (step,) = samples.steps(run, "first")
    await store.create_run(NewRun(run, (step,)))
    assert await other.get_run(run.id) == run

    claims = await asyncio.gather(
        store.claim_run(run.id, "host_1", None), other.claim_run(run.id, "host_2", None)
    )
    assert sum(claim is not None for claim in claims) == 1
    owner = (claims[0] or claims[1]).owner
    taken = await other.claim_run(run.id, "host_3", owner)
    assert taken is not None
    assert taken.epoch == 2
    done = RunChanges((replace(step, status=StepState.SUCCEEDED),))
    with pytest.raises(OwnershipLost):
        await store.commit(run.id, 1, done)
    assert await store.list_steps(run.id) == [step]
    await other.commit(run.id, 2, done)
    assert (await store.list_steps(run.id))[0].status == "succeeded"


async def test_processes_that_register_the_same_packages_at_once_agree(
    tmp_path: Path, make_address: Any, settings: Settings
) -> None:
    """They also make the database: nobody opened it before."""
    address = make_address(empty=True)
    processes = [await start("register_process.py", address, str(tmp_path), name) for name in "abc"]
    async with asyncio.timeout(PATIENCE_SECONDS):
        for process in processes:
            assert process.stdout
            assert await process.stdout.readline() == b"ready\n"
        outputs = await asyncio.gather(*(process.communicate(b"go\n") for process in processes))
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert len({output for output, _ in outputs}) == 1, "all were given the same records"

    store = await open_at(address, settings)
    *agent_ids, workflow_id = outputs[0][0].decode().split()
    agents = await store.list_agents("echo")
    assert len(agents) == len(agent_ids)
    for agent in agents:
        grants = await store.list_grants(f"sha256:shared{agent.version.split('.')[1]}")
        assert [grant.value for grant in grants] == ["a.example"]
    assert [workflow.id for workflow in await store.list_workflows()] == [workflow_id]
    await store.close()


async def read_until_ended(lines: asyncio.StreamReader, kill_after: int) -> dict[str, int]:
    """Kill the child after so many acknowledgements; return each run's last acknowledged number."""
    acknowledged: dict[str, int] = defaultdict(int)
    child = 0
    count = 0
    async for line in lines:
        match line.decode().split():
            case ["child", pid]:
                child = int(pid)
            case ["ended"]:
                break
            case [run_id, _, number]:
                acknowledged[run_id] = int(number)
                count += 1
        if child and count >= kill_after:
            os.kill(child, signal.SIGKILL)
            child = 0
    return acknowledged


async def test_what_was_acknowledged_survives_kill_9_at_any_moment(
    tmp_path: Path, backend: str, address: str, open_another: Any
) -> None:
    chance = random.Random(7)
    process = await start("crash_process.py", address, str(tmp_path))
    assert process.stdin
    assert process.stdout
    everything: dict[str, int] = {}
    async with asyncio.timeout(PATIENCE_SECONDS):
        for _ in range(ROUNDS):
            process.stdin.write(b"go\n")
            acknowledged = await read_until_ended(process.stdout, chance.randrange(200))
            everything |= acknowledged
            if backend == "sqlite":
                with closing(sqlite3.connect(address)) as connection:
                    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        process.stdin.close()
        await process.wait()

    assert len(everything) > ROUNDS
    store: Store = await open_another()
    assert await store.check() == []
    unfinished = {run.id: run for run in await store.unfinished_runs()}
    assert everything.keys() <= unfinished.keys()
    for run_id, run in unfinished.items():
        steps = await store.list_steps(run_id)
        finished = run.total_api_tokens
        assert finished >= everything.get(run_id, 0), "no acknowledged commit is lost"
        states = [step.status for step in steps]
        assert states == ["succeeded"] * finished + ["running"], "each commit whole, or not at all"
