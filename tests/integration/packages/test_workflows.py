"""Workflows registered in a real home, cross-checked against its agents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from swarm.kernel.errors import DefinitionError, NotFoundError
from swarm.kernel.settings import Settings
from swarm.packages.registration import AgentCatalog, FailedRegistration
from swarm.packages.workflows import RegisteredWorkflow, WorkflowCatalog
from swarm.store.sqlite.store import SqliteStore

WritePackage = Any
CHAIN = """\
name: chain
version: 1.0.0
inputs:
  - name: message
steps:
  - id: first
    agent: echo
    inputs:
      message: ${inputs.message}
  - id: second
    agent: echo@1.0.0
    inputs:
      message: "it said ${steps.first.outputs.echoed}"
"""


@pytest.fixture
async def echo(agents: AgentCatalog, write_package: WritePackage) -> None:
    await agents.register(write_package())


def write(folder: Path, text: str = CHAIN) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "workflow.yaml").write_text(text)
    return folder


@pytest.mark.usefixtures("echo")
async def test_a_folder_or_its_file_is_registered(
    workflows: WorkflowCatalog, tmp_path: Path
) -> None:
    folder = write(tmp_path / "chain")
    assert await workflows.validate(folder) == []
    result = await workflows.register(folder)
    assert result.created
    assert result.record.path == str(folder / "workflow.yaml")
    assert result.record.trigger_type == "manual"
    assert [step["id"] for step in result.record.definition["steps"]] == ["first", "second"]
    again = await workflows.register(folder / "workflow.yaml")
    assert not again.created
    assert again.record.id == result.record.id
    assert await workflows.list() == [again.record]


@pytest.mark.usefixtures("echo")
async def test_the_digest_is_that_of_the_meaning(
    workflows: WorkflowCatalog, tmp_path: Path
) -> None:
    first = await workflows.register(write(tmp_path / "chain"))
    commented = await workflows.register(write(tmp_path / "chain", "# a comment\n" + CHAIN))
    assert commented.record.digest == first.record.digest
    assert not commented.created
    changed = await workflows.register(write(tmp_path / "chain", CHAIN.replace("it", "he")))
    assert changed.created
    assert changed.replaced_digest == first.record.digest
    assert (await workflows.resolve("chain")).id == changed.record.id


async def test_an_agent_that_is_not_registered_is_told_with_its_line(
    workflows: WorkflowCatalog, agents: AgentCatalog, write_package: WritePackage, tmp_path: Path
) -> None:
    folder = write(tmp_path / "chain")
    with pytest.raises(DefinitionError) as caught:
        await workflows.register(folder)
    assert [problem.line for problem in caught.value.problems] == [7, 11]
    assert all("swarm agent register" in (p.remedy or "") for p in caught.value.problems)

    await agents.register(write_package("ecko"))
    await agents.register(write_package("echo", "2.0.0"))
    (problem,) = await workflows.validate(folder)
    assert problem.line == 11
    assert "no version 1.0.0" in problem.message
    assert "2.0.0" in (problem.remedy or "")
    (problem, _) = await workflows.validate(write(tmp_path / "chain", CHAIN.replace("echo", "eko")))
    assert "did you mean" in (problem.remedy or "")
    assert await workflows.list() == []


@pytest.mark.usefixtures("echo")
async def test_steps_are_held_against_their_agents(
    workflows: WorkflowCatalog, tmp_path: Path
) -> None:
    folder = write(tmp_path / "chain", CHAIN.replace("message: ${", "massage: ${"))
    problems = await workflows.validate(folder)
    assert [problem.line for problem in problems if "massage" in problem.message] == [9]
    with pytest.raises(DefinitionError):
        await workflows.register(folder)
    cycle = CHAIN.replace("${inputs.message}", "${steps.second.outputs.echoed}")
    (problem, *_) = await workflows.validate(write(tmp_path / "chain", cycle))
    assert "first" in problem.message
    assert "second" in problem.message


@pytest.mark.usefixtures("echo")
async def test_the_limit_of_steps_is_held(
    store: SqliteStore, agents: AgentCatalog, settings: Settings, tmp_path: Path
) -> None:
    catalog = WorkflowCatalog(store, agents, replace(settings, max_steps=1))
    (problem,) = await catalog.validate(write(tmp_path / "chain"))
    assert "it has 2 steps" in problem.message
    assert problem.line == 5


async def test_the_limit_of_bytes_is_a_setting(
    store: SqliteStore, agents: AgentCatalog, settings: Settings, tmp_path: Path
) -> None:
    folder = write(tmp_path / "chain", CHAIN + "#" * 2**20)
    catalog = WorkflowCatalog(store, agents, replace(settings, max_workflow_mb=1))
    (problem,) = await catalog.validate(folder)
    assert "larger than 1024 KiB" in problem.message
    assert "echo" in (await WorkflowCatalog(store, agents, settings).validate(folder))[0].message


async def test_what_cannot_be_read_is_told(workflows: WorkflowCatalog, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        await workflows.register(tmp_path)
    with pytest.raises(NotFoundError):
        await workflows.validate(tmp_path / "none.yaml")
    folder = write(tmp_path / "broken", "name: x\nname: y\n")
    assert [problem.line for problem in await workflows.validate(folder)] == [2]
    (folder / "workflow.yaml").write_bytes(b"name: x\n\xff")
    with pytest.raises(DefinitionError) as caught:
        await workflows.register(folder)
    assert caught.value.problems[0].line == 2


@pytest.mark.usefixtures("echo")
async def test_all_of_a_folder_is_tried(workflows: WorkflowCatalog, tmp_path: Path) -> None:
    root = tmp_path / "all"
    write(root / "a", CHAIN.replace("chain", "a"))
    write(root / "b", "name: b\n")
    write(root / "c", CHAIN.replace("chain", "c"))
    (root / "notes").mkdir()
    results = await workflows.register_all(root)
    assert [type(result) for result in results] == [
        RegisteredWorkflow,
        FailedRegistration,
        RegisteredWorkflow,
    ]
    assert [record.name for record in await workflows.list()] == ["a", "c"]


@pytest.mark.usefixtures("echo")
async def test_versions_are_found_and_switched_on_and_off(
    workflows: WorkflowCatalog, tmp_path: Path
) -> None:
    for version in ("1.0.0", "1.10.0", "1.9.0"):
        text = CHAIN.replace("version: 1.0.0", f"version: {version}")
        await workflows.register(write(tmp_path / version, text))
    assert (await workflows.resolve("chain")).version == "1.10.0"
    assert (await workflows.resolve("chain@1.9.0")).version == "1.9.0"
    assert await workflows.set_enabled("chain", False) == 3
    assert not any(record.enabled for record in await workflows.list())
    assert await workflows.set_enabled("chain", True) == 3
    assert (await workflows.resolve("chain")).enabled
    for reference in ("chian", "chain@9.9.9"):
        with pytest.raises(NotFoundError) as caught:
            await workflows.resolve(reference)
        assert "chain" in str(caught.value)
    with pytest.raises(NotFoundError):
        await workflows.set_enabled("chian", True)
