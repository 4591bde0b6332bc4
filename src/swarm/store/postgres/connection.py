"""Connections to the server, and what statements see of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, LiteralString, TypeAlias, cast

import psycopg
from psycopg.adapt import Dumper
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.types.numeric import FloatLoader

from swarm.kernel.errors import InvalidError
from swarm.kernel.settings import Settings
from swarm.store.postgres.dialect import translated
from swarm.store.sql.connection import Value
from swarm.store.sql.copying import NUL, NUL_SIGN

Raw: TypeAlias = psycopg.Connection[tuple[Any, ...]]

PREPARED_STATEMENTS = 256
"""Prepared statements that a connection keeps."""
STATEMENTS_UNANSWERED = 500
"""Statements that are sent before the answers to them are read: what bounds memory."""
RECONNECT_SECONDS = (0.05, 1.0)
"""The first pause before a lost connection is opened again, and the longest."""
KEEPALIVE_SECONDS = 10
"""A connection that has been silent for so long is tested."""
NO_COMPILING = "SET jit = off"
"""For connections of one's own: the server would compile statements that it takes for expensive,
with some 30 MB that each connection keeps, where all are short."""


class _NumberDumper(Dumper):
    """Whole numbers go without a type, as NULL and text do; the statement tells it.

    A statement is prepared anew for each tuple of its values' types: rows that differ in which
    columns are NULL would hardly ever meet a prepared one.
    """

    def dump(self, obj: int) -> bytes:
        return b"%d" % obj

    def quote(self, obj: int) -> bytes:
        return b" %d" % obj  # after a minus sign, a second one would begin a comment


class _NumberLoader(FloatLoader):
    """Whole numbers come back whole, as from SQLite."""

    def load(self, data: Any) -> float:
        number = super().load(data)
        return int(number) if number.is_integer() else number


def connect(url: str, settings: Settings, *, writes: bool, name: str = "swarm") -> Raw:
    """Open a connection, for writing in transactions or for reading; the server knows its ``name``.

    Raises:
        psycopg.Error: the server cannot be reached, or refuses.
        InvalidError: ``url`` is not one.
    """
    try:
        given = conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        raise InvalidError(
            "the setting database_url is not the address of a database",
            remedy="write postgresql://user:password@host:port/database",
        ) from None
    timeout = max(2, round(settings.database_timeout_seconds))
    defaults: dict[str, Any] = {
        "connect_timeout": timeout,
        "keepalives_idle": KEEPALIVE_SECONDS,
        "keepalives_interval": KEEPALIVE_SECONDS,
        "keepalives_count": 2,
        "tcp_user_timeout": 3 * KEEPALIVE_SECONDS * 1000,
        "client_encoding": "UTF8",
    }
    raw = psycopg.connect(
        make_conninfo("", **{**defaults, **given, "application_name": name}),
        autocommit=not writes,
        cursor_factory=psycopg.RawCursor,
    )
    raw.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
    raw.adapters.register_dumper(int, _NumberDumper)
    raw.adapters.register_loader("float8", _NumberLoader)
    raw.prepared_max = PREPARED_STATEMENTS
    return raw


def connect_patiently(connect_once: Callable[[], Raw], seconds: float) -> Raw:
    """Open a connection, again and again for so long where the server is away.

    Raises:
        psycopg.OperationalError: it stays away, or refuses for good.
    """
    deadline = time.monotonic() + seconds
    pause, longest = RECONNECT_SECONDS
    while True:
        try:
            return connect_once()
        except psycopg.OperationalError as error:
            if not _may_come_back(error) or time.monotonic() + pause >= deadline:
                raise
        time.sleep(pause)
        pause = min(2 * pause, longest)


def is_pooled(raw: Raw) -> bool:
    """Whether something between here and the server gives each transaction another connection of
    its own: then statements cannot be prepared, and nothing can be set for the session."""
    (backend,) = raw.execute("SELECT pg_backend_pid()").fetchone() or (0,)
    return bool(backend != raw.info.backend_pid)


def _may_come_back(error: psycopg.Error) -> bool:
    """Whether the server may be reached a little later: it is away, starting, or full."""
    # Of a connection that was refused, the driver does not tell the SQLSTATE.
    return error.sqlstate is None or error.sqlstate.startswith(("57P", "08", "53300"))


def place(url: str) -> str:
    """Where the database is, for messages: without password or parameters."""
    try:
        given = conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        return "database_url"
    host = given.get("host") or given.get("hostaddr") or ""
    port = f":{given['port']}" if "port" in given else ""
    return f"postgresql://{host}{port}/{given.get('dbname', '')}"


class Answer:
    """What a statement gave; read from the server when it is asked for."""

    __slots__ = ("_cursor", "_pipeline")

    def __init__(
        self, cursor: psycopg.Cursor[tuple[Any, ...]], pipeline: psycopg.Pipeline | None
    ) -> None:
        self._cursor = cursor
        self._pipeline = pipeline

    @property
    def rowcount(self) -> int:
        if self._pipeline is not None:
            self._pipeline.sync()
        return self._cursor.rowcount

    def fetchone(self) -> Any:
        return self._cursor.fetchone()

    def fetchall(self) -> list[Any]:
        return self._cursor.fetchall()

    def __iter__(self) -> Iterator[Any]:
        return iter(self._cursor)


class PostgresConnection:
    """A :class:`swarm.store.sql.connection.Connection`.

    With a pipeline, statements are sent without waiting for the answers to those before; an error
    is raised by whichever call meets it.
    """

    __slots__ = ("_pipeline", "_raw", "_unanswered")

    def __init__(self, raw: Raw, pipeline: psycopg.Pipeline | None = None) -> None:
        self._raw = raw
        self._pipeline = pipeline
        self._unanswered = 0

    def execute(self, statement: str, values: Sequence[Any] = (), /) -> Answer:
        text = cast(LiteralString, translated(statement))
        cursor = self._raw.cursor()
        try:
            cursor.execute(text, values)
        except psycopg.DataError:
            if not any(isinstance(value, str) and NUL in value for value in values):
                raise
            cursor = self._raw.cursor()
            cursor.execute(text, [without_nul(value) for value in values])
        return Answer(cursor, self._pipeline)

    def executemany(self, statement: str, rows: Iterable[Sequence[Any]], /) -> Answer:
        answer = Answer(self._raw.cursor(), None)
        for row in rows:
            answer = self.execute(statement, row)
            self._unanswered += 1
            if self._pipeline is not None and self._unanswered >= STATEMENTS_UNANSWERED:
                self._pipeline.sync()
                self._unanswered = 0
        return answer


def without_nul(value: Value) -> Value:
    """``value`` as PostgreSQL can hold it: it has no NUL in text."""
    return value.replace(NUL, NUL_SIGN) if isinstance(value, str) else value
