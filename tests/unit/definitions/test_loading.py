"""Manifests: what is read from them, and how faults are told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.definitions.agent import AgentDefinition
from swarm.definitions.loading import (
    agent_from_json,
    definition_to_json,
    load_agent,
    load_workflow,
    parse_agent,
    parse_workflow,
    workflow_from_json,
)
from swarm.kernel.errors import DefinitionError, Problem
from swarm.kernel.json import dumps

AGENT = """name: echo
version: 1.0.0
runtime:
  type: python
  entry: main.py
inputs:
  - name: message
    type: string
"""

WORKFLOW = """name: flow
version: 1.0.0
steps:
  - id: first
    agent: echo
    inputs: {message: hi}
"""


def problems(text: str, parse: Any = parse_agent) -> tuple[Problem, ...]:
    with pytest.raises(DefinitionError) as caught:
        parse(text, "file.yaml")
    return caught.value.problems


def only(text: str, parse: Any = parse_agent) -> Problem:
    (problem,) = problems(text, parse)
    return problem


@pytest.mark.parametrize(
    ("old", "new", "line", "message", "remedy"),
    [
        ("version: 1.0.0", "version: 1.0", 2, "version must be text, got number 1.0", "'1.0.0'"),
        ("version: 1.0.0", "version: 2", 2, "version must be text, got integer 2", "'2.0.0'"),
        ("version: 1.0.0", "version: v1", 2, "`v1` is not a semantic version", "1.0.0"),
        ("version: 1.0.0\n", "", 1, "`version` is missing", "add `version: ...`"),
        ("name: echo", "name: Echo_Me!", 1, "`Echo_Me!` is not a name", "echo_me"),
        ("name: echo", "name: " + "a" * 65, 1, "longer than 64 characters", "shorten"),
        ("name: echo", "name: [a]", 1, "name must be text, got array of 1 items", None),
        ("name: echo", "nam: echo\nname: echo", 1, "the key `nam` is not known", "`name`"),
        ("  type: python", "  type: pyton", 4, "must be `python`, `node` or `command`", "python"),
        (
            "  entry: main.py",
            "  main: x\n  entry: main.py",
            5,
            "`main` is not known in runtime",
            "it is called `entry` here",
        ),
        ("  entry: main.py\n", "", 3, "`entry` is missing in runtime", "add `entry"),
        (
            "  entry: main.py",
            "  entry: 5",
            5,
            "runtime.entry must be text or a list, got integer",
            "quotes",
        ),
        ("  entry: main.py", "  entry: [a, b]", 5, "entry of a python agent must be text", "main"),
        ("type: python", "type: command", 5, "the entry of a command must be its list", "./prog"),
        (
            "entry: main.py",
            "entry: main.py\n  memory_mb: 128MB",
            6,
            'memory_mb must be an integer, got string "128MB"',
            "without quotes or unit",
        ),
        ("entry: main.py", "entry: main.py\n  memory_mb: 1.5", 6, "must be an integer, got", None),
        ("entry: main.py", "entry: main.py\n  memory_mb: 1", 6, "must be at least 16", None),
        ("entry: main.py", "entry: main.py\n  timeout_seconds: 0", 6, "must be more than 0", None),
        (
            "  - name: message",
            "  - name: step-one",
            7,
            "`step-one` is not an identifier",
            "write step_one",
        ),
        ("  - name: message", "  - name: 1st", 7, "`1st` is not an identifier", "write _1st"),
        (
            "  - name: message",
            "  - name: not",
            7,
            "is a word of the expression language",
            "write not_",
        ),
        ("type: string", "type: str", 8, "must be `string`, `integer`", "did you mean string?"),
        (
            "type: string",
            "type: string\n    required: yes",
            9,
            'required must be true or false, got string "yes"',
            "write true",
        ),
        (
            "type: string",
            "type: string\n    default: 5",
            9,
            "the default of `message` must be a string, got integer 5",
            "fit",
        ),
        ("type: string", "type: string\n    enum: []", 9, "the enum of `message` is empty", "list"),
        (
            "type: string",
            "type: string\n    enum: [a, 5]",
            9,
            "must be a string, got integer 5",
            "fit",
        ),
        (
            "type: string",
            "type: string\n    enum: [a]\n    default: b",
            10,
            'must be one of "a", got string "b"',
            "fit",
        ),
        ("type: string", "type: string\n    schema: {type: strin}", 9, "is no JSON Schema", None),
        (
            "type: string",
            "type: string\n    schema: {minLength: 3}\n    default: ab",
            10,
            "does not fit its schema",
            "fit",
        ),
        (
            "type: string",
            "type: string\n    schema: {$ref: 'http://127.0.0.1:1/x'}",
            9,
            "is no JSON Schema",
            None,
        ),
        (
            "type: string",
            "type: file\n    default: x",
            9,
            "`message` cannot have a default",
            "required: false",
        ),
        (
            "type: string",
            "type: string\n  - name: message",
            9,
            "the input `message` is declared twice (first on line 7)",
            "rename",
        ),
        (
            "inputs:\n  - name: message\n    type: string",
            "inputs: {message: string}",
            6,
            "inputs must be a list, got object",
            "after a dash",
        ),
        (
            "inputs:\n  - name: message\n    type: string",
            "inputs: [message]",
            6,
            "inputs[0] must be a mapping",
            None,
        ),
        (
            "inputs:",
            "permissions: {secrets: [a-b]}\ninputs:",
            6,
            "`a-b` is not an identifier",
            "a_b",
        ),
        ("inputs:", "environment: {A-B: x}\ninputs:", 6, "`A-B` is not an identifier", "A_B"),
        (
            "inputs:",
            "environment: {A: 1}\ninputs:",
            6,
            "environment.A must be text, got integer 1",
            "quotes: '1'",
        ),
        ("inputs:", "tags: x\ninputs:", 6, "tags must be a list", "dash"),
    ],
)
def test_a_fault_of_an_agent_is_told_plainly(
    old: str, new: str, line: int, message: str, remedy: str | None
) -> None:
    assert old in AGENT
    problem = only(AGENT.replace(old, new, 1))
    assert message in problem.message
    assert problem.line == line
    if remedy is not None:
        assert problem.remedy is not None
        assert remedy in problem.remedy


@pytest.mark.parametrize(
    ("old", "new", "line", "message", "remedy"),
    [
        ("id: first", "id: step-one", 4, "`step-one` is not an identifier", "write step_one"),
        ("  - id: first\n", "  - name: x\n", 4, "`id` is missing in steps[0]", "add `id"),
        (
            "agent: echo",
            "agent: echo\n    depends_on: [x]",
            6,
            "`depends_on` is not known",
            "it is called `needs` here",
        ),
        ("agent: echo", "agent: echo\n    retry: {attempts: 0}", 6, "must be at least 1", None),
        (
            "agent: echo",
            "agent: echo\n    retry: 3",
            6,
            "retry must be a mapping, got integer 3",
            None,
        ),
        ("agent: echo", "agent: echo\n    when: 1", 6, "must be text or true or false", None),
        ("agent: echo", "agent: echo\n    on_error: ignore", 6, "`fail` or `continue`", None),
        ("agent: echo", "agent: echo@latest", 5, "`echo@latest` does not name an agent", "1.0.0"),
        ("agent: echo", "agent: Echo", 5, "does not name an agent", "name@1.0.0"),
        (
            "{message: hi}",
            "{message: hi}\n  - id: first\n    agent: echo",
            7,
            "the step id `first` is used twice (first on line 4)",
            "rename",
        ),
        (
            "steps:",
            "variables: {a-b: 1}\nsteps:",
            3,
            "the name `a-b` is not an identifier",
            "write a_b",
        ),
        ("steps:", "outputs: {not: 1}\nsteps:", 3, "is a word of the expression language", "not_"),
        ("steps:", "on: push\nsteps:", 3, "the key `on` is not known", "it is called `trigger`"),
        (
            "steps:",
            "on_error:\n  - log: x\nsteps:",
            4,
            "the key `log` is not known in on_error[0]",
            None,
        ),
        ("steps:", "trigger: {type: cron}\nsteps:", 3, "trigger.type must be `manual`", None),
    ],
)
def test_a_fault_of_a_workflow_is_told_plainly(
    old: str, new: str, line: int, message: str, remedy: str | None
) -> None:
    assert old in WORKFLOW
    problem = problems(WORKFLOW.replace(old, new, 1), parse_workflow)[0]
    assert message in problem.message
    assert problem.line == line
    if remedy is not None:
        assert problem.remedy is not None
        assert remedy in problem.remedy


def test_a_workflow_without_steps_is_refused() -> None:
    text = "name: a\nversion: 1.0.0\nsteps: []\n"
    assert only(text, parse_workflow).message == "steps must have at least 1 entry"
    faulty = "name: a\nversion: 1.0.0\nsteps: [{id: x, agent: y, foo: 1}]\n"
    assert "`foo`" in only(faulty, parse_workflow).message


def test_all_faults_are_told_at_once_in_the_order_of_lines() -> None:
    text = AGENT.replace("echo", "E").replace("1.0.0", "1.0").replace("python", "perl") + "foo: 1\n"
    found = problems(text)
    assert [problem.line for problem in found] == [1, 2, 4, 9]
    rules = AGENT + "    default: 1\noutputs: [{name: a}, {name: a}]\n"
    assert len(problems(rules)) == 2


def test_a_default_makes_a_field_optional_and_null_is_none() -> None:
    agent = parse_agent(AGENT + "    default: hi\n    required: true\n", "f")
    assert agent.inputs[0].has_default
    agent = parse_agent(AGENT + "    default: null\n    required: false\n", "f")
    assert agent.inputs[0].default is None
    assert "must be a string, got null" in only(AGENT + "    default: null\n").message


def test_the_normal_form_is_read_back_as_it_was() -> None:
    text = AGENT + (
        "    default: hi\n  - {name: n, type: number, required: false, enum: [1, 2.5]}\n"
        "outputs: [{name: o, type: object, schema: {required: [a]}, default: null,"
        " required: false}]\n"
        "permissions: {network: ['*.example.com'], secrets: [KEY]}\nenvironment: {A: b}\n"
        "metadata: {any: [thing, 1]}\ntags: [x]\n"
    )
    agent = parse_agent(text, "f")
    document = json.loads(dumps(definition_to_json(agent)))
    assert agent_from_json(document) == agent
    assert [field.has_default for field in agent_from_json(document).inputs] == [True, False]
    assert agent_from_json(document).outputs[0].has_default
    assert document["outputs"][0]["schema"] == {"required": ["a"]}
    workflow = parse_workflow(WORKFLOW, "f")
    document = json.loads(dumps(definition_to_json(workflow)))
    assert workflow_from_json(document) == workflow


def test_a_damaged_stored_form_is_refused_without_a_foreign_error() -> None:
    with pytest.raises(DefinitionError, match="<stored agent>"):
        agent_from_json({"name": 5})
    with pytest.raises(DefinitionError, match="<stored workflow>"):
        workflow_from_json([])  # type: ignore[arg-type]


@given(st.permutations([*AGENT.split("\n", 2)[:2], "author: me", "tags: [a, b]"]))
def test_the_order_of_keys_says_nothing(lines: list[str]) -> None:
    rest = AGENT.split("\n", 2)[2]
    agent = parse_agent("\n".join(lines) + "\n" + rest, "f")
    again = parse_agent(rest + "\n".join(lines), "f")
    assert dumps(definition_to_json(agent)) == dumps(definition_to_json(again))


def test_files_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    with pytest.raises(DefinitionError, match=r"there is no agent\.yaml"):
        load_agent(tmp_path / "agent.yaml")
    with pytest.raises(DefinitionError, match="cannot be read: is a directory"):
        load_workflow(tmp_path)
    (tmp_path / "agent.yaml").write_bytes(b"name: a\nversion: \xff\n")
    with pytest.raises(DefinitionError) as caught:
        load_agent(tmp_path / "agent.yaml")
    assert caught.value.problems[0].line == 2
    (tmp_path / "workflow.yaml").write_bytes(b"\xef\xbb\xbf" + WORKFLOW.encode())
    assert load_workflow(tmp_path / "workflow.yaml").name == "flow"


APKG = """name: web-agent
version: "1.0"
display_name: Web Agent
description: An agent of another tool
author: someone
license: MIT
entrypoint: src.main:handler
runtime: python3.11
dependencies: [requests>=2.0]
environment: {A: b}
rest: {entry: "src.rest:mount"}
ui: {path: ui, basePath: /}
a2a: {service: "src.a2a:serve"}
permissions: {required: [user.profile]}
metadata: {version: 0.3.1, tags: [web], homepage: "https://example.com"}
"""


def test_the_apkg_form_becomes_the_normal_form() -> None:
    agent = parse_agent(APKG, "f")
    assert agent.version == "0.3.1"
    assert (agent.runtime.type, agent.runtime.entry) == ("python", "src.main:handler")
    assert agent.runtime.version == "3.11"
    assert agent.tags == ("web",)
    assert agent.rest == {"entry": "src.rest:mount"}
    assert agent.ui is not None
    assert agent.ui["path"] == "ui"
    assert agent.dependencies == ("requests>=2.0",)
    assert agent.permissions.is_empty
    assert agent.metadata["license"] == "MIT"
    assert agent.metadata["permissions"] == {"required": ["user.profile"]}
    assert agent_from_json(definition_to_json(agent)) == agent
    assert (agent.additional_inputs, agent.additional_outputs) == (True, True)


def test_an_apkg_manifest_that_declares_inputs_takes_no_others() -> None:
    declaring = parse_agent(APKG + "inputs: [{name: text}]\n", "f")
    assert (declaring.additional_inputs, declaring.additional_outputs) == (False, True)
    native = parse_agent(AGENT, "f")
    assert (native.additional_inputs, native.additional_outputs) == (False, False)


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("entrypoint: src.main:handler\n", "", 1, "`entrypoint` is missing"),
        ("src.main:handler", "5", 7, "entrypoint must be text"),
        ("python3.11", "go1.21", 8, "runtime must be `python`, `node` or `command`"),
        ("0.3.1", "0.3", 15, "metadata.version must be text, got number 0.3"),
        ("author: someone", "authr: someone", 5, "the key `authr` is not known"),
    ],
)
def test_faults_of_the_apkg_form_are_told_where_they_stand(
    old: str, new: str, line: int, message: str
) -> None:
    problem = only(APKG.replace(old, new, 1))
    assert message in problem.message
    assert problem.line == line


def test_node_and_command_agents_are_read() -> None:
    node = parse_agent(AGENT.replace("python", "node").replace("main.py", "main.js"), "f")
    assert node.runtime.type == "node"
    command = AGENT.replace("python", "command").replace("main.py", "[./run, --fast]")
    assert isinstance(parse_agent(command, "f"), AgentDefinition)
    assert parse_agent(command, "f").runtime.entry == ("./run", "--fast")
