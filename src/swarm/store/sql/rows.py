"""Records as rows, and back. JSON columns hold text, flags 0 or 1, states their names.

A record's fields and its table's columns bear the same names, so the SQL is made from the fields.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain
from operator import itemgetter
from typing import Any, Generic, TypeVar

from msgspec import Struct
from msgspec.structs import astuple

from swarm.kernel.errors import DatabaseError, InvalidError
from swarm.kernel.json import JsonValue, dumps, loads
from swarm.store.records import (
    AgentRecord,
    GrantRecord,
    InvocationRecord,
    RunRecord,
    RunState,
    SecretRecord,
    SecretScope,
    StepRecord,
    StepState,
    WorkflowRecord,
)
from swarm.store.sql.connection import Connection, Row, Value

R = TypeVar("R", bound=Struct)
_CHUNKS = (32, 8, 4, 2, 1)
"""Rows in one statement: few sizes, so that each stays prepared."""


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
    if value is None:
        return None
    # Most documents of most records are empty.
    return "{}" if value == {} else dumps(value, sort_keys=False)


def decode_json(text: str | None) -> JsonValue:
    if text is None:
        return None
    return {} if text == "{}" else loads(text)


def _choice(states: type[StrEnum]) -> Column:
    """A state by its name: looked up, since calling an enumeration takes ten times as long."""
    names = {state: state.value for state in states}
    return Column(names.__getitem__, {name: state for state, name in names.items()}.__getitem__)


JSON = Column(encode_json, decode_json)
JSON_TUPLE = Column(encode_json, lambda text: tuple(loads(text)))
FLAG = Column(int, bool)
RUN_STATE = _choice(RunState)
STEP_STATE = _choice(StepState)
SCOPE = _choice(SecretScope)
BYTES = Column(bytes, bytes)


class Rows(Generic[R]):
    """The rows of one table as records of one class."""

    def __init__(self, table: str, record: type[R], special: Mapping[str, Column]) -> None:
        self.table = table
        self.columns = record.__struct_fields__
        self.column_list = ", ".join(self.columns)
        self._record = record
        self._special = dict(special)
        self._positions = tuple((self.columns.index(name), special[name]) for name in special)

    def encode(self, record: R) -> list[Value]:
        """The record's values in the order of ``columns``."""
        values = list(astuple(record))
        for position, column in self._positions:
            values[position] = column.encode(values[position])
        return values

    def encode_field(self, name: str, value: Any) -> Value:
        """One field's value as it stands in its column."""
        column = self._special.get(name)
        return column.encode(value) if column else value

    def decode(self, row: Sequence[Any]) -> R:
        """The record of a row that holds ``columns`` in order.

        Raises:
            DatabaseError: the row holds what Swarm does not write.
        """
        values = list(row)
        try:
            for position, column in self._positions:
                values[position] = column.decode(values[position])
        except (InvalidError, LookupError, TypeError, ValueError) as error:
            raise DatabaseError(
                f"a row of the table {self.table} cannot be read: {error}",
                where=f"{row[0]}, column {self.columns[position]}",
                remedy="undo what was changed in it by hand, or put back a backup",
            ) from None
        return self._record(*values)

    def insert(self, extra: Iterable[str] = (), rows: int = 1) -> str:
        """``INSERT`` of whole rows; ``extra`` columns come after the record's own."""
        columns = (*self.columns, *extra)
        marks = f"({', '.join('?' * len(columns))})"
        return f"INSERT INTO {self.table} ({', '.join(columns)}) VALUES {', '.join([marks] * rows)}"


class Upsert(Generic[R]):
    """Inserts rows, replacing those with the same key but for their ``keep`` columns.

    Many rows go into one statement: the thread gives up the interpreter's lock at each statement
    and may wait long to get it back. Columns of the key are not set again, because SQLite rewrites
    each index of a column that is.
    """

    def __init__(
        self,
        rows: Rows[R],
        key: Sequence[str],
        keep: Iterable[str] = (),
        sizes: Sequence[int] = _CHUNKS,
    ) -> None:
        """``sizes`` are how many rows a statement may have, the largest first, and 1 the last."""
        fixed = {*key, *keep}
        changes = ", ".join(
            f"{name} = excluded.{name}" for name in rows.columns if name not in fixed
        )
        conflict = f" ON CONFLICT ({', '.join(key)}) DO UPDATE SET {changes}"
        self._statements = {size: rows.insert(rows=size) + conflict for size in sizes}
        self._key = itemgetter(*(rows.columns.index(name) for name in key))
        self._kept = tuple(index for index, name in enumerate(rows.columns) if name in fixed)

    def distinct(self, rows: Iterable[Row]) -> list[Row]:
        """``rows`` without any that a later one replaces: what they come to, written in order.

        Some databases refuse to write a row twice in one statement.
        """
        found: dict[Any, Row] = {}
        for row in rows:
            key = self._key(row)
            if (first := found.get(key)) is not None:
                merged = list(row)
                for index in self._kept:
                    merged[index] = first[index]
                row = merged
            found[key] = row
        return list(found.values())

    def run(self, connection: Connection, rows: Sequence[Row]) -> None:
        """Write ``rows`` in order; of two with the same key, the later one stands."""
        start = 0
        for size, statement in self._statements.items():
            while len(rows) - start >= size:
                chunk = rows[start : start + size]
                connection.execute(statement, list(chain.from_iterable(chunk)))
                start += size


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
        "agents": JSON,
        "workflows": JSON,
        "overrides": JSON,
        "mounts": JSON,
        "runs_on": JSON_TUPLE,
        "labels": JSON,
        "cancel_requested": FLAG,
    },
)
STEPS = Rows(
    "step_executions",
    StepRecord,
    {"status": STEP_STATE, "inputs": JSON, "outputs": JSON, "wait_details": JSON},
)
INVOCATIONS = Rows("invocations", InvocationRecord, {"layers": JSON_TUPLE})
SECRETS = Rows(
    "secrets",
    SecretRecord,
    {"scope": SCOPE, "encrypted_value": BYTES, "wrapped_key": BYTES},
)
