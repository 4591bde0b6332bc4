"""A run with all that belongs to it, read once for a document or a page."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from msgspec.structs import replace

from swarm.engine.values import Values
from swarm.kernel.json import JsonObject
from swarm.store.ports import Store
from swarm.store.records import (
    NO_ITEM,
    InvocationRecord,
    RunFilter,
    RunRecord,
    StepKey,
    StepRecord,
)

CHILDREN = 1_000
"""Called runs that are read with a run."""


@dataclass(frozen=True, slots=True)
class RunDetails:
    """A run, its steps and their items, attempts and called runs."""

    run: RunRecord
    """With its inputs and outputs themselves, however large."""
    steps: list[StepRecord]
    """Without items."""
    items: dict[str, list[StepRecord]] = field(default_factory=dict)
    """Of steps that run over items: those that have begun, in the items' order."""
    invocations: dict[StepKey, list[InvocationRecord]] = field(default_factory=dict)
    """Attempts that have ended, of each step and item, in order."""
    children: list[RunRecord] = field(default_factory=list)
    """Runs that it called, the latest first, without their documents."""
    budget: JsonObject = field(default_factory=dict)

    def item_counts(self, step: StepRecord) -> dict[str, int]:
        """How many items of a step are in each state; ``total`` is how many there are."""
        if step.item_count is None:
            return {}
        states = Counter(str(item.status) for item in self.items.get(step.step_id, ()))
        return {"total": step.item_count, **states}

    def attempts(self, step: StepRecord) -> list[InvocationRecord]:
        """The attempts of a step, or of an item of it, in order."""
        return self.invocations.get(step.key, [])


async def read_details(store: Store, values: Values, run: RunRecord) -> RunDetails:
    """Read everything that belongs to ``run``.

    Raises:
        NotFoundError: a large input or output is gone.
    """
    rows = await store.list_steps(run.id)
    items: dict[str, list[StepRecord]] = {}
    for row in rows:
        if row.item_index != NO_ITEM:
            items.setdefault(row.step_id, []).append(row)
    invocations: dict[StepKey, list[InvocationRecord]] = {}
    for one in sorted(await store.list_invocations(run.id), key=lambda one: one.attempt):
        invocations.setdefault((one.step_id or "", one.item_index), []).append(one)
    for found in items.values():
        found.sort(key=lambda row: row.item_index)
    calls = RunFilter(parent_run_id=run.id, limit=CHILDREN, documents=False)
    workflow = await store.get_workflow(run.workflow_id)
    whole = replace(
        run,
        inputs=await values.loaded(run.inputs),
        outputs=await values.loaded(run.outputs),
    )
    return RunDetails(
        whole,
        [row for row in rows if row.item_index == NO_ITEM],
        items,
        invocations,
        await store.list_runs(calls) if any(row.child_run_id for row in rows) else [],
        (workflow.definition.get("budget") or {}) if workflow else {},
    )
