"""Runs as users start, see, leave, cancel and resume them."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import time
from pathlib import Path

import pytest

from tests.functional.cli.conftest import DEADLINE_SECONDS, Cli, Make


def run_id(shared: Cli, state: str) -> str:
    """The newest run, once it is in ``state``."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while True:
        newest = shared.ok("runs", "list", "--limit", "1", "--json").json["runs"][0]
        if newest["status"] == state:
            return str(newest["id"])
        assert time.monotonic() < deadline, newest


def read_until(process: subprocess.Popen[bytes], wanted: bytes) -> bytes:
    """Read standard error up to the line that holds ``wanted``."""
    assert process.stderr is not None
    seen = b""
    for line in process.stderr:
        seen += line
        if wanted in line:
            return seen
    raise AssertionError(seen)


def test_progress_goes_to_standard_error_and_the_result_to_standard_output(shared: Cli) -> None:
    done = shared.ok("run", "flow", '{"act": "hello"}')
    assert done.out == "answer  hello\n"
    lines = [line.partition(" ")[2] for line in done.err.splitlines()]
    assert "step first   started" in lines
    assert any(line.startswith("step second  succeeded in ") for line in lines)
    assert "\x1b" not in done.err


def test_quiet_and_logs(shared: Cli) -> None:
    assert shared.ok("run", "flow", "--quiet").err == ""
    err = shared.ok("run", "flow", "--logs").err
    assert "info: acting: answer \\x1b[31mred" in err


def test_the_document_of_a_run(shared: Cli) -> None:
    document = shared.ok("run", "flow", "@-", "--json", stdin=b'{"act": "x"}').json
    assert document["status"] == "succeeded"
    assert document["inputs"]["act"] == "x"
    assert document["outputs"] == {"answer": "x"}
    assert [(step["id"], step["status"], step["attempts"]) for step in document["steps"]] == [
        ("first", "succeeded", 1),
        ("second", "succeeded", 1),
    ]
    assert shared.ok("runs", "show", document["id"][:30], "--json").json == document
    history = shared.ok("workflow", "runs", "flow", "--json").json["runs"]
    assert document["id"] in [run["id"] for run in history]


def test_events_are_json_lines(shared: Cli) -> None:
    lines = shared.ok("run", "flow", "--events").out.splitlines()
    events = [json.loads(line) for line in lines]
    assert events[0]["kind"] == "run.started"
    assert events[-1]["kind"] == "run.finished"
    assert events[-1]["data"]["outputs"] == {"answer": "answer"}
    assert len({event["run_id"] for event in events}) == 1


def test_a_report_is_printed_and_kept(shared: Cli, tmp_path: Path) -> None:
    done = shared.ok("run", "reporting")
    assert "# The report" in done.out
    kept = Path(done.out.split()[-1])
    assert kept.is_relative_to(shared.home)
    assert kept.read_text().startswith("# The report")
    document = shared.ok("run", "reporting", "--json", "--save", tmp_path / "out").json
    (file,) = document["files"]
    assert file["path"] == str(tmp_path / "out" / "report.md")
    assert (tmp_path / "out" / "report.md").stat().st_size == file["size"]


def test_no_isolation_is_loud_and_recorded(shared: Cli) -> None:
    done = shared.ok("run", "flow", "--isolation", "none", "--json")
    assert "warning: --isolation none" in done.err
    assert done.json["isolation"] == "none"
    assert {step["isolation"] for step in done.json["steps"]} == {"none"}
    assert {step["isolation"] for step in shared.ok("run", "flow", "--json").json["steps"]} == {
        "sandbox"
    }


def test_the_live_view_shows_the_steps_and_then_the_result(shared: Cli) -> None:
    screen = shared.on_terminal("run", "reporting")
    assert screen.end() == 0
    text = screen.output.decode()
    assert "\x1b[" in text
    assert "only" in text
    assert "succeeded" in text
    assert "The report" in text
    assert "# The report" not in text  # rendered, not raw
    assert "report.md" in text


def test_a_dumb_terminal_and_no_colour_get_plain_lines(shared: Cli) -> None:
    screen = shared.on_terminal("run", "flow", TERM="dumb")
    assert screen.end() == 0
    assert b"\x1b" not in screen.output
    assert b"step first   started" in screen.output
    screen = shared.on_terminal("agent", "list", NO_COLOR="1")
    assert screen.end() == 0
    assert b"\x1b" not in screen.output
    assert "\x1b[1m" in shared.ok("agent", "list", FORCE_COLOR="1").out


def test_the_first_interrupt_cancels_with_clean_up(shared: Cli, tmp_path: Path) -> None:
    gate = json.dumps({"act": "wait", "gate": str(tmp_path)})
    screen = shared.on_terminal("run", "flow", gate)
    screen.until(b"at the gate")
    screen.press_interrupt()
    assert screen.end() == 130
    assert b"cancelling the run, with clean-up" in screen.output
    name = run_id(shared, "cancelled")
    (tmp_path / "open").touch()
    document = shared.ok("runs", "resume", name, "--json").json
    assert document["status"] == "succeeded"
    assert [step["attempts"] for step in document["steps"]] == [1, 1]


def test_a_second_interrupt_leaves_a_run_to_be_resumed(shared: Cli, tmp_path: Path) -> None:
    gate = json.dumps({"act": "wait", "gate": str(tmp_path)})
    screen = shared.on_terminal("run", "flow", gate)
    screen.until(b"at the gate")
    database = sqlite3.connect(shared.home / "registry" / "registry.db", isolation_level=None)
    database.execute("BEGIN IMMEDIATE")  # the clean-up cannot end
    screen.press_interrupt()
    screen.until(b"cancelling the run")
    screen.press_interrupt()
    screen.until(b"left to be resumed: swarm runs resume run_")
    database.close()
    assert screen.end() == 130
    (tmp_path / "open").touch()
    # The first interrupt may have been recorded; who resumes the run by name takes it back.
    name = run_id(shared, "running")
    assert shared.ok("runs", "resume", name, "--json").json["status"] == "succeeded"


def test_a_second_interrupt_leaves_a_run_to_the_worker(shared: Cli, tmp_path: Path) -> None:
    worker = shared.start("worker")
    try:
        assert worker.stdout is not None
        assert worker.stdout.readline() == b"ready\n"
        gate = json.dumps({"act": "wait", "gate": str(tmp_path)})
        screen = shared.on_terminal("run", "flow", gate)
        screen.until(b"at the gate")
        worker.send_signal(signal.SIGSTOP)  # the clean-up cannot end
        screen.press_interrupt()
        screen.until(b"cancelling the run")
        screen.press_interrupt()
        assert screen.end() == 130
        assert b"left to the process that drives it" in screen.output
        worker.send_signal(signal.SIGCONT)
        name = shared.ok("runs", "list", "--limit", "1", "--json").json["runs"][0]["id"]
        assert shared.ok("runs", "cancel", name).out == f"{name} cancelled\n"
    finally:
        worker.send_signal(signal.SIGCONT)
        worker.terminate()
        worker.communicate(timeout=DEADLINE_SECONDS)


def test_termination_cancels_too(shared: Cli, tmp_path: Path) -> None:
    gate = json.dumps({"act": "wait", "gate": str(tmp_path)})
    process = shared.start("run", "flow", gate)
    read_until(process, b"step second  started")
    process.terminate()
    _, err = process.communicate(timeout=DEADLINE_SECONDS)
    assert process.returncode == 130
    assert b"cancelling the run" in err
    run_id(shared, "cancelled")


def test_a_killed_run_is_hinted_at_and_resumed(cli: Cli, shared: Cli, tmp_path: Path) -> None:
    gate = json.dumps({"act": "wait", "gate": str(tmp_path)})
    process = shared.start("run", "flow", gate)
    read_until(process, b"step second  started")
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=DEADLINE_SECONDS)
    done = shared.ok("runs", "list")
    assert "1 run was interrupted: swarm runs resume" in done.err
    name = shared.ok("runs", "list", "--json").json["runs"][0]["id"]
    assert f"swarm runs resume {name}" in shared.ok("runs", "show", name).err
    (tmp_path / "open").touch()
    document = shared.ok("runs", "resume", "--json").json
    assert document["status"] == "succeeded"
    assert shared.ok("runs", "resume").err == "no run was interrupted\n"


def test_a_killed_run_is_resumed_in_the_background_by_the_next_run(
    shared: Cli, tmp_path: Path
) -> None:
    gate = json.dumps({"act": "wait", "gate": str(tmp_path)})
    process = shared.start("run", "flow", gate)
    read_until(process, b"step second  started")
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=DEADLINE_SECONDS)
    orphan = run_id(shared, "running")
    (tmp_path / "open").touch()
    done = shared.ok("run", "flow", "--quiet")
    assert f"resuming in the background: {orphan}" in done.err
    shared.ok("runs", "logs", "--follow", orphan)
    assert shared.ok("runs", "show", orphan, "--json").json["status"] == "succeeded"


def test_a_detached_run_goes_on_without_its_starter(shared: Cli, tmp_path: Path) -> None:
    gate = json.dumps({"act": "wait", "gate": str(tmp_path)})
    done = shared.ok("run", "flow", gate, "--detach")
    name = done.out.strip()
    assert f"swarm runs logs --follow {name}" in done.err
    follower = shared.start("runs", "logs", "--follow", name)
    assert follower.stdout is not None
    assert b"acting: answer" in follower.stdout.readline()
    (tmp_path / "open").touch()
    assert b"acting: wait" in follower.stdout.read()
    assert follower.wait(DEADLINE_SECONDS) == 0
    assert shared.ok("runs", "show", name, "--json").json["status"] == "succeeded"
    logs = shared.ok("runs", "logs", name, "--step", "second", "--json").out.splitlines()
    assert [json.loads(line)["message"] for line in logs] == ["acting: wait \x1b[31mred"]


def test_a_detached_run_can_be_cancelled_from_elsewhere(shared: Cli, tmp_path: Path) -> None:
    gate = json.dumps({"act": "wait", "gate": str(tmp_path)})
    name = shared.ok("run", "flow", gate, "--detach", "--json").json["id"]
    assert shared.ok("runs", "cancel", name).out == f"{name} cancelled\n"
    assert shared.ok("runs", "cancel", name).out == f"{name} cancelled\n"


def test_a_run_can_be_retried(shared: Cli) -> None:
    failed = shared("run", "flow", "-i", "act=raise", "--json").json
    again = shared("runs", "retry", failed["id"], "--json")
    assert again.code == 1
    assert again.json["origin_run_id"] == failed["id"]
    assert again.json["inputs"] == failed["inputs"]


def test_old_runs_are_deleted_with_their_files(
    cli: Cli, make_agent: Make, make_workflow: Make
) -> None:
    cli.ok("agent", "register", make_agent())
    cli.ok(
        "workflow",
        "register",
        make_workflow("""\
name: reporting
version: 1.0.0
steps:
  - {id: only, agent: probe, inputs: {act: report}}
outputs: {report: "${steps.only.outputs.report}"}
"""),
    )
    document = cli.ok("run", "reporting", "--json").json
    kept = Path(document["files"][0]["path"])
    log = cli.home / "registry" / "logs" / "workflow-runs" / f"{document['id']}.jsonl"
    assert kept.exists()
    assert log.exists()
    assert cli.ok("runs", "purge", "--json").json["runs"] == []
    assert cli.ok("runs", "purge", "--older-than", "0s", "--json").json["runs"] == [document["id"]]
    assert not kept.exists()
    assert not log.exists()
    assert cli("runs", "show", document["id"]).code == 3


@pytest.mark.parametrize("arguments", [["worker", "--until-idle"], ["worker"]])
def test_a_worker_says_when_it_is_ready_and_ends_when_told(cli: Cli, arguments: list[str]) -> None:
    process = cli.start(*arguments)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    if len(arguments) == 1:
        process.terminate()
    process.communicate(timeout=DEADLINE_SECONDS)
    assert process.returncode == 0
