"""``swarm secret``: values come in unseen, go out on request, and never leak on the way."""

from __future__ import annotations

import base64
import json
import os
import secrets
from pathlib import Path

import pytest

from tests.functional.cli.conftest import Cli, Make, write_workflow

TELLTALE = """\
name: telltale
version: 1.0.0
runtime: {type: python, entry: main.py, timeout_seconds: 60}
permissions: {secrets: [TOKEN]}
inputs: [{name: given, type: string}, {name: act, type: string}]
outputs: [{name: told, type: object}]
"""
TELLTALE_HANDLER = """\
import base64, json, sys, urllib.parse

def handler(inputs, context):
    value = inputs["given"]
    assert value == context.secret("TOKEN")
    data = value.encode()
    forms = [
        value, json.dumps({"k": value}), urllib.parse.quote(value, safe=""), data.hex(),
        data.hex().upper(), base64.b64encode(data).decode(),
        base64.urlsafe_b64encode(data).decode(),
        base64.b64encode(b"user:" + data).decode(), base64.b64encode(b"ab" + data + b"z").decode(),
    ]
    for form in forms:
        context.log.info("log " + form)
        print("out " + form)
        print("err " + form, file=sys.stderr)
        context.progress(0.5, "at " + form)
    if inputs["act"] == "raise":
        raise ValueError(" ".join(forms))
    if inputs["act"] == "undeclared":
        return {value: 1}
    return {"told": {form: [form] for form in forms}}
"""
FLOW = """\
name: telling
version: 1.0.0
inputs: [{name: act, type: string}]
steps:
  - {id: tell, agent: telltale, inputs: {given: "${secrets.TOKEN}", act: "${inputs.act}"}}
outputs: {told: "${steps.tell.outputs.told}"}
"""


def traces(value: str) -> list[bytes]:
    data = value.encode()
    found = [data, data.hex().encode(), data.hex().upper().encode(), json.dumps(value).encode()]
    for offset in range(3):
        core = base64.b64encode(b"\0" * offset + data)[4:-4]
        found += [core, core.replace(b"+", b"-").replace(b"/", b"_")]
    return found


def leaks(cli: Cli, value: str) -> list[str]:
    return [
        str(path)
        for path in cli.home.rglob("*")
        if path.is_file() and any(trace in path.read_bytes() for trace in traces(value))
    ]


def test_a_secret_is_stored_read_listed_and_deleted(cli: Cli) -> None:
    done = cli.ok("secret", "set", "TOKEN", stdin=b"s3cret-value\n")
    assert "newline at the end was left out" in done.err
    assert cli.ok("secret", "get", "TOKEN").out == "s3cret-value\n"
    assert cli.ok("secret", "get", "TOKEN", "--json").json["value"] == "s3cret-value"
    listed = cli.ok("secret", "list", SWARM_SECRET_OTHER="x").out
    assert "TOKEN" in listed
    assert "OTHER  environment" in listed
    assert "s3cret" not in listed
    assert leaks(cli, "s3cret-value") == []
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
    (key,) = (cli.home / "registry" / "secrets").iterdir()
    key.chmod(0o644)
    done = cli("secret", "get", "TOKEN")
    assert done.code == 4
    assert "chmod 600" in done.err
    key.chmod(0o600)
    assert cli.ok("secret", "get", "TOKEN").out == "value\n"


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


@pytest.mark.parametrize("act", ["answer", "raise", "undeclared"])
def test_no_form_of_a_secret_is_written_or_printed(
    cli: Cli, make_agent: Make, tmp_path: Path, act: str
) -> None:
    value = f"{secrets.token_urlsafe(12)}/+\"'ü {secrets.token_hex(8)}"
    cli.ok("secret", "set", "TOKEN", stdin=value.encode())
    cli.ok("agent", "register", make_agent(TELLTALE, TELLTALE_HANDLER))
    cli.ok("workflow", "register", write_workflow(tmp_path / "telling", FLOW))
    given = json.dumps({"act": act})
    run = cli("run", "telling", given, "--json")
    assert run.code == (0 if act == "answer" else 1), run.err
    run_id = run.json["id"]
    printed = [
        run,
        cli("run", "telling", given, "--events"),
        cli("run", "telling", given, "--logs"),
    ]
    printed += [cli("runs", "show", run_id, "--json"), cli.ok("runs", "logs", run_id)]
    assert "********" in printed[-1].out
    told = "".join(done.out + done.err for done in printed).encode()
    assert [trace for trace in traces(value) if trace in told] == []
    assert leaks(cli, value) == []


def test_the_narrowest_scope_wins_and_the_environment_over_all(
    cli: Cli, make_agent: Make, tmp_path: Path
) -> None:
    agent = TELLTALE.replace("telltale", "teller").replace("given, type: string}, {name: ", "")
    handler = (
        'def handler(inputs, context):\n    return {"told": {"n": len(context.secret("TOKEN"))}}\n'
    )
    cli.ok("agent", "register", make_agent(agent, handler))
    flow = FLOW.replace("telltale", "teller").replace('given: "${secrets.TOKEN}", ', "")
    cli.ok("workflow", "register", write_workflow(tmp_path / "telling", flow))

    def length(**variables: str) -> int:
        done = cli.ok("run", "telling", '{"act": ""}', "--json", **variables)
        return int(done.json["outputs"]["told"]["n"])

    assert "swarm secret set TOKEN" in cli("run", "telling", '{"act": ""}').err
    cli.ok("secret", "set", "TOKEN", "--organization", stdin=b"x" * 5)
    assert length() == 5
    cli.ok("secret", "set", "TOKEN", stdin=b"x" * 10)
    assert length() == 10
    cli.ok("secret", "set", "TOKEN", "--workflow", "telling", stdin=b"x" * 20)
    assert length() == 20
    assert length(SWARM_SECRET_TOKEN="x" * 30) == 30
    listed = cli.ok("secret", "list", "--json").json["secrets"]
    assert [one["scope"] for one in listed] == ["organization", "project", "workflow"]
    exported = cli.ok("secret", "export").out
    cli.ok("secret", "delete", "TOKEN", "--workflow", "telling")
    cli.ok("secret", "delete", "TOKEN")
    assert length() == 5
    cli.ok("secret", "delete", "TOKEN", "--organization")
    cli.ok("secret", "import", stdin=exported.encode())
    assert cli.ok("secret", "export").out == exported
    assert length() == 20
