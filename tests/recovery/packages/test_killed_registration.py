"""Registrations in processes of their own: at once, and killed at any moment."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from swarm.kernel.home import Home
from swarm.kernel.settings import Settings
from swarm.packages.reading import read_package
from swarm.packages.registration import AgentCatalog
from swarm.store.sqlite.store import open_store
from tests.conftest import Scale

REGISTER = """
import asyncio, sys
from pathlib import Path
from swarm.kernel.home import Home
from swarm.kernel.settings import Settings
from swarm.packages.registration import AgentCatalog
from swarm.store.sqlite.store import open_store

async def main():
    settings = Settings(home=Path(sys.argv[1]))
    home = Home(settings.home)
    home.create()
    store = await open_store(home.database, settings)
    catalog = AgentCatalog(store, home, settings)
    print("ready", flush=True)
    sys.stdin.readline()
    result = await catalog.register(Path(sys.argv[2]))
    print(result.created, result.record.id, flush=True)
    await store.close()

asyncio.run(main())
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    (folder / "data").mkdir(parents=True)
    (folder / "agent.yaml").write_text(
        "name: big\nversion: 1.0.0\nruntime:\n  type: python\n  entry: main.py\n"
        "dependencies: [six]\n"
    )
    (folder / "main.py").write_text("def handler(inputs):\n    return inputs\n")
    for number in range(60):
        (folder / f"data/{number}").write_bytes(hashlib.sha256(bytes(number)).digest() * 500)
    return folder


def start(home: Path, source: Path) -> subprocess.Popen[str]:
    """A process that is about to register, once it is told to."""
    process = subprocess.Popen(
        [sys.executable, "-c", REGISTER, str(home), str(source)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=dict(os.environ),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def test_two_processes_at_once_both_succeed_with_one_record(tmp_path: Path, source: Path) -> None:
    processes = [start(tmp_path / "home", source) for _ in range(2)]
    for process in processes:
        go(process)
    answers = [process.communicate()[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert sorted(created for created, _ in answers) == ["False", "True"]
    assert len({record for _, record in answers}) == 1


def test_a_registration_killed_at_any_moment_leaves_nothing_half_done(
    tmp_path: Path, source: Path, rng: random.Random, scale: Scale
) -> None:
    """What is under its digest is whole, and the next registration succeeds."""
    settings = Settings(home=tmp_path / "home")
    home = Home(settings.home)
    digest = read_package(source, settings).digest
    for _ in range(scale(small=6, full=60)):
        process = start(settings.home, source)
        go(process)
        assert process.stdout is not None
        # Killed while it works: its answer is awaited for a random part of a second at most.
        try:
            process.wait(timeout=rng.random() * 0.6)
        except subprocess.TimeoutExpired:
            process.kill()
        process.communicate()
        if (home.packages / digest).exists():
            assert read_package(home.packages / digest, settings).digest == digest
        if process.returncode == 0:
            # All done: the next one starts anew.
            for folder in (home.packages / digest, *home.environments.glob("[0-9a-f]*")):
                shutil.rmtree(folder)
    asyncio.run(_register_and_check(settings, home, source, digest))


async def _register_and_check(settings: Settings, home: Home, source: Path, digest: str) -> None:
    store = await open_store(home.database, settings)
    try:
        catalog = AgentCatalog(store, home, settings)
        result = await catalog.register(source)
        program = await catalog.prepare(result.record)
        assert program.package == home.packages / digest
        assert program.environment is not None
        assert (program.environment / "site-packages/six.py").is_file()
        assert len(await catalog.list()) == 1
        kept = {".locks", "locks", digest, program.environment.name}
        for folder in (home.packages, home.environments):
            assert {path.name for path in folder.iterdir()} <= kept
    finally:
        await store.close()
