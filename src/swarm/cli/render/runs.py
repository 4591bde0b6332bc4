"""Runs, their steps and logs as people read them."""

from __future__ import annotations

from collections.abc import Sequence

from swarm.cli.render.tables import Cell, table
from swarm.cli.render.values import (
    STATE_COLORS,
    duration,
    elapsed_ms,
    local_clock,
    local_time,
)
from swarm.cli.terminal import Terminal, clean
from swarm.kernel.json import JsonObject
from swarm.store.records import RunRecord, StepRecord

ROOM_FOR_IDS = 100
"""Columns of a terminal from which on runs are listed with their whole ids."""
SHORT_ID = 20
"""Characters of a shortened id: the prefix, and 64 bits that begin with the time."""
LEVEL_COLORS = {"error": "red", "critical": "red", "warning": "yellow", "debug": "bright_black"}


def run_table(terminal: Terminal, runs: Sequence[RunRecord]) -> list[str]:
    """One line for each run.

    On a narrow screen the ids are shortened, to what still tells them apart: every command takes
    the start of one.
    """
    ids = [run.id for run in runs]
    if terminal.is_terminal and terminal.width < ROOM_FOR_IDS:
        short = [run_id[:SHORT_ID] for run_id in ids]
        ids = short if len(set(short)) == len(ids) else ids
    rows: list[list[Cell | str]] = [
        [
            run_id,
            f"{run.workflow_name}@{run.workflow_version}",
            Cell(str(run.status), STATE_COLORS.get(run.status)),
            local_time(run.created_at),
            duration(elapsed_ms(run.started_at, run.completed_at)),
            failure(run),
        ]
        for run_id, run in zip(ids, runs, strict=True)
    ]
    return table(terminal, ["RUN", "WORKFLOW", "STATE", "CREATED", "TOOK", ""], rows)


def failure(run: RunRecord) -> str:
    """Why a run failed, on one line; nothing if it did not."""
    if not run.error:
        return ""
    return f"{run.error_step}: {run.error}" if run.error_step else run.error


def step_table(terminal: Terminal, steps: Sequence[StepRecord]) -> list[str]:
    """One line for each step of a run."""
    rows: list[list[Cell | str]] = [
        [
            step.step_id,
            Cell(str(step.status), STATE_COLORS.get(step.status)),
            f"{step.agent_name}@{step.agent_version}" if step.agent_name else "",
            Cell(step.isolation, "yellow") if step.isolation == "none" else step.isolation or "",
            str(step.retry_count + 1) if step.started_at else "",
            duration(step.duration_ms),
            step.error or "",
        ]
        for step in steps
    ]
    headers = ["STEP", "STATE", "AGENT", "ISOLATION", "ATTEMPTS", "TOOK", ""]
    return table(terminal, headers, rows)


def log_line(terminal: Terminal, entry: JsonObject, width: int) -> str:
    """One line that an agent logged; ``width`` columns are kept for the step's name."""
    level = str(entry.get("level") or "info")
    stream = str(entry.get("stream") or "log")
    label = level if stream == "log" else stream
    step = clean(str(entry.get("step_id") or "run"))
    attempt = entry.get("attempt") or 1
    again = f"#{attempt}" if attempt > 1 else ""
    parts = [
        terminal.style(local_clock(str(entry.get("time") or "")), "dim"),
        (step + again).ljust(width),
        terminal.style(label.ljust(7), LEVEL_COLORS.get(level)),
        clean(str(entry.get("message") or "")),
    ]
    return "  ".join(parts)
