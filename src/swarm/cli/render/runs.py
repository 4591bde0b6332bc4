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
from swarm.store.records import RunRecord

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
    has_labels = any(run.labels for run in runs)
    rows: list[list[Cell | str]] = [
        [
            run_id,
            f"{run.workflow_name}@{run.workflow_version}",
            Cell(str(run.status), STATE_COLORS.get(run.status)),
            local_time(run.created_at),
            duration(elapsed_ms(run.started_at, run.completed_at)),
            *([_labels(run)] if has_labels else []),
            failure(run),
        ]
        for run_id, run in zip(ids, runs, strict=True)
    ]
    labels = ["LABELS"] if has_labels else []
    return table(terminal, ["RUN", "WORKFLOW", "STATE", "CREATED", "TOOK", *labels, ""], rows)


def _labels(run: RunRecord) -> str:
    return ",".join(f"{name}={value}" for name, value in run.labels.items())


def failure(run: RunRecord) -> str:
    """Why a run failed, on one line; nothing if it did not."""
    if not run.error:
        return ""
    return f"{run.error_step}: {run.error}" if run.error_step else run.error


def child_table(terminal: Terminal, run: RunRecord, children: Sequence[RunRecord]) -> list[str]:
    """One line for each run that ``run`` called, those below others indented."""
    rows: list[list[Cell | str]] = [
        [
            "  " * (child.depth - run.depth - 1) + child.id,
            _calling_step(child),
            f"{child.workflow_name}@{child.workflow_version}",
            Cell(str(child.status), STATE_COLORS.get(child.status)),
            duration(elapsed_ms(child.started_at, child.completed_at)),
            failure(child),
        ]
        for child in children
    ]
    return table(terminal, ["RUN", "CALLED BY", "WORKFLOW", "STATE", "TOOK", ""], rows)


def _calling_step(run: RunRecord) -> str:
    item = run.parent_item_index
    return f"{run.parent_step_id or ''}" + ("" if item is None or item < 0 else f"[{item}]")


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
