"""Ids, times, JSON and errors."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.kernel import clock
from swarm.kernel.errors import DefinitionError, InvalidError, NotFoundError, Problem, nearest_names
from swarm.kernel.ids import new_id
from swarm.kernel.json import MAX_DEPTH, dump_bytes, dumps, loads


def test_ids_are_version_7_uuids_that_only_grow() -> None:
    ids = [new_id("run") for _ in range(5_000)]
    assert ids == sorted(set(ids))
    parsed = uuid.UUID(ids[0].removeprefix("run_"))
    assert (parsed.version, parsed.variant) == (7, uuid.RFC_4122)


def test_a_time_reads_back_as_it_was_written() -> None:
    moment = clock.now()
    assert clock.from_text(clock.to_text(moment)) == moment
    assert clock.ago_text(60) < clock.now_text()


def test_the_current_time_is_written_like_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    for nanoseconds in (0, 999, 1_000, 999_999_999, 1_769_860_800_123_456_789):
        monkeypatch.setattr(clock.time, "time_ns", lambda fixed=nanoseconds: fixed)
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=nanoseconds // 1000)
        assert clock.now_text() == clock.to_text(moment)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(json_values)
def test_canonical_json_reads_back_and_is_stable(value: object) -> None:
    text = dumps(value)
    assert loads(text) == value
    assert dumps(loads(text)) == text


@pytest.mark.parametrize("brackets", ["[]", ('{"a":', "}")])
def test_what_is_read_can_be_written_again_with_room_to_spare(brackets: str) -> None:
    opening, closing = brackets
    deepest = loads(opening * MAX_DEPTH + "1" + closing * MAX_DEPTH)
    for _ in range(50):
        deepest = {"record": deepest}
    assert dump_bytes(deepest)
    with pytest.raises(InvalidError, match="levels deep"):
        loads(opening * (MAX_DEPTH + 1) + "1" + closing * (MAX_DEPTH + 1))
    assert loads("[" + "[]," * 10_000 + "1]")


@pytest.mark.parametrize("value", [float("nan"), [1, float("inf")], {"a": {"b": float("-inf")}}])
def test_json_refuses_nan_and_infinity(value: object) -> None:
    with pytest.raises(InvalidError, match="NaN or infinite"):
        dump_bytes(value)


def test_a_missing_thing_offers_the_nearest_names() -> None:
    error = NotFoundError("no agent ecko", name="ecko", known=["echo", "http-fetch"])
    assert "did you mean echo?" in str(error)
    assert nearest_names("zzz", ["echo"]) == ()


def test_a_definition_error_prints_every_problem_with_its_place() -> None:
    error = DefinitionError(
        [
            Problem("unknown key `stepz`", "workflow.yaml", 3, 1, "did you mean `steps`?"),
            Problem("`name` is missing", "workflow.yaml", 1),
        ]
    )
    assert str(error) == (
        "workflow.yaml:3:1: unknown key `stepz`\n  remedy: did you mean `steps`?\n"
        "workflow.yaml:1: `name` is missing"
    )
