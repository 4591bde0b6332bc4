"""The generated reference is what the code says, and it leaves nothing out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import jsonschema_rs
import pytest
import yaml
from pydantic import BaseModel, Field

from scripts import generate_reference
from swarm.cli.lazy import Entry
from swarm.cli.table import ROOT
from swarm.definitions.agent import AgentDefinition
from swarm.definitions.workflow import WorkflowDefinition
from swarm.kernel.errors import SwarmError
from swarm.kernel.settings import known_settings
from swarm.packages.builtin import catalog_root


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return generate_reference.pages()


def test_what_is_committed_is_what_the_code_gives(pages: dict[str, str]) -> None:
    folder = generate_reference.FOLDER
    committed = {
        str(path.relative_to(folder)): path.read_text()
        for path in folder.rglob("*")
        if path.is_file()
    }
    stale = sorted(
        name for name in committed.keys() | pages.keys() if committed.get(name) != pages.get(name)
    )
    assert stale == [], "run make docs"


def test_a_stale_page_is_written_anew_and_a_foreign_one_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generate_reference, "FOLDER", tmp_path)
    monkeypatch.setattr(generate_reference, "ROOT", tmp_path)
    (tmp_path / "settings.md").write_text("stale")
    (tmp_path / "gone.md").write_text("of a command that is no more")
    generate_reference.main()
    assert "SWARM_HOME" in (tmp_path / "settings.md").read_text()
    assert not (tmp_path / "gone.md").exists()


def test_every_setting_is_there(pages: dict[str, str]) -> None:
    for name, setting in known_settings().items():
        assert f"`SWARM_{name.upper()}`" in pages["settings.md"]
        assert setting.meaning, f"the setting {name} has no description"


def commands(table: Mapping[str, Entry], path: str) -> Iterator[str]:
    for name, entry in table.items():
        if entry.commands:
            yield from commands(entry.commands, f"{path} {name}")
        else:
            yield f"{path} {name}"


def test_every_command_is_there(pages: dict[str, str]) -> None:
    found = list(commands(ROOT, "swarm"))
    assert "swarm runs resume" in found
    assert [name for name in found if f"\n## {name}\n" not in pages["cli.md"]] == []


@pytest.mark.parametrize(
    ("page", "model"),
    [("agent-manifest.md", AgentDefinition), ("workflow-manifest.md", WorkflowDefinition)],
)
def test_every_key_of_a_manifest_is_there(
    pages: dict[str, str], page: str, model: type[BaseModel]
) -> None:
    waiting = [model]  # steps that handle errors are steps: each model is looked at once
    for current in waiting:
        for name, field in current.model_fields.items():
            assert f"| `{field.alias or name}` |" in pages[page]
            inner = generate_reference.models_in(field.annotation)
            waiting += [each for each in inner if each not in waiting]


@pytest.mark.parametrize("kind", ["agent", "workflow"])
def test_the_schemas_accept_the_catalog_and_refuse_a_misspelt_key(
    pages: dict[str, str], kind: str
) -> None:
    schema = json.loads(pages[f"schemas/{kind}.schema.json"])
    validator = jsonschema_rs.validator_for(schema)
    manifests = list(catalog_root().glob(f"{kind}s/*/{kind}.yaml"))
    assert manifests
    for path in manifests:
        manifest = yaml.safe_load(path.read_text())
        assert validator.is_valid(manifest), path
        assert not validator.is_valid({**manifest, "verison": "1.0.0"}), path


def test_every_error_code_is_there(pages: dict[str, str]) -> None:
    for kind in generate_reference.subclasses(SwarmError):
        assert f"| `{kind.code}` | {int(kind.exit_code)} |" in pages["errors.md"]


def test_a_table_tells_types_defaults_and_bounds() -> None:
    class Sample(BaseModel):
        """A sample."""

        count: int = Field(3, ge=1, le=9, description="How many | often.")
        tags: tuple[str, ...] = Field((), description="Words.")
        size: float | None = Field(None, gt=0)
        needed: dict[str, int]

    assert generate_reference.fields_table(Sample) == (
        "| key | type | default | meaning |\n"
        "| --- | --- | --- | --- |\n"
        "| `count` | integer | `3` | How many \\| often. At least 1. At most 9. |\n"
        "| `tags` | list of string | | Words. |\n"
        "| `size` | number | | More than 0. |\n"
        "| `needed` | object of integer | **required** | |\n"
    )
