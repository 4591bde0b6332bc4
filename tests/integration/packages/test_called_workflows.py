"""Workflows that call workflows: what they call is looked up in the home and held against them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from swarm.kernel.settings import Settings
from swarm.packages.registration import AgentCatalog, FailedRegistration
from swarm.packages.workflows import WorkflowCatalog
from swarm.store.sqlite.store import SqliteStore

WritePackage = Any
CHILD = """\
name: child
version: 1.0.0
inputs:
  - {name: text}
  - {name: count, type: integer, default: 1}
outputs:
  - {name: said, type: string, value: "${steps.a.outputs.echoed}"}
steps:
  - {id: a, agent: echo, inputs: {message: "${inputs.text}"}}
"""
PARENT = """\
name: parent
version: 1.0.0
steps:
  - id: call
    workflow: child
    inputs: {text: hello}
  - id: after
    agent: echo
    inputs:
      message: ${steps.call.outputs.said}
"""


@pytest.fixture(autouse=True)
async def echo(agents: AgentCatalog, write_package: WritePackage) -> None:
    await agents.register(write_package())


def write(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "workflow.yaml").write_text(text)
    return folder


async def test_an_unknown_workflow_is_told_with_its_line(
    workflows: WorkflowCatalog, tmp_path: Path
) -> None:
    parent = write(tmp_path / "parent", PARENT)
    (problem,) = await workflows.validate(parent)
    assert problem.line == 5
    assert problem.message == "step `call`: no workflow `child` is registered"
    assert "swarm workflow register" in (problem.remedy or "")

    await workflows.register(write(tmp_path / "child", CHILD))
    assert await workflows.validate(parent) == []
    (problem,) = await workflows.validate(write(parent, PARENT.replace(": child", ": chidl")))
    assert "did you mean child" in (problem.remedy or "")
    (problem,) = await workflows.validate(write(parent, PARENT.replace("child", "child@2.0.0")))
    assert "no version 2.0.0" in problem.message
    assert "1.0.0" in (problem.remedy or "")


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("{text: hello}", "{txt: hello, text: a}", 6, "`txt` of child@1.0.0 is not declared"),
        ("{text: hello}", "{}", 6, "input `text` of child@1.0.0 is missing in step `call`"),
        ("text: hello", "text: 5", 6, "input `text` of child@1.0.0 must be a string"),
        ("text: hello", "text: a, count: '${run.id}'", 6, "integer, but this gives string"),
        (".said", ".sayd", 10, "the step `call` (child@1.0.0) has no output `sayd`"),
        (
            "${steps.call.outputs.said}",
            "${steps.call.outputs}",
            10,
            "must be of type string, but this gives object",
        ),
    ],
)
async def test_a_call_is_held_against_what_is_declared(
    workflows: WorkflowCatalog, tmp_path: Path, old: str, new: str, line: int, message: str
) -> None:
    await workflows.register(write(tmp_path / "child", CHILD))
    assert old in PARENT
    problems = await workflows.validate(write(tmp_path / "parent", PARENT.replace(old, new)))
    (told,) = [problem for problem in problems if message in problem.message]
    assert told.line == line
    assert told.remedy


LOOP = """\
name: {name}
version: 1.0.0
steps:
  - {{id: a, agent: echo, inputs: {{message: hi}}}}
  - id: again
    needs: [a]
    workflow: {called}{more}
"""


async def test_a_workflow_that_calls_itself_needs_a_way_to_end(
    workflows: WorkflowCatalog, tmp_path: Path
) -> None:
    folder = tmp_path / "loop"
    loop = LOOP.format(name="loop", called="loop", more="")
    (problem,) = await workflows.validate(write(folder, loop))
    assert problem.line == 7
    assert problem.message.endswith(
        "the workflow calls itself without end: loop@1.0.0 -> loop@1.0.0"
    )
    assert "`when`" in (problem.remedy or "")

    for more in ("\n    when: ${steps.a.status == 'x'}", "\n    for_each: ${trigger.list}"):
        ends = LOOP.format(name="loop", called="loop", more=more)
        assert await workflows.validate(write(folder, ends)) == []
    skipped = loop.replace("{id: a, ", "{id: a, when: '${run.id > 1}', ")
    assert await workflows.validate(write(folder, skipped)) == []
    handler = LOOP.format(name="loop", called="loop", more="").replace(
        "  - id: again\n    needs: [a]\n    workflow: loop",
        "  - {id: b, agent: echo, inputs: {message: x},"
        " on_error: {steps: [{id: c, workflow: loop}]}}",
    )
    assert await workflows.validate(write(folder, handler)) == []


async def test_a_way_back_through_others_is_found(
    workflows: WorkflowCatalog, tmp_path: Path
) -> None:
    def text(name: str, called: str, more: str = "") -> str:
        return LOOP.format(name=name, called=called, more=more)

    await workflows.register(write(tmp_path / "c", CHILD.replace("name: child", "name: one")))
    await workflows.register(
        write(tmp_path / "three", text("three", "one", "\n    inputs: {text: a}"))
    )
    await workflows.register(write(tmp_path / "two", text("two", "three")))
    one = write(tmp_path / "one", text("one", "two").replace("1.0.0", "1.0.1"))
    (problem,) = await workflows.validate(one)
    assert problem.message.endswith(
        "without end: one@1.0.1 -> two@1.0.0 -> three@1.0.0 -> one@1.0.1"
    )
    pinned = text("three", "one@1.0.0", "\n    inputs: {text: a}").replace("1.0.0\ns", "1.1.0\ns")
    await workflows.register(write(tmp_path / "three", pinned))
    assert await workflows.validate(one) == []


async def test_a_folder_is_registered_whatever_the_order_of_its_calls(
    workflows: WorkflowCatalog, tmp_path: Path
) -> None:
    write(tmp_path / "all" / "a", PARENT)
    write(tmp_path / "all" / "b", CHILD)
    write(tmp_path / "all" / "c", PARENT.replace("parent", "other").replace("child", "nothing"))
    first, second, third = await workflows.register_all(tmp_path / "all")
    assert not isinstance(first, FailedRegistration)
    assert not isinstance(second, FailedRegistration)
    assert (first.record.name, second.record.name) == ("parent", "child")
    assert isinstance(third, FailedRegistration)
    assert "no workflow `nothing`" in third.error.message


async def test_steps_that_handle_errors_and_those_of_actions_count(
    store: SqliteStore, agents: AgentCatalog, settings: Settings, tmp_path: Path
) -> None:
    limits = replace(settings, max_steps=2, max_items=2)
    catalog = WorkflowCatalog(store, agents, limits)
    text = """\
name: many
version: 1.0.0
steps:
  - id: a
    agent: nobody
    inputs: {}
    on_error: {steps: [{id: b, agent: nobody, network: ["a b"]}]}
    for_each: [1, 2, 3]
on_success:
  - step: {id: c, agent: nobody, timeout_seconds: 1000000}
"""
    problems = await catalog.validate(write(tmp_path / "many", text))
    told = [(problem.line, problem.message) for problem in problems]
    assert (3, "it has 3 steps; a workflow may have 2") in told
    assert (8, "`for_each` has 3 items; the limit is 2") in told
    assert [line for line, message in told if "no agent `nobody`" in message] == [5, 7, 10]
    assert any(line == 7 and "a b" in message for line, message in told)
    assert any(line == 10 and "at most" in message for line, message in told)
