"""A run, its steps, items and attempts as people read them."""

from __future__ import annotations

from collections.abc import Sequence

from swarm.cli.details import RunDetails
from swarm.cli.render.runs import failure
from swarm.cli.render.tables import Cell, table
from swarm.cli.render.values import (
    STATE_COLORS,
    duration,
    elapsed_ms,
    local_time,
    size,
)
from swarm.cli.render.waits import Wait
from swarm.cli.terminal import Terminal, cut
from swarm.kernel.json import dumps
from swarm.store.records import NO_ITEM, InvocationRecord, RunRecord, StepRecord, StepState

MAX_FACT_CHARACTERS = 400
"""Of the inputs as they stand in the heading of a run."""
INVOCATION_COLORS = {"ok": "green", "running": "cyan"}


def run_facts(details: RunDetails) -> list[tuple[str, str]]:
    """What is to be said of a run above its steps; empty values are for leaving out."""
    run = details.run
    inputs = dumps(run.inputs)
    if len(inputs) > MAX_FACT_CHARACTERS:
        inputs = f"{cut(inputs, MAX_FACT_CHARACTERS)} ({size(len(inputs))}; --json prints all)"
    return [
        ("workflow", f"{run.workflow_name}@{run.workflow_version}"),
        ("inputs", inputs),
        ("labels", ", ".join(f"{name}={value}" for name, value in run.labels.items())),
        ("priority", str(run.priority) if run.priority else ""),
        ("isolation", run.isolation),
        ("created", local_time(run.created_at)),
        ("took", duration(elapsed_ms(run.started_at, run.completed_at))),
        ("waits until", local_time(run.wake_at)),
        ("queued for", run.concurrency_key or "" if run.status == "pending" else ""),
        ("origin", run.origin_run_id or ""),
        ("called by", _caller(run)),
        ("key", run.idempotency_key or ""),
        ("used", usage_text(run, details)),
        ("error", failure(run)),
    ]


def _caller(run: RunRecord) -> str:
    if run.parent_run_id is None:
        return ""
    item = run.parent_item_index
    of_item = "" if item is None or item == NO_ITEM else f"[{item}]"
    return f"{run.parent_run_id}, step {run.parent_step_id}{of_item}"


def usage_text(run: RunRecord, details: RunDetails) -> str:
    """What the run used, with all that it called, and of what budget.

    A run without a budget and without tokens or cost is left alone: its time is in its steps.
    """
    budget = details.budget
    is_root = run.root_run_id is None
    seconds = (run.tree_vm_time_ms if is_root else run.total_vm_time_ms) / 1000
    tokens = run.tree_api_tokens if is_root else run.total_api_tokens
    dollars = (run.tree_cost_micros if is_root else run.total_cost_micros) / 1_000_000
    parts = []
    if tokens or budget.get("tokens"):
        parts.append(f"{tokens:,}{_of(budget.get('tokens'))} tokens")
    if dollars or budget.get("usd"):
        parts.append(f"${dollars:.4f}{_of(budget.get('usd'), '$')}")
    if budget.get("vm_seconds"):
        parts.append(f"{seconds:.1f}{_of(budget['vm_seconds'])} s in sandboxes")
    return ", ".join(parts)


def _of(limit: float | None, unit: str = "") -> str:
    return "" if limit is None else f" of {unit}{limit:,g}"


def step_table(terminal: Terminal, details: RunDetails) -> list[str]:
    """One line for each step of a run."""
    called = {run.id: run for run in details.children}
    rows: list[list[Cell | str]] = [
        [
            step.step_id,
            Cell(str(step.status), STATE_COLORS.get(step.status)),
            _target(step, called.get(step.child_run_id or "")),
            Cell(step.isolation, "yellow") if step.isolation == "none" else step.isolation or "",
            str(step.retry_count + 1) if step.started_at and step.agent_name else "",
            _took(step),
            _remark(step, details),
        ]
        for step in details.steps
    ]
    headers = ["STEP", "STATE", "AGENT", "ISOLATION", "ATTEMPTS", "TOOK", ""]
    return table(terminal, headers, rows)


def _target(step: StepRecord, called: RunRecord | None) -> str:
    if step.agent_name:
        return f"{step.agent_name}@{step.agent_version}"
    if called is not None:
        return f"{called.workflow_name}@{called.workflow_version}"
    return f"({step.wait_kind})" if step.wait_kind else ""


def _took(step: StepRecord) -> str:
    if step.duration_ms is not None:
        return duration(step.duration_ms)
    return duration(elapsed_ms(step.started_at, step.completed_at))


def _remark(step: StepRecord, details: RunDetails) -> str:
    """What else is to be said of a step, on one line."""
    parts = []
    if step.item_count is not None:
        counts = details.item_counts(step)
        total = counts.pop("total")
        parts.append(", ".join([f"{total:,} items", *(f"{n:,} {s}" for s, n in counts.items())]))
    if step.status is StepState.WAITING:
        parts.append(f"waits for {Wait.of_step(step)}")
    if step.child_run_id:
        parts.append(step.child_run_id)
    if step.reused_from:
        parts.append(f"from {step.reused_from}")
    if step.error:
        parts.append(step.error)
    return "; ".join(parts)


def item_table(terminal: Terminal, step: StepRecord, details: RunDetails) -> list[str]:
    """One line for each item of a step that has begun."""
    rows: list[list[Cell | str]] = [
        [
            f"{row.step_id}[{row.item_index}]",
            Cell(str(row.status), STATE_COLORS.get(row.status)),
            str(row.retry_count + 1) if row.started_at and row.agent_name else "",
            _took(row),
            _remark(row, details),
        ]
        for row in details.items.get(step.step_id, ())
    ]
    return table(terminal, ["ITEM", "STATE", "ATTEMPTS", "TOOK", ""], rows)


def attempt_table(terminal: Terminal, attempts: Sequence[InvocationRecord]) -> list[str]:
    """One line for each attempt, with what it used."""
    rows: list[list[Cell | str]] = [
        [
            str(one.attempt),
            Cell(one.status, INVOCATION_COLORS.get(one.status, "red")),
            one.sandbox_id or "",
            one.isolation,
            local_time(one.started_at),
            duration(one.wall_ms),
            duration(one.cpu_ms),
            size(one.peak_memory_bytes),
            f"{one.tokens:,}" if one.tokens else "",
            f"${one.cost_micros / 1_000_000:.4f}" if one.cost_micros else "",
            one.error or "",
        ]
        for one in attempts
    ]
    headers = ["ATTEMPT", "STATE", "SANDBOX", "ISOLATION", "STARTED", "TOOK"]
    return table(terminal, [*headers, "CPU", "MEMORY", "TOKENS", "COST", ""], rows)
