"""Clients beside other processes of the home: one that is killed, and workers."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import Process
from pathlib import Path

import pytest

import swarm

PROGRAM = Path(__file__).with_name("program.py")


async def start_program(home: Path, notes: Path, go: Path) -> tuple[Process, str]:
    """The program, once its run's second step is running; and the run's id."""
    program = await asyncio.create_subprocess_exec(
        sys.executable, str(PROGRAM), str(home), str(notes), str(go), stdout=asyncio.subprocess.PIPE
    )
    assert program.stdout is not None
    async for line in program.stdout:
        run_id, kind, step = line.decode().split()
        if (kind, step) == ("step.started", "second"):
            return program, run_id
    raise AssertionError("the program has ended")


async def test_a_client_carries_on_what_a_killed_program_left(home: Path, tmp_path: Path) -> None:
    notes, go = tmp_path / "notes", tmp_path / "go"
    program, run_id = await start_program(home, notes, go)
    async with swarm.Client(home) as client:
        handle = await client.get_run(run_id)
        following = asyncio.create_task(handle.result())
        with pytest.raises(swarm.ConflictError):
            await handle.resume()
        program.kill()
        await program.wait()
        with pytest.raises(swarm.RunInterrupted) as interrupted:
            await following
        assert interrupted.value.run_id == run_id
        go.touch()
        assert (await (await handle.resume()).result(timeout=30))["said"] == "12"
    noted = notes.read_text().splitlines()
    assert [line for line in noted if line != "second 1"] == ["first 1", "second 2"]


async def test_a_wait_outlasts_the_takeover_by_a_worker(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWARM_IDLE_SECONDS", "0.5")  # the worker's
    go = tmp_path / "go"
    async with swarm.Client(home) as client:
        await client.run("one")  # the client is a host now, and looks after the others
        program, run_id = await start_program(home, tmp_path / "notes", go)
        handle = await client.get_run(run_id)
        waiting = asyncio.create_task(handle.result(timeout=60))
        program.kill()
        await program.wait()
        go.touch()
        assert (await waiting)["said"] == "12"


async def test_a_worker_drives_for_a_client_that_does_not(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWARM_IDLE_SECONDS", "0.5")  # the worker's
    go = tmp_path / "go"
    async with swarm.Client(home, drive="worker") as client:
        handle = await client.start("two", {"wait_for": str(go)}, isolation="none")
    # The client is gone; its run goes on, undisturbed.
    go.touch()
    async with swarm.Client(home) as client:
        again = await client.get_run(handle.id)
        assert (await again.result(timeout=30))["said"] == "12"
        (step, _) = await again.steps()
        assert step.attempt == 1
