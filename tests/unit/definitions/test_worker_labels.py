"""What a run may ask of the machine that drives it."""

from __future__ import annotations

import pytest

from swarm.definitions.loading import parse_workflow
from swarm.kernel.errors import DefinitionError

FLOW = """\
name: flow
version: 1.0.0
runs_on: {of_workflow}
steps:
  - id: outer
    agent: echo
    runs_on: {of_step}
    on_error:
      steps: [{{id: inner, agent: echo, runs_on: [team:x]}}]
      then: continue
"""


def test_a_worker_needs_the_labels_of_the_workflow_and_of_all_its_steps() -> None:
    text = FLOW.format(of_workflow="[zone-1]", of_step="[gpu, zone-1]")
    assert parse_workflow(text, "workflow.yaml").worker_labels == ("gpu", "team:x", "zone-1")
    plain = "name: flow\nversion: 1.0.0\nsteps: [{id: only, agent: echo}]\n"
    assert parse_workflow(plain, "workflow.yaml").worker_labels == ()


@pytest.mark.parametrize(
    ("of_workflow", "of_step", "message"),
    [
        ("[a, b, c, d, e]", "[f, g, h]", "ask for 9 labels; a worker has at most 8"),
        ("[a, b, c, d, e, f, g, h, i]", "[]", "runs_on"),
        ("['two words']", "[]", "runs_on"),
        (f"[{'x' * 33}]", "[]", "runs_on"),
    ],
)
def test_labels_that_no_worker_can_have_are_refused(
    of_workflow: str, of_step: str, message: str
) -> None:
    with pytest.raises(DefinitionError, match=message):
        parse_workflow(FLOW.format(of_workflow=of_workflow, of_step=of_step), "workflow.yaml")
