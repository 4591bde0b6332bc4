"""The smallest packages: echo, and the templates that people start from."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

import swarm
from swarm.definitions.agent import AgentDefinition
from swarm.definitions.workflow import WorkflowDefinition

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
    definition = AgentDefinition.model_validate_json(json.dumps(yaml.safe_load(path.read_text())))
    assert definition.description
    assert all(f.description for f in (*definition.inputs, *definition.outputs))
    entry = definition.runtime.entry
    assert isinstance(entry, tuple) or (path.parent / entry).is_file()
    assert (path.parent / "README.md").is_file()
    if path.parent.parent.name == "agents":
        assert definition.name == path.parent.name


@pytest.mark.parametrize("path", WORKFLOW_MANIFESTS, ids=lambda p: p.parent.name)
def test_workflow_manifests_hold(path: Path) -> None:
    text = json.dumps(yaml.safe_load(path.read_text()))
    definition = WorkflowDefinition.model_validate_json(text)
    assert (path.parent / "README.md").is_file()
    if path.parent.parent.name == "workflows":
        assert definition.name == path.parent.name


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
    }
