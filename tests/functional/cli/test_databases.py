"""`swarm db status|migrate|copy|backup|check` with both databases, as a user meets them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.functional.cli.conftest import Cli
from tests.postgres.server import PostgresServer

VARIABLE = "SWARM_DATABASE_URL"


def test_a_home_moves_to_postgresql_and_back(
    cli: Cli, make_agent: Callable[..., Path], postgres_url: str
) -> None:
    file = cli.home / "registry" / "registry.db"
    assert cli.ok("db", "status", "--json").json["version"] == 0
    assert not file.exists(), "status makes none"
    assert "up to date" in cli.ok("db", "migrate").out
    cli.ok("agent", "register", make_agent())
    listed = cli.ok("agent", "list", "--json").json

    refused = cli("db", "copy", "--to", "postgresql")
    assert refused.code == 2
    assert VARIABLE in refused.err

    there = {VARIABLE: postgres_url}
    status = cli.ok("db", "status", "--json", **there).json
    assert (status["kind"], status["version"]) == ("postgresql", 0)
    copied = cli.ok("db", "copy", "--to", "postgresql", "--json", **there).json
    rows = {one["table"]: one["rows"] for one in copied["tables"]}
    assert rows["agents"] == len(listed["agents"])
    assert cli.ok("agent", "list", "--json", **there).json == listed
    assert cli("db", "copy", "--to", "postgresql", **there).code == 4
    assert cli("db", "copy", "--to", "sqlite", **there).code == 4

    file.unlink()
    back = cli.ok("db", "copy", "--to", "sqlite", "--json", **there).json
    assert back["tables"] == copied["tables"]
    assert cli.ok("agent", "list", "--json").json == listed


def test_a_backup_of_postgresql_can_be_restored(
    cli: Cli, tmp_path: Path, postgres: PostgresServer, postgres_url: str
) -> None:
    there = {VARIABLE: postgres_url}
    cli.ok("db", "migrate", **there)
    backup = tmp_path / "swarm.dump"
    assert cli.ok("db", "backup", backup, "--json", **there).json["size"] == backup.stat().st_size
    assert backup.stat().st_mode & 0o777 == 0o600
    assert cli("db", "backup", backup, **there).code == 4
    cli.ok("db", "backup", backup, "--replace", **there)

    name = postgres.create_database()
    restored = {VARIABLE: postgres.url(name)}
    subprocess.run(
        ["pg_restore", "--exit-on-error", "--dbname", restored[VARIABLE], str(backup)], check=True
    )
    assert cli.ok("db", "check", "--json", **restored).json["sound"] is True
    assert cli.ok("db", "status", "--json", **restored).json["version"] > 0
    postgres.drop_database(name)

    alone = cli("db", "backup", tmp_path / "other.dump", PATH=str(tmp_path), **there)
    assert alone.code == 5
    assert "pg_dump is not installed" in alone.err
    assert list(tmp_path.glob("*other*")) == []


def test_the_password_is_never_shown(cli: Cli, postgres_url: str) -> None:
    password = postgres_url.partition("swarm:")[2].partition("@")[0]
    wrong = postgres_url.replace("127.0.0.1:", "127.0.0.1:1")
    for url, arguments in (
        (postgres_url, ("settings", "--json")),
        (postgres_url, ("db", "status")),
        (wrong, ("runs", "list")),
        (f"{password} is no address", ("db", "check", "--json")),
    ):
        done = cli(*arguments, **{VARIABLE: url})
        assert password not in done.out + done.err, arguments


def test_a_workflow_runs_on_postgresql(
    cli: Cli, make_agent: Callable[..., Path], make_workflow: Callable[..., Path], postgres_url: str
) -> None:
    there = {VARIABLE: postgres_url}
    cli.ok("agent", "register", make_agent(), **there)
    cli.ok("workflow", "register", make_workflow(), **there)
    done = cli.ok("run", "flow", "--json", **there).json
    assert done["outputs"] == {"answer": "answer"}
    (run,) = cli.ok("runs", "list", "--json", **there).json["runs"]
    assert run["status"] == "succeeded"
    assert not (cli.home / "registry" / "registry.db").exists()
