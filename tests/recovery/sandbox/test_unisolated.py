"""A plain process of isolation level ``none`` whose host is killed."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from swarm.kernel.settings import Settings
from swarm.sandbox.scratch import Scratch
from swarm.sandbox.unisolated import UnisolatedBackend
from tests.contract.sandbox.calling import Caller
from tests.recovery.sandbox.test_chaos import PROGRAM_ENVIRONMENT, until_gone

HANDLER = """
import os, subprocess, time

def handler(inputs):
    child = subprocess.Popen(["sleep", "600"])
    with open(inputs["to"], "w") as file:
        file.write(f"{os.getpid()} {child.pid}\\n")
    time.sleep(600)
"""


async def test_a_plain_process_and_its_children_die_with_their_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = tmp_path / "told"
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    host = subprocess.Popen(  # noqa: ASYNC220 - it is only started here
        [sys.executable, __file__, str(tmp_path), str(told)],
        env={**PROGRAM_ENVIRONMENT, "TMPDIR": str(temporary)},
    )
    while not (told.exists() and told.read_text().endswith("\n")):
        assert host.poll() is None
        await asyncio.sleep(0.01)
    processes = set(map(int, told.read_text().split()))
    (left,) = temporary.iterdir()
    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(temporary))
        scratch = Scratch()
        scratch.make()
        assert left.exists(), "a living host's folder was removed"
        scratch.close()
        host.kill()
        host.wait()
        await until_gone(processes, host.pid)
        made = scratch.make()
        assert set(temporary.iterdir()) == {made.parent}, "a dead host's folder was left"
        scratch.close()
    assert list(temporary.iterdir()) == []


async def main(folder: Path, told: Path) -> None:
    call = Caller(folder, UnisolatedBackend(Settings(home=folder / "home")))
    await call(HANDLER, {"to": str(told)})


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2])))
