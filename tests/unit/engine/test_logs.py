"""A run's log survives a crash in the middle of a line."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarm.engine.logs import RunLog, log_path, read_log
from swarm.kernel.errors import UnavailableError


def test_lines_are_read_back_in_order_and_a_cut_line_is_left_out(tmp_path: Path) -> None:
    log = RunLog(tmp_path, "run_1")
    log.append("a", 1, "stdout", "info", "first\nwith a break")
    log.append("b", 2, "log", "error", "second")
    log.close()
    with log_path(tmp_path, "run_1").open("ab") as file:
        file.write(b'{"time": "cut sho')
    entries = read_log(tmp_path, "run_1")
    assert [(entry["step_id"], entry["attempt"], entry["message"]) for entry in entries] == [
        ("a", 1, "first\nwith a break"),
        ("b", 2, "second"),
    ]


def test_a_run_without_a_log_has_no_lines(tmp_path: Path) -> None:
    assert read_log(tmp_path, "run_1") == []


def test_an_unwritable_log_says_where_and_what_to_do(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "missing", "run_1")
    with pytest.raises(UnavailableError, match="cannot be written") as caught:
        log.append("a", 1, "log", "info", "text")
    assert caught.value.remedy
