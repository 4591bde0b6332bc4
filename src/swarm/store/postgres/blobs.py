"""Shared files in the database: the index of all, and the bytes of those that it holds itself.

The bytes lie in rows of a mebibyte at most, each written by a statement of its own: no transaction
lasts, little is in memory at a time, and nothing here needs a session, so a pooler that shares
connections between transactions will do; but for :meth:`PostgresBlobs.alone`, which holds one.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from threading import BoundedSemaphore, Lock, Timer
from typing import Any, BinaryIO, Final, TypeVar

import psycopg
from msgspec.structs import astuple

from swarm.kernel.errors import NotFoundError
from swarm.kernel.settings import MIB, Settings
from swarm.store.postgres.connection import Raw, connect, place
from swarm.store.postgres.failures import FAILURES, Failures
from swarm.store.shared.ports import Blob, Kind

CHUNK_BYTES: Final = 1 * MIB
"""Most bytes of one row."""
CONNECTIONS: Final = 4
"""Most connections of one process for shared files; each is opened when it is needed."""
IDLE_SECONDS: Final = 60.0
"""How long connections are kept that nobody needs, at most twice as long."""
_COLLECTING: Final = 0x5357_4152_4D42
"""The advisory lock of whoever collects."""
_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 5.0
_COLUMNS: Final = "kind, key, sha256, size, place, location, head"
_IS_PRESENT: Final = "kind = $1 AND key = $2 AND state = 'present'"
_IS_OLD: Final = "touched_at < clock_timestamp() - make_interval(secs => $1::float8)"

Result = TypeVar("Result")


class PostgresBlobs:
    """Implements :class:`swarm.store.shared.ports.BlobIndex`, and ``BlobBytes`` for the place
    ``database``."""

    def __init__(self, url: str, settings: Settings) -> None:
        self._url = url
        self._settings = settings
        self._failures = Failures(place(url))
        self._idle: list[Raw] = []
        self._closing: Timer | None = None
        self._is_open = True
        self._lock = Lock()
        self._room = BoundedSemaphore(CONNECTIONS)

    # -- the index -------------------------------------------------------------------------------

    def touch(self, kind: Kind, key: str) -> Blob | None:
        return self._one(
            f"UPDATE blobs SET touched_at = clock_timestamp() WHERE {_IS_PRESENT} "
            f"RETURNING {_COLUMNS}",
            (kind, key),
        )

    def find(self, kind: Kind, key: str) -> Blob | None:
        return self._one(f"SELECT {_COLUMNS} FROM blobs WHERE {_IS_PRESENT}", (kind, key))

    def begin(self, blob: Blob) -> None:
        self._count(
            f"INSERT INTO blobs ({_COLUMNS}, state) VALUES ($1, $2, $3, $4, $5, $6, $7, 'begun') "
            "ON CONFLICT (location) DO NOTHING",
            astuple(blob),
        )

    def finish(self, blob: Blob) -> bool:
        try:
            found = self._count(
                "UPDATE blobs SET state = 'present', touched_at = clock_timestamp() "
                "WHERE location = $1 AND state <> 'doomed'",
                (blob.location,),
            )
        except psycopg.errors.UniqueViolation:
            # Young again, as if it had been found there; if it is gone by now, ours comes again.
            return self.touch(blob.kind, blob.key) is None and self.finish(blob)
        return found == 1

    def doom(self, blob: Blob) -> None:
        self._count("UPDATE blobs SET state = 'doomed' WHERE location = $1", (blob.location,))

    def doom_unused(self, kind: Kind, keys: list[str], age_seconds: float) -> tuple[int, int]:
        rows = self._rows(
            f"UPDATE blobs SET state = 'doomed' WHERE state = 'present' AND {_IS_OLD} "
            "AND kind = $2 AND key = ANY($3) RETURNING size",
            (age_seconds, kind, keys),
        )
        return len(rows), sum(size for (size,) in rows)

    def doom_unfinished(self, age_seconds: float) -> int:
        return self._count(
            f"UPDATE blobs SET state = 'doomed' WHERE state = 'begun' AND {_IS_OLD}",
            (age_seconds,),
        )

    def old_keys(self, kind: Kind, age_seconds: float, after: str, limit: int) -> list[str]:
        rows = self._rows(
            f"SELECT key FROM blobs WHERE state = 'present' AND {_IS_OLD} AND kind = $2 "
            "AND key > $3 ORDER BY key LIMIT $4",
            (age_seconds, kind, after, limit),
        )
        return [key for (key,) in rows]

    def keys_beginning(self, kind: Kind, head: bytes, after: str, limit: int) -> list[str]:
        rows = self._rows(
            "SELECT key FROM blobs WHERE state = 'present' AND kind = $1 AND key > $2 "
            "AND substr(head, 1, octet_length($3)) = $3 ORDER BY key LIMIT $4",
            (kind, after, head, limit),
        )
        return [key for (key,) in rows]

    def doomed(self, limit: int) -> list[Blob]:
        rows = self._rows(
            f"SELECT {_COLUMNS} FROM blobs WHERE state = 'doomed' ORDER BY location LIMIT $1",
            (limit,),
        )
        return [Blob(*row) for row in rows]

    def forget(self, blob: Blob) -> None:
        self._count("DELETE FROM blobs WHERE location = $1 AND state = 'doomed'", (blob.location,))

    @contextmanager
    def alone(self) -> Iterator[bool]:
        with self._failing(), closing(self._connect(writes=True)) as raw:
            # Of the transaction, which stays open: behind a pooler too, the connection is ours. A
            # server that ends it lets another collect at the same time, which harms nothing.
            (is_ours,) = raw.execute(
                "SELECT pg_try_advisory_xact_lock($1)", [_COLLECTING]
            ).fetchone() or (False,)
            yield bool(is_ours)

    def was_collected(self, within_seconds: float) -> bool:
        return bool(
            self._rows(
                "SELECT 1 FROM blob_collections "
                "WHERE ended_at > clock_timestamp() - make_interval(secs => $1::float8)",
                (within_seconds,),
            )
        )

    def note_collection(self) -> None:
        self._count(
            "INSERT INTO blob_collections (ended_at) VALUES (clock_timestamp()) "
            "ON CONFLICT (id) DO UPDATE SET ended_at = excluded.ended_at",
            (),
        )

    def close(self) -> None:
        with self._lock:
            self._is_open = False
            if self._closing is not None:
                self._closing.cancel()
        self._close_idle()

    # -- the bytes -------------------------------------------------------------------------------

    def write(self, blob: Blob, source: BinaryIO) -> None:
        number = 0
        while data := source.read(CHUNK_BYTES):
            self._count(
                "INSERT INTO blob_chunks VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
                (blob.location, number, data),
            )
            number += 1

    def read(self, blob: Blob) -> Iterator[bytes]:
        for number in range(-(-blob.size // CHUNK_BYTES)):
            rows = self._rows(
                "SELECT data FROM blob_chunks WHERE location = $1 AND number = $2",
                (blob.location, number),
                binary=True,
            )
            if not rows:
                raise NotFoundError(
                    f"{blob.kind} {blob.key} is gone from the database",
                    where=self._failures.place,
                    remedy="put the file again",
                )
            yield rows[0][0]

    def holds(self, blob: Blob) -> bool:
        ((size,),) = self._rows(
            "SELECT coalesce(sum(octet_length(data)), 0) FROM blob_chunks WHERE location = $1",
            (blob.location,),
        )
        return int(size) == blob.size

    def remove(self, blob: Blob) -> None:
        self._count("DELETE FROM blob_chunks WHERE location = $1", (blob.location,))

    # -- statements ------------------------------------------------------------------------------

    def _one(self, statement: str, values: Sequence[object]) -> Blob | None:
        rows = self._rows(statement, values)
        return Blob(*rows[0]) if rows else None

    def _rows(self, statement: str, values: Sequence[object], *, binary: bool = False) -> list[Any]:
        return self._run(lambda raw: raw.execute(statement, values, binary=binary).fetchall())

    def _count(self, statement: str, values: Sequence[object]) -> int:
        return self._run(lambda raw: raw.execute(statement, values).rowcount)

    def _run(self, work: Callable[[Raw], Result]) -> Result:
        """Do one statement on a connection; again on another if the connection was lost.

        Raises:
            UniqueViolation: as it is.
            DatabaseError: what else goes wrong.
        """
        pause = _FIRST_PAUSE
        with self._failing(), self._room:
            for left in range(self._settings.artifact_retries, -1, -1):
                try:
                    return self._on_connection(work)
                except (psycopg.OperationalError, psycopg.InterfaceError):
                    if not left:
                        raise
                time.sleep(random.uniform(pause / 2, pause))
                pause = min(2 * pause, _LONGEST_PAUSE)
        raise AssertionError("the last try returns or raises")

    def _on_connection(self, work: Callable[[Raw], Result]) -> Result:
        with self._lock:
            raw = self._idle.pop() if self._idle else None
        raw = raw or self._connect(writes=False)
        try:
            result = work(raw)
        except psycopg.errors.UniqueViolation:
            self._give_back(raw)
            raise
        except BaseException:
            raw.close()
            raise
        self._give_back(raw)
        return result

    def _connect(self, *, writes: bool) -> Raw:
        raw = connect(self._url, self._settings, writes=writes)
        # A pooler would not find what is prepared, and these statements are planned at once.
        raw.prepare_threshold = None
        return raw

    def _give_back(self, raw: Raw) -> None:
        with self._lock:
            if self._is_open:
                self._idle.append(raw)
                if self._closing is None:
                    self._closing = Timer(IDLE_SECONDS, self._close_idle)
                    self._closing.daemon = True
                    self._closing.start()
                return
        raw.close()

    def _close_idle(self) -> None:
        """Close what is idle now; a connection that is wanted again is soon made."""
        with self._lock:
            idle, self._idle, self._closing = self._idle, [], None
        for raw in idle:
            raw.close()

    @contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except psycopg.errors.UniqueViolation:
            raise
        except FAILURES as error:
            raise self._failures.explain(error) from None
