"""``swarm workflow import`` as it is typed: what it makes, and how it refuses."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.functional.cli.conftest import Cli
from tests.functional.cli.test_definition_mistakes import assert_refused


def document(*parents_of_last: str) -> dict[str, Any]:
    return {
        "name": "Fork & Join",
        "schemaVersion": "1.4",
        "workflow": {
            "tasks": [
                {"name": "a.1", "runtimeInSeconds": 3},
                {"name": "a.2", "runtimeInSeconds": 6},
                {"name": "end", "parents": [*parents_of_last]},
            ]
        },
    }


@pytest.fixture
def instance(tmp_path: Path) -> Path:
    file = tmp_path / "instance.json"
    file.write_text(json.dumps(document("a.1", "a.2")))
    return file


def test_what_is_imported_runs(cli: Cli, instance: Path, tmp_path: Path) -> None:
    folder = tmp_path / "here"
    done = cli.ok("workflow", "import", instance, "--into", folder, "--longest-ms", "1", "--json")
    assert done.json == {
        "name": "fork-join",
        "path": str(folder / "fork-join"),
        "format": "wfcommons",
        "steps": 3,
        "dependencies": 2,
        "work_seconds": 0.002,
        "data_bytes": 0,
    }
    refused = cli("workflow", "register", folder / "fork-join")
    assert_refused(refused, 2, "stand-in")
    cli.ok("agent", "register", "--all")
    cli.ok("workflow", "register", folder / "fork-join")
    run = cli.ok("run", "fork-join", "--json").json
    assert run["status"] == "succeeded"
    assert [step["id"] for step in run["steps"]] == ["a_1", "a_2", "end"]
    assert len(run["outputs"]["digests"]["end"]) == 64


def test_nothing_is_written_over(cli: Cli, instance: Path, tmp_path: Path) -> None:
    cli.ok("workflow", "import", instance, "--into", tmp_path)
    assert_refused(cli("workflow", "import", instance, "--into", tmp_path), 4, "fork-join")
    cli.ok("workflow", "import", instance, "--into", tmp_path, "--name", "other")
    assert sorted(path.name for path in tmp_path.glob("*/workflow.yaml")) == ["workflow.yaml"] * 2


def test_what_attacks_the_terminal_is_shown_harmless(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "instance.json"
    file.write_text(json.dumps(document("\x1b]0;owned\x07")))
    done = cli("workflow", "import", file, "--into", tmp_path)
    assert_refused(done, 2, "instance.json", "which is no task")
    assert "\x1b" not in done.err
    told = cli("workflow", "import", file, "--into", tmp_path, "--json")
    assert told.code == 2
    assert told.json["error"]["problems"][0]["file"] == str(file)


@pytest.mark.parametrize(
    ("text", "variables", "words"),
    [
        ("{", {}, ["not valid JSON"]),
        ("[]", {}, ["no instance of WfFormat"]),
        ('{"schemaVersion": "1.2"}', {}, ["1.2", "wfcommons-migrate-instance.py"]),
        (json.dumps(document()), {"SWARM_MAX_STEPS": "2"}, ["3 tasks", "max_steps"]),
    ],
)
def test_what_cannot_be_used_is_refused(
    cli: Cli, tmp_path: Path, text: str, variables: dict[str, str], words: list[str]
) -> None:
    file = tmp_path / "instance.json"
    file.write_text(text)
    done = cli("workflow", "import", file, "--into", tmp_path, **variables)
    assert_refused(done, 2, "instance.json", *words)
    assert list(tmp_path.glob("*/workflow.yaml")) == []


def test_what_is_no_file_is_not_waited_for(cli: Cli, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert_refused(cli("workflow", "import", tmp_path / "pipe"), 3, "pipe")
    assert_refused(cli("workflow", "import", tmp_path / "gone.json"), 3, "gone.json")
