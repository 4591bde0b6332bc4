"""`swarm db status|migrate|copy|backup|check` with both databases, as a user meets them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.bucket.server import BucketServer
from tests.functional.cli.conftest import Cli
from tests.postgres.server import PostgresServer

LARGE = 100_000
"""Characters that are kept as an artifact."""
VARIABLE = "SWARM_DATABASE_URL"


def test_a_home_moves_to_postgresql_and_back(
    cli: Cli,
    make_agent: Callable[..., Path],
    make_workflow: Callable[..., Path],
    postgres_url: str,
    tmp_path: Path,
) -> None:
    file = cli.home / "registry" / "registry.db"
    assert cli.ok("db", "status", "--json").json["version"] == 0
    assert not file.exists(), "status makes none"
    assert "up to date" in cli.ok("db", "migrate").out
    cli.ok("agent", "register", make_agent())
    cli.ok("workflow", "register", make_workflow())
    large = "x" * LARGE
    run_id = cli.ok("run", "flow", json.dumps({"act": large}), "--json").json["id"]
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
    assert copied["files"]["packages"] == 1
    assert copied["files"]["missing"] == []
    assert cli.ok("agent", "list", "--json", **there).json == listed
    assert cli("db", "copy", "--to", "postgresql", **there).code == 4
    assert cli("db", "copy", "--to", "sqlite", **there).code == 4

    # A machine that has nothing of its own has all that the home had.
    other = Cli(tmp_path / "other", cli.variables)
    shown = other.ok("runs", "show", run_id, "--json", **there).json
    assert shown["outputs"] == {"answer": large}
    done = other.ok("run", "flow", json.dumps({"act": large}), "--json", **there).json
    assert done["outputs"] == {"answer": large}

    back = other.ok("db", "copy", "--to", "sqlite", "--json", **there).json
    assert (back["files"]["packages"], back["files"]["missing"]) == (1, [])
    assert other.ok("runs", "show", done["id"], "--json").json["outputs"] == {"answer": large}
    assert other.ok("run", "flow", "--json").json["outputs"] == {"answer": "answer"}

    digests = {one["table"]: one["digest"] for one in copied["tables"]}
    after = {one["table"]: one for one in back["tables"]}
    assert after["agents"]["digest"] == digests["agents"]
    assert after["workflow_runs"]["rows"] == rows["workflow_runs"] + 1
    assert other.ok("agent", "list", "--json").json == listed


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


def test_the_files_of_a_home_are_published_for_other_machines(
    cli: Cli,
    make_agent: Callable[..., Path],
    make_workflow: Callable[..., Path],
    postgres_url: str,
    bucket_server: BucketServer,
    tmp_path: Path,
) -> None:
    cli.ok("agent", "register", make_agent())
    cli.ok("workflow", "register", make_workflow())
    alone = cli("db", "publish")
    assert alone.code == 2
    assert VARIABLE in alone.err

    bucket = bucket_server.create_bucket()
    there = {
        VARIABLE: postgres_url,
        "SWARM_ARTIFACT_URL": bucket_server.url(bucket, "files"),
        "SWARM_ARTIFACT_ACCESS_KEY_ID": bucket_server.access_key_id,
        "SWARM_ARTIFACT_SECRET_ACCESS_KEY": bucket_server.secret_access_key,
        "SWARM_ARTIFACT_INLINE_BYTES": "0",
    }
    cli.ok("db", "copy", "--to", "postgresql", "--records-only", **there)
    other = Cli(tmp_path / "other", cli.variables)
    missing = other("run", "flow", "--json", **there)
    assert missing.code == 1
    assert "shared store" in missing.err + missing.out
    published = cli.ok("db", "publish", "--json", **there).json
    assert published == {"packages": 1, "artifacts": 0, "missing": []}
    assert len(bucket_server.keys(bucket)) == 1
    assert other.ok("run", "flow", "--json", **there).json["outputs"] == {"answer": "answer"}
    fetched = Cli(tmp_path / "third", cli.variables).ok("db", "fetch", **there)
    assert "1 package" in fetched.out

    shown = cli.ok("settings", "--json", **there)
    wrong = {**there, "SWARM_ARTIFACT_SECRET_ACCESS_KEY": "wrong-secret"}
    refused = Cli(tmp_path / "fourth", cli.variables)("db", "fetch", **wrong)
    assert refused.code != 0
    for done in (shown, missing, fetched, refused):
        for secret in (bucket_server.secret_access_key, "wrong-secret"):
            assert secret not in done.out + done.err


def test_a_bucket_without_a_shared_database_is_refused(cli: Cli) -> None:
    done = cli("agent", "run", "echo", SWARM_ARTIFACT_URL="s3://files")
    assert done.code == 2
    assert VARIABLE in done.err
