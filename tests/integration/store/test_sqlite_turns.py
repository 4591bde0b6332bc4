"""Processes that write one database wait for each other without losing time."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from swarm.store.sqlite import turns as module
from swarm.store.sqlite.turns import Turns

PATIENCE_SECONDS = 30
HOLDER = """
import sqlite3, sys, time
from pathlib import Path
from swarm.store.sqlite.turns import Turns

turns = Turns(Path(sys.argv[1]), 5)
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=0)
turns.begin(connection)
print("begun", flush=True)
sys.stdin.read()
"""


class Watched(sqlite3.Connection):
    """Tells when it found the database locked."""

    locked: threading.Event

    def execute(self, *arguments: Any) -> sqlite3.Cursor:
        try:
            return super().execute(*arguments)
        except sqlite3.OperationalError:
            self.locked.set()
            raise


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "registry.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = wal")
    return path


@pytest.fixture
def only_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is told nothing sleeps for longer than the test is patient."""
    monkeypatch.setattr(module, "LOOK_AGAIN_SECONDS", 10 * PATIENCE_SECONDS)


def connect(database: Path) -> sqlite3.Connection:
    return sqlite3.connect(
        database, isolation_level=None, timeout=0, check_same_thread=False, factory=Watched
    )


Wait = Callable[[], Future[None]]


@pytest.fixture
def wait(database: Path) -> Iterator[Wait]:
    """Begins a transaction in a thread, and returns once that had to wait."""
    with (
        closing(connect(database)) as connection,
        closing(Turns(database, 10 * PATIENCE_SECONDS)) as turns,
        ThreadPoolExecutor(1) as threads,
    ):

        def begin() -> Future[None]:
            assert isinstance(connection, Watched)
            connection.locked = threading.Event()
            beginning = threads.submit(turns.begin, connection)
            assert connection.locked.wait(PATIENCE_SECONDS)
            return beginning

        yield begin


@pytest.mark.usefixtures("only_told")
@pytest.mark.parametrize("ending", ["COMMIT", "ROLLBACK"])
def test_who_waits_begins_when_a_transaction_ends(database: Path, wait: Wait, ending: str) -> None:
    with closing(Turns(database, 5)) as turns, closing(connect(database)) as connection:
        turns.begin(connection)
        beginning = wait()
        connection.execute(ending)
        turns.tell()
        beginning.result(PATIENCE_SECONDS)


@pytest.mark.usefixtures("only_told")
def test_who_waits_begins_when_the_other_process_is_killed(database: Path, wait: Wait) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(database)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"PYTHONPATH": ":".join(sys.path)},
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"begun\n"
        beginning = wait()
        holder.kill()
        beginning.result(PATIENCE_SECONDS)


@pytest.mark.parametrize("has_events", [True, False])
def test_programs_that_tell_nothing_are_waited_for_too(
    database: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    has_events: bool,
) -> None:
    """Such as an sqlite3 shell; and where the kernel gives no more of inotify, Swarm's own."""
    if not has_events:
        monkeypatch.setattr(module, "_watch", lambda _path: None)
    wait = request.getfixturevalue("wait")
    with closing(connect(database)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        beginning = wait()
        connection.execute("COMMIT")
        beginning.result(PATIENCE_SECONDS)


def test_waiting_ends_with_the_timeout(database: Path) -> None:
    with closing(connect(database)) as other, closing(connect(database)) as connection:
        other.execute("BEGIN IMMEDIATE")
        assert isinstance(connection, Watched)
        connection.locked = threading.Event()
        with (
            closing(Turns(database, 0.05)) as turns,
            pytest.raises(sqlite3.OperationalError, match="locked"),
        ):
            turns.begin(connection)
