"""Commits in doubt: whether a transaction happened whose COMMIT nobody answered.

The server is asked by the transaction's id first, until it says how the transaction ended. That it
was committed is not believed by that alone: a server that was killed forgets the ids that it gave
out without having written anything, and gives them out again, to transactions of others. So each
transaction leaves a mark in a row of its connection, which tells: the mark is there if, and only
if, the transaction is. (A server that was a replica, and took over without the transaction, tells
the same way.)
"""

from __future__ import annotations

import uuid
from typing import Any, Final, NamedTuple

import psycopg

from swarm.store.postgres.connection import Raw
from swarm.store.sql.connection import Connection

KEPT_SECONDS: Final = 3600
"""How long the mark of a connection is kept that commits nothing. Doubts last for seconds, at most
as long as ``database_reconnect_seconds``."""
_BEGIN: Final = "SELECT pg_current_xact_id()::text, set_config('lock_timeout', ?, true)"
_MARK: Final = (
    "INSERT INTO writer_marks AS own (writer, mark, marked_at) VALUES (?, ?, clock_timestamp()) "
    "ON CONFLICT (writer) DO UPDATE SET mark = excluded.mark, marked_at = excluded.marked_at"
)
_FATE: Final = "SELECT pg_xact_status($1::text::xid8)"
_IS_MARKED: Final = "SELECT count(*) FROM writer_marks WHERE writer = $1 AND mark = $2"
# Rows that others hold are theirs, and alive.
_FORGET: Final = (
    "DELETE FROM writer_marks WHERE writer IN (SELECT writer FROM writer_marks "
    "WHERE marked_at < clock_timestamp() - $1 * interval '1 second' FOR UPDATE SKIP LOCKED)"
)


class Mark(NamedTuple):
    """A transaction, as it can be asked for later, over any connection."""

    transaction: str
    """Its id, as the server counts."""
    writer: str
    number: int


class Marks:
    """Marks the transactions of one connection; another connection gets marks of its own."""

    def __init__(self) -> None:
        self._writer = uuid.uuid4().hex
        self._number = 0

    def begin(self, connection: Connection, lock_seconds: float) -> Begun:
        """Send the first statements of a transaction."""
        self._number += 1
        begun = connection.execute(_BEGIN, (f"{round(lock_seconds * 1000)}ms",))
        connection.execute(_MARK, (self._writer, self._number))
        return Begun(begun, self._writer, self._number)


class Begun(NamedTuple):
    """A transaction that was begun, before the server has answered."""

    answer: Any
    writer: str
    number: int

    def read(self) -> Mark:
        """Wait for the answer."""
        (transaction, *_) = self.answer.fetchone()
        return Mark(transaction, self.writer, self.number)


def forget_old_marks(raw: Raw) -> None:
    """Delete the marks of connections that are gone."""
    raw.execute(_FORGET, [KEPT_SECONDS])


def was_committed(raw: Raw, mark: Mark) -> bool | None:
    """Whether a transaction was; None while it is still under way.

    Raises:
        psycopg.Error: the server cannot be asked; the connection is to be rolled back.
    """
    try:
        (fate,) = raw.execute(_FATE, [mark.transaction]).fetchone() or (None,)
    except psycopg.errors.InvalidParameterValue:
        raw.rollback()
        return False  # its id is in the future: this server took over, or began anew, without it
    if fate == "in progress":
        raw.commit()
        return None
    (count,) = raw.execute(_IS_MARKED, [mark.writer, mark.number]).fetchone() or (0,)
    raw.commit()
    return bool(count)
