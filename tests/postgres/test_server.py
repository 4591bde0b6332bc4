"""The private PostgreSQL of the tests does what tests rely on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.postgres.server import PREFIX, PostgresServer


def test_each_test_has_an_empty_database_of_its_own(postgres: PostgresServer) -> None:
    names = [postgres.create_database() for _ in range(2)]
    postgres.execute("CREATE TABLE t (n integer); INSERT INTO t VALUES (7)", names[0])
    copy = postgres.create_database(template=names[0])
    assert postgres.execute("SELECT n FROM t", copy) == "7"
    assert postgres.execute("SELECT count(*) FROM pg_tables WHERE tablename = 't'", names[1]) == "0"
    for name in (*names, copy):
        postgres.drop_database(name)


def test_what_is_committed_outlives_the_server(durable_postgres: PostgresServer) -> None:
    server = durable_postgres
    assert server.execute("SHOW fsync") == "on"
    server.execute("CREATE TABLE t (n integer); INSERT INTO t VALUES (7)")
    first = server.pid
    server.kill()
    server.start()
    assert (server.pid != first, server.execute("SELECT n FROM t")) == (True, "7")
    server.restart()
    assert server.execute("SELECT n FROM t") == "7"


def test_a_paused_server_answers_once_it_goes_on(durable_postgres: PostgresServer) -> None:
    server = durable_postgres
    server.pause()
    query = subprocess.Popen(
        ["psql", "--tuples-only", "--no-align", "--command", "SELECT 1", server.url()],
        stdout=subprocess.PIPE,
    )
    status = Path(f"/proc/{server.pid}/status")
    assert "State:\tT" in status.read_text()
    assert query.poll() is None
    server.resume()
    assert query.communicate(timeout=60)[0] == b"1\n"


ROOT = Path(__file__).parents[2]

STARTER = """\
import sys, time
from tests.postgres.server import running_server
with running_server() as server:
    print(server.folder, server.pid, flush=True)
    sys.stdin.read()
"""


def start_elsewhere() -> subprocess.Popen[bytes]:
    """A process of its own that runs a server until its standard input ends."""
    # It finds ``tests`` in its working directory, whatever that of this process is.
    return subprocess.Popen(
        [sys.executable, "-c", STARTER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    )


def test_the_server_ends_with_tests_that_are_killed() -> None:
    starter = start_elsewhere()
    assert starter.stdin is not None
    assert starter.stdout is not None
    folder, pid = starter.stdout.readline().decode().split()
    assert Path(folder).name.startswith(PREFIX)
    starter.kill()
    starter.communicate()
    deadline = time.monotonic() + 60
    while is_running(int(pid)):
        assert time.monotonic() < deadline, "the server outlives who started it"
        time.sleep(0.01)
    # Nobody holds its lock any more: the next one that starts removes the folder.
    successor = start_elsewhere()
    assert successor.stdout is not None
    own = successor.stdout.readline().decode().split()[0]
    assert not Path(folder).exists()
    successor.communicate(b"")
    assert not Path(own).exists()


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIGCONT)
    except ProcessLookupError:
        return False
    return "postgres" in Path(f"/proc/{pid}/comm").read_text()
