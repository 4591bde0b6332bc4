"""The DAG of a workflow, from its definition."""

from __future__ import annotations

from swarm.cli.render.graph import Node
from swarm.definitions.loading import workflow_from_json
from swarm.definitions.workflow import (
    ACTION_LISTS,
    ActionDefinition,
    PlacedStep,
    StepDefinition,
    WorkflowDefinition,
)
from swarm.expressions.dependencies import step_dependencies
from swarm.store.ports import WorkflowRegistry
from swarm.store.records import RunRecord


def workflow_nodes(definition: WorkflowDefinition) -> dict[str, Node]:
    """The steps of the DAG with what each waits for, in the order of the definition."""
    needs = step_dependencies(definition)
    order = {step: index for index, step in enumerate(needs)}
    return {
        placed.step.id: _node(placed, sorted(needs[placed.step.id], key=order.__getitem__))
        for placed in definition.placed_steps()
        if placed.actions is None
    }


def workflow_actions(definition: WorkflowDefinition) -> dict[str, list[Node]]:
    """What is done once the steps are done, in order, by the list that it belongs to."""
    return {
        name: [_action(name, index, action) for index, action in enumerate(listed)]
        for name in ACTION_LISTS
        if (listed := getattr(definition, name))
    }


async def run_nodes(workflows: WorkflowRegistry, run: RunRecord) -> dict[str, Node]:
    """The steps of the workflow that a run is pinned to; nothing if its record is gone."""
    record = await workflows.get_workflow(run.workflow_id)
    return workflow_nodes(workflow_from_json(record.definition)) if record else {}


def _node(placed: PlacedStep, needs: list[str]) -> Node:
    return _step_node(placed.step, tuple(needs), placed.guard)


def _step_node(step: StepDefinition, needs: tuple[str, ...], guard: str | None) -> Node:
    return Node(
        id=step.id,
        target=step.target.removeprefix("wait: "),
        needs=needs,
        conditional=step.when is not None,
        kind="wait" if step.wait is not None else "workflow" if step.workflow else "agent",
        per_item=step.for_each is not None,
        handles=guard,
    )


def _action(name: str, index: int, action: ActionDefinition) -> Node:
    if action.step is not None:
        return _step_node(action.step, (), None)
    target = action.notify.type if action.notify is not None else ""
    return Node(f"{name}_{index + 1}", target, (), kind="notify")
