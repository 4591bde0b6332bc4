"""What the statements of this room need of a database connection.

``Connection`` is one as it is: nothing lies between the statements and SQLite. Statements
mark their values with ``?`` and are written once for all databases; a connection to another one
translates what is written there otherwise (see ``store.postgres.dialect``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol, TypeAlias

Value: TypeAlias = str | int | float | bytes | None
"""What a column holds."""
Row: TypeAlias = Sequence[Value]


class Cursor(Protocol):
    """What a statement gave."""

    @property
    def rowcount(self) -> int:
        """How many rows were inserted, changed or deleted."""
        ...

    def fetchone(self) -> Any: ...

    def fetchall(self) -> list[Any]: ...

    def __iter__(self) -> Iterator[Any]: ...


class Connection(Protocol):
    """Executes statements within the transaction that is open, or each in one of its own."""

    def execute(self, statement: str, values: Sequence[Any] = ..., /) -> Cursor: ...

    def executemany(self, statement: str, rows: Iterable[Sequence[Any]], /) -> Cursor:
        """Execute the statement once for each row of values; it gives nothing back."""
        ...
