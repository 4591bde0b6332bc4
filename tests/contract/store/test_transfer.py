"""What every store promises about runs that leave for another database and come from one."""

from __future__ import annotations

import io
import json
import random
import tracemalloc
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct
from msgspec.structs import replace

from swarm.kernel.clock import now_text
from swarm.kernel.errors import InvalidError, RefusedError
from swarm.kernel.ids import new_id
from swarm.kernel.settings import Settings
from swarm.store.exchange import MAX_LINE_BYTES
from swarm.store.ports import Store
from swarm.store.records import (
    NO_ITEM,
    NOT_HERE,
    AgentRecord,
    AnswerRecord,
    InvocationRecord,
    NewRun,
    RunAttribute,
    RunChanges,
    RunFilter,
    RunRecord,
    RunState,
    StepRecord,
    StepState,
    WorkflowRecord,
)
from swarm.store.transfer import Exported, Imported, export_runs, import_runs
from tests.contract.store.backends import open_at

TIME = "2026-01-31T12:00:00.000000Z"
LABEL = RunAttribute("label", "env", "prod")


@pytest.fixture
async def other(make_address: Any, settings: Settings) -> AsyncIterator[Store]:
    """Another database, with nothing in it."""
    store = await open_at(make_address(), settings)
    yield store
    await store.close()


class Whole(Struct, frozen=True):
    """A run and all that belongs to it."""

    run: RunRecord
    steps: list[StepRecord]
    invocations: list[InvocationRecord]
    answers: list[AnswerRecord]


async def whole(store: Store, run_id: str) -> Whole | None:
    run = await store.get_run(run_id)
    if run is None:
        return None
    return Whole(
        run,
        await store.list_steps(run_id),
        await store.list_invocations(run_id),
        await store.list_answers(run_id),
    )


async def ended_run(
    store: Store, samples: Any, workflow: WorkflowRecord, agent: AgentRecord, **fields: Any
) -> RunRecord:
    """A run with two steps, an invocation, an answer and a label."""
    run = samples.run(
        workflow,
        inputs={"text": "ü\n", "n": 1.5, "file": {"$artifact": "sha256:1"}},
        agents={"echo": agent.id},
        mounts={"live:1": "/etc"},
        **fields,
    )
    steps = samples.steps(run, "b", "a", agent_id=agent.id)
    await store.create_run(NewRun(run, tuple(steps), (LABEL,)))
    claimed = await store.claim_run(run.id, "host_1", None)
    assert claimed is not None
    asking = replace(steps[1], status=StepState.WAITING, wait_kind="approval")
    await store.commit(run.id, 1, RunChanges((asking,)))
    assert await store.answer_wait(AnswerRecord(run.id, "a", NO_ITEM, {"approved": True}, TIME))
    call = InvocationRecord(
        new_id("inv"), agent.id, agent.name, agent.version, agent.digest, "ok", run.id, "b",
        layers=("pid", "net"), started_at=TIME,
    )  # fmt: skip
    await store.commit(
        run.id,
        1,
        RunChanges(
            tuple(replace(step, status=StepState.SUCCEEDED, outputs={"x": 1}) for step in steps),
            (call,),
            {"status": RunState.SUCCEEDED, "completed_at": TIME, "outputs": {"done": [None]}},
        ),
    )
    return run


async def exported(
    store: Store, run_filter: RunFilter | None = None, count: Exported | None = None
) -> bytes:
    target = io.BytesIO()
    result = await export_runs(store, run_filter or RunFilter(), target)
    assert count is None or result == count
    return target.getvalue()


async def imported(store: Store, text: bytes, **options: Any) -> Imported:
    return await import_runs(store, io.BytesIO(text), **options)


def kinds(text: bytes) -> list[str]:
    return [json.loads(line)["record"] for line in text.splitlines()]


async def test_runs_come_over_whole_and_once(
    store: Store, other: Store, samples: Any, workflow: WorkflowRecord, agent: AgentRecord
) -> None:
    runs = [await ended_run(store, samples, workflow, agent) for _ in range(3)]
    live = samples.run(workflow, status=RunState.RUNNING)
    await store.create_run(NewRun(live))
    text = await exported(store, count=Exported(runs=3))
    one = ["run", "step", "step", "invocation", "answer", "attribute", "run_end"]
    assert kinds(text) == ["header", "workflow", "agent", *one * 3]

    assert await imported(other, text) == Imported(runs=3)
    for run in runs:
        here, there = await whole(store, run.id), await whole(other, run.id)
        assert here is not None
        assert there is not None
        assert there.run.imported_at is not None
        assert there == replace(
            here,
            run=replace(here.run, owner=None, mounts={}, imported_at=there.run.imported_at),
        )
    labelled = await other.list_runs(RunFilter(attributes=(LABEL,)))
    assert [run.id for run in labelled] == [run.id for run in reversed(runs)]

    assert await imported(other, text) == Imported(existing=3)
    assert await imported(store, text) == Imported(existing=3)
    assert kinds(await exported(other)) == kinds(text)


async def test_what_runs_refer_to_comes_inactive_or_is_found(
    store: Store, other: Store, samples: Any, workflow: WorkflowRecord, agent: AgentRecord
) -> None:
    run = await ended_run(store, samples, workflow, agent)
    text = await exported(store)
    same_workflow = await other.add_workflow(samples.workflow())
    assert await imported(other, text) == Imported(runs=1)
    there = await other.get_run(run.id)
    assert there is not None
    assert there.workflow_id == same_workflow.id, "the same by name, version and digest"
    adopted = await other.get_agent(agent.id)
    assert adopted is not None
    assert (adopted.active, adopted.path, adopted.source) == (False, NOT_HERE, NOT_HERE)
    assert await other.list_agents() == []
    assert there.agents == {"echo": agent.id}

    # Whatever the file said about it: who registers it says how it is.
    registered = await other.add_agent(samples.agent(definition={"name": "echo", "true": 1}))
    assert (registered.id, registered.path) == (agent.id, "/packages/a")
    assert registered.definition == {"name": "echo", "true": 1}
    assert await other.list_agents() == [registered]


async def test_an_imported_run_cannot_be_taken_up_again(
    store: Store, other: Store, samples: Any, workflow: WorkflowRecord, agent: AgentRecord
) -> None:
    run = await ended_run(store, samples, workflow, agent)
    await imported(other, await exported(store))
    before = await whole(other, run.id)
    with pytest.raises(RefusedError, match="was imported"):
        await other.reopen_run(run.id, "host_1", RunChanges())
    assert await other.claim_run(run.id, "host_1", None) is None
    assert await whole(other, run.id) == before


async def test_imported_runs_are_kept_from_when_they_came(
    store: Store, other: Store, samples: Any, workflow: WorkflowRecord, agent: AgentRecord
) -> None:
    run = await ended_run(store, samples, workflow, agent)
    before_import = now_text()
    await imported(other, await exported(store))
    assert await other.purge_runs(before_import) == []
    assert await store.purge_runs(before_import) == [run.id]
    assert await other.purge_runs(now_text()) == [run.id]


async def test_called_runs_come_with_their_callers(
    store: Store, other: Store, samples: Any, workflow: WorkflowRecord
) -> None:
    ended = {"status": RunState.FAILED, "completed_at": TIME}
    root, lone = samples.run(workflow, **ended), samples.run(workflow, **ended)
    child = samples.run(workflow, parent_run_id=root.id, root_run_id=root.id, depth=1, **ended)
    grandchild = samples.run(
        workflow, parent_run_id=child.id, root_run_id=root.id, depth=2, **ended
    )
    for run in (root, lone, child, grandchild):
        await store.create_run(NewRun(run, (), (LABEL,) if run is root else ()))
    text = await exported(store, RunFilter(attributes=(LABEL,), limit=1), Exported(runs=3))
    assert await imported(other, text) == Imported(runs=3)
    assert await other.get_run(lone.id) is None
    assert await exported(store, RunFilter(states=(RunState.RUNNING,)), Exported()) != b""
    await exported(store, RunFilter(states=(RunState.FAILED,)), Exported(runs=4))


async def test_runs_belong_to_the_project_they_are_imported_to(
    store: Store, other: Store, samples: Any, workflow: WorkflowRecord, agent: AgentRecord
) -> None:
    run = await ended_run(store, samples, workflow, agent)
    await imported(other, await exported(store), project_id="elsewhere")
    assert await other.list_runs(RunFilter()) == []
    wanted = RunFilter(project_id="elsewhere", attributes=(LABEL,))
    assert [one.id for one in await other.list_runs(wanted)] == [run.id]
    assert (await other.list_steps(run.id))[0].project_id == "elsewhere"


async def test_a_key_that_is_taken_is_left_to_whom_it_belongs(
    store: Store, other: Store, samples: Any, workflow: WorkflowRecord, agent: AgentRecord
) -> None:
    run = await ended_run(store, samples, workflow, agent, idempotency_key="k")
    mine = samples.run(await other.add_workflow(samples.workflow()), idempotency_key="k")
    await other.create_run(NewRun(mine))
    await imported(other, await exported(store))
    there = await other.get_run(run.id)
    assert there is not None
    assert there.idempotency_key is None
    assert await other.create_run(NewRun(replace(mine, id=new_id("run")))) == mine


async def test_a_run_that_changes_while_it_is_written_is_left_out(
    store: Store, other: Store, samples: Any, workflow: WorkflowRecord, agent: AgentRecord
) -> None:
    run = await ended_run(store, samples, workflow, agent)
    page = store.archived_page

    class Changing:
        """The store, in which the run is taken up again as soon as a page was read."""

        def __getattr__(self, name: str) -> Any:
            return getattr(store, name)

        async def archived_page(self, run_id: str, after: str = "", limit: int = 500) -> Any:
            found = await page(run_id, after, limit)
            await store.reopen_run(run.id, "host_2", RunChanges())
            return found

    target = io.BytesIO()
    assert await export_runs(Changing(), RunFilter(), target) == Exported(left_out=1)  # type: ignore[arg-type]
    assert await imported(other, target.getvalue()) == Imported(left_out=1)
    assert await other.list_runs(RunFilter()) == []


Change = Callable[[dict[str, Any]], Any]


def changed(text: bytes, kind: str, change: Change) -> tuple[bytes, int]:
    """``text`` with the last line of that kind changed, and its number."""
    lines = text.splitlines()
    number = max(n for n, name in enumerate(kinds(text)) if name == kind)
    document = json.loads(lines[number])
    result = change(document)
    lines[number] = result if isinstance(result, bytes) else json.dumps(document).encode()
    return b"\n".join(lines) + b"\n", number + 1


@pytest.mark.parametrize(
    ("kind", "change", "at", "words"),
    [
        ("step", lambda _: b"{", None, "not valid JSON"),
        ("step", lambda _: b"[]", None, "does not say"),
        ("step", lambda _: b"", None, "not valid JSON"),
        ("step", lambda line: line.update(record="secret"), None, "does not say"),
        ("step", lambda line: line.update(colour="red"), None, "no field colour"),
        ("step", lambda line: line.update(attempt="1"), None, "step.attempt"),
        ("step", lambda line: line.update(status="odd"), None, "step.status"),
        ("step", lambda line: line.update(status="waiting"), None, "cannot be waiting"),
        ("step", lambda line: line.pop("id"), None, "step.* `id`"),
        ("step", lambda line: line.update(run_id=new_id("run")), None, "does not belong"),
        ("step", lambda line: line.update(agent_id="agent_x"), None, "does not come before"),
        ("step", lambda line: line.update(duration_ms=2**80), None, "duration_ms"),
        ("step", lambda line: line.update(step_id="b"), "run", "contradicts"),
        ("step", lambda line: line.update(started_at="now"), None, "not a moment"),
        ("run", lambda line: line.update(id="../../etc"), None, "run.id"),
        ("run", lambda line: line.update(id="run_1"), None, "run.id"),
        ("run", lambda line: line.update(status="running"), None, "not ended"),
        ("run", lambda line: line.pop("completed_at"), None, "not ended"),
        ("run", lambda line: line.update(workflow_id="wf_x"), None, "does not come before"),
        ("run_end", lambda line: line.update(entries=7), None, "not 7"),
        ("run_end", lambda line: line.update(run_id=new_id("run")), None, "not begun"),
        ("run_end", lambda _: b'{"record":"header","format":"x"}', None, "header.* `version`"),
        ("attribute", lambda line: line.update(value="v" * 300), "run", "too long"),
        ("header", lambda line: line.update(version=2), None, "knows version 1"),
        ("header", lambda line: line.update(format="other"), None, "not the header"),
        ("header", lambda _: b"\xff\xfe", None, "not valid JSON"),
        ("agent", lambda line: line.update(name="No Name"), None, "agent.name"),
    ],
)
async def test_a_wrong_line_is_named_and_nothing_of_its_run_stays(
    store: Store,
    other: Store,
    samples: Any,
    workflow: WorkflowRecord,
    agent: AgentRecord,
    kind: str,
    change: Change,
    at: str | None,
    words: str,
) -> None:
    runs = [await ended_run(store, samples, workflow, agent) for _ in range(2)]
    text = await exported(store, count=Exported(runs=2))
    broken, number = changed(text, kind, change)
    if at is not None:  # it is found only once the run is whole
        _, number = changed(text, at, lambda _: None)
    with pytest.raises(InvalidError, match=words) as caught:
        await imported(other, broken)
    assert caught.value.where == f"line {number}"
    assert await whole(other, runs[0].id) is None, "the last in the file"
    assert await imported(other, text) in (Imported(runs=2), Imported(runs=1, existing=1))
    assert await whole(other, runs[0].id) is not None


async def test_a_file_that_was_cut_is_refused_wherever_that_was(
    store: Store, other: Store, samples: Any, workflow: WorkflowRecord, agent: AgentRecord
) -> None:
    run = await ended_run(store, samples, workflow, agent)
    text = await exported(store)
    chance = random.Random(3)
    for end in [0, *chance.sample(range(1, len(text) - 1), 40)]:
        try:
            assert await imported(other, text[:end]) == Imported()
        except InvalidError as error:
            assert error.where is None or str(error.where).startswith("line ")
        assert await whole(other, run.id) is None
    assert await imported(other, text) == Imported(runs=1)


async def test_a_long_line_is_refused_before_it_is_read_whole(
    other: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("swarm.store.transfer.MAX_LINE_BYTES", 1000)
    monkeypatch.setattr("swarm.store.exchange.MAX_LINE_BYTES", 1000)
    with pytest.raises(InvalidError, match="longer than 1,000 bytes"):
        await imported(other, b" " * 100_000)
    assert MAX_LINE_BYTES > 1000


async def test_a_large_run_goes_over_with_bounded_memory(
    store: Store, other: Store, samples: Any, workflow: WorkflowRecord, tmp_path: Path, scale: Any
) -> None:
    """Of what its steps hold, only a part is ever in memory."""
    items, filler = scale(small=2_000, full=10_000), "x" * 32_000
    run = samples.run(workflow, status=RunState.SUCCEEDED, completed_at=TIME)
    await store.create_run(NewRun(run))
    for start in range(0, items, 500):
        steps = samples.steps(run, *(["s"] * 500), outputs={"text": filler})
        numbered = (
            replace(step, status=StepState.SUCCEEDED, item_index=start + number)
            for number, step in enumerate(steps)
        )
        await store.commit(run.id, 0, RunChanges(tuple(numbered)))
    file = tmp_path / "runs.jsonl"
    size = items * len(filler)
    tracemalloc.start()
    try:
        with file.open("wb") as target:
            assert await export_runs(store, RunFilter(), target) == Exported(runs=1)
        with file.open("rb") as source:
            assert await import_runs(other, source) == Imported(runs=1)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert file.stat().st_size > size
    assert peak < 48_000_000 < size
    assert await other.list_steps(run.id) == await store.list_steps(run.id)
