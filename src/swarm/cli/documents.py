"""What ``--json`` prints of each kind of record: plain JSON with stable names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from swarm.cli.details import RunDetails
from swarm.cli.files import KeptFile
from swarm.cli.render.waits import Wait
from swarm.kernel.json import JsonObject
from swarm.store.records import (
    NO_ITEM,
    AgentRecord,
    InvocationRecord,
    RunRecord,
    StepRecord,
    StepState,
    WorkflowRecord,
)


def agent_document(record: AgentRecord) -> JsonObject:
    """A registered agent, in short."""
    return {
        "name": record.name,
        "version": record.version,
        "description": record.description,
        "runtime": record.runtime,
        "digest": record.digest,
        "source": record.source,
        "tags": list(record.tags),
        "registered_at": record.created_at,
    }


def agent_detail(
    record: AgentRecord, granted: Mapping[str, Sequence[str]], versions: Iterable[str]
) -> JsonObject:
    """A registered agent with its manifest, grants and versions."""
    return {
        **agent_document(record),
        "path": record.path,
        "definition": record.definition,
        "inputs_schema": record.inputs_schema,
        "outputs_schema": record.outputs_schema,
        "granted": {name: list(values) for name, values in granted.items()},
        "versions": list(versions),
    }


def workflow_document(record: WorkflowRecord) -> JsonObject:
    """A registered workflow, in short."""
    return {
        "name": record.name,
        "version": record.version,
        "description": record.description,
        "enabled": record.enabled,
        "trigger": record.trigger_type,
        "steps": [step["id"] for step in record.definition.get("steps", ())],
        "digest": record.digest,
        "source": record.path,
        "tags": list(record.tags),
        "registered_at": record.created_at,
    }


def run_summary(run: RunRecord) -> JsonObject:
    """A run as lists show it."""
    return {
        "id": run.id,
        "workflow": run.workflow_name,
        "version": run.workflow_version,
        "status": str(run.status),
        "trigger": run.trigger_type,
        "isolation": run.isolation,
        "labels": run.labels,
        "priority": run.priority,
        "idempotency_key": run.idempotency_key,
        "concurrency_key": run.concurrency_key,
        "parent_run_id": run.parent_run_id,
        "parent_step": run.parent_step_id,
        "parent_item": item_number(run.parent_item_index),
        "wake_at": run.wake_at,
        "origin_run_id": run.origin_run_id,
        "created_at": run.created_at,
        "started_at": run.started_at,
        "completed_at": run.completed_at,
        "error": run.error,
        "error_code": run.error_code,
        "error_step": run.error_step,
    }


def run_document(
    details: RunDetails, kept: Sequence[KeptFile], *, items: bool = False
) -> JsonObject:
    """A run with its inputs, outputs, steps and files; with ``items`` those of its steps too."""
    run = details.run
    return {
        **run_summary(run),
        "inputs": run.inputs,
        "outputs": run.outputs,
        "files": [file_document(file) for file in kept],
        "usage": {
            "vm_seconds": run.total_vm_time_ms / 1000,
            "tokens": run.total_api_tokens,
            "cost_usd": usd(run.total_cost_micros),
        },
        "tree_usage": {
            "vm_seconds": run.tree_vm_time_ms / 1000,
            "tokens": run.tree_api_tokens,
            "cost_usd": usd(run.tree_cost_micros),
        },
        "budget": details.budget or None,
        "called_runs": [run_summary(child) for child in details.children],
        "steps": [
            {
                **step_document(step, details),
                "invocations": [invocation_document(one) for one in details.attempts(step)],
                **(
                    {
                        "item_steps": [
                            {**step_document(row, details), "item": row.item_index}
                            for row in details.items.get(step.step_id, ())
                        ]
                    }
                    if items and step.item_count is not None
                    else {}
                ),
            }
            for step in details.steps
        ],
    }


def step_document(step: StepRecord, details: RunDetails) -> JsonObject:
    """A step execution, or one item of it."""
    return {
        "id": step.step_id,
        "status": str(step.status),
        "agent": step.agent_name,
        "agent_version": step.agent_version,
        "isolation": step.isolation,
        "attempts": step.retry_count + 1 if step.started_at else 0,
        "inputs": step.inputs,
        "outputs": step.outputs,
        "started_at": step.started_at,
        "completed_at": step.completed_at,
        "duration_ms": step.duration_ms,
        "error": step.error,
        "error_code": step.error_code,
        "tokens": step.api_tokens_used,
        "cost_usd": usd(step.cost_micros),
        "items": details.item_counts(step) or None,
        "run_id": step.child_run_id,
        "reused_from": step.reused_from,
        "wait": wait_document(step) if step.status is StepState.WAITING else None,
    }


def invocation_document(invocation: InvocationRecord) -> JsonObject:
    """One attempt and what it used."""
    return {
        "id": invocation.id,
        "attempt": invocation.attempt,
        "status": invocation.status,
        "sandbox_id": invocation.sandbox_id,
        "isolation": invocation.isolation,
        "layers": list(invocation.layers),
        "started_at": invocation.started_at,
        "completed_at": invocation.completed_at,
        "wall_ms": invocation.wall_ms,
        "cpu_ms": invocation.cpu_ms,
        "peak_memory_bytes": invocation.peak_memory_bytes,
        "output_bytes": invocation.output_bytes,
        "log_bytes": invocation.log_bytes,
        "tokens": invocation.tokens,
        "cost_usd": usd(invocation.cost_micros),
        "error": invocation.error,
        "error_code": invocation.error_code,
    }


def wait_document(step: StepRecord) -> JsonObject:
    """What a step waits for."""
    wait = Wait.of_step(step)
    return {
        "for": wait.kind,
        **{name: wait.details.get(name) for name in ("message", "form", "name", "key")},
        "wake_at": wait.wake_at,
        "commands": wait.commands(),
    }


def waiting_document(step: StepRecord, run: RunRecord) -> JsonObject:
    """A waiting step among those of all runs."""
    return {
        "run_id": run.id,
        "workflow": run.workflow_name,
        "version": run.workflow_version,
        "step": step.step_id,
        "item": item_number(step.item_index),
        "since": step.started_at,
        **wait_document(step),
    }


def item_number(index: int | None) -> int | None:
    """The index of an item; None for what is of none."""
    return None if index is None or index == NO_ITEM else index


def usd(micros: int) -> float:
    """Millionths of a US dollar as US dollars."""
    return micros / 1_000_000


def file_document(file: KeptFile) -> JsonObject:
    """A file among the outputs and where its copy is."""
    return {
        "output": file.output,
        "name": file.name,
        "media_type": file.media_type,
        "size": file.size,
        "path": str(file.path),
    }
