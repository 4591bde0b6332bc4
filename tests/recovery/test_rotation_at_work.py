"""Master keys are changed, and old ones removed, while other processes read and write secrets.

Who writes shares a lock that a rotation wants alone, and takes it again as soon as it is free.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import Scale

COUNT = 200
DEADLINE_SECONDS = 120
WORKER = Path(__file__).with_name("secret_process.py")


def swarm(home: Path, *arguments: str, stdin: str = "") -> str:
    done = subprocess.run(
        [sys.executable, "-m", "swarm", "secret", *arguments, "--home", str(home)],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


class Worker:
    """A process that reads or writes secrets until it is told to stop."""

    def __init__(self, home: Path, kind: str, number: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(WORKER), str(home), kind, str(number)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "at work\n", self._process.communicate()[1]

    def stop(self) -> int:
        """How often it did its work; it never failed."""
        os.kill(self._process.pid, signal.SIGTERM)
        output, errors = self._process.communicate(timeout=DEADLINE_SECONDS)
        assert self._process.returncode == 0, errors
        return int(output)


@pytest.mark.parametrize("retire", [False, True])
def test_others_read_and_write_while_keys_are_changed(
    tmp_path: Path, scale: Scale, retire: bool
) -> None:
    values = {f"S{number}": f"value of S{number}" for number in range(COUNT)}
    swarm(tmp_path, "import", stdin=json.dumps(values))
    workers = [Worker(tmp_path, kind, n) for n, kind in enumerate(("reads", "writes"))]
    options = ["--retire"] if retire else []
    rotations = scale(small=3, full=50)
    started = time.monotonic()
    for _ in range(rotations):
        done = json.loads(swarm(tmp_path, "rotate", "--json", *options))
        assert done["retired"] == (1 if retire else 0)
    took = time.monotonic() - started
    counts = [worker.stop() for worker in workers]
    assert min(counts) > rotations, f"{counts} in {took:.1f} s"
    swarm(tmp_path, "rotate", "--retire")
    assert len(list((tmp_path / "registry" / "secrets").glob("*.key"))) == 1
    exported = json.loads(swarm(tmp_path, "export"))["secrets"]
    assert {one["name"]: one["value"] for one in exported if one["name"] in values} == values
