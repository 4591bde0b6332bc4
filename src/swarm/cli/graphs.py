"""The DAG of a workflow, from its definition."""

from __future__ import annotations

from swarm.cli.render.graph import Node
from swarm.definitions.loading import workflow_from_json
from swarm.definitions.workflow import WorkflowDefinition
from swarm.expressions.dependencies import step_dependencies
from swarm.store.ports import WorkflowRegistry
from swarm.store.records import RunRecord


def workflow_nodes(definition: WorkflowDefinition) -> dict[str, Node]:
    """The steps with what each waits for, in the order of the definition."""
    needs = step_dependencies(definition)
    order = {step.id: index for index, step in enumerate(definition.steps)}
    return {
        step.id: Node(
            step.id,
            step.target,
            tuple(sorted(needs[step.id], key=order.__getitem__)),
            step.when is not None,
        )
        for step in definition.steps
    }


async def run_nodes(workflows: WorkflowRegistry, run: RunRecord) -> dict[str, Node]:
    """The steps of the workflow that a run is pinned to; nothing if its record is gone."""
    record = await workflows.get_workflow(run.workflow_id)
    return workflow_nodes(workflow_from_json(record.definition)) if record else {}
