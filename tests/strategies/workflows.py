"""Valid workflows at random, with every feature of the language, for tests that check or run them.

``documents()`` gives what could stand in ``workflow.yaml``. Its steps call the agent ``work``
(:data:`MANIFEST`, :data:`HANDLER`: what it gives depends only on its inputs) and the workflow
``child`` (:data:`CHILD`). Waits are short, what a step may fail of is in its inputs, and no
expression sees a time or a run's id. So a run ends in the same state however often it is
interrupted, and one that succeeds has the same outputs and the same states of steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import hypothesis
from hypothesis import strategies as st

Document = dict[str, Any]
Draw = Callable[[st.SearchStrategy[Any]], Any]

MANIFEST: Final = """\
name: work
version: 1.0.0
description: Gives what follows from its inputs; fails when asked to.
runtime: {type: python, entry: main.py}
permissions: {secrets: [KEY]}
inputs:
  - {name: text, type: string}
  - {name: count, type: integer, default: 1}
  - {name: ratio, type: number, required: false}
  - {name: flag, type: boolean, required: false}
  - {name: data, type: object, required: false}
  - {name: rows, type: array, required: false}
  - {name: token, type: string, required: false}
  - {name: fail, type: boolean, default: false}
outputs:
  - {name: text, type: string}
  - {name: count, type: integer}
  - {name: flag, type: boolean}
  - {name: rows, type: array, schema: {items: {type: integer}}}
  - {name: data, type: object}
"""
HANDLER: Final = '''\
"""Everything that it gives follows from its inputs."""

import hashlib
import json


def handler(inputs):
    if inputs["fail"]:
        raise ValueError("it was asked to fail")
    plain = {name: value for name, value in inputs.items() if name != "token"}
    digest = hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
    count = int(digest[:4], 16) % 5
    return {
        "text": digest[:12],
        "count": count,
        "flag": count % 2 == 0,
        "rows": list(range(count)),
        "data": {"text": digest[12:20], "count": count},
    }
'''
CHILD: Final = """\
name: child
version: 1.0.0
inputs:
  - {name: text}
  - {name: count, type: integer, default: 2}
outputs:
  - {name: text, type: string, value: "${steps.first.outputs.text}"}
  - {name: count, type: integer, value: "${inputs.count}"}
steps:
  - {id: first, agent: work, inputs: {text: "${inputs.text}", count: "${inputs.count}"}}
"""

KINDS: Final = ("agent", "workflow", "duration", "until", "approval", "event")
"""What a step can do."""

_AGENT_FIELDS: Final = {
    "text": "string",
    "count": "integer",
    "ratio": "number",
    "flag": "boolean",
    "data": "object",
    "rows": "array",
}
_OUTPUTS: Final = {
    "text": "string",
    "count": "integer",
    "flag": "boolean",
    "rows": "array",
    "data": "object",
}
_CONSTANTS: Final[dict[str, Sequence[Any]]] = {
    "string": ("plain", "", 'it\'s "quoted"', "é\n$${no} {{ x }}", "a: b # c"),
    "integer": (0, 1, 3),
    "number": (0.5, 2, 1e3),
    "boolean": (True, False),
    "object": ({}, {"a": 1, "b": {"c": [True, None]}}),
    "array": ([], [1, 2, 3], [1, 2, 3, 4, 5, 6, 7, 8]),
}


@dataclass(frozen=True)
class Scope:
    """The names that an expression can use, by their type."""

    names: tuple[tuple[str, str], ...]
    texts: tuple[str, ...] = ()
    """Names of any type, to be used within text."""
    steps: tuple[str, ...] = ()

    def of_type(self, kind: str) -> list[str]:
        fitting = {"number": ("number", "integer")}.get(kind, (kind,))
        return [name for name, each in self.names if each in fitting]

    def plus(
        self, names: Sequence[tuple[str, str]], texts: Sequence[str] = (), step: str | None = None
    ) -> Scope:
        steps = self.steps if step is None else (*self.steps, step)
        return replace(self, names=(*self.names, *names), texts=(*self.texts, *texts), steps=steps)


@dataclass
class _Made:
    """What has been made so far."""

    draw: Draw
    kinds: Sequence[str]
    failing: bool
    count: int = 0
    features: set[str] = field(default_factory=set)

    def new_id(self) -> str:
        self.count += 1
        return f"s{self.count}"

    def often(self, percent: int) -> bool:
        return bool(self.draw(st.integers(0, 99)) < percent)

    def one_of(self, choices: Sequence[Any]) -> Any:
        return self.draw(st.sampled_from(choices))


@st.composite
def documents(
    draw: Draw,
    *,
    kinds: Sequence[str] = KINDS,
    min_steps: int = 1,
    max_steps: int = 8,
    failing: bool = True,
    actions: bool = True,
) -> Document:
    """Valid workflows.

    Args:
        kinds: what steps may do; ``agent`` is always among it.
        min_steps: steps of the DAG, those that handle errors apart, at least.
        max_steps: and at most.
        failing: whether steps may be asked to fail.
        actions: whether there may be actions.
    """
    made = _Made(draw, tuple(dict.fromkeys(("agent", *kinds))), failing)
    document: Document = {"name": "random-flow", "version": "1.0.0"}
    scope = _head(made, document)
    steps: list[Document] = []
    for _ in range(draw(st.integers(min_steps, max_steps))):
        step, scope = _step(made, scope, depth=0)
        steps.append(step)
    document["steps"] = steps
    _outputs(made, document, scope)
    if actions:
        _actions(made, document, scope)
    _limits(made, document)
    return document


def drawn(count: int, seed: int, **options: Any) -> list[Document]:
    """So many workflows of :func:`documents`, the same for the same seed: for tests that cannot run
    a property, as they need processes or an event loop."""
    found: list[Document] = []

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(documents(**options))
    def collect(document: Document) -> None:
        found.append(document)

    collect()
    return found[:count]


def _head(made: _Made, document: Document) -> Scope:
    """Inputs, config and variables; all that steps can use besides each other."""
    types = ("string", "integer", "number", "boolean", "object", "array")
    document["inputs"] = [
        {"name": f"in_{kind}", "type": kind, "default": made.one_of(_CONSTANTS[kind])}
        for kind in types
    ]
    names = [(f"inputs.in_{kind}", kind) for kind in types] + [("run.workflow", "string")]
    document["config"] = {"limit": 3, "title": "a title"}
    scope = Scope(tuple(names), ("config.limit", "config.title"))
    variables: Document = {}
    for index in range(made.draw(st.integers(0, 2))):
        kind = made.one_of(types)
        variables[f"var{index}"] = _value(made, scope, kind)
        scope = scope.plus([(f"variables.var{index}", kind)])
    document["variables"] = variables
    return scope


def _value(made: _Made, scope: Scope, kind: str) -> Any:
    """A value of a type: a constant, a name, or something made with names."""
    names = scope.of_type(kind)
    if not names or made.often(30):
        return made.one_of(_CONSTANTS[kind])
    name = made.one_of(names)
    if kind == "string" and made.often(50):
        other = made.one_of([*scope.texts, *(each for each, _ in scope.names)])
        return f"${{{name}}} and ${{{other}|tojson}} $${{literal}}"
    if kind == "integer" and made.often(30):
        return f"${{({name}|default(0, true)) + 1}}"
    if kind == "object" and made.often(30):
        return {"whole": f"${{{name}}}", "list": [f"${{{name}}}", 1]}
    if kind == "array" and made.often(30):
        return [f"${{{name}}}", {"deep": [None]}]
    return f"${{{name}}}"


def _condition(made: _Made, scope: Scope) -> str:
    flag, count = made.one_of(scope.of_type("boolean")), made.one_of(scope.of_type("integer"))
    forms = (f"${{{flag} == true}}", f"${{({count}|default(0, true)) >= 1}}", f"${{not {flag}}}")
    return str(made.one_of(forms))


def _step(made: _Made, scope: Scope, depth: int) -> tuple[Document, Scope]:
    """A step, and the scope with its results."""
    step: Document = {"id": made.new_id()}
    outer = scope
    kind = "agent" if made.often(40) else made.one_of(made.kinds)
    if made.often(20):
        step["name"] = f"Step {step['id']}"
    if scope.steps and made.often(25):
        step["needs"] = [made.one_of(scope.steps)]
    if made.often(20):
        step["when"] = _condition(made, scope)
    if made.often(25):
        scope = _for_each(made, step, scope)
    outputs = _do(made, step, scope, kind)
    result = _results(step, outputs, outer)
    if kind in ("agent", "workflow", "approval"):
        result = _on_error(made, step, outer, result, depth)
    if made.failing and "for_each" in step and "on_error" in step:
        step["max_parallel"] = (
            1  # so that it is certain which items have failed, and in which order
        )
    return step, result


def _for_each(made: _Made, step: Document, scope: Scope) -> Scope:
    """Let a step run for each item; return what its inputs see."""
    made.features.add("for_each")
    if made.often(50):
        step["max_parallel"] = made.one_of((1, 2, 50))
    lists = [name for name in scope.of_type("array") if name.startswith(("inputs", "steps"))]
    choice = made.draw(st.integers(0, 2 if lists else 1))
    if choice == 0:
        step["for_each"] = made.one_of((["a", "b"], ["${inputs.in_string}"]))
        names = [("item", "string")]
    elif choice == 1:
        step["for_each"] = [{"name": "x", "size": 1}, {"name": "y", "size": 2}]
        names = [("item.name", "string"), ("item.size", "integer")]
    else:
        step["for_each"] = f"${{{made.one_of(lists)}}}"
        names = []
    return scope.plus([*names, ("index", "integer")], ["item"])


def _do(made: _Made, step: Document, scope: Scope, kind: str) -> dict[str, str]:
    """Let a step do something; return its outputs by type."""
    made.features.add(kind)
    if kind == "agent":
        _call_agent(made, step, scope)
        return dict(_OUTPUTS)
    if kind == "workflow":
        step["workflow"] = made.one_of(("child", "child@1.0.0"))
        step["inputs"] = {"text": _value(made, scope, "string")}
        if made.often(50):
            step["inputs"]["count"] = _value(made, scope, "integer")
        if made.often(20):
            step["timeout_seconds"] = 600
        return {"text": "string", "count": "integer"}
    if kind == "duration":
        step["wait"] = {"duration": made.one_of((0, 0.01, "0.02", "0s", "${0.01}"))}
        return {}
    if kind == "until":
        step["wait"] = {"until": made.one_of(("2020-01-31T09:00:00+01:00", "2020-01-31T09:00Z"))}
        return {}
    deadline = {"deadline": made.one_of((5, "90m", "2d12h"))} if made.often(40) else {}
    if kind == "approval":
        form = [{"name": "amount", "type": "integer"}, {"name": "note", "required": False}]
        message = _value(made, scope, "string")
        step["wait"] = {"approval": {"message": message, "form": form, **deadline}}
        return {"approved": "boolean", "values.amount": "integer"}
    key = {"key": _value(made, scope, "string")} if made.often(50) else {}
    step["wait"] = {"event": {"name": "order.paid", **key, **deadline}}
    return {"name": "string"}


def _call_agent(made: _Made, step: Document, scope: Scope) -> None:
    step["agent"] = made.one_of(("work", "work@1.0.0"))
    step["inputs"] = {"text": _value(made, scope, "string")}
    for name, kind in _AGENT_FIELDS.items():
        if name != "text" and made.often(30):
            step["inputs"][name] = _value(made, scope, kind)
    if made.failing and made.often(15):
        step["inputs"]["fail"] = made.one_of((True, _value(made, scope, "boolean")))
    if made.often(20):
        retry = {"attempts": 2, "delay_seconds": 0, "on": made.one_of(([], ["timeout"]))}
        step["retry"] = retry
    if made.often(10):
        step["timeout_seconds"] = 60.0
    if made.often(10):
        step["isolation"] = "sandbox"
    if made.often(10):
        step["network"] = []
    if made.often(10):
        step["cache"] = made.one_of(({}, {"ttl_seconds": 60}))


def _on_error(made: _Made, step: Document, scope: Scope, result: Scope, depth: int) -> Scope:
    """Say what a step's failure does; return what is there after it.

    Args:
        scope: what the step itself could use.
        result: the same, with what the step gives.
    """
    choice = made.draw(st.integers(0, 9))
    if choice >= 6 or (choice < 3 and depth >= 3):
        return result
    if choice >= 3:
        step["on_error"] = made.one_of(("continue", "fail"))
        return result
    made.features.add("handlers")
    errors = [(f"error.{name}", "string") for name in ("message", "code", "step")]
    inner = scope.plus(errors)
    handlers = []
    for _ in range(made.draw(st.integers(1, 2))):
        handler, inner = _step(made, inner, depth + 1)
        handlers.append(handler)
    then = made.one_of(("fail", "continue"))
    step["on_error"] = {"steps": handlers, "then": then}
    if then == "fail" or depth > 0:
        return result  # nothing later could name the handlers: where they run, the run ends
    gained = len(scope.names) + len(errors)
    return replace(
        result,
        names=(*result.names, *inner.names[gained:]),
        steps=(*result.steps, *(handler["id"] for handler in handlers)),
    )


def _results(step: Document, outputs: dict[str, str], scope: Scope) -> Scope:
    path = f"steps.{step['id']}"
    if "for_each" in step:
        names = [(f"{path}.errors", "array")]
        texts = [f"{path}.outputs|length"]
        if "wait" not in step:
            names.append((f"{path}.outputs", "array"))
            texts.append(f"{path}.outputs|map(attribute='text')|list")
        return scope.plus([*names, (f"{path}.status", "string")], texts, step["id"])
    names = [(f"{path}.outputs.{name}", kind) for name, kind in outputs.items()]
    return scope.plus([*names, (f"{path}.status", "string")], [f"{path}.error"], step["id"])


def _outputs(made: _Made, document: Document, scope: Scope) -> None:
    if made.often(50):
        document["outputs"] = {"last": f"${{steps.{scope.steps[-1]}.status}}", "fixed": [1]}
        return
    outputs = []
    for index in range(made.draw(st.integers(1, 3))):
        kind = made.one_of(("string", "integer", "boolean", "array", "object"))
        value = _value(made, scope, kind)
        outputs.append({"name": f"out{index}", "type": kind, "required": False, "value": value})
    document["outputs"] = outputs


def _actions(made: _Made, document: Document, scope: Scope) -> None:
    for name in ("on_error", "on_success", "on_cancel"):
        if not made.often(30):
            continue
        inner = scope
        if name != "on_success":
            inner = inner.plus([("error.message", "string"), ("error.code", "string")])
        actions: list[Document] = []
        for _ in range(made.draw(st.integers(1, 2))):
            if made.often(50):
                message = _value(made, inner, "string")
                actions.append({"notify": {"type": "log", "message": message, "level": "info"}})
                continue
            step: Document = {"id": made.new_id()}
            _call_agent(made, step, inner)
            inner = _results(step, dict(_OUTPUTS), inner)
            actions.append({"step": step})
        document[name] = actions


def _limits(made: _Made, document: Document) -> None:
    """What concerns the run as a whole."""
    whole: dict[str, Any] = {
        "timeout_seconds": 3600,
        "concurrency": {"key": "${inputs.in_integer}", "limit": 2},
        "priority": 5,
        "budget": {"usd": 100.0, "tokens": 10**9},
        "search": ["in_string", "in_boolean"],
        "labels": {"team": "red", "kind": "${inputs.in_number}"},
        "tags": ["random"],
        "description": "One of many",
    }
    for key, value in whole.items():
        if made.often(20):
            document[key] = value
