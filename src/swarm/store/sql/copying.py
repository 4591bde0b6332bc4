"""Copying all records from one database to another, and making sure that they have arrived.

Rows go over as they are, a few at a time, whatever the tables' size. Of each table the rows are
counted and a digest is made that does not depend on their order: once of what was read, once of
what the target then holds. Nothing is committed unless they are the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, Protocol

import orjson
from msgspec import Struct

from swarm.kernel.errors import ConflictError, DatabaseError
from swarm.store.sql.connection import Row

TABLES: Final = (
    "agents",
    "grants",
    "workflows",
    "workflow_runs",
    "step_executions",
    "invocations",
    "secrets",
    "triggers",
    "run_attributes",
    "answers",
    "events",
    "step_cache",
)
"""Every table with records; each after those that its rows refer to."""
NUL: Final = "\0"
NUL_SIGN: Final = "\N{SYMBOL FOR NULL}"
"""What stands for NUL in a database that cannot hold it in text (in JSON it is an escape)."""
_DIGEST_BYTES: Final = 16
_ROWS_BETWEEN: Final = 200
"""Rows after which it is told how far the copy has come."""


class Side(Protocol):
    """A database within one transaction, in which it does not change but by this copy."""

    @property
    def place(self) -> str:
        """Where it is, for messages."""
        ...

    def columns(self, table: str) -> frozenset[str]:
        """The table's columns, without the number that the database itself gives its rows."""
        ...

    def count(self, table: str) -> int: ...

    def rows(self, table: str, columns: tuple[str, ...]) -> Iterator[Row]:
        """All rows in the order in which they came, read a few at a time."""
        ...

    def insert(self, table: str, columns: tuple[str, ...], rows: Iterable[Row]) -> None:
        """Insert all ``rows`` in this order."""
        ...


class TableCopy(Struct, frozen=True):
    """What was copied of one table."""

    table: str
    rows: int
    digest: str
    """Of all rows, 32 hexadecimal digits; the same wherever they are."""


Tell = Callable[[str, int, int], None]
"""Called with a table, and how many of its rows have been copied, out of how many."""


def copy_records(source: Side, target: Side, tell: Tell) -> list[TableCopy]:
    """Copy every row of ``source`` into ``target``, whose transaction the caller then commits.

    Raises:
        ConflictError: the target holds records already.
        DatabaseError: the tables differ, or what arrived is not what was sent.
    """
    for table in TABLES:
        if target.count(table):
            raise ConflictError(
                f"the target is not empty: there are rows in {table}",
                where=target.place,
                remedy="copy into a new database, or one that was only made (`swarm db migrate`)",
            )
    return [_copy(table, source, target, tell) for table in TABLES]


def _copy(table: str, source: Side, target: Side, tell: Tell) -> TableCopy:
    columns = source.columns(table)
    if columns != target.columns(table):
        unlike = ", ".join(sorted(columns ^ target.columns(table)))
        raise DatabaseError(
            f"the two databases differ in the columns of {table}: {unlike}",
            where=target.place,
            remedy="bring both to the version of this Swarm first: `swarm db migrate`",
        )
    names = tuple(sorted(columns))
    total = source.count(table)
    sent = _Digest()

    def passing() -> Iterator[Row]:
        for row in source.rows(table, names):
            whole = [_plain(value) for value in row]
            sent.add(whole)
            if sent.rows % _ROWS_BETWEEN == 0:
                tell(table, sent.rows, total)
            yield whole

    target.insert(table, names, passing())
    arrived = _Digest()
    for row in target.rows(table, names):
        arrived.add([_plain(value) for value in row])
    if (sent.rows, sent.value) != (arrived.rows, arrived.value):
        raise DatabaseError(
            f"{table} did not arrive as it was: {sent.rows:,} rows ({sent}) were sent, "
            f"{arrived.rows:,} ({arrived}) are there; nothing was kept of the copy",
            where=target.place,
            remedy="report this with the message; the source was not touched",
        )
    tell(table, sent.rows, total)
    return TableCopy(table, sent.rows, str(sent))


class _Digest:
    """The sum of the digests of rows."""

    def __init__(self) -> None:
        self.rows = 0
        self.value = 0

    def add(self, row: Row) -> None:
        plain = [value.hex() if isinstance(value, bytes) else value for value in row]
        text = orjson.dumps(plain)
        digest = hashlib.blake2b(text, digest_size=_DIGEST_BYTES).digest()
        self.rows += 1
        self.value = (self.value + int.from_bytes(digest)) % 2 ** (8 * _DIGEST_BYTES)

    def __str__(self) -> str:
        return f"{self.value:0{2 * _DIGEST_BYTES}x}"


def _plain(value: Any) -> Any:
    """``value`` as every database can hold it."""
    if isinstance(value, str):
        return value.replace(NUL, NUL_SIGN) if NUL in value else value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return bytes(value) if isinstance(value, (bytearray, memoryview)) else value
