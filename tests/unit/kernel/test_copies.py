"""Copies with changes are what ``dataclasses.replace`` gives."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.kernel.copies import replace
from swarm.store.records import RunRecord, RunState, StepRecord


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "status": st.sampled_from(RunState),
            "error": st.none() | st.text(),
            "epoch": st.integers(),
            "inputs": st.dictionaries(st.text(), st.integers()),
        },
    )
)
def test_it_does_what_the_standard_library_does(changes: dict[str, object]) -> None:
    run = RunRecord("run_1", "wfl_1", "flow", "1.0.0", labels={"a": "b"})
    before = dataclasses.asdict(run)
    copy = replace(run, **changes)
    assert copy == dataclasses.replace(run, **changes)  # type: ignore[arg-type]
    assert type(copy) is RunRecord
    assert dataclasses.asdict(run) == before


def test_a_misspelt_field_is_refused() -> None:
    with pytest.raises(TypeError, match="StepRecord has no field 'statsu'"):
        replace(StepRecord("step_1", "run_1", "a"), statsu=1)


def test_classes_that_it_cannot_copy_are_refused() -> None:
    @dataclass
    class Loose:
        a: int
        b: int

    @dataclass(slots=True)
    class Checked:
        a: int
        b: int

        def __post_init__(self) -> None:
            self.a += 1

    for record in (Loose(1, 2), Checked(1, 2), 3):
        with pytest.raises(TypeError, match="no plain dataclass with slots"):
            replace(record)
