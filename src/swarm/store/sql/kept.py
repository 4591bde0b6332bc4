"""Records of the registry that were read before.

Starting a run looks its workflow and agents up by name, and their definitions may be long. A row of
the registry hardly ever changes, and says so in ``updated_at``: whoever has read it as it was then
need not read and decode it again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Generic, TypeAlias, TypeVar

from swarm.store.records import AgentRecord, WorkflowRecord
from swarm.store.sql.connection import Connection
from swarm.store.sql.rows import Rows

R = TypeVar("R", AgentRecord, WorkflowRecord)
_Key: TypeAlias = tuple[str, str]

KEPT_RECORDS = 256
"""Records of each table kept in one process; the least recently used go first."""


class Kept(Generic[R]):
    """The records of one table, by id and the time of their last change."""

    def __init__(self, rows: Rows[R]) -> None:
        self._rows: Rows[R] = rows
        self._select = f"SELECT {rows.column_list} FROM {rows.table} WHERE id = ?"
        self._records: OrderedDict[_Key, R] = OrderedDict()

    def get(self, connection: Connection, keys: Iterable[_Key]) -> list[R]:
        """The records with those ids, read anew where they have changed since."""
        found = []
        for key in keys:
            # Taken out and put back as the latest; another thread that looks meanwhile reads it.
            record = self._records.pop(key, None) or self._read(connection, key[0])
            if record is not None:
                self._records[record.id, record.updated_at] = record
                found.append(record)
        while len(self._records) > KEPT_RECORDS:
            self._records.popitem(last=False)
        return found

    def _read(self, connection: Connection, record_id: str) -> R | None:
        row = connection.execute(self._select, (record_id,)).fetchone()
        return None if row is None else self._rows.decode(row)
