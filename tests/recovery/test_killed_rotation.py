"""A rotation is killed with ``kill -9`` again and again; another always carries it on."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

from tests.conftest import Scale

COUNT = 3_000
DEADLINE_SECONDS = 60


def command(home: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "swarm", "secret", *arguments, "--home", str(home)]


def run(home: Path, *arguments: str, stdin: str = "") -> str:
    done = subprocess.run(
        command(home, *arguments),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def held(home: Path) -> dict[str, int]:
    """Secrets by the master key that holds them."""
    with closing(sqlite3.connect(home / "registry" / "registry.db", timeout=30)) as connection:
        rows = connection.execute("SELECT key_id, count(*) FROM secrets GROUP BY key_id")
        return {str(key): int(count) for key, count in rows}


def test_killed_rotations_are_carried_on(tmp_path: Path, scale: Scale, rng: random.Random) -> None:
    values = {f"S{number}": f"value {number}" for number in range(COUNT)}
    run(tmp_path, "import", stdin=json.dumps(values))
    halves = 0
    for _ in range(scale(small=3, full=30)):
        first = max(held(tmp_path))
        rotation = subprocess.Popen(
            command(tmp_path, "rotate"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        enough = rng.randrange(1, COUNT // 2)
        deadline = time.monotonic() + DEADLINE_SECONDS
        while rotation.poll() is None and COUNT - held(tmp_path).get(first, 0) < enough:
            assert time.monotonic() < deadline
        os.kill(rotation.pid, signal.SIGKILL) if rotation.poll() is None else None
        rotation.wait()
        halves += len(held(tmp_path)) == 2
    assert halves, "no rotation was cut short"
    if len(held(tmp_path)) == 2:
        keys = sorted(path.name for path in (tmp_path / "registry" / "secrets").glob("*.key"))
        assert '"made_key": false' in run(tmp_path, "rotate", "--json")
        left = sorted(path.name for path in (tmp_path / "registry" / "secrets").glob("*.key"))
        assert left == keys
    assert len(held(tmp_path)) == 1
    exported = json.loads(run(tmp_path, "export"))["secrets"]
    assert {one["name"]: one["value"] for one in exported} == values


def test_two_processes_rotate_at_once(tmp_path: Path) -> None:
    values = {f"S{number}": f"value {number}" for number in range(COUNT)}
    run(tmp_path, "import", stdin=json.dumps(values))
    both = [
        subprocess.Popen(
            command(tmp_path, "rotate", *options), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for options in ((), ("--retire",))
    ]
    for one in both:
        _, errors = one.communicate(timeout=DEADLINE_SECONDS)
        assert one.returncode == 0, errors
    assert len(held(tmp_path)) == 1
    exported = json.loads(run(tmp_path, "export"))["secrets"]
    assert {one["name"]: one["value"] for one in exported} == values
