"""The smallest packages: echo, and the templates that people start from."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

import swarm
from swarm.definitions.loading import load_agent, load_workflow
from swarm.expressions.checking import check_workflow

CATALOG = Path(swarm.__file__).parent / "catalog"
AGENT_MANIFESTS = sorted(CATALOG.glob("*/*/agent.yaml"))
WORKFLOW_MANIFESTS = sorted(CATALOG.glob("*/*/workflow.yaml"))


def test_echo(agents: Any) -> None:
    assert agents("echo", message="Grüße 🐝") == {"echoed": "Grüße 🐝", "length": 7}


def test_basic_agent_template() -> None:
    program = (
        'Promise.resolve(require("./main.js").handler({input_data: "Hello  Swarm"}, {}))'
        ".then((value) => console.log(JSON.stringify(value)))"
    )
    done = subprocess.run(
        ["node", "-e", program],
        cwd=CATALOG / "templates" / "basic-agent",
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert json.loads(done.stdout) == {
        "result": {"characters": 12, "words": 2, "shouted": "HELLO  SWARM"}
    }


@pytest.mark.parametrize("path", AGENT_MANIFESTS, ids=lambda p: p.parent.name)
def test_agent_manifests_hold(path: Path) -> None:
    definition = load_agent(path)
    assert definition.description
    assert all(f.description for f in (*definition.inputs, *definition.outputs))
    entry = definition.runtime.entry
    assert (path.parent / (entry[-1] if isinstance(entry, tuple) else entry)).is_file()
    assert (path.parent / "README.md").is_file()
    if path.parent.parent.name == "agents":
        assert definition.name == path.parent.name


@pytest.mark.parametrize("path", WORKFLOW_MANIFESTS, ids=lambda p: p.parent.name)
def test_workflow_manifests_hold(path: Path) -> None:
    definitions = (load_agent(manifest) for manifest in AGENT_MANIFESTS)
    agents = {f"{agent.name}@{agent.version}": agent for agent in definitions}
    workflow = load_workflow(path)
    assert check_workflow(workflow, None, str(path), agents) == []
    assert (path.parent / "README.md").is_file()
    if path.parent.parent.name == "workflows":
        assert workflow.name == path.parent.name


@pytest.mark.parametrize("name", ["display.py", "repository.py"])
def test_copies_are_equal(name: str) -> None:
    """Packages share no code at run time, so some files lie in several; they must not drift."""
    copies = {path.read_bytes() for path in CATALOG.glob(f"agents/*/{name}")}
    assert len(copies) == 1


def test_the_catalog_is_complete() -> None:
    names = {path.parent.name for path in (*AGENT_MANIFESTS, *WORKFLOW_MANIFESTS)}
    assert names >= {
        "echo",
        "http-fetch",
        "claude-chat",
        "basic-agent",
        "claude-agent",
        "linear-workflow",
        "parallel-workflow",
        "echo-chain",
        "repo-report",
    }
