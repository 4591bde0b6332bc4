"""Whatever ends a command becomes a clear message and an exit code."""

from __future__ import annotations

import json
import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest

from swarm.cli.errors import MAX_CRASH_FILES, execute
from swarm.cli.options import SwarmCommand
from swarm.kernel.errors import (
    DefinitionError,
    NotFoundError,
    Problem,
    RefusedError,
    SwarmError,
    UnavailableError,
)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("SWARM_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    handler = signal.getsignal(signal.SIGINT)
    yield tmp_path / "home"
    signal.signal(signal.SIGINT, handler)


def command(function: Callable[[], object]) -> click.Command:
    return SwarmCommand("test", callback=lambda: function())


def raising(error: BaseException) -> click.Command:
    def fail() -> None:
        raise error

    return command(fail)


@pytest.mark.parametrize(
    ("error", "code", "lines"),
    [
        (SwarmError("it broke"), 1, ["error: it broke"]),
        (
            NotFoundError("no agent", where="flow.yaml:3:5", remedy="register it"),
            3,
            ["error: flow.yaml:3:5: no agent", "  remedy: register it"],
        ),
        (RefusedError("no"), 4, ["error: no"]),
        (UnavailableError("disk\x1b[2J"), 5, ["error: disk\\x1b[2J"]),
        (
            DefinitionError(
                [Problem("bad", "a.yaml", 1, 2), Problem("worse", "a.yaml", 3, remedy="mend")]
            ),
            2,
            [
                "error: a.yaml:1:2: bad",
                "error: a.yaml:3: worse",
                "  remedy: mend",
                "2 problems found",
            ],
        ),
        (KeyboardInterrupt(), 130, ["interrupted"]),
        (click.UsageError("Bad use."), 2, ["error: bad use", "  remedy: see swarm --help"]),
        (BrokenPipeError(), 0, []),
    ],
)
def test_an_error_becomes_a_message_and_a_code(
    capsys: pytest.CaptureFixture[str], error: BaseException, code: int, lines: list[str]
) -> None:
    assert execute(raising(error), "swarm", []) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == lines


def test_with_json_an_error_is_an_object_too(capsys: pytest.CaptureFixture[str]) -> None:
    error = NotFoundError("no \udcff", remedy="look")
    assert execute(raising(error), "swarm", ["--json"]) == 3
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {
        "error": {
            "code": "not_found",
            "exit_code": 3,
            "message": "no \\udcff",
            "where": None,
            "remedy": "look",
        }
    }
    assert captured.err.startswith("error: no")


def test_a_usage_error_points_to_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(command(lambda: None), "swarm", ["--nope", "--json"]) == 2
    captured = capsys.readouterr()
    assert "  remedy: see swarm --help" in captured.err.splitlines()
    assert json.loads(captured.out)["error"]["code"] == "invalid"


def test_the_code_that_a_command_returns_is_the_exit_code() -> None:
    assert execute(command(lambda: 5), "swarm", []) == 5
    assert execute(command(lambda: None), "swarm", []) == 0


def test_an_unexpected_exception_leaves_a_file(
    capsys: pytest.CaptureFixture[str], home: Path
) -> None:
    logs = home / "registry" / "logs"
    logs.mkdir(parents=True)
    for number in range(MAX_CRASH_FILES + 5):
        (logs / f"crash-2000-{number:02}.txt").touch()
    assert execute(raising(ValueError("odd\nthing")), "swarm", []) == 1
    captured = capsys.readouterr()
    assert "ValueError: odd" in captured.err
    assert "Traceback" not in captured.err
    kept = sorted(logs.glob("crash-*.txt"))
    assert len(kept) == MAX_CRASH_FILES
    assert str(kept[-1]) in captured.err
    assert "Traceback" in kept[-1].read_text()


def test_an_unexpected_exception_without_a_usable_home(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SWARM_HOME", str(tmp_path / "file"))
    monkeypatch.setenv("SWARM_DEBUG", "1")
    assert execute(raising(ValueError("odd")), "swarm", []) == 1
    captured = capsys.readouterr()
    assert "crash-" in captured.err
    assert "Traceback" in captured.err


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_crash_files_of_other_users_are_left_alone(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They cannot be deleted in the shared temporary folder, and must not keep ours from it."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("SWARM_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for number in range(MAX_CRASH_FILES + 5):
        path = tmp_path / f"crash-2000-{number:02}.txt"
        path.touch()
        os.chown(path, 12345, 12345)
    assert execute(raising(ValueError("odd")), "swarm", []) == 1
    assert f"{tmp_path}/crash-" in capsys.readouterr().err
    assert len(list(tmp_path.glob("crash-2000-*.txt"))) == MAX_CRASH_FILES + 5
