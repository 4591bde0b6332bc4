"""What ``--json`` prints of one run with all that belongs to it."""

from __future__ import annotations

from collections.abc import Sequence

from swarm.cli.details import RunDetails
from swarm.cli.documents import run_summary, wait_document
from swarm.cli.files import KeptFile
from swarm.kernel.json import JsonObject
from swarm.store.records import InvocationRecord, StepRecord, StepState


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


def file_document(file: KeptFile) -> JsonObject:
    """A file among the outputs and where its copy is."""
    return {
        "output": file.output,
        "name": file.name,
        "media_type": file.media_type,
        "size": file.size,
        "path": str(file.path),
    }


def usd(micros: int) -> float:
    """Millionths of a US dollar as US dollars."""
    return micros / 1_000_000
