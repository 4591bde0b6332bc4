"""The catalog as a user meets it: registered and run by the command line, in real sandboxes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.catalog.repositories import new_repository, odd_repository

Swarm = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def swarm(tmp_path_factory: pytest.TempPathFactory) -> Swarm:
    """Runs ``swarm`` in a home with the whole catalog registered."""
    home = tmp_path_factory.mktemp("home")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "swarm", *arguments],
            env=os.environ | {"SWARM_HOME": str(home)},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    for kind in ("agent", "workflow"):
        done = run(kind, "register", "--all")
        assert done.returncode == 0, done.stderr
    return run


def outcome(swarm: Swarm, *arguments: str) -> dict[str, Any]:
    done = swarm("--json", "run", *arguments)
    assert done.returncode == 0, done.stderr
    run: dict[str, Any] = json.loads(done.stdout)
    return run


def test_echo_chain_quotes_the_first_step(swarm: Swarm) -> None:
    run = outcome(swarm, "echo-chain", '{"message": "Hello World"}')
    assert run["outputs"] == {
        "first": "Hello World",
        "second": 'The first step said: "Hello World"',
    }


def test_repo_report_on_an_odd_repository(swarm: Swarm, tmp_path: Path) -> None:
    repository = odd_repository(tmp_path / "odd one")
    inputs = json.dumps({"path": str(repository.path), "as_of": "2024-02-01"})
    run = outcome(swarm, "repo-report", inputs)
    assert run["status"] == "succeeded"
    assert {step["isolation"] for step in run["steps"]} == {"sandbox"}
    assert run["outputs"]["summary"].startswith(f"odd one: {run['outputs']['score']} of 100")
    files = {file["output"]: Path(file["path"]) for file in run["files"]}
    markdown = files["report_markdown"].read_text("utf-8")
    assert markdown.startswith("# Repository report: odd one\n")
    assert "| Tracked but missing | 3 |" in markdown
    assert files["report_html"].read_text("utf-8").startswith("<!doctype html>")


def test_independent_steps_of_repo_report_overlap(swarm: Swarm, tmp_path: Path) -> None:
    repository = new_repository(tmp_path / "repo")
    repository.write("a.py", "x = 1\n")
    repository.commit()
    run = outcome(swarm, "repo-report", json.dumps({"path": str(repository.path)}))
    steps = {step["id"]: step for step in run["steps"]}
    assert steps["activity"]["started_at"] < steps["files"]["completed_at"]
    middle = [steps[name] for name in ("dependencies", "licence", "debt", "tests")]
    first, second, *_ = sorted(middle, key=lambda step: step["started_at"])
    assert second["started_at"] < first["completed_at"]
    assert all(s["started_at"] >= steps["files"]["completed_at"] for s in middle)


def test_what_is_no_repository_is_said_once_and_clearly(swarm: Swarm, tmp_path: Path) -> None:
    done = swarm("run", "repo-report", json.dumps({"path": str(tmp_path)}))
    assert done.returncode == 1
    assert "step files: RepositoryError: this folder is not a git repository" in done.stderr
    assert "pass the top folder of a repository" in done.stderr
