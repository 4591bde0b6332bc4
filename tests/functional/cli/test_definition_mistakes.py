"""Mistakes in manifests, workflows and archives: one clear message, nothing half-written."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.functional.cli.conftest import FLOW, PROBE, Cli, Done, Make

STEP = "steps:\n  - {id: first, agent: probe}\n"
HEAD = "name: flow\nversion: 1.0.0\n"


def assert_refused(done: Done, code: int, *words: str) -> None:
    """The message is in the one form, holds the words, and is no traceback."""
    assert done.code == code, done
    err = done.err
    assert err.startswith("error: "), err
    assert "Traceback" not in err
    assert "remedy: " in err, err
    for word in words:
        assert word in err, err


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (PROBE.replace("description:", "descripton:"), ["agent.yaml:3:", "description"]),
        (PROBE.replace("version: 1.0.0", "version: 1.0"), ["agent.yaml:2:", "version"]),
        (PROBE.replace("timeout_seconds: 60", "timeout_seconds: soon"), ["agent.yaml:4:"]),
        (PROBE.replace("type: object", "type: objekt"), ["agent.yaml:8:"]),
        (PROBE.replace("name: act,", "name: act-ion,"), ["agent.yaml:6:", "act_ion"]),
        (PROBE.replace("main.py", "missing.py"), ["missing.py"]),
        (PROBE.replace("main.py", "../main.py"), ["agent.yaml:4:", "does not lie in the package"]),
        (PROBE.replace("version: 1.0.0", "version: [1]"), ["agent.yaml:2:", "write text"]),
        (PROBE.replace("60", "-1"), ["agent.yaml:4:", "more than 0"]),
        (PROBE.replace("60", "1e9"), ["agent.yaml:4:", "86400", "max_timeout_seconds"]),
        (
            PROBE.replace("timeout_seconds: 60", "memory_mb: 99999"),
            ["agent.yaml:4:", "4096", "max_memory_mb"],
        ),
        (
            PROBE + "permissions:\n  network: ['http://a.example/']\n",
            ["agent.yaml:13:", "host alone"],
        ),
        (PROBE + "name: again\n", ["agent.yaml:12:"]),
        ("- just\n- a list\n", ["agent.yaml"]),
        ("name: [unclosed\n", ["agent.yaml:"]),
    ],
)
def test_a_broken_manifest(cli: Cli, make_agent: Make, broken: str, words: list[str]) -> None:
    folder = make_agent(broken)
    assert_refused(cli("agent", "register", folder), 2, *words)
    assert cli.count("agents") == 0
    assert pinned_packages(cli) == []


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (HEAD + "step:\n  - {id: first, agent: probe}\n", ["workflow.yaml:3:", "steps"]),
        (HEAD + STEP.replace("id: first", "id: step-one"), ["workflow.yaml:4:", "step_one"]),
        (
            HEAD + "steps:\n  - {id: a, agent: probe, needs: [c]}\n"
            "  - {id: b, agent: probe, needs: [a]}\n  - {id: c, agent: probe, needs: [b]}\n",
            ["workflow.yaml:", "->", "cycle"],
        ),
        (FLOW.replace("steps.first", "steps.frist"), ["workflow.yaml:", "frist", "first"]),
        (FLOW.replace("outputs.answer", "outputs.anser"), ["workflow.yaml:", "anser", "answer"]),
        (FLOW.replace("${inputs.act}", "${variables.act}"), ["workflow.yaml:", "act"]),
        (FLOW.replace("${inputs.act}", "${inputs.act"), ["workflow.yaml:"]),
        (FLOW.replace("agent: probe\n", "agent: prob\n"), ["workflow.yaml:", "prob", "probe"]),
        (FLOW.replace("agent: probe\n", "agent: probe@9.0.0\n"), ["9.0.0", "1.0.0"]),
        (FLOW.replace("{act: answer}", "{atc: answer}"), ["atc", "act"]),
        (FLOW.replace("{act: answer}", "{act: 5}"), ["act", "string"]),
        (HEAD + STEP.replace("probe}", "probe, network: [a/b]}"), ["workflow.yaml:4:", "a/b"]),
        (HEAD + STEP.replace("probe}", "probe, timeout_seconds: 1e9}"), ["workflow.yaml:4:"]),
        (HEAD + STEP.replace("probe}", "probe, retry: 5}"), ["workflow.yaml:4:", "mapping"]),
        (HEAD + STEP.replace("probe}", "probe, on_error: explode}"), ["`fail` or `continue`"]),
    ],
)
def test_a_broken_workflow(shared: Cli, make_workflow: Make, broken: str, words: list[str]) -> None:
    before = shared.count("workflows")
    assert_refused(shared("workflow", "register", make_workflow(broken)), 2, *words)
    assert shared.count("workflows") == before


def test_validating_tells_the_same_without_registering(
    shared: Cli, make_agent: Make, make_workflow: Make
) -> None:
    before = shared.count("agents"), shared.count("workflows")
    broken = make_agent(PROBE.replace("type: object", "type: objekt"))
    assert_refused(shared("agent", "validate", broken), 2, "agent.yaml:8:")
    file = make_workflow(FLOW.replace("steps.first", "steps.frist"))
    assert_refused(shared("workflow", "validate", file), 2, "workflow.yaml:", "frist")
    assert "is valid" in shared.ok("agent", "validate", make_agent(name="good")).out
    assert "is valid" in shared.ok("workflow", "validate", make_workflow(name="good-flow")).out
    assert before == (shared.count("agents"), shared.count("workflows"))


def test_every_problem_is_told_at_once_and_as_json(shared: Cli, make_workflow: Make) -> None:
    broken = FLOW.replace("{act: answer}", "{atc: answer}").replace("steps.first", "steps.frist")
    done = shared("workflow", "register", make_workflow(broken), "--json")
    assert done.code == 2
    error = done.json["error"]
    assert error["code"] == "invalid_definition"
    assert len(error["problems"]) >= 2
    assert all(problem["line"] and problem["file"] for problem in error["problems"])
    assert f"{len(error['problems'])} problems found" in done.err


def pinned_packages(cli: Cli) -> list[Path]:
    return [path for path in (cli.home / "packages").iterdir() if not path.name.startswith(".")]


def archive(path: Path, *names: str) -> Path:
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("agent.yaml", PROBE)
        made.writestr("main.py", "def handler(inputs):\n    return {}\n")
        for name in names:
            made.writestr(name, "x")
    return path


@pytest.mark.parametrize("name", ["../escape.py", "/absolute.py", "a/../../b.py"])
def test_a_hostile_archive(cli: Cli, tmp_path: Path, name: str) -> None:
    path = archive(tmp_path / "bad.apkg", name)
    assert_refused(cli("agent", "register", "--grant", path), 2, "bad.apkg")
    assert_refused(cli("agent", "inspect", path), 2, "bad.apkg")
    assert pinned_packages(cli) == []
    assert not (tmp_path / "escape.py").exists()


def test_a_bomb(cli: Cli, tmp_path: Path) -> None:
    path = archive(tmp_path / "bomb.apkg")
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("zeros", b"\0" * (3 * 1024 * 1024))
    done = cli("agent", "register", path, SWARM_MAX_PACKAGE_MB="1")
    assert_refused(done, 2, "bomb.apkg")


def test_an_archive_that_is_none(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "text.apkg").write_text("no archive")
    assert_refused(cli("agent", "inspect", tmp_path / "text.apkg"), 2, "text.apkg")
    assert_refused(cli("agent", "inspect", tmp_path / "none.apkg"), 3, "none.apkg")


def test_two_processes_register_the_same_package_at_once(cli: Cli, make_agent: Make) -> None:
    folder = make_agent()
    command = [sys.executable, "-P", "-m", "swarm", "agent", "register", str(folder)]
    both = [
        subprocess.Popen(command, env=cli.environment(), stderr=subprocess.PIPE) for _ in range(2)
    ]
    for process in both:
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
    agents = cli.ok("agent", "list", "--json").json["agents"]
    assert [agent["name"] for agent in agents] == ["probe"]
    assert len(pinned_packages(cli)) == 1
