"""A soak measures what it says, and can say no: a small one that is ended early."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.architecture.rules import ROOT
from tests.conftest import Scale
from tests.postgres.server import find_binaries

pytestmark = pytest.mark.alone
PROGRAM = ROOT / "benchmarks" / "soak.py"
RATE = 20


@pytest.mark.skipif(
    find_binaries() is None,
    reason="PostgreSQL is missing (Debian, Ubuntu: apt-get install postgresql)",
)
def test_a_fleet_that_keeps_all_its_runs_grows_by_the_rule(tmp_path: Path, scale: Scale) -> None:
    seconds, file = scale(small=6, full=60), tmp_path / "figures.json"
    options = f"--minutes 10 --rate {RATE} --every 0.5 --retention 0 --json {file}"
    process = subprocess.Popen(
        ("setpriv", "--pdeathsig", "KILL", sys.executable, str(PROGRAM), *options.split()),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    told = []
    for line in process.stderr:
        told.append(line)
        if line.lstrip().startswith(f"{seconds} s"):
            process.send_signal(signal.SIGTERM)
    output, _ = process.communicate()
    assert process.returncode == 1, output + "".join(told)
    assert "ended by SIGTERM" in output
    assert "the rule is broken" in output

    found: dict[str, Any] = json.loads(file.read_text())
    assert (found["wrong"], found["lost"], found["complaints"]) == (0, 0, [])
    assert found["exits"] == {"worker 1": 0, "worker 2": 0}
    assert seconds - 1 <= found["seconds"] < 10 * seconds
    assert found["asked"] == sum(found["ended"].values()) > RATE * seconds / 2
    assert found["ended"]["chain"] > found["asked"] / 2
    assert sum(window["runs"] for window in found["windows"]) == found["asked"]

    judgements = {each["title"]: each for each in found["judgements"]}
    assert not judgements["step_executions rows"]["is_kept"]
    assert judgements["agents rows"]["is_kept"]
    for name in ("worker 1 memory", "worker 2 descriptors", "server memory", "database bytes"):
        assert judgements[name]["median"] > 0, name
    rows = [sample["step_executions rows"] for sample in found["samples"]]
    assert rows[-1] > found["asked"]
