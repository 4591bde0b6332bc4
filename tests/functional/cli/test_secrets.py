"""``swarm secret``: values come in unseen, go out on request, and never leak on the way."""

from __future__ import annotations

import base64
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.functional.cli.conftest import Cli, Make, write_workflow

COUNTING = """\
name: counting
version: 1.0.0
runtime: {type: python, entry: main.py, timeout_seconds: 60}
permissions: {secrets: [TOKEN]}
outputs: [{name: length, type: integer}]
"""
COUNTING_HANDLER = """\
def handler(inputs, context):
    return {"length": len(context.secret("TOKEN"))}
"""
FLOW = """\
name: flow
version: 1.0.0
steps: [{id: count, agent: counting}]
outputs: {length: "${steps.count.outputs.length}"}
"""


def test_a_secret_is_stored_read_listed_and_deleted(cli: Cli) -> None:
    done = cli.ok("secret", "set", "TOKEN", stdin=b"s3cret-value\n")
    assert "newline at the end was left out" in done.err
    assert cli.ok("secret", "get", "TOKEN").out == "s3cret-value\n"
    assert cli.ok("secret", "get", "TOKEN", "--json").json["value"] == "s3cret-value"
    listed = cli.ok("secret", "list", SWARM_SECRET_OTHER="x").out
    assert "TOKEN" in listed
    assert "OTHER  environment" in listed
    assert "s3cret" not in listed
    kept = [path for path in cli.home.rglob("*") if path.is_file()]
    assert not [path for path in kept if b"s3cret" in path.read_bytes()]
    assert cli.ok("secret", "delete", "TOKEN").out == "deleted the secret TOKEN\n"
    assert cli("secret", "get", "TOKEN").code == 3


@pytest.mark.parametrize(
    ("given", "kept", "options"),
    [
        (b"v\n\n", "v\n", ()),
        (b"v\r\n", "v", ()),
        (b"v\n", "v\n", ("--keep-newline",)),
        (b" v ", " v ", ()),
        ("ü\0☃".encode(), "ü\0☃", ()),
    ],
)
def test_a_value_is_kept_to_the_character(
    cli: Cli, given: bytes, kept: str, options: tuple[str, ...]
) -> None:
    cli.ok("secret", "set", "TOKEN", *options, stdin=given)
    assert cli.ok("secret", "get", "TOKEN", "--json").json["value"] == kept


@pytest.mark.parametrize(
    ("arguments", "given", "code", "word"),
    [
        (("set", "TOKEN"), b"", 2, "empty"),
        (("set", "TOKEN"), b"\n", 2, "empty"),
        (("set", "TOKEN"), b"\xff\xfe\x00", 2, "base64"),
        (("set", "TOKEN"), b"x" * 70_000, 2, "SWARM_MAX_SECRET_BYTES"),
        (("set", "TOKEN", "hunter2-on-argv"), b"", 2, "command line"),
        (("set", "a-b"), b"x", 2, "underscores"),
        (("set", "T", "--workflow", "nowhere"), b"x", 3, "nowhere"),
        (("get", "TOKEN"), b"", 3, "no secret TOKEN"),
        (("delete", "TOKEN"), b"", 3, "no secret TOKEN"),
        (("delete", "TOKEN", "--workflow", "gone"), b"", 3, "of workflow gone"),
        (("get", "TOKEN", "--organization"), b"", 3, "of the organization"),
        (("set", "T", "--organization", "--workflow", "w"), b"x", 2, "together"),
        (("import",), b'{"A": "half \\ud83d"}', 2, "not JSON"),
        (("import",), b"{", 2, "not JSON"),
        (("import",), b'{"A": 1}', 2, "not text"),
        (("import",), b'{"format": "x"}', 2, "format"),
        (("import", "/nonexistent"), b"", 2, "cannot be read"),
    ],
)
def test_bad_input_is_told_and_makes_no_key(
    cli: Cli, arguments: tuple[str, ...], given: bytes, code: int, word: str
) -> None:
    done = cli("secret", *arguments, stdin=given)
    assert (done.code, done.out) == (code, "")
    assert word in done.err
    assert "remedy:" in done.err
    assert "hunter2" not in done.err
    assert list((cli.home / "registry").glob("secrets/*")) == []


def test_a_value_typed_on_a_terminal_is_not_shown(cli: Cli) -> None:
    terminal = cli.on_terminal("secret", "set", "TOKEN")
    terminal.until(b"not shown")
    os.write(terminal._descriptor, b"typed-secret\n")
    assert terminal.end() == 0
    assert b"typed-secret" not in terminal.output
    assert cli.ok("secret", "get", "TOKEN").out == "typed-secret\n"


def test_a_wrong_key_is_told_and_nothing_is_lost(cli: Cli) -> None:
    cli.ok("secret", "set", "TOKEN", stdin=b"value")
    wrong = base64.b64encode(b"w" * 32).decode()
    for arguments in (("get", "TOKEN"), ("set", "TOKEN"), ("rotate",), ("export",)):
        done = cli("secret", *arguments, stdin=b"new", SWARM_MASTER_KEY=wrong)
        assert done.code == 5, done.err
        assert "SWARM_MASTER_KEY: " in done.err
        assert wrong not in done.err + done.out
    (key,) = (cli.home / "registry" / "secrets").glob("*.key")
    key.chmod(0o644)
    done = cli("secret", "get", "TOKEN")
    assert done.code == 4
    assert "chmod 600" in done.err
    key.chmod(0o600)
    assert cli.ok("secret", "get", "TOKEN").out == "value\n"


def test_who_needs_no_stored_secret_reads_no_key_and_loads_no_cryptography(
    cli: Cli, make_agent: Make, tmp_path: Path
) -> None:
    cli.ok("secret", "set", "OTHER", stdin=b"value")
    (key,) = (cli.home / "registry" / "secrets").glob("*.key")
    key.write_text("damaged\n")
    cli.ok("agent", "register", make_agent(COUNTING, COUNTING_HANDLER))
    cli.ok("workflow", "register", write_workflow(tmp_path / "flow", FLOW))
    watched = replace(cli, program=(sys.executable, "-X", "importtime", "-P", "-m", "swarm"))
    for arguments in (("--help",), ("run", "flow", "--json"), ("run", "flow")):
        done = watched.ok(*arguments, SWARM_SECRET_TOKEN="from the environment")
        assert "swarm.cli.main" in done.err
        assert "cryptography" not in done.err
    done = watched("secret", "get", "OTHER")
    assert done.code == 5
    assert "the master key is damaged" in done.err
    assert "cryptography" in done.err


def test_secrets_move_from_home_to_home(cli: Cli, tmp_path: Path) -> None:
    cli.ok("secret", "import", stdin=b'{"A": "one", "B": "two\\n"}')
    file = tmp_path / "out.json"
    cli.ok("secret", "export", "--output", file)
    assert file.stat().st_mode & 0o777 == 0o600
    before = file.read_bytes()
    assert cli("secret", "export", "--output", file).code == 4
    assert file.read_bytes() == before
    other = Cli(tmp_path / "other")
    other.ok("secret", "import", file)
    assert other("secret", "import", file).code == 4
    other.ok("secret", "import", file, "--replace")
    assert other.ok("secret", "export").json == cli.ok("secret", "export").json
    terminal = cli.on_terminal("secret", "export")
    assert terminal.end() == 4
    assert b"two" not in terminal.output


def test_the_narrowest_scope_wins_and_the_environment_over_all(
    cli: Cli, make_agent: Make, tmp_path: Path
) -> None:
    cli.ok("agent", "register", make_agent(COUNTING, COUNTING_HANDLER))
    cli.ok("workflow", "register", write_workflow(tmp_path / "flow", FLOW))

    def length(**variables: str) -> int:
        return int(cli.ok("run", "flow", "--json", **variables).json["outputs"]["length"])

    assert "swarm secret set TOKEN" in cli("run", "flow").err
    cli.ok("secret", "set", "TOKEN", "--organization", stdin=b"x" * 5)
    assert length() == 5
    cli.ok("secret", "set", "TOKEN", stdin=b"x" * 10)
    assert length() == 10
    cli.ok("secret", "set", "TOKEN", "--workflow", "flow", stdin=b"x" * 20)
    assert length() == 20
    assert length(SWARM_SECRET_TOKEN="x" * 30) == 30
    listed = cli.ok("secret", "list", "--json").json["secrets"]
    assert [one["scope"] for one in listed] == ["organization", "project", "workflow"]
    exported = cli.ok("secret", "export").out
    cli.ok("secret", "delete", "TOKEN", "--workflow", "flow")
    cli.ok("secret", "delete", "TOKEN")
    assert length() == 5
    cli.ok("secret", "delete", "TOKEN", "--organization")
    cli.ok("secret", "import", stdin=exported.encode())
    assert cli.ok("secret", "export").out == exported
    assert length() == 20
