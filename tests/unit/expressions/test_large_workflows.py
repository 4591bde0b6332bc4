"""Workflows of 10,000 steps are checked, right and wrong ones, in time in proportion."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from swarm.definitions.loading import parse_agent, workflow_from_source
from swarm.definitions.source import MAX_PROBLEMS, read_yaml
from swarm.expressions.checking import check_workflow
from swarm.expressions.dependencies import step_dependencies
from swarm.kernel.errors import DefinitionError, Problem, nearest_names
from swarm.kernel.settings import MIB, Settings
from tests.conftest import SCALE
from tests.strategies.workflows import MANIFEST

pytestmark = pytest.mark.alone
STEPS = 10_000 if SCALE == "full" else 2_000
SECONDS = 30.0
"""Of one processor. Five times what it takes on a slow machine; quadratic work takes minutes."""

AGENTS = {"work": parse_agent(MANIFEST, "agent.yaml")}


def chain(step: Callable[[int], str]) -> str:
    head = "name: large\nversion: 1.0.0\ninputs: [{name: text}]\nsteps:\n"
    return head + "".join(map(step, range(STEPS)))


def linked(index: int) -> str:
    before = f"steps.step_{index - 1}.outputs.text" if index else "inputs.text"
    return (
        f"  - id: step_{index}\n"
        f"    name: Step number {index} of the whole chain\n"
        f"    agent: work\n"
        f"    inputs:\n"
        f"      text: ${{{before}}}\n"
        f"      count: {index}\n"
        f'      data: {{title: "It is about ${{inputs.text|upper}}"}}\n'
        f"    retry: {{attempts: 3}}\n"
        f"    timeout_seconds: 30\n"
    )


def problems(text: str) -> list[Problem]:
    source = read_yaml(text, "large.yaml", Settings().max_workflow_mb * MIB)
    workflow = workflow_from_source(source)
    assert len(step_dependencies(workflow)) == STEPS
    return check_workflow(workflow, source, "large.yaml", AGENTS)


@pytest.mark.parametrize(
    ("step", "count"),
    [
        (linked, 0),
        (lambda index: linked(index).replace("inputs.text", "inputs.tex"), MAX_PROBLEMS + 1),
        (
            lambda index: linked(index).replace(
                "    agent", f"    needs: [stp_{index}]\n    agent"
            ),
            MAX_PROBLEMS + 1,
        ),
        (
            lambda index: linked(index) + (f"    needs: [step_{STEPS - 1}]\n" if not index else ""),
            1,
        ),
    ],
    ids=["right", "unknown inputs", "unknown steps", "one long cycle"],
)
def test_thousands_of_steps_are_checked_in_seconds(step: Callable[[int], str], count: int) -> None:
    text = chain(step)
    begun = time.process_time()
    found = problems(text)
    assert time.process_time() - begun < SECONDS
    assert len(found) == count
    if count == 1:
        assert f"({STEPS - 20} more)" in found[0].message
        assert len(found[0].message) < 500
    if count > 1:
        assert found[-1].message == "there are more problems than these"
        assert all(problem.remedy for problem in found)


def test_the_nearest_of_many_names_is_found() -> None:
    names = [f"step_{index}" for index in range(10_000)]
    assert nearest_names("step_777", names)[0] == "step_777"
    assert "step_4321" in nearest_names("step_43211", names)
    assert "the_odd_one" in nearest_names("the_od_one", [*names, "the_odd_one"])


def test_values_are_bounded_however_short_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("swarm.definitions.source.MAX_VALUES", 1_000)
    read_yaml("[" + "[]," * 990 + "]", "many.yaml")
    with pytest.raises(DefinitionError, match="more than 1000 values"):
        read_yaml("[" + "[]," * 1_010 + "]", "many.yaml")
