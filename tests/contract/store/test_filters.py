"""What every store promises about finding runs: each filter and all of them together."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from swarm.kernel.clock import to_text
from swarm.kernel.errors import InvalidError
from swarm.kernel.ids import first_id
from swarm.store.ports import Store
from swarm.store.records import NewRun, RunAttribute, RunFilter, RunRecord, RunState

START = datetime(2026, 1, 31, 12, tzinfo=UTC)
RUNS = 120


@dataclass(frozen=True)
class Known:
    """A run, and what it was given to be found by."""

    run: RunRecord
    attributes: frozenset[RunAttribute]


def moment(number: float) -> str:
    return to_text(START + timedelta(seconds=number / 10))


@pytest.fixture
async def known(store: Store, samples: Any) -> list[Known]:
    """Runs, ten in a second, newest first."""
    chance = random.Random(5)
    workflows = [await store.add_workflow(samples.workflow(name=name)) for name in ("a", "b")]
    found: list[Known] = []
    for number in range(RUNS):
        time = START + timedelta(seconds=number / 10)
        digits = first_id("run", time).removeprefix("run_")
        run = samples.run(
            chance.choice(workflows),
            id=f"run_{digits[:12]}{chance.getrandbits(80):020x}",
            created_at=to_text(time),
            status=chance.choice(list(RunState)),
            owner=chance.choice([None, "host_1", "host_2"]),
            parent_run_id=chance.choice([None, None, "run_p", "run_q"]),
        )
        attributes = {RunAttribute("label", "env", chance.choice(["prod", "test"]))}
        attributes.add(RunAttribute("input", "n", str(chance.randrange(4))))
        if chance.random() < 0.2:
            attributes.add(RunAttribute("input", "env", "prod"))
        await store.create_run(NewRun(run, (), tuple(attributes)))
        found.insert(0, Known(run, frozenset(attributes)))
    return found


def passes(one: Known, wanted: RunFilter) -> bool:
    run = one.run
    return (
        (wanted.workflow is None or run.workflow_name == wanted.workflow)
        and (not wanted.states or run.status in wanted.states)
        and (wanted.owner is None or run.owner == wanted.owner)
        and set(wanted.attributes) <= one.attributes
        and (wanted.created_after is None or run.created_at >= wanted.created_after)
        and (wanted.created_before is None or run.created_at < wanted.created_before)
        and (wanted.parent_run_id is None or run.parent_run_id == wanted.parent_run_id)
        and (wanted.called or wanted.parent_run_id is not None or run.parent_run_id is None)
        and (wanted.before_id is None or run.id < wanted.before_id)
    )


def some_filter(chance: random.Random, known: list[Known]) -> RunFilter:
    def maybe(value: Any) -> Any:
        return value if chance.random() < 0.3 else None

    attributes = [
        RunAttribute("label", "env", "prod"),
        RunAttribute("input", "n", str(chance.randrange(5))),
        RunAttribute("input", "env", "prod"),
    ]
    return RunFilter(
        workflow=maybe(chance.choice("abc")),
        states=tuple(chance.sample(list(RunState), chance.randrange(4))),
        owner=maybe("host_1"),
        attributes=tuple(chance.sample(attributes, chance.choice([0, 0, 1, 2, 3]))),
        created_after=maybe(moment(chance.randrange(RUNS // 2))),
        created_before=maybe(moment(chance.randrange(RUNS // 2, RUNS))),
        parent_run_id=maybe("run_p"),
        called=chance.random() < 0.5,
        before_id=maybe(chance.choice(known).run.id),
        limit=chance.choice([1, 5, 200]),
    )


async def test_filters_let_the_same_runs_pass_as_a_comparison_of_each(
    store: Store, known: list[Known], monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(7)
    for number in range(300):
        if number == 150:  # now long ranges are told from short ones as in a large history
            monkeypatch.setattr("swarm.store.sql.pages.PROBED_ENTRIES", 20)
        wanted = some_filter(chance, known)
        expected = [one.run for one in known if passes(one, wanted)][: wanted.limit]
        assert await store.list_runs(wanted) == expected, wanted


async def test_moments_are_taken_exactly(store: Store, known: list[Known]) -> None:
    middle = known[RUNS // 2].run
    after = await store.list_runs(RunFilter(created_after=middle.created_at, limit=RUNS))
    before = await store.list_runs(RunFilter(created_before=middle.created_at, limit=RUNS))
    assert [*after, *before] == [one.run for one in known]
    assert after[-1] == middle
    with pytest.raises(InvalidError, match="no moment"):
        await store.list_runs(RunFilter(created_after="yesterday"))
