"""Random workflows with every feature pass; each with a single mistake is refused for it."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from swarm.definitions.loading import (
    definition_to_json,
    parse_agent,
    parse_workflow,
    workflow_from_json,
    workflow_from_source,
)
from swarm.definitions.source import read_yaml
from swarm.expressions.checking import check_workflow
from swarm.expressions.dependencies import step_dependencies
from swarm.kernel.errors import DefinitionError, Problem
from tests.strategies.workflows import CHILD, MANIFEST, Document, documents

WORK = parse_agent(MANIFEST, "agent.yaml")
AGENTS = {"work": WORK, "work@1.0.0": WORK}
CALLED = parse_workflow(CHILD, "child.yaml")
WORKFLOWS = {"child": CALLED, "child@1.0.0": CALLED}
SLOW = settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


def problems(document: Document) -> list[Problem]:
    """What is found in a workflow that is read from text."""
    text = json.dumps(document, ensure_ascii=False, indent=1)
    try:
        source = read_yaml(text, "workflow.yaml")
        workflow = workflow_from_source(source)
    except DefinitionError as error:
        return [*error.problems]
    return check_workflow(workflow, source, "workflow.yaml", AGENTS, WORKFLOWS)


@SLOW
@given(documents())
def test_a_valid_workflow_has_no_problem(document: Document) -> None:
    assert problems(document) == []
    workflow = parse_workflow(json.dumps(document, ensure_ascii=False), "workflow.yaml")
    stored = workflow_from_json(definition_to_json(workflow))
    assert check_workflow(stored, None, "stored", AGENTS, WORKFLOWS) == []
    assert step_dependencies(stored) == step_dependencies(workflow)
    placed = {one.step.id for one in workflow.placed_steps() if one.actions is None}
    assert step_dependencies(workflow).keys() == placed


def step(document: Document, **more: Any) -> Document:
    """Add a sound step, changed by ``more``; None takes a key away."""
    added = {"id": "extra", "agent": "work", "inputs": {"text": "x"}, **more}
    document["steps"].append({key: value for key, value in added.items() if value is not None})
    return document


def twice(document: Document) -> None:
    document["steps"].append(copy.deepcopy(document["steps"][0]))


def looped(document: Document) -> None:
    step(document, id="one", needs=["two"])
    step(document, id="two", when="${steps.one.outputs.flag}")


def looped_through_items(document: Document) -> None:
    step(document, id="one", for_each="${steps.two.outputs.rows}")
    step(document, id="two", inputs={"text": "${steps.one.status}"})


def looped_through_a_handler(document: Document) -> None:
    handler = {"id": "two", "agent": "work", "inputs": {"text": "x"}}
    step(document, id="one", needs=["two"], on_error={"steps": [handler]})


def nested(document: Document) -> None:
    innermost: Document = {"id": "h4", "agent": "work", "inputs": {"text": "x"}}
    for index in (3, 2, 1):
        inner = {"steps": [innermost], "then": "continue"}
        innermost = {**innermost, "id": f"h{index}", "on_error": inner}
    step(document, on_error={"steps": [innermost], "then": "continue"})


def handled(document: Document, **more: Any) -> None:
    handler = {"id": "handler", "agent": "work", "inputs": {"text": "x"}, **more}
    step(document, on_error={"steps": [handler]})


def after_a_handler(document: Document) -> None:
    handled(document)
    step(document, id="later", needs=["handler"])


def handler_after_success(document: Document) -> None:
    handled(document, needs=["later"])
    step(document, id="later", needs=["extra"])


def never_failing(document: Document) -> None:
    handler = {"id": "handler", "agent": "work", "inputs": {"text": "x"}}
    wait = {"duration": "5s"}
    step(document, agent=None, inputs=None, wait=wait, on_error={"steps": [handler]})


def after_never(document: Document) -> None:
    step(document, id="off", when=False)
    step(document, id="later", needs=["off"])


def output(document: Document, value: Any, **more: Any) -> None:
    outputs = document["outputs"]
    if isinstance(outputs, dict) and not more:
        outputs["extra"] = value
        return
    if isinstance(outputs, dict):
        outputs = [{"name": "first", "value": 1, "type": "integer"}]
        document["outputs"] = outputs
    outputs.append({"name": "extra", "required": False, "value": value, **more})


def item_output(document: Document) -> None:
    step(document, for_each=[1, 2])
    output(document, "${steps.extra.outputs.text}")


def action(document: Document, **more: Any) -> None:
    added = {"id": "extra", "agent": "work", "inputs": {"text": "x"}, **more}
    document.setdefault("on_success", []).append({"step": added})


def before_its_action(document: Document) -> None:
    action(document)
    step(document, id="early", needs=["extra"])


def other_actions(document: Document) -> None:
    action(document)
    document.setdefault("on_error", []).append(
        {"notify": {"type": "log", "message": "${steps.extra.outputs.text}"}}
    )


def waits(document: Document, wait: Document, **more: Any) -> None:
    step(document, agent=None, inputs=None, wait=wait, **more)


FORM = [{"name": "a"}, {"name": "a"}]
Mistake = Callable[[Document], object]
MISTAKES: dict[str, tuple[Mistake, str]] = {
    "an id used twice": (twice, "is used twice"),
    "a step that does nothing": (lambda d: step(d, agent=None, inputs=None), "does nothing"),
    "a step that does two things": (lambda d: step(d, workflow="child"), "does one of them"),
    "no agent's name": (lambda d: step(d, agent="Work!"), "does not name an agent"),
    "no workflow's name": (
        lambda d: step(d, agent=None, workflow="a b"),
        "does not name a workflow",
    ),
    "an unknown need": (lambda d: step(d, needs=["nowhere"]), "no step `nowhere` to wait for"),
    "a step that needs itself": (lambda d: step(d, needs=["extra"]), "needs itself"),
    "a cycle": (looped, "cycle: "),
    "a cycle through items": (looped_through_items, "cycle: "),
    "a cycle through a handler": (looped_through_a_handler, "cycle: "),
    "an input that is not declared": (
        lambda d: step(d, inputs={"text": "x", "more": 1}),
        "input `more` of work@1.0.0 is not declared",
    ),
    "a missing input": (lambda d: step(d, inputs={}), "input `text` of work@1.0.0 is missing"),
    "a constant of another type": (lambda d: step(d, inputs={"text": 5}), "must be a string"),
    "an expression of another type": (
        lambda d: step(d, inputs={"text": "${inputs.in_array}"}),
        "must be of type string, but this gives array",
    ),
    "text for a number": (
        lambda d: step(d, inputs={"text": "x", "count": "${inputs.in_integer} "}),
        "must be of type integer, but this gives string",
    ),
    "an unknown input of the workflow": (
        lambda d: step(d, inputs={"text": "${inputs.nothing}"}),
        "the workflow has no input `nothing`",
    ),
    "an input of a called workflow that is not declared": (
        lambda d: step(d, agent=None, workflow="child", inputs={"text": "x", "b": 1}),
        "input `b` of child@1.0.0 is not declared",
    ),
    "a missing input of a called workflow": (
        lambda d: step(d, agent=None, workflow="child", inputs={}),
        "input `text` of child@1.0.0 is missing",
    ),
    "an unknown output of a called workflow": (
        lambda d: (
            step(d, agent=None, workflow="child"),
            output(d, "${steps.extra.outputs.texd}"),
        ),
        "(child@1.0.0) has no output `texd`",
    ),
    "a secret for a workflow": (
        lambda d: step(d, agent=None, workflow="child", inputs={"text": "${secrets.KEY}"}),
        "`secrets` cannot be used here",
    ),
    "a secret that is not requested": (
        lambda d: step(d, inputs={"text": "${secrets.OTHER}"}),
        "does not request the secret `OTHER`",
    ),
    "a secret in an output": (lambda d: output(d, "${secrets.KEY}"), "cannot be used here"),
    "a condition that is none": (lambda d: step(d, when="inputs.in_boolean"), "is not one ${...}"),
    "a condition that gives a number": (
        lambda d: step(d, when="${inputs.in_integer}"),
        "when must be of type boolean, but this gives integer",
    ),
    "a constant that is no condition": (lambda d: step(d, when="${1 + 1}"), "not true or false"),
    "a condition that is always false": (lambda d: step(d, when="${1 > 2}"), "is always false"),
    "a step after one that never runs": (after_never, "it needs `off`, which never runs"),
    "a handler of what cannot fail": (never_failing, "of `extra`, which cannot fail"),
    "a step after a handler that ends the run": (after_a_handler, "that failure ends the run"),
    "a handler that needs success": (handler_after_success, "has not failed"),
    "handlers nested too deeply": (nested, "more than 3 deep"),
    "an error that nobody handles": (
        lambda d: step(d, inputs={"text": "${error.message}"}),
        "`error` cannot be used here",
    ),
    "an unknown part of an error": (
        lambda d: handled(d, inputs={"text": "${error.text}"}),
        "`error` has no `text`",
    ),
    "an item of nothing": (lambda d: step(d, inputs={"text": "${item}"}), "only in `for_each`"),
    "an item in a condition": (
        lambda d: step(d, for_each=["a"], when="${item == 'a'}"),
        "only in `for_each`",
    ),
    "no items": (lambda d: step(d, for_each=[]), "has no items"),
    "items of a number": (
        lambda d: step(d, for_each="${inputs.in_integer}"),
        "for_each must be of type array, but this gives integer",
    ),
    "items of text": (lambda d: step(d, for_each="a, b"), "must be a list, or one ${...}"),
    "a part of an item that it has not": (
        lambda d: step(d, for_each=["a"], inputs={"text": "${item.name}"}),
        "`item` is of type string and has no `name`",
    ),
    "an item of another type": (
        lambda d: step(d, for_each=[1, 2], inputs={"text": "${item}"}),
        "must be of type string, but this gives integer",
    ),
    "one output of many items": (item_output, "is an array with the outputs of every item"),
    "errors without items": (
        lambda d: (step(d), output(d, "${steps.extra.errors}")),
        "it has no `for_each`",
    ),
    "parallel nothing": (lambda d: step(d, max_parallel=2), "no meaning without `for_each`"),
    "an unknown output": (
        lambda d: (step(d), output(d, "${steps.extra.outputs.nothing}")),
        "(work@1.0.0) has no output `nothing`",
    ),
    "an output of another type": (
        lambda d: output(d, "${inputs.in_array}", type="integer"),
        "must be of type integer, but this gives array",
    ),
    "a constant output of another type": (
        lambda d: output(d, "five", type="integer"),
        "output `extra` of the workflow must be an integer",
    ),
    "a wait for nothing": (lambda d: waits(d, {}), "it waits for nothing"),
    "a wait for two things": (
        lambda d: waits(d, {"duration": 1, "event": {"name": "e"}}),
        "waits for one thing",
    ),
    "no length of time": (lambda d: waits(d, {"duration": "5 moons"}), "is no length of time"),
    "a negative time": (lambda d: waits(d, {"duration": -1}), "is no length of time"),
    "a time of another type": (
        lambda d: waits(d, {"duration": "${inputs.in_boolean}"}),
        "but this gives boolean",
    ),
    "no moment": (lambda d: waits(d, {"until": "2030-01-31"}), "is no moment"),
    "no deadline": (
        lambda d: waits(d, {"event": {"name": "e", "deadline": "soon"}}),
        "is no length of time",
    ),
    "a deadline of nothing": (
        lambda d: waits(d, {"approval": {"message": "m", "deadline": 0}}),
        "has passed at once",
    ),
    "a form with a field twice": (
        lambda d: waits(d, {"approval": {"message": "m", "form": FORM}}),
        "the field `a` is declared twice",
    ),
    "a form with a file": (
        lambda d: waits(d, {"approval": {"message": "m", "form": [{"name": "a", "type": "file"}]}}),
        "cannot be a file",
    ),
    "an unknown field of a form": (
        lambda d: (
            waits(d, {"approval": {"message": "m", "form": [{"name": "amount"}]}}),
            output(d, "${steps.extra.outputs.values.amuont}"),
        ),
        "`steps.extra.outputs.values` has no `amuont`",
    ),
    "an event's name that is not written out": (
        lambda d: waits(d, {"event": {"name": "${inputs.in_string}"}}),
        "which only its key can",
    ),
    "inputs of a wait": (lambda d: step(d, agent=None, wait={"duration": 1}), "which waits"),
    "a wait tried again": (lambda d: waits(d, {"duration": 1}, retry={}), "which waits"),
    "a wait with a time limit": (
        lambda d: waits(d, {"event": {"name": "e"}}, timeout_seconds=5),
        "which waits",
    ),
    "a wait that is cached": (lambda d: waits(d, {"duration": 1}, cache={}), "which waits"),
    "a workflow that is cached": (
        lambda d: step(d, agent=None, workflow="child", cache={}),
        "which runs a workflow",
    ),
    "an action that does nothing": (
        lambda d: d.setdefault("on_cancel", []).append({}),
        "neither `notify` nor `step`",
    ),
    "an action that does two things": (
        lambda d: d.setdefault("on_error", []).append(
            {
                "notify": {"type": "log", "message": "m"},
                "step": {"id": "extra", "agent": "work", "inputs": {"text": "x"}},
            }
        ),
        "both `notify` and `step`",
    ),
    "an action with needs": (
        lambda d: action(d, needs=[d["steps"][0]["id"]]),
        "`needs` has no meaning in `on_success`",
    ),
    "an action with handlers": (
        lambda d: action(
            d, on_error={"steps": [{"id": "more", "agent": "work", "inputs": {"text": "x"}}]}
        ),
        "cannot have steps that handle its errors",
    ),
    "an action's step used before": (before_its_action, "belongs to `on_success`"),
    "an action's step used by others": (other_actions, "belongs to `on_success`"),
    "an error after success": (
        lambda d: action(d, inputs={"text": "${error.message}"}),
        "`error` cannot be used here",
    ),
    "a search for nothing": (lambda d: d.update(search=["in_strin"]), "no input `in_strin`"),
    "a search for an object": (lambda d: d.update(search=["in_object"]), "which is of type object"),
    "a search twice": (lambda d: d.update(search=["in_string", "in_string"]), "stands twice"),
    "a label's name": (lambda d: d.update(labels={"a b": "c"}), "cannot name a label"),
    "a label too long": (lambda d: d.update(labels={"a": "c" * 257}), "at most 256"),
    "a label of steps": (
        lambda d: d.update(labels={"a": f"${{steps.{d['steps'][0]['id']}.status}}"}),
        "before any step",
    ),
    "a label of an array": (lambda d: d.update(labels={"a": "${inputs.in_array}"}), "gives array"),
    "a key of an array": (
        lambda d: d.update(concurrency={"key": "${inputs.in_array}"}),
        "gives array",
    ),
    "a budget of nothing": (lambda d: d.update(budget={}), "limits nothing"),
    "an unknown config": (lambda d: output(d, "${config.limti}"), "config has no `limti`"),
    "an unknown variable": (lambda d: output(d, "${variables.no}"), "has no variable `no`"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
@settings(SLOW, max_examples=5)
@given(data=st.data())
def test_a_single_mistake_is_found_and_told_with_its_line(
    mistake: str, data: st.DataObject
) -> None:
    document = data.draw(documents(max_steps=4))
    make, message = MISTAKES[mistake]
    make(document)
    found = problems(document)
    (told, *_) = [problem for problem in found if message in problem.message] or [None]
    assert told is not None, [str(problem) for problem in found]
    assert told.line is not None
    assert told.line > 1
    assert told.remedy
