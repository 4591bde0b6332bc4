"""Whole workflows are checked: every problem at once, with its line and a remedy."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.definitions.agent import AgentDefinition
from swarm.definitions.loading import (
    definition_to_json,
    parse_agent,
    parse_workflow,
    workflow_from_json,
)
from swarm.definitions.source import read_yaml
from swarm.expressions.checking import check_workflow
from swarm.expressions.cycles import find_cycles
from swarm.expressions.dependencies import step_dependencies, variable_order
from swarm.kernel.errors import ExpressionError, Problem

ECHO = parse_agent(
    """
name: echo
version: 1.0.0
runtime: {type: python, entry: main.py}
permissions: {secrets: [KEY]}
inputs:
  - {name: message, type: string}
  - {name: times, type: integer, default: 1}
  - {name: ratio, type: number, required: false}
  - {name: data, type: object, required: false}
outputs:
  - {name: echoed, type: string}
  - {name: length, type: integer}
  - {name: details, type: object}
""",
    "agent.yaml",
)
AGENTS = {"echo": ECHO, "echo@1.0.0": ECHO}
OPEN = ECHO.model_copy(update={"additional_inputs": True, "additional_outputs": True})

HEAD = """name: flow
version: 1.0.0
inputs:
  - {name: text}
  - {name: count, type: integer}
  - {name: options, type: object, default: {}}
config: {limit: 3}
variables:
  title: "About ${inputs.text}"
steps:
"""
FIRST_STEP_LINE = HEAD.count("\n") + 1


def problems(text: str, agents: dict[str, AgentDefinition] | None = None) -> list[Problem]:
    workflow = parse_workflow(text, "workflow.yaml")
    source = read_yaml(text, "workflow.yaml")
    return check_workflow(workflow, source, "workflow.yaml", AGENTS if agents is None else agents)


def only(text: str) -> Problem:
    (problem,) = problems(text)
    assert problem.remedy
    return problem


def step(inputs: str = "message: hi", rest: str = "", name: str = "a") -> str:
    return f"  - id: {name}\n    agent: echo\n    inputs: {{{inputs}}}\n" + (
        f"    {rest}\n" if rest else ""
    )


def test_a_sound_workflow_has_no_problem() -> None:
    text = HEAD + (
        step("message: '${variables.title}', times: '${inputs.count}', ratio: '${config.limit}'")
        + step(
            "message: 'so ${steps.a.outputs.echoed}', data: '${steps.a.outputs.details}'",
            "when: ${steps.a.outputs.length > 0 and not steps.a.error}",
            "b",
        )
        + step("message: 'Bearer ${secrets.KEY}', data: {deep: ['${inputs.options.x}']}", "", "c")
        + step("message: '${steps.b.outputs.details.any.thing}', ratio: 1", "needs: [c]", "d")
        + "outputs: {total: '${steps.b.outputs.length}', all: '${steps.b.outputs}'}\n"
        + "on_error:\n  - notify: {type: log, message: '${error.message} in ${error.step}'}\n"
        + "on_success:\n  - notify: {type: log, message: '${run.id} ${steps.a.status}'}\n"
    )
    assert problems(text) == []


@pytest.mark.parametrize(
    ("inputs", "message", "remedy"),
    [
        ("message: '${inputs.txt}'", "the workflow has no input `txt`", "inputs.text"),
        ("message: '${input.text}'", "there is no `input`", "inputs"),
        ("message: '${variables.titel}'", "no variable `titel`", "variables.title"),
        ("message: '${config.limmit} '", "config has no `limmit`", "config.limit"),
        ("message: '${run.idd}'", "`run` has no `idd`", "run.id"),
        ("message: '${steps.b.outputs.echoed}'", "there is no step `b`", "there is: a"),
        ("message: '${steps.a.outputs.echoed}'", "uses its own result", "another"),
        ("message: '${inputs.text.length}'", "is of type string and has no `length`", "inputs"),
        ("message: '${error.message}'", "`error` cannot be used here", "leave it out"),
        ("message: '${item}'", "only in `for_each`", "leave it out"),
        ("message: '${inputs.text'", "is never closed", "close it"),
        ("message: 'Bearer ${secrets.KEY|upper}'", "can only be handed on", "${secrets.NAME}"),
        ("message: 'Bearer ${secrets.OTHER}'", "does not request the secret `OTHER`", "permiss"),
        ("message: '${secrets.OTHER}'", "does not request the secret `OTHER`", "permissions"),
        ("message: 5", "must be a string, got integer 5", "fits"),
        ("message: hi, times: '5'", 'must be an integer, got string "5"', "fits"),
        ("message: '${inputs.count}'", "type string, but this gives integer", "fits"),
        ("message: hi, times: 'n ${inputs.count}'", "integer, but this gives string", "fits"),
        ("message: hi, times: ['${inputs.count}']", "integer, but this gives array", "fits"),
        ("message: ['${inputs.text}']", "string, but this gives array", "fits"),
        ("mesage: hi, message: hi", "input `mesage` of echo@1.0.0 is not declared", "message"),
        ("times: 1", "input `message` of echo@1.0.0 is missing in step `a`", "add `message"),
        ("message: hi, data: {'${inputs.text}': 1}", "only values can", "write the name out"),
    ],
)
def test_a_faulty_input_is_told_with_its_line(inputs: str, message: str, remedy: str) -> None:
    problem = only(HEAD + step(inputs))
    assert message in problem.message
    assert remedy in (problem.remedy or "")
    assert problem.line == FIRST_STEP_LINE + 2


@pytest.mark.parametrize(
    ("rest", "message", "remedy"),
    [
        ("when: inputs.count > 3", "is not one ${...}", "write ${inputs.count > 3}"),
        ("when: ${inputs.cuont > 3}", "no input `cuont`", "inputs.count"),
        ("when: ${secrets.KEY}", "`secrets` cannot be used here", "inputs of a step"),
        ("needs: [aa]", "no step `aa` to wait for", "did you mean a?"),
        ("needs: [a]", "the step `a` needs itself", "remove it"),
    ],
)
def test_a_faulty_step_is_told_with_its_line(rest: str, message: str, remedy: str) -> None:
    problem = only(HEAD + step(rest=rest))
    assert message in problem.message
    assert remedy in (problem.remedy or "")
    assert problem.line == FIRST_STEP_LINE + 3


@pytest.mark.parametrize(
    ("end", "message"),
    [
        ("outputs: {x: '${steps.a.outputs.echo}'}", "(echo@1.0.0) has no output `echo`"),
        ("outputs: {x: '${steps.a.echoed}'}", "`steps.a` has no `echoed`"),
        ("outputs: {x: '${steps.a.outputs.echoed.x}'}", "is of type string and has no `x`"),
        ("outputs: {x: '${secrets.KEY}'}", "`secrets` cannot be used here"),
        ("outputs: {x: '${error.message}'}", "`error` cannot be used here"),
        ("on_success:\n - notify: {type: log, message: '${error.message}'}", "cannot be used"),
        ("on_error:\n - notify: {type: log, message: '${error.mesage}'}", "has no `mesage`"),
        ("on_error:\n - notify: {type: log, message: '${secrets.KEY}'}", "cannot be used here"),
    ],
)
def test_outputs_and_notifications_are_checked(end: str, message: str) -> None:
    problem = only(HEAD + step() + end)
    assert message in problem.message
    assert problem.line is not None
    assert problem.line > FIRST_STEP_LINE + 2


def test_a_variable_may_not_use_steps() -> None:
    text = HEAD.replace("inputs.text", "steps.a.outputs.echoed") + step()
    problem = only(text)
    assert "before any step" in problem.message
    assert problem.line == 9


def test_cycles_are_named_step_by_step() -> None:
    text = HEAD + (
        step(name="z")
        + step("message: '${steps.c.outputs.echoed}'", name="a")
        + step(rest="needs: [a]", name="b")
        + step(rest="when: '${steps.b.outputs.length > 1}'", name="c")
    )
    problem = only(text)
    assert problem.message.startswith("cycle: a -> c -> b -> a")
    assert problem.line == FIRST_STEP_LINE + 3


def test_a_cycle_of_variables_is_named() -> None:
    text = HEAD.replace("steps:", "  b: '${variables.c}'\n  c: 'x ${variables.b}'\nsteps:")
    assert "cycle of variables: b -> c -> b" in only(text + step()).message


def test_a_variable_may_use_only_those_above_it() -> None:
    text = HEAD.replace("  title:", "  early: '${variables.title}'\n  title:") + step()
    problem = only(text)
    assert problem.message == "the variable `early` uses `title`, which is defined below it"
    assert problem.line == 9
    workflow = parse_workflow(text, "w")
    assert check_workflow(workflow, None, "stored", AGENTS) == []


def test_all_problems_are_told_at_once_in_the_order_of_lines() -> None:
    text = HEAD + step("message: '${inputs.a} ${inputs.b}'") + step("nope: 1", "", "b")
    found = problems(text)
    assert len(found) == 4
    assert [problem.line for problem in found] == sorted(problem.line or 0 for problem in found)


def test_without_agents_and_source_only_the_workflow_itself_is_checked() -> None:
    workflow = parse_workflow(HEAD + step("nope: '${inputs.txt}'"), "workflow.yaml")
    (problem,) = check_workflow(workflow, None, "stored", None)
    assert problem.file == "stored"
    assert problem.line is None
    assert "no input `txt`" in problem.message


def test_dependencies_come_from_expressions_conditions_and_needs() -> None:
    text = HEAD + (
        step(name="a")
        + step(name="b")
        + step("message: '${steps.a.outputs.echoed}'", "needs: [b]", "c")
        + step("message: \"it says 'steps.a' $${steps.a}\"", "", "d")
        + step(rest="when: '${steps.c.outputs.length > 1}'", name="e")
    )
    assert step_dependencies(parse_workflow(text, "w")) == {
        "a": frozenset(),
        "b": frozenset(),
        "c": {"a", "b"},
        "d": frozenset(),
        "e": {"c"},
    }


def test_variables_are_ordered_by_what_they_use() -> None:
    text = "name: w\nversion: 1.0.0\nvariables:\n  a: '${variables.z}'\n  z: 1\n  m: 2\n" + (
        "steps:\n" + step()
    )
    workflow = parse_workflow(text, "w")
    order = variable_order(workflow_from_json(definition_to_json(workflow)))
    assert sorted(order) == ["a", "m", "z"]
    assert order.index("z") < order.index("a")
    looped = parse_workflow(text.replace("z: 1", "z: '${variables.a}'"), "w")
    with pytest.raises(ExpressionError, match="cycle of variables"):
        variable_order(looped)


@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=20))
def test_cycles_are_found_exactly_where_there_are_some(edges: list[tuple[int, int]]) -> None:
    graph: dict[str, set[str]] = {str(node): set() for node in range(8)}
    for start, end in edges:
        graph[str(start)].add(str(end))
    cycles = find_cycles(graph)
    for cycle in cycles:
        assert len(set(cycle)) == len(cycle)
        for left, right in itertools.pairwise((*cycle, cycle[0])):
            assert right in graph[left]
    for cycle in cycles:  # cutting one edge of each leaves fewer knots; all cut leaves none
        graph[cycle[0]].discard(cycle[1 % len(cycle)])
    rounds = 0
    while remaining := find_cycles(graph):
        rounds += 1
        assert rounds < 100
        for cycle in remaining:
            graph[cycle[0]].discard(cycle[1 % len(cycle)])
    assert _has_an_order(graph)


def _has_an_order(graph: dict[str, set[str]]) -> bool:
    left = dict(graph)
    while left:
        free = [node for node, after in left.items() if not after & left.keys()]
        if not free:
            return False
        for node in free:
            del left[node]
    return True


def test_a_long_chain_is_checked_without_recursion() -> None:
    names = [f"s{index}" for index in range(1000)]
    graph = {name: {names[index - 1]} if index else set() for index, name in enumerate(names)}
    assert find_cycles(graph) == []
    graph["s0"].add("s999")
    (cycle,) = find_cycles(graph)
    assert len(cycle) == 1000
    shuffled = list(graph.items())
    random.Random(7).shuffle(shuffled)
    assert {frozenset(each) for each in find_cycles(dict(shuffled))} == {frozenset(names)}


_FRAGMENTS = "${ } inputs . text steps a b outputs secrets KEY ' | upper ( ) [ ] + * ~ $ { is 1 , é"
_fragments = st.lists(st.sampled_from([*_FRAGMENTS.split(), " "]), max_size=14).map("".join)


@given(_fragments, _fragments, _fragments)
def test_whatever_stands_in_a_workflow_is_checked(inputs: str, when: str, output: str) -> None:
    document = definition_to_json(parse_workflow(HEAD + step(), "w"))
    document["steps"][0] |= {"inputs": {"message": inputs, "data": {"x": [inputs]}}, "when": when}
    document["outputs"] = {"o": output}
    workflow = workflow_from_json(document)
    if check_workflow(workflow, None, "w", AGENTS):
        return
    assert step_dependencies(workflow).keys() == {"a"}


def test_names_that_are_not_declared_pass_where_the_agent_takes_and_gives_any() -> None:
    text = (
        HEAD
        + "  - {id: a, agent: echo, inputs: {message: x, more: '${inputs.count}'}}\n"
        + "  - {id: b, agent: echo, inputs: {message: '${steps.a.outputs.other.part}'}}\n"
        + "  - {id: c, agent: echo, inputs: {message: '${steps.a.outputs.length.part}'}}\n"
    )
    assert len(problems(text)) == 3
    (told,) = problems(text, {"echo": OPEN})
    assert "`steps.a.outputs.length` is of type integer" in told.message
