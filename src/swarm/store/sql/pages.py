"""Which runs a filter lets pass: one page of them, newest first.

Each page is read from the newest end of a few index ranges, one for each state. Where runs are
looked for by their attributes (labels, inputs), the range of one attribute is read instead, and
each run in it is looked up; :func:`narrowest` says which.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeAlias

from msgspec.structs import replace

from swarm.kernel.clock import from_text
from swarm.kernel.errors import InvalidError
from swarm.kernel.ids import first_id
from swarm.store.attributes import checked_attributes
from swarm.store.records import RunAttribute, RunFilter, RunState
from swarm.store.sql.connection import Connection, Value

_Bounds: TypeAlias = tuple[str | None, str | None]
"""The lowest id that may pass, and the lowest that no longer may."""
Query: TypeAlias = tuple[str, list[Value]]
"""SQL, and the values to bind."""

CREATION_SLACK = timedelta(seconds=1)
"""A run's id is made so shortly before or after its ``created_at``."""
PROBED_ENTRIES = 5000
"""Entries of a range that are counted to find out which one is the narrowest."""
_ATTRIBUTE = "project_id = ? AND kind = ? AND name = ? AND value = ?"


@dataclass(frozen=True, slots=True)
class _Conditions:
    """SQL conditions that must all hold, and their values."""

    parts: tuple[str, ...] = ()
    values: tuple[Value, ...] = ()

    def also(self, part: str, *values: Value) -> _Conditions:
        return _Conditions((*self.parts, part), (*self.values, *values))

    def given(self, part: str, value: Value) -> _Conditions:
        return self if value is None else self.also(part, value)

    def __str__(self) -> str:
        return " AND ".join(self.parts)


def page_query(run_filter: RunFilter, by: RunAttribute | None = None) -> Query:
    """The ids of the newest runs that pass ``run_filter``, looked for in the range of the
    attribute ``by``, or else in ranges of the states.

    Raises:
        InvalidError: a moment is not UTC text, or there are too many attributes.
    """
    return _by_state(run_filter) if by is None else _by_attribute(run_filter, by)


def narrowest(connection: Connection, run_filter: RunFilter) -> RunAttribute | None:
    """The attribute with the fewest runs, None if the other conditions let fewer pass.

    Ranges are counted up to a bound only; of those that are longer, any will do.
    """
    attributes = checked_attributes(run_filter.attributes)
    if not attributes:
        return None
    counts = {one: _count(connection, [_attribute_range(run_filter, one)]) for one in attributes}
    best = min(counts, key=lambda one: counts[one])
    # What is left out here, the time to the second, is told by the ids nearly as well.
    others = replace(run_filter, attributes=(), created_after=None, created_before=None)
    index, ranges = _state_ranges(others, _bounds(run_filter))
    probes = [
        (f"SELECT 1 FROM workflow_runs INDEXED BY {index} WHERE {one} LIMIT ?", [*one.values])
        for one in ranges
    ]
    return None if _count(connection, probes) < counts[best] else best


def _count(connection: Connection, probes: Sequence[Query]) -> int:
    """How many entries the probes find together, ``PROBED_ENTRIES`` at most."""
    count = 0
    for text, values in probes:
        left = PROBED_ENTRIES - count
        (found,) = connection.execute(
            f"SELECT count(*) FROM ({text}) AS probe", (*values, left)
        ).fetchone()
        count += int(found)
        if count == PROBED_ENTRIES:
            break
    return count


def _by_state(run_filter: RunFilter) -> Query:
    """One range per state, each read no further than the page is long, then merged."""
    index, ranges = _state_ranges(run_filter, _bounds(run_filter))
    newest = [
        f"SELECT * FROM (SELECT id FROM workflow_runs INDEXED BY {index} "
        f"WHERE {one} ORDER BY id DESC LIMIT ?) AS newest"
        for one in ranges
    ]
    values = [value for one in ranges for value in (*one.values, run_filter.limit)]
    merged = " UNION ALL ".join(newest)
    return f"SELECT id FROM ({merged}) AS merged ORDER BY id DESC LIMIT ?", [
        *values,
        run_filter.limit,
    ]


def _state_ranges(run_filter: RunFilter, bounds: _Bounds) -> tuple[str, list[_Conditions]]:
    """The index to use, and a range of it for each state, called and not called."""
    called: tuple[str, ...] = ()
    if run_filter.parent_run_id is not None:
        index = "idx_runs_parent_state"
    else:
        called = ("FALSE", "TRUE") if run_filter.called else ("FALSE",)
        if run_filter.owner is not None:
            index = "idx_runs_owner_state"
        elif run_filter.workflow is not None:
            index = "idx_runs_name_state"
        else:
            index = "idx_runs_project_state"
    conditions = _Conditions().also("project_id = ?", run_filter.project_id)
    conditions = _narrowed(conditions, run_filter)
    conditions = _within(conditions, "id", bounds)
    conditions = _other_attributes(conditions, run_filter, None)
    ranges: list[_Conditions] = []
    for state in dict.fromkeys(run_filter.states) or tuple(RunState):
        of_state = conditions.also("status = ?", state.value)
        ranges += [of_state.also(f"(parent_run_id IS NOT NULL) = {flag}") for flag in called] or [
            of_state
        ]
    return index, ranges


def _by_attribute(run_filter: RunFilter, by: RunAttribute) -> Query:
    """The range of ``by``; runs are looked up only if something is asked that it cannot tell."""
    of_run = _narrowed(_Conditions(), run_filter)
    if run_filter.states:
        marks = ", ".join("?" * len(run_filter.states))
        of_run = of_run.also(f"status IN ({marks})", *run_filter.states)
    if not run_filter.called and run_filter.parent_run_id is None:
        of_run = of_run.also("parent_run_id IS NULL")
    conditions = _within(_attribute_conditions(run_filter, by), "found.run_id", _bounds(run_filter))
    conditions = _other_attributes(conditions, run_filter, by)
    look_up = ""
    if of_run.parts:
        conditions = conditions.also(str(of_run), *of_run.values)
        look_up = "CROSS JOIN workflow_runs "
        conditions = conditions.also("workflow_runs.id = found.run_id")
    return (
        f"SELECT found.run_id FROM run_attributes AS found {look_up}"
        f"WHERE {conditions} ORDER BY found.run_id DESC LIMIT ?",
        [*conditions.values, run_filter.limit],
    )


def _attribute_range(run_filter: RunFilter, attribute: RunAttribute) -> Query:
    """The runs with ``attribute`` that are of the right age."""
    conditions = _attribute_conditions(run_filter, attribute)
    conditions = _within(conditions, "found.run_id", _bounds(run_filter))
    return (
        f"SELECT 1 FROM run_attributes AS found WHERE {conditions} LIMIT ?",
        [*conditions.values],
    )


def _attribute_conditions(run_filter: RunFilter, attribute: RunAttribute) -> _Conditions:
    parts = " AND ".join(f"found.{part}" for part in _ATTRIBUTE.split(" AND "))
    return _Conditions((parts,), _key(run_filter, attribute))


def _key(run_filter: RunFilter, attribute: RunAttribute) -> tuple[str, str, str, str]:
    return run_filter.project_id, attribute.kind, attribute.name, attribute.value


def _narrowed(conditions: _Conditions, run_filter: RunFilter) -> _Conditions:
    """``conditions`` and those of the filter that columns of the run answer."""
    for part, value in (
        ("workflow_name = ?", run_filter.workflow),
        ("owner = ?", run_filter.owner),
        ("parent_run_id = ?", run_filter.parent_run_id),
        ("created_at >= ?", run_filter.created_after),
        ("created_at < ?", run_filter.created_before),
    ):
        conditions = conditions.given(part, value)
    return conditions


def _within(conditions: _Conditions, column: str, bounds: _Bounds) -> _Conditions:
    lowest, end = bounds
    return conditions.given(f"{column} >= ?", lowest).given(f"{column} < ?", end)


def _other_attributes(
    conditions: _Conditions, run_filter: RunFilter, by: RunAttribute | None
) -> _Conditions:
    for one in checked_attributes(run_filter.attributes):
        if one != by:
            conditions = conditions.also(
                f"EXISTS (SELECT 1 FROM run_attributes WHERE {_ATTRIBUTE} "
                f"AND run_id = {'workflow_runs.id' if by is None else 'found.run_id'})",
                *_key(run_filter, one),
            )
    return conditions


def _bounds(run_filter: RunFilter) -> _Bounds:
    """What the filter says about ids: they sort by creation."""
    lowest = None
    if run_filter.created_after is not None:
        lowest = first_id("run", _moment(run_filter.created_after) - CREATION_SLACK)
    ends: Sequence[str] = [] if run_filter.before_id is None else [run_filter.before_id]
    if run_filter.created_before is not None:
        ends = [*ends, first_id("run", _moment(run_filter.created_before) + CREATION_SLACK)]
    return lowest, min(ends, default=None)


def _moment(text: str) -> datetime:
    try:
        return from_text(text)
    except ValueError:
        raise InvalidError(
            f"{text} is no moment",
            remedy="write it in UTC, such as 2026-01-31T12:00:00.000000Z",
        ) from None
