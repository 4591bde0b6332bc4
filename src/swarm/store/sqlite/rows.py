"""Records as rows, and back. JSON columns hold text, flags 0 or 1, states their names.

A record's fields and its table's columns bear the same names, so the SQL is made from the fields.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any, Generic, TypeVar

from swarm.kernel.json import JsonValue, dumps, loads
from swarm.store.records import (
    AgentRecord,
    GrantRecord,
    InvocationRecord,
    RunRecord,
    RunState,
    StepRecord,
    StepState,
    WorkflowRecord,
)

R = TypeVar("R")
Value = str | int | float | bytes | None
"""What SQLite stores."""


@dataclass(frozen=True, slots=True)
class Column:
    """How a field's value is written to its column and read from it."""

    encode: Callable[[Any], Value]
    decode: Callable[[Any], Any]


def encode_json(value: JsonValue) -> str | None:
    """JSON text, keys in the order given; None stays None.

    Raises:
        InvalidError: the value is not JSON.
    """
    return None if value is None else dumps(value, sort_keys=False)


def decode_json(text: str | None) -> JsonValue:
    return None if text is None else loads(text)


def _state_value(state: RunState | StepState) -> str:
    return state.value


JSON = Column(encode_json, decode_json)
JSON_TUPLE = Column(encode_json, lambda text: tuple(loads(text)))
FLAG = Column(int, bool)
RUN_STATE = Column(_state_value, RunState)
STEP_STATE = Column(_state_value, StepState)


class Rows(Generic[R]):
    """The rows of one table as records of one dataclass."""

    def __init__(self, table: str, record: type[R], special: Mapping[str, Column]) -> None:
        self.table = table
        self.columns = tuple(item.name for item in fields(record))  # type: ignore[arg-type]
        self.column_list = ", ".join(self.columns)
        self._record = record
        self._values = attrgetter(*self.columns)
        self._special = dict(special)
        self._positions = tuple((self.columns.index(name), special[name]) for name in special)

    def encode(self, record: R) -> list[Value]:
        """The record's values in the order of ``columns``."""
        values = list(self._values(record))
        for position, column in self._positions:
            values[position] = column.encode(values[position])
        return values

    def encode_field(self, name: str, value: Any) -> Value:
        """One field's value as it stands in its column."""
        column = self._special.get(name)
        return column.encode(value) if column else value

    def decode(self, row: Sequence[Any]) -> R:
        """The record of a row that holds ``columns`` in order."""
        values = list(row)
        for position, column in self._positions:
            values[position] = column.decode(values[position])
        return self._record(*values)

    def insert(self, extra: Iterable[str] = ()) -> str:
        """``INSERT`` of a whole row; ``extra`` columns come after the record's own."""
        columns = (*self.columns, *extra)
        marks = ", ".join("?" * len(columns))
        return f"INSERT INTO {self.table} ({', '.join(columns)}) VALUES ({marks})"

    def upsert(self, key: Sequence[str], keep: Iterable[str] = ()) -> str:
        """``INSERT`` that replaces the row with the same ``key``, but for its ``keep`` columns.

        Columns of the key are not set again: SQLite rewrites each index of a column that is.
        """
        fixed = {*key, *keep}
        changes = ", ".join(
            f"{name} = excluded.{name}" for name in self.columns if name not in fixed
        )
        return f"{self.insert()} ON CONFLICT ({', '.join(key)}) DO UPDATE SET {changes}"


AGENTS = Rows(
    "agents",
    AgentRecord,
    {
        "definition": JSON,
        "capabilities": JSON_TUPLE,
        "inputs_schema": JSON,
        "outputs_schema": JSON,
        "triggers": JSON_TUPLE,
        "tags": JSON_TUPLE,
        "active": FLAG,
    },
)
GRANTS = Rows("grants", GrantRecord, {})
WORKFLOWS = Rows(
    "workflows",
    WorkflowRecord,
    {
        "definition": JSON,
        "trigger_config": JSON,
        "enabled": FLAG,
        "active": FLAG,
        "tags": JSON_TUPLE,
    },
)
RUNS = Rows(
    "workflow_runs",
    RunRecord,
    {
        "status": RUN_STATE,
        "trigger_data": JSON,
        "inputs": JSON,
        "variables": JSON,
        "outputs": JSON,
        "step_results": JSON,
        "definition": JSON,
        "agents": JSON,
        "mounts": JSON,
        "cancel_requested": FLAG,
    },
)
STEPS = Rows("step_executions", StepRecord, {"status": STEP_STATE, "inputs": JSON, "outputs": JSON})
INVOCATIONS = Rows("invocations", InvocationRecord, {"layers": JSON_TUPLE})
