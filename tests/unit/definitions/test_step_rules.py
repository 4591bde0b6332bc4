"""Steps, waits and actions: what may stand together, told with line and remedy."""

from __future__ import annotations

import pytest

from swarm.definitions.labels import label_name_fault, label_value_fault
from swarm.definitions.loading import parse_workflow
from swarm.definitions.workflow import PlacedStep
from swarm.kernel.errors import DefinitionError, Problem

HEAD = """\
name: flow
version: 1.0.0
inputs:
  - {name: files, type: array}
  - {name: text}
steps:
  - id: first
    agent: echo
"""


def problems(text: str) -> tuple[Problem, ...]:
    with pytest.raises(DefinitionError) as caught:
        parse_workflow(HEAD + text, "workflow.yaml")
    return caught.value.problems


def steps(text: str) -> list[PlacedStep]:
    return [*parse_workflow(HEAD + text, "workflow.yaml").placed_steps()]


@pytest.mark.parametrize(
    ("text", "line", "message", "remedy"),
    [
        ("  - id: a", 9, "the step `a` does nothing: it has none of `agent`", "add `agent"),
        (
            "  - id: a\n    agent: echo\n    wait: {duration: 1}",
            11,
            "the step `a` has `agent` and `wait`; a step does one of them",
            "a step of its own",
        ),
        ("  - id: a\n    workflow: b@1", 10, "`b@1` does not name a workflow", "name@1.0.0"),
        ("  - {id: first, agent: x}", 9, "is used twice (first on line 7)", "rename"),
        (
            "    on_error:\n      steps:\n        - id: first\n          agent: x",
            11,
            "is used twice (first on line 7)",
            "rename",
        ),
        ("on_cancel:\n  - step:\n      id: first\n      agent: x", 11, "used twice", "rename"),
        ("  - id: a\n    wait:\n      {}", 10, "it waits for nothing", "duration: 90m"),
        (
            "  - id: a\n    wait:\n      until: 2030-01-31T09:00Z\n      event: {name: e}",
            12,
            "it waits for `until` and `event`",
            "a step of its own",
        ),
        ("  - id: a\n    wait:\n      duration: tomorrow", 11, "'tomorrow' is no length", "2d12h"),
        ("  - id: a\n    wait:\n      until: 2030-01-31 09:00", 11, "is no moment", "time zone"),
        ("  - {id: a, wait: {duration: 11y}}", 9, "is no length of time", "at most ten years"),
        (
            "  - id: a\n    wait: {duration: 1}\n    retry: {}",
            11,
            "`retry` has no meaning for the step `a`, which waits",
            "remove it",
        ),
        (
            "  - id: a\n    wait: {event: {name: e}}\n    timeout_seconds: 5",
            11,
            "`timeout_seconds` has no meaning",
            "give `wait.event.deadline` instead",
        ),
        (
            "  - id: a\n    wait: {approval: {message: m}}\n    inputs: {message: m}",
            11,
            "`inputs` has no meaning",
            "stands in `wait`",
        ),
        (
            "  - id: a\n    workflow: b\n    network: []",
            11,
            "`network` has no meaning for the step `a`, which runs a workflow",
            "the steps of that workflow",
        ),
        ("    max_parallel: 3", 9, "has no meaning without `for_each`", "add `for_each"),
        ("    for_each: []", 9, "`for_each` has no items, so the step `first`", "list the items"),
        ("on_error:\n  - {}", 10, "neither `notify` nor `step`", "add `notify"),
        (
            "on_success:\n  - step: {id: a, agent: b, needs: [first]}",
            10,
            "in `on_success`",
            "order",
        ),
        ("search: [text, fils]", 9, "no input `fils` to search by", "did you mean files?"),
        ("search: [nothing]", 9, "no input `nothing`", "its inputs: files, text"),
        ("search:\n  - files", 10, "`files`, which is of type array", "string, integer"),
        (
            f"search: [{', '.join(['text'] * 17)}]",
            9,
            "search may have 16 entries, and has 17",
            "remove",
        ),
        ("labels:\n  a=b: c", 10, "`a=b` cannot name a label", "team"),
        (f"labels: {{{'a' * 65}: c}}", 9, "longer than 64 characters", "shorten"),
        (f"labels: {{a: {'c' * 257}}}", 9, "has 257 characters; at most 256", "shorten"),
        (
            f"labels: {{{', '.join(f'a{index}: b' for index in range(33))}}}",
            9,
            "there are 33 labels",
            "remove some",
        ),
        (f"concurrency:\n  key: {'c' * 257}", 10, "the key has 257 characters", "shorten"),
        ("budget: {}", 9, "the budget limits nothing", "`usd`, `tokens` or `vm_seconds`"),
        (
            "outputs:\n  - {name: a, value: 1}\n  - {name: a, value: 2}",
            11,
            "the output `a` is declared twice (first on line 10)",
            "rename",
        ),
        (
            "  - id: a\n    wait:\n      approval:\n        message: m\n        form:\n"
            "          - {name: b, type: integer, default: x}",
            14,
            "the default of `b` must be an integer",
            "fit the declaration",
        ),
        (
            "    on_error:\n      steps: [{id: b, agnet: x}]",
            10,
            "the key `agnet` is not known in steps[0].on_error.steps[0]",
            "did you mean `agent`",
        ),
        (
            "    on_error: [b]",
            9,
            "steps[0].on_error must be a mapping, got array",
            "indented lines",
        ),
        ("outputs: [{name: a}]", 9, "`value` is missing in outputs[0]", "add `value: ...`"),
    ],
)
def test_a_faulty_step_is_told_with_line_and_remedy(
    text: str, line: int, message: str, remedy: str
) -> None:
    told = [problem for problem in problems(text) if message in problem.message]
    assert told, [str(problem) for problem in problems(text)]
    assert told[0].line == line
    assert remedy in (told[0].remedy or "")


@pytest.mark.parametrize(
    "text",
    [
        "  - {id: a, wait: {duration: 90}}",
        "  - {id: a, wait: {duration: 2d 12h 5m 1.5s}}",
        "  - {id: a, wait: {duration: '${inputs.text}'}}",
        "  - {id: a, wait: {until: '2030-01-31T09:00:00+01:00'}}",
        "  - {id: a, wait: {until: '${inputs.text}'}}",
        "  - {id: a, wait: {approval: {message: m, deadline: '${inputs.text}', form: []}}}",
        "  - {id: a, wait: {event: {name: e, key: '${item}', deadline: 5m}}, for_each: [x]}",
        "  - {id: a, workflow: b@1.0.0-rc.1, retry: {}, timeout_seconds: 5, inputs: {x: 1}}",
        "  - {id: a, agent: b, cache: {}, isolation: sandbox, network: []}",
        "on_cancel: [{step: {id: a, agent: b, on_error: continue}}]",
        "labels: {app/tier: '${inputs.text}'}",
        "search: [text]\nbudget: {tokens: 5}\nconcurrency: {}",
    ],
)
def test_what_may_stand_together_is_taken(text: str) -> None:
    steps(text)


def test_steps_are_placed_with_their_guards_and_lists() -> None:
    text = (
        "    on_error:\n      steps:\n        - id: a\n          agent: b\n"
        "          on_error: {steps: [{id: c, agent: d}]}\n"
        "on_error:\n  - notify: {type: log, message: m}\n  - step: {id: e, agent: f}\n"
    )
    placed = [(one.step.id, one.guard, one.actions, one.location) for one in steps(text)]
    assert placed == [
        ("first", None, None, ("steps", 0)),
        ("a", "first", None, ("steps", 0, "on_error", "steps", 0)),
        ("c", "a", None, ("steps", 0, "on_error", "steps", 0, "on_error", "steps", 0)),
        ("e", None, "on_error", ("on_error", 1, "step")),
    ]


def test_handlers_are_nested_three_deep_at_most() -> None:
    def nested(depth: int) -> str:
        inner = "{id: h0, agent: x}"
        for index in range(1, depth):
            inner = f"{{id: h{index}, agent: x, on_error: {{steps: [{inner}]}}}}"
        return f"    on_error: {{steps: [{inner}]}}\n"

    assert len(steps(nested(3))) == 4
    (problem,) = problems(nested(4))
    assert "nested more than 3 deep" in problem.message


def test_the_labels_of_a_command_line_are_held_to_the_same_rules() -> None:
    assert label_name_fault("team") is None
    assert label_value_fault("team", "x" * 256) is None
    for name in ("", "a b", "=", "é", "-a", "a" * 65):
        assert label_name_fault(name) is not None, name
