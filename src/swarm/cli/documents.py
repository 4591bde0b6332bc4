"""What ``--json`` prints of each kind of record: plain JSON with stable names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from swarm.cli.render.waits import Wait
from swarm.kernel.json import JsonObject
from swarm.store.records import (
    NO_ITEM,
    AgentRecord,
    RunRecord,
    SecretIdentity,
    SecretRecord,
    StepRecord,
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


def identity_document(identity: SecretIdentity) -> JsonObject:
    """Which secret it is, for JSON."""
    return {"name": identity.name, "scope": identity.scope.value, "workflow": identity.workflow}


def secret_document(record: SecretRecord) -> JsonObject:
    """A secret without its value."""
    return {
        **identity_document(record.identity),
        "key_id": record.key_id,
        "created_at": record.created_at,
        "updated_at": record.updated_at,
    }
