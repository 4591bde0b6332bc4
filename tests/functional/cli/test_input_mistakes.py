"""Bad inputs, handlers that misbehave, and databases that cannot be used."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest

from tests.functional.cli.conftest import Cli, Make
from tests.functional.cli.test_definition_mistakes import assert_refused


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["flow", '{"act": 5}'], 2, ["`act`", "string", "integer 5"]),
        (["flow", '{"atc": "x"}'], 2, ["`atc`", "act"]),
        (["flow", '{"act": '], 2, ["line 1 column 9"]),
        (["flow", "[]"], 2, ["must be a JSON object"]),
        (["flow", "@none.json"], 3, ["none.json"]),
        (["flow", "-i", "act"], 2, ["name=value"]),
        (["flow", '{"gate": "none"}'], 3, ["there is no directory"]),
        (["flow", "-i", "gate=/etc/passwd"], 2, ["is not a directory"]),
        (["flwo"], 3, ["flow"]),
        (["flow@2.0.0"], 3, ["1.0.0"]),
        (["flow", "{}", "extra"], 2, ["extra"]),
        (["flow", "--isolation", "some"], 2, ["sandbox"]),
        (["flow", "--json", "--events"], 2, ["exclude each other"]),
        ([], 2, ["WORKFLOW"]),
    ],
)
def test_a_run_that_cannot_be_asked_for(
    shared: Cli, arguments: list[str], code: int, words: list[str], tmp_path: Path
) -> None:
    before = shared.count("workflow_runs")
    assert_refused(shared("run", *arguments, cwd=tmp_path), code, *words)
    assert shared.count("workflow_runs") == before


def test_an_input_over_the_limit(shared: Cli) -> None:
    for argument, stdin in ((f'{{"act": "{"x" * 2000}"}}', b""), ("-", b" " * 2000)):
        done = shared("run", "flow", argument, stdin=stdin, SWARM_MAX_INPUT_BYTES="1000")
        assert_refused(done, 2, "1,000 bytes")


def test_an_agent_that_is_not_there(shared: Cli) -> None:
    assert_refused(shared("agent", "run", "prbe"), 3, "probe")
    assert_refused(shared("agent", "info", "probe@7.0.0"), 3, "1.0.0")
    assert_refused(shared("agent", "unregister", "nothing"), 3)
    for path in ("./probe", "flow/workflow.yaml"):
        assert_refused(shared("agent", "run", path), 3, f"swarm agent register {path}")
        assert_refused(shared("run", path), 3, f"swarm workflow register {path}")
    assert_refused(shared("runs", "show", "run_zzz"), 3, "swarm runs list")


@pytest.mark.parametrize(
    ("act", "words"),
    [
        ("raise", ["ValueError: told to raise"]),
        ("undeclared", ["`more`", "under `outputs`"]),
        ("exit", ["exit", "return its outputs"]),
    ],
)
def test_a_handler_that_misbehaves(shared: Cli, act: str, words: list[str]) -> None:
    done = shared("agent", "run", "probe", "-i", f"act={act}")
    assert done.code == 1
    assert done.out == ""
    assert all(word in done.err for word in words), done.err
    done = shared("run", "flow", "-i", f"act={act}", "--json")
    assert done.code == 1
    document = done.json
    assert (document["status"], document["error_step"]) == ("failed", "second")
    assert words[0] in document["error"]
    assert "error: step second: " in done.err
    assert all(word in done.err for word in words), done.err
    # A mended agent is for a new run: this one is pinned to what it began with.
    assert f"swarm runs retry {document['id']}" in done.err


def test_junk_on_standard_output_does_no_harm(shared: Cli) -> None:
    done = shared.ok("agent", "run", "probe", "-i", "act=junk", "--json")
    assert done.json["outputs"]["answer"] == "junk"
    assert "{junk that is no JSON" in done.err


def test_a_handler_that_hangs_is_stopped(shared: Cli, make_workflow: Make) -> None:
    file = make_workflow(
        "name: hanging\nversion: 1.0.0\nsteps:\n"
        "  - {id: only, agent: probe, inputs: {act: hang}, timeout_seconds: 0.2}\n"
    )
    shared.ok("workflow", "register", file)
    done = shared("run", "hanging", "--json")
    assert done.code == 1
    assert done.json["error_code"] == "timeout"


def test_a_disabled_workflow_is_refused(shared: Cli, make_workflow: Make) -> None:
    file = make_workflow("name: off\nversion: 1.0.0\nsteps:\n  - {id: only, agent: probe}\n")
    shared.ok("workflow", "register", file)
    shared.ok("workflow", "disable", "off")
    assert_refused(shared("run", "off"), 4, "disabled", "swarm workflow enable off")
    shared.ok("workflow", "enable", "off")
    shared.ok("run", "off")


def test_a_setting_that_is_not_usable(cli: Cli) -> None:
    assert_refused(cli("agent", "list", SWARM_MAX_STEPS="many"), 2, "SWARM_MAX_STEPS")
    cli.home.mkdir()
    (cli.home / "config.toml").write_text("max_step = 3\n")
    assert_refused(cli("agent", "list"), 2, "config.toml", "no setting max_step", "max_steps")
    (cli.home / "config.toml").write_text("max_steps = \n")
    assert_refused(cli("agent", "list"), 2, "config.toml")


def test_a_home_that_cannot_be_made(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = cli("agent", "list", "--home", tmp_path / "file" / "home", "--json")
    assert_refused(done, 5, "SWARM_HOME")
    assert done.json["error"]["exit_code"] == 5


def test_a_database_that_cannot_be_used(cli: Cli) -> None:
    cli.ok("agent", "list")
    database = cli.home / "registry" / "registry.db"

    holder = sqlite3.connect(database, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    done = cli("agent", "register", "--all", "--json", SWARM_DATABASE_TIMEOUT_SECONDS="0.2")
    holder.close()
    assert_refused(done, 5, "registry.db", "locked")

    with sqlite3.connect(database) as connection:
        connection.execute("UPDATE schema_migrations SET version = version + 9998")
        connection.execute("PRAGMA user_version = 9999")  # what a Swarm must know to use it
    assert_refused(cli("agent", "list"), 5, "registry.db", "newer")
    done = cli("doctor")
    assert done.code == 5
    assert "registry.db" in done.out

    database.write_bytes(b"this is no database" * 1000)
    for leftover in database.parent.glob("registry.db-*"):
        leftover.unlink()
    assert_refused(cli("agent", "list"), 5, "registry.db")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
def test_a_read_only_home(cli: Cli) -> None:
    cli.ok("agent", "list")
    for path in (cli.home / "registry").iterdir():
        path.chmod(path.stat().st_mode & ~0o222)
    (cli.home / "registry").chmod(0o555)
    done = cli("agent", "register", "--all")
    (cli.home / "registry").chmod(0o755)
    assert_refused(done, 5, f"{cli.home / 'registry'}: ", "read-only", "SWARM_HOME")
