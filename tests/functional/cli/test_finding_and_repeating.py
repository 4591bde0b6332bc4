"""Runs that are found, repeated with something changed, drawn, exported and deleted."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.functional.cli.conftest import Cli, write_agent, write_workflow

ECHO = """\
name: repeat
version: 1.0.0
runtime: {type: python, entry: main.py}
inputs: [{name: text, type: string}, {name: times, type: integer, default: 1}]
outputs: [{name: text, type: string}]
"""
HANDLER = """\
import time


def handler(inputs, context):
    if inputs["text"] == "bad":
        raise ValueError("a bad item")
    time.sleep(0.002)  # use is told in milliseconds
    return {"text": inputs["text"] * inputs["times"]}
"""
LEAF = """\
name: leaf
version: 1.0.0
inputs: [{name: text, type: string}]
steps: [{id: only, agent: repeat, inputs: {text: "${inputs.text}"}}]
outputs: {text: "${steps.only.outputs.text}"}
"""
TREE = """\
name: tree
version: 1.0.0
search: [customer]
labels: {team: red}
budget: {vm_seconds: 600, tokens: 1000}
inputs:
  - {name: customer, type: string}
  - {name: words, type: array, default: [a, bad, c]}
steps:
  - id: each
    agent: repeat
    for_each: "${inputs.words}"
    on_error: continue
    inputs: {text: "${item}", times: 2}
  - {id: called, workflow: leaf, inputs: {text: "${inputs.customer}"}, needs: [each]}
  - {id: last, agent: repeat, inputs: {text: "${steps.called.outputs.text}", times: 1}}
outputs: {texts: "${steps.each.outputs}", last: "${steps.last.outputs.text}"}
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory, shared: Cli) -> Cli:
    folder = tmp_path_factory.mktemp("tree")
    shared.ok("agent", "register", write_agent(folder / "agent", ECHO, HANDLER))
    for name, text in (("leaf", LEAF), ("tree", TREE)):
        shared.ok("workflow", "register", write_workflow(folder / name, text))
    return shared


@pytest.fixture(scope="module")
def run(tree: Cli) -> dict[str, Any]:
    """A run of the tree, and its only one for the customer Ada."""
    done = tree.ok("run", "tree", '{"customer": "Ada"}', "--label", "by=me", "--json")
    document: dict[str, Any] = done.json
    return document


def steps_of(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {step["id"]: step for step in document["steps"]}


def test_a_document_tells_of_items_called_runs_attempts_and_use(run: dict[str, Any]) -> None:
    steps = steps_of(run)
    assert steps["each"]["items"] == {"total": 3, "succeeded": 2, "failed": 1}
    assert run["outputs"] == {"texts": [{"text": "aa"}, None, {"text": "cc"}], "last": "Ada"}
    (child,) = run["called_runs"]
    assert (child["id"], child["parent_step"]) == (steps["called"]["run_id"], "called")
    (attempt,) = steps["last"]["invocations"]
    assert (attempt["attempt"], attempt["status"]) == (1, "ok")
    assert attempt["sandbox_id"].startswith("sbx_")
    assert run["labels"] == {"team": "red", "by": "me"}
    assert run["budget"]["tokens"] == 1000
    assert run["tree_usage"]["vm_seconds"] > run["usage"]["vm_seconds"] > 0


def test_a_run_is_found_by_what_it_is(tree: Cli, run: dict[str, Any]) -> None:
    def found(*options: str) -> list[str]:
        runs = tree.ok("runs", "list", "--json", *options).json["runs"]
        return [each["id"] for each in runs]

    assert found("--label", "by=me") == [run["id"]]
    assert found("--input", "customer=Ada", "--since", "1h", "--state", "succeeded") == [run["id"]]
    assert found("--input", "customer=Ada", "--until", "1h") == []
    assert found("--workflow", "leaf") == []
    child = run["called_runs"][0]["id"]
    assert found("--workflow", "leaf", "--all") == found("--parent", run["id"]) == [child]
    assert child in tree.ok("runs", "children", run["id"]).out
    assert "by=me" in tree.ok("runs", "list", "--label", "by=me").out
    nothing = tree.ok("runs", "list", "--input", "words=x")
    assert "lists under `search`" in nothing.err
    assert tree("runs", "list", "--since", "7").code == 2
    assert tree("runs", "list", "--label", "by").code == 2


def test_a_page_shows_items_steps_and_attempts(tree: Cli, run: dict[str, Any]) -> None:
    page = tree.ok("runs", "show", run["id"], "--items").out
    assert "3 items, 2 succeeded, 1 failed" in page
    assert "each[1]" in page
    assert "0 of 1,000 tokens" in page
    assert run["called_runs"][0]["id"] in page
    step = tree.ok("runs", "show", run["id"], "--step", "each", "--item", "1")
    assert "a bad item" in step.out
    assert "bad" in step.out
    document = tree.ok("runs", "show", run["id"], "--step", "last", "--json").json
    assert document["inputs"] == {"text": "Ada", "times": 1}
    assert document["outputs"] == {"text": "Ada"}
    assert tree("runs", "show", run["id"], "--step", "lost", "--json").code == 3
    assert tree("runs", "show", run["id"], "--step", "each", "--item", "3").code == 3


def test_a_shell_completes_the_steps_of_the_run(tree: Cli, run: dict[str, Any]) -> None:
    def completed(words: str) -> list[str]:
        count = str(len(words.split(" ")) - 1)
        done = tree(_SWARM_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=count)
        return [line.partition(",")[2] for line in done.out.splitlines() if line]

    assert completed(f"swarm runs fork {run['id']} --from ") == ["called", "each", "last"]
    assert completed(f"swarm runs approve {run['id']} la") == ["last"]
    assert completed("swarm runs approve run_nothing ") == []


def test_large_values_do_not_flood_the_screen(tree: Cli) -> None:
    text = "x" * 300_000
    large = tree.ok("run", "leaf", "-", "--json", stdin=json.dumps({"text": text}).encode()).json
    assert large["outputs"] == {"text": text}
    page = tree.ok("runs", "show", large["id"])
    assert len(page.out) < 10_000
    assert "more characters; --json prints everything" in page.out
    assert tree.ok("runs", "show", large["id"], "--json").json["inputs"] == {"text": text}


def test_a_fork_takes_over_what_stands_and_changes_the_rest(tree: Cli, run: dict[str, Any]) -> None:
    forked = tree.ok("runs", "fork", run["id"], "--set", "last.times=3", "--json").json
    steps = steps_of(forked)
    assert forked["outputs"]["last"] == "AdaAdaAda"
    assert forked["origin_run_id"] == run["id"]
    assert {name: step["reused_from"] for name, step in steps.items()} == {
        "each": run["id"],
        "called": run["id"],
        "last": None,
    }
    again = tree.ok("runs", "retry", run["id"], "--from", "called", "--json").json
    assert [step["reused_from"] is None for step in again["steps"]] == [False, True, True]
    other = tree.ok("runs", "fork", run["id"], "--input", "customer=Bob", "--json").json
    assert other["outputs"]["last"] == "Bob"
    for arguments in (["--from", "lost"], ["--set", "last=3"], ["--set", "last.times=x"]):
        assert tree("runs", "fork", run["id"], *arguments).code in (2, 3), arguments


def test_a_replay_runs_only_what_is_not_pinned(tree: Cli, run: dict[str, Any]) -> None:
    replayed = tree.ok("runs", "replay", run["id"], "--run", "last", "--json").json
    # An item of the first step failed, which its workflow bears: it did not succeed.
    ran = [step["id"] for step in replayed["steps"] if step["reused_from"] is None]
    assert ran == ["each", "last"]
    pinned = tree.ok("runs", "replay", run["id"], "--pin", 'called={"text": "Eve"}', "--json").json
    assert pinned["outputs"]["last"] == "Eve"
    assert tree("runs", "replay", run["id"], "--pin", "called={").code == 2
    assert tree("runs", "replay", run["id"], "--run", "lost").code == 3


def test_a_timeline_in_characters_and_as_svg(
    tree: Cli, run: dict[str, Any], tmp_path: Path
) -> None:
    drawn = tree.ok("runs", "timeline", run["id"], "--width", "80", "--items", "1").out
    lines = drawn.splitlines()
    assert max(map(len, lines)) <= 80
    assert any(line.startswith("* called") for line in lines)
    assert any("and 2 more items" in line for line in lines)
    assert "\x1b" not in "".join(lines)
    tree.ok("runs", "timeline", run["id"], "--svg", tmp_path / "run.svg")
    drawing = ElementTree.parse(tmp_path / "run.svg").getroot()
    assert drawing.tag == "{http://www.w3.org/2000/svg}svg"
    chart = tree.ok("runs", "timeline", run["id"], "--json").json
    kinds = {row["step"]: [span["kind"] for span in row["spans"]] for row in chart["rows"]}
    assert kinds["called"] == ["call"]
    assert kinds["last"] == ["attempt"]
    assert tree("runs", "timeline", run["id"], "--svg", "/nowhere/x.svg").code == 5


def test_runs_move_to_another_home_and_are_deleted(
    tree: Cli, run: dict[str, Any], tmp_path: Path
) -> None:
    file = tmp_path / "runs.jsonl"
    done = tree.ok("runs", "export", run["id"], "-o", file, "--json").json
    assert done["runs"] == 2  # with the one that it called
    assert file.stat().st_mode & 0o077 == 0
    streamed = tree.ok("runs", "export", "--label", "by=me", "--state", "succeeded").out
    assert run["id"] in streamed
    elsewhere = replace(tree, home=tmp_path / "elsewhere")
    assert elsewhere.ok("runs", "import", file, "--json").json["runs"] == 2
    again = elsewhere.ok("runs", "import", "-", "--json", stdin=file.read_bytes()).json
    assert again == {"runs": 0, "existing": 2, "left_out": 0}
    assert elsewhere.ok("runs", "show", run["id"], "--json").json["outputs"] == run["outputs"]
    assert elsewhere("runs", "import", "-", stdin=b"junk\n").code == 2
    assert elsewhere("runs", "import", tmp_path / "none").code == 3

    backup = tmp_path / "backup.db"
    assert elsewhere.ok("db", "backup", backup, "--json").json["size"] == backup.stat().st_size
    assert elsewhere("db", "backup", backup).code != 0
    assert elsewhere.ok("db", "check", "--json").json["sound"] is True

    would = elsewhere.ok("runs", "purge", "--older-than", "0s", "--dry-run", "--json").json["runs"]
    assert sorted(would) == sorted([run["id"], run["called_runs"][0]["id"]])
    kept = elsewhere.ok("runs", "purge", "--older-than", "0s", "--state", "failed", "--json").json
    assert kept["runs"] == []
    gone = elsewhere.ok("runs", "purge", "--older-than", "0s", "--state", "succeeded", "--json")
    assert sorted(gone.json["runs"]) == sorted(would)
    assert elsewhere.count("step_executions") == 0
    assert elsewhere("runs", "purge", "--older-than", "7").code == 2


def test_a_damaged_database_is_told(tree: Cli, run: dict[str, Any], tmp_path: Path) -> None:
    broken = replace(tree, home=tmp_path / "broken")
    file = tmp_path / "runs.jsonl"
    tree.ok("runs", "export", run["id"], "-o", file)
    broken.ok("runs", "import", file)
    database = broken.home / "registry" / "registry.db"
    broken.ok("db", "check")
    data = bytearray(database.read_bytes())
    pages = len(data) // 4096
    for page in range(pages // 2, pages):  # not the first: it says that this is a database
        data[page * 4096 + 8 : page * 4096 + 64] = b"\xff" * 56
    database.write_bytes(data)
    done = broken("db", "check")
    assert done.code == 5, done.out + done.err
