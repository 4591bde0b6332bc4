"""Processes of an older and of a newer Swarm at one database, while machines are upgraded."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

import swarm
from swarm.store.postgres.migration import MIGRATIONS
from swarm.store.sqlite.migration import MIGRATIONS as SQLITE_MIGRATIONS
from tests.fleet.cluster import Cluster, wait_until

ASKING = """\
name: asking
version: 1.0.0
steps:
  - {id: ask, wait: {approval: {message: "Go on?"}}}
"""
QUICK = """\
name: quick
version: 1.0.0
steps:
  - {id: pause, wait: {duration: 0}}
"""
ADD = "ALTER TABLE workflow_runs ADD COLUMN mood TEXT NOT NULL DEFAULT 'good';\n"


def newer_source(folder: Path) -> Path:
    """A Swarm of the next release: another version, format of runs and migration."""
    package = folder / "swarm"
    shutil.copytree(
        Path(swarm.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__")
    )
    change(package / "__init__.py", f'__version__ = "{swarm.__version__}"', '__version__ = "9.9.9"')
    change(package / "store/records.py", "RUN_FORMAT = 1\n", "RUN_FORMAT = 2\n")
    for kind, known in (("postgres", len(MIGRATIONS)), ("sqlite", len(SQLITE_MIGRATIONS))):
        (package / f"store/{kind}/migrations/{known + 1:04}_mood.sql").write_text(ADD)
    return folder


def allow_older(source: Path) -> None:
    """Have its migration let the older ones go on."""
    known = len(MIGRATIONS)
    file = source / f"swarm/store/postgres/migrations/{known + 1:04}_mood.sql"
    file.write_text(f"-- Works with Swarms that know version {known}\n{ADD}")


def change(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def query(url: str, sql: str) -> object:
    with closing(psycopg.connect(url, autocommit=True)) as connection:
        row = connection.execute(sql).fetchone()
        return row[0] if row is not None else None


@pytest.fixture
def older(tmp_path: Path, postgres_url: str) -> Iterator[Cluster]:
    folder = tmp_path / "older"
    folder.mkdir()
    with Cluster(folder, postgres_url) as cluster:
        yield cluster


def test_a_fleet_is_upgraded_while_it_works(
    older: Cluster, tmp_path: Path, postgres_url: str
) -> None:
    for text in (ASKING, QUICK):
        (tmp_path / "workflow.yaml").write_text(text)
        older.run("workflow", "register", str(tmp_path / "workflow.yaml"))
    old_worker = older.worker()
    source = newer_source(tmp_path / "source")
    with Cluster(tmp_path, postgres_url, source=source) as newer:
        refused = newer.fail("db", "migrate")
        assert f"processes of an older one are at work: worker {old_worker.pid}" in refused
        assert "stop them first" in refused
        allow_older(source)
        assert f"version {len(MIGRATIONS) + 1}, is up to date" in newer.run("db", "migrate")
        older.run("run", "quick")
        owner = "SELECT pid FROM fleet_hosts JOIN workflow_runs ON owner = fleet_hosts.id"
        assert query(postgres_url, owner) == old_worker.pid

        new_worker = newer.worker()
        status = older.run("status")
        assert f"versions differ: {swarm.__version__}, 9.9.9" in status
        assert f"newer than this Swarm {swarm.__version__}" in status
        run_id = newer.read("run", "asking", "--detach")["id"]
        state = f"SELECT status FROM workflow_runs WHERE id = '{run_id}'"
        wait_until(lambda: query(postgres_url, state) == "waiting", newer.tell)
        assert new_worker.terminate() == 0
        # Who answers may be older; who drives may not.
        older.run("runs", "approve", run_id)
        queue = "SELECT queue_name FROM procrastinate_jobs WHERE status = 'todo'"
        assert query(postgres_url, queue) == "swarm@2"
        assert "newer Swarm" in older.fail("runs", "resume", run_id)
        newer.worker()
        wait_until(lambda: query(postgres_url, state) == "succeeded", newer.tell)


def test_a_home_is_not_upgraded_under_a_worker_that_it_would_harm(tmp_path: Path) -> None:
    with Cluster(tmp_path) as older:
        worker = older.worker()
        refused = Cluster(tmp_path, source=newer_source(tmp_path / "source")).fail("runs", "list")
        assert f"processes of an older one are at work: worker {worker.pid}" in refused
