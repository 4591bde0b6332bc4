"""Programs that check deployment files; ``make test-deploy`` installs them, where it can."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.architecture.rules import ROOT

DEPLOY = ROOT / "deploy"
CHART = DEPLOY / "helm" / "swarm"
TOOLS = ROOT / ".cache" / "deploy"
LINTER = Path(__file__).parent / "lint_workflow.mjs"


def need(name: str, remedy: str = "`make test-deploy` installs it") -> str:
    """The program's path; skips the test where it is not installed."""
    own = TOOLS / "bin" / name
    found = str(own) if own.exists() else shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is missing: {remedy}")
    return found


def run(*command: str | Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(map(str, command)), cwd=cwd, capture_output=True, text=True, check=False
    )


def passes(*command: str | Path) -> str:
    """What the program printed; fails the test where it found fault."""
    done = run(*command)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
