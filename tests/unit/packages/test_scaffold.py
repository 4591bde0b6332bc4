"""New packages and workflows from the catalog's templates."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from swarm.definitions.loading import load_workflow
from swarm.definitions.source import read_yaml
from swarm.kernel.errors import ConflictError, InvalidError, NotFoundError, UnavailableError
from swarm.kernel.settings import Settings
from swarm.packages.builtin import catalog_root
from swarm.packages.reading import read_package
from swarm.packages.scaffold import (
    create_agent,
    create_workflow,
    list_templates,
    rename_manifest,
)


def test_the_catalog_ships_its_parts() -> None:
    for part in ("agents", "workflows", "templates"):
        assert (catalog_root() / part).is_dir()


def test_every_template_is_listed_with_what_it_is_for() -> None:
    agents = {template.name for template in list_templates("agent")}
    workflows = {template.name for template in list_templates("workflow")}
    assert {"basic-agent", "claude-agent"} <= agents
    assert {"linear-workflow", "parallel-workflow"} <= workflows
    assert len(list_templates()) == len(agents) + len(workflows)
    assert all(template.description for template in list_templates())


@pytest.mark.parametrize("template", [one.name for one in list_templates("agent")])
def test_a_new_agent_is_a_package_of_that_name(template: str, tmp_path: Path) -> None:
    folder = create_agent("my-agent", template, tmp_path / "agents")
    assert folder == tmp_path / "agents/my-agent"
    package = read_package(folder, Settings())
    assert package.definition.name == "my-agent"
    original = catalog_root() / "templates" / template
    for file in package.files:
        if file.path != "agent.yaml":
            assert package.read(file.path) == (original / file.path).read_bytes()
    assert [path.name for path in folder.parent.iterdir()] == ["my-agent"]


@pytest.mark.parametrize("template", [one.name for one in list_templates("workflow")])
def test_a_new_workflow_has_that_name(template: str, tmp_path: Path) -> None:
    folder = create_workflow("my-workflow", template, tmp_path)
    assert load_workflow(folder / "workflow.yaml").name == "my-workflow"


@pytest.mark.parametrize("name", ["", "My", "-a", "a-", "a/b", "..", "../x", "a b", "x" * 65, "é"])
def test_names_that_no_agent_may_have_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidError) as caught:
        create_agent(name, "basic-agent", tmp_path)
    assert caught.value.remedy
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    folder = create_agent("mine", "basic-agent", tmp_path)
    (folder / "agent.yaml").write_text("edited")
    with pytest.raises(ConflictError):
        create_agent("mine", "basic-agent", tmp_path)
    assert (folder / "agent.yaml").read_text() == "edited"
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ConflictError):
        create_agent("link", "basic-agent", tmp_path)
    assert not (tmp_path / "nowhere").exists()


def test_an_unknown_template_offers_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError) as caught:
        create_agent("mine", "basic-agnet", tmp_path)
    assert "did you mean basic-agent" in (caught.value.remedy or "")
    with pytest.raises(NotFoundError):
        create_workflow("mine", "basic-agent", tmp_path)


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UnavailableError):
        create_agent("mine", "basic-agent", tmp_path / "file" / "below")


@pytest.mark.parametrize(
    "line",
    [
        "name: old",
        "name:   'old'  # the name",
        'name: "old"',
        "name: >-\n  old\n  er",
        "name:\n  old",
    ],
)
@pytest.mark.parametrize("name", ["new", "1.0", "true", "1e3", "0x1f", "null", "2026-01-31"])
def test_only_the_top_level_name_is_replaced(line: str, name: str) -> None:
    text = f"# name: old\nruntime:\n  name: old\n{line}\ninputs:\n  - name: old\n"
    renamed = rename_manifest(text, name)
    wanted = {"runtime": {"name": "old"}, "name": name, "inputs": [{"name": "old"}]}
    assert yaml.safe_load(renamed) == wanted
    assert read_yaml(renamed, "agent.yaml").data == wanted
    assert renamed.startswith("# name: old\nruntime:\n  name: old\nname:")
    assert renamed.endswith("inputs:\n  - name: old\n")


def test_a_manifest_without_a_name_is_no_template() -> None:
    with pytest.raises(InvalidError):
        rename_manifest("a: 1\n", "x")
