"""Runs that wait: approvals, events, times and turns, seen and answered from the command line."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.functional.cli.conftest import DEADLINE_SECONDS, Cli, write_workflow

GATED = """\
name: gated
version: 1.0.0
inputs:
  - {name: what, type: string, default: "1.2"}
steps:
  - id: review
    wait:
      approval:
        message: "Deploy ${inputs.what}?"
        deadline: 2d
        form:
          - {name: region, type: string, enum: [eu, us]}
          - {name: note, type: string, default: none}
outputs: {region: "${steps.review.outputs.values.region}", by: "${steps.review.outputs.by}"}
"""
PAID = """\
name: paid
version: 1.0.0
inputs: [{name: order, type: string}]
steps:
  - {id: payment, wait: {event: {name: payment, key: "${inputs.order}"}}}
outputs: {amount: "${steps.payment.outputs.payload.amount}"}
"""
LATER = """\
name: later
version: 1.0.0
steps:
  - {id: pause, wait: {duration: 1h}}
"""
ONE_BY_ONE = """\
name: one-by-one
version: 1.0.0
concurrency: {key: door, limit: 1}
steps:
  - {id: go, wait: {event: {name: go}}}
"""
EACH = """\
name: each
version: 1.0.0
steps:
  - {id: check, for_each: [a, b], max_parallel: 2, wait: {approval: {message: "Take ${item}?"}}}
outputs: {who: "${steps.check.outputs|map(attribute='by')|list}"}
"""


@pytest.fixture(scope="module")
def waiting(tmp_path_factory: pytest.TempPathFactory, shared: Cli) -> Cli:
    folder = tmp_path_factory.mktemp("waiting")
    for index, text in enumerate((GATED, PAID, LATER, ONE_BY_ONE, EACH)):
        shared.ok("workflow", "register", write_workflow(folder / str(index), text))
    return shared


@pytest.fixture
def started(waiting: Cli) -> Iterator[list[str]]:
    """Runs that the test started; those that have not ended are cancelled after it."""
    ids: list[str] = []
    yield ids
    if ids:
        waiting.ok("runs", "cancel", *ids)


def detached(cli: Cli, started: list[str], *arguments: str) -> str:
    run = cli.ok("run", *arguments, "--detach").out.strip()
    started.append(run)
    return run


def until(cli: Cli, run: str, state: str) -> Any:
    """The document of the run, once it is in ``state``."""
    cli.until(run, state)
    return cli.ok("runs", "show", run, "--json").json


def told(process: subprocess.Popen[bytes], wanted: str) -> str:
    assert process.stderr is not None
    seen = ""
    for line in process.stderr:
        seen += line.decode()
        if wanted in seen:
            return seen
    raise AssertionError(seen)


def test_a_run_in_the_foreground_says_how_to_answer_it_and_goes_on(waiting: Cli) -> None:
    process = waiting.start("run", "gated")
    told(process, "waits for an approval until ")
    seen = told(process, "swarm runs reject")
    (command,) = re.findall(r"swarm runs approve (run_\w+ review --value region=)STRING", seen)
    done = waiting.ok("runs", "approve", *f"{command}eu".split(), "--by", "Ada")
    assert "review approved" in done.out
    out, _ = process.communicate(timeout=DEADLINE_SECONDS)
    assert process.returncode == 0
    assert out.decode().split() == ["region", "eu", "by", "Ada"]


def test_a_workflow_that_waits_is_described(waiting: Cli) -> None:
    assert "wait: approval" in waiting.ok("workflow", "info", "gated").out
    assert "for each item" in waiting.ok("workflow", "info", "each").out


def test_what_waits_is_listed_with_its_form_and_can_be_rejected(
    waiting: Cli, started: list[str]
) -> None:
    run = detached(waiting, started, "gated", '{"what": "9"}')
    waiting.until(run, "waiting")
    (entry,) = waiting.ok("runs", "waiting", "--for", "approval", "--json").json["waiting"]
    assert (entry["run_id"], entry["step"], entry["message"]) == (run, "review", "Deploy 9?")
    assert [field["name"] for field in entry["form"]] == ["region", "note"]
    text = waiting.ok("runs", "waiting").out
    assert "region (string: eu or us), note (string, else none)" in text
    refused = waiting("runs", "approve", run, "--value", "region=moon")
    assert (refused.code, "moon" in refused.err) == (2, True)
    assert waiting("runs", "approve", run).code == 2
    waiting.ok("runs", "reject", run, "review", "--comment", "not now", "--json")
    document = until(waiting, run, "failed")
    assert (document["error_code"], document["error"]) == ("rejected", "it was rejected: not now")
    late = waiting("runs", "approve", run, "--value", "region=eu", "--json")
    assert (late.code, late.json["error"]["code"]) == (3, "not_found")


def test_an_approval_asks_for_its_form_on_a_terminal(waiting: Cli, started: list[str]) -> None:
    run = detached(waiting, started, "gated")
    waiting.until(run, "waiting")
    screen = waiting.on_terminal("runs", "approve", run)
    screen.until(b"region [eu, us]")
    screen.type(b"us\n")
    assert screen.end() == 0
    document = until(waiting, run, "succeeded")
    assert document["outputs"]["region"] == "us"


def test_items_are_answered_one_by_one(waiting: Cli, started: list[str]) -> None:
    run = detached(waiting, started, "each")
    waiting.until(run, "waiting")
    several = waiting("runs", "approve", run, "check")
    assert several.code == 2
    assert "--item 0" in several.err
    waiting.ok("runs", "approve", run, "check", "--item", "1", "--by", "b")
    waiting.ok("runs", "approve", run, "--by", "a")  # only one is left
    assert until(waiting, run, "succeeded")["outputs"] == {"who": ["a", "b"]}


def test_an_event_wakes_the_runs_that_wait_for_its_key(waiting: Cli, started: list[str]) -> None:
    run = detached(waiting, started, "paid", '{"order": "o 7"}')
    waiting.until(run, "waiting")
    (entry,) = waiting.ok("runs", "waiting", "--for", "event", "--json").json["waiting"]
    assert entry["commands"] == ["swarm events send payment --key 'o 7'"]
    other = waiting.ok("events", "send", "payment", "--key", "o8", "3", "--json").json
    assert other["runs"] == []
    sent = waiting.ok(
        "events", "send", "payment", "-", "--key", "o 7", "--id", "e1", stdin=b'{"amount": 12}'
    )
    assert sent.out == "e1\n"
    assert run in sent.err
    assert until(waiting, run, "succeeded")["outputs"] == {"amount": 12}
    assert waiting("events", "send", "payment", "{").code == 2


def test_a_timer_says_until_when(waiting: Cli) -> None:
    process = waiting.start("run", "later", "--events")
    assert process.stdout is not None
    for line in process.stdout:
        event = json.loads(line)
        if event["kind"] == "step.waiting":
            break
    assert event["data"]["for"] == "timer"
    assert event["data"]["wake_at"].endswith("Z")
    waiting.ok("runs", "cancel", event["run_id"])
    assert process.wait(DEADLINE_SECONDS) == 1


def test_a_run_that_is_queued_says_so(waiting: Cli) -> None:
    first = waiting.start("run", "one-by-one")
    told(first, "waits for the event go")
    second = waiting.start("run", "one-by-one")
    seen = told(second, "queued")
    assert "one run goes on at once with the concurrency key one-by-one:door" in seen
    waiting.ok("events", "send", "go")
    assert first.wait(DEADLINE_SECONDS) == 0
    told(second, "waits for the event go")
    waiting.ok("events", "send", "go")
    assert second.wait(DEADLINE_SECONDS) == 0


def test_a_key_starts_one_run(waiting: Cli, tmp_path: Path) -> None:
    arguments = ("run", "flow", '{"act": "once"}', "--idempotency-key", "k1", "--json")
    first = waiting.ok(*arguments, "--label", "team=red", "--priority", "7").json
    again = waiting.ok(*arguments)
    assert again.json["id"] == first["id"]
    assert "was started with this key before" in again.err
    assert (first["labels"], first["priority"]) == ({"team": "red"}, 7)
    other = waiting("run", "flow", '{"act": "other"}', "--idempotency-key", "k1", "--json")
    assert other.json["error"]["code"] == "conflict"
    assert waiting("run", "flow", "--label", "team").code == 2
