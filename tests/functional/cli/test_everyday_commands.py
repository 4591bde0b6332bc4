"""Every command as a user types it: text for people, one document for machines."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.functional.cli.conftest import Cli, Make

SCRIPTS = Path(sys.executable).parent


@pytest.mark.parametrize(
    "arguments",
    [
        ["version"],
        ["settings"],
        ["doctor"],
        ["agent", "list"],
        ["agent", "info", "probe"],
        ["agent", "new", "--list"],
        ["workflow", "list"],
        ["workflow", "info", "flow"],
        ["workflow", "graph", "flow"],
        ["workflow", "runs", "flow"],
        ["workflow", "new", "--list"],
        ["runs", "list"],
        ["runs", "purge"],
        ["completion", "bash"],
    ],
)
def test_a_command_speaks_to_people_and_to_machines(shared: Cli, arguments: list[str]) -> None:
    done = shared.ok(*arguments)
    assert done.out.strip() or done.err.strip()
    assert "Traceback" not in done.err
    assert isinstance(shared.ok(*arguments, "--json").json, dict)


def test_the_built_in_packages_register_and_the_chain_quotes(cli: Cli) -> None:
    out = cli.ok("agent", "register", "--all").out
    assert "registered echo@1.0.0" in out
    assert "network: *  granted" in out
    again = cli.ok("agent", "register", "--all", "--json").json["agents"]
    assert not any(agent["created"] for agent in again)
    cli.ok("workflow", "register", "--all")
    out = cli.ok("run", "echo-chain", '{"message": "Hello World"}').out
    assert "first   Hello World" in out
    assert 'second  The first step said: "Hello World"' in out


def test_new_agents_and_workflows_can_be_used_at_once(cli: Cli, tmp_path: Path) -> None:
    done = cli.ok("agent", "new", "my-agent", "--into", tmp_path)
    assert f"swarm agent register {tmp_path / 'my-agent'}" in done.err
    cli.ok("agent", "validate", tmp_path / "my-agent")
    cli.ok("agent", "register", tmp_path / "my-agent")
    cli.ok("agent", "register", "--all")
    cli.ok("workflow", "new", "my-flow", "--into", tmp_path)
    cli.ok("workflow", "register", tmp_path / "my-flow")
    cli.ok("run", "my-flow")
    assert cli("agent", "new", "my-agent", "--into", tmp_path).code == 4
    assert cli("agent", "new", "My Agent", "--into", tmp_path).code == 2
    assert cli("agent", "new", "other", "--template", "basc-agent").code == 3


def test_packing_is_reproducible_and_inspecting_needs_no_unpacking(
    cli: Cli, tmp_path: Path, make_agent: Make
) -> None:
    folder = make_agent()
    first = cli.ok("agent", "pack", folder, "-o", tmp_path / "a.apkg", "--json").json
    (folder / "main.py").touch()
    second = cli.ok("agent", "pack", folder, "-o", tmp_path / "b.apkg", "--json").json
    assert first["digest"] == second["digest"]
    assert (tmp_path / "a.apkg").read_bytes() == (tmp_path / "b.apkg").read_bytes()
    report = cli.ok("agent", "inspect", tmp_path / "a.apkg", "--json").json
    assert report["definition"]["name"] == "probe"
    assert {file["path"] for file in report["files"]} >= {"agent.yaml", "main.py"}
    assert "probe@1.0.0" in cli.ok("agent", "inspect", tmp_path / "a.apkg").out
    cli.ok("agent", "register", tmp_path / "a.apkg")


def test_several_packages_are_registered_even_if_one_fails(
    cli: Cli, tmp_path: Path, make_agent: Make
) -> None:
    good = make_agent(name="good")
    make_agent("name: [", name="bad")
    done = cli("agent", "register", good, tmp_path / "bad", "--json")
    assert done.code == 2
    assert [("error" in agent) for agent in done.json["agents"]] == [False, True]
    assert cli("agent", "register", "--all", tmp_path).code == 2
    assert [one["name"] for one in cli.ok("agent", "list", "--json").json["agents"]] == ["probe"]
    cli.ok("agent", "unregister", "probe")
    assert cli.ok("agent", "list", "--json").json["agents"] == []


def test_an_agent_gives_files(shared: Cli) -> None:
    done = shared.ok("agent", "run", "probe", '{"act": "report"}')
    assert "# The report" in done.out
    assert Path(done.out.split()[-1]).is_file()


@pytest.mark.parametrize(
    ("format_", "word"),
    [
        ("text", "2  ● second  probe  ← first"),
        ("dot", '"first" -> "second";'),
        ("mermaid", "step_first --> step_second"),
        ("json", '"from": "first"'),
    ],
)
def test_graphs(shared: Cli, make_workflow: Make, format_: str, word: str) -> None:
    assert word in shared.ok("workflow", "graph", "flow", "--format", format_).out
    file = make_workflow()
    assert word in shared.ok("workflow", "graph", file, "--format", format_).out


def test_a_misspelt_variable_is_told(cli: Cli) -> None:
    done = cli.ok(
        "settings", SWARM_RETENTION_DAY="3", SWARM_SECRET_HOME="x", SWARM_TEST_SCALE="full"
    )
    assert done.err == (
        "SWARM_RETENTION_DAY is no setting, and has no effect; did you mean SWARM_RETENTION_DAYS?\n"
    )


def test_settings_tell_where_they_come_from(cli: Cli) -> None:
    cli.home.mkdir()
    (cli.home / "config.toml").write_text("max_steps = 7\n")
    rows = {
        row["name"]: row
        for row in cli.ok("settings", "--json", SWARM_RETENTION_DAYS="3").json["settings"]
    }
    assert (rows["max_steps"]["value"], rows["max_steps"]["origin"]) == (
        7,
        str(cli.home / "config.toml"),
    )
    assert (rows["retention_days"]["value"], rows["retention_days"]["origin"]) == (
        3,
        "SWARM_RETENTION_DAYS",
    )
    assert rows["durability"]["origin"] == "default"
    assert rows["home"]["origin"] == "SWARM_HOME"


def test_the_doctor_tells_whether_agents_can_be_sandboxed(shared: Cli) -> None:
    document = shared.ok("doctor", "--json").json
    assert document["can_sandbox"]
    assert document["home_usable"]
    assert {finding["name"] for finding in document["machine"]} >= {"system", "git", "uv"}
    required = [layer for layer in document["layers"] if layer["required"]]
    assert required
    assert all(layer["available"] for layer in required)
    out = shared("doctor").out
    assert "Agents can be sandboxed here." in out


def test_the_home_can_be_given_before_or_after_the_command(cli: Cli, tmp_path: Path) -> None:
    for arguments in (["--home", "{}", "agent", "list"], ["agent", "list", "--home", "{}"]):
        home = tmp_path / f"home-{arguments[0]}"
        cli.ok(*(part.format(home) for part in arguments))
        assert (home / "registry" / "registry.db").is_file()
    assert not cli.home.exists()


@pytest.mark.parametrize(
    ("program", "arguments"),
    [
        ("swarm", ["run", "flow", '{"act": "x"}']),
        ("swarm-run", ["flow", '{"act": "x"}']),
        ("swarm-agent", ["info", "probe"]),
        ("swarm-workflow", ["runs", "flow"]),
    ],
)
def test_the_programs_of_the_specification(shared: Cli, program: str, arguments: list[str]) -> None:
    if not (SCRIPTS / program).exists():
        pytest.skip("Swarm is not installed beside this Python")
    installed = Cli(shared.home, shared.variables, (str(SCRIPTS / program),))
    installed.ok(*arguments)
    usage = installed.ok("--help").out.splitlines()[0]
    assert usage.startswith(f"Usage: {program} ")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_name_every_program(cli: Cli, shell: str) -> None:
    script = cli.ok("completion", shell).out
    for program in ("swarm", "swarm-agent", "swarm-workflow", "swarm-run"):
        assert f"_{program.upper().replace('-', '_')}_COMPLETE" in script


def test_a_shell_completes_names_from_the_home(shared: Cli) -> None:
    done = shared(
        _SWARM_COMPLETE="bash_complete", COMP_WORDS="swarm agent info pro", COMP_CWORD="3"
    )
    assert done.out == "plain,probe\n"
    done = shared(_SWARM_COMPLETE="bash_complete", COMP_WORDS="swarm run fl", COMP_CWORD="2")
    assert done.out == "plain,flow\n"


def test_bash_reads_the_completion_script(cli: Cli) -> None:
    script = cli.ok("completion", "bash").out
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_a_closed_pipe_is_quiet(shared: Cli) -> None:
    for arguments in (["settings"], ["agent", "list"], ["run", "flow", "--events"], ["--help"]):
        command = " ".join([*shared.program, *arguments])
        done = subprocess.run(
            ["bash", "-c", f"set -o pipefail; {command} | true"],
            env=shared.environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "Error" not in done.stderr
        assert "Exception" not in done.stderr


def test_a_locale_without_unicode_gets_plain_characters(shared: Cli) -> None:
    out = shared.ok("workflow", "graph", "flow", PYTHONIOENCODING="ascii").out
    assert "o second  probe  <- first" in out
    assert out.isascii()


def test_an_undecodable_argument_is_told_as_it_is(shared: Cli) -> None:
    done = subprocess.run(
        [*shared.program, "agent", "info", b"\xff", "--json"],
        env=shared.environment(),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 3
    assert "\\udcff" in json.loads(done.stdout)["error"]["message"]


def test_an_apkg_agent_that_declares_nothing_takes_and_gives_any_object(
    cli: Cli, tmp_path: Path, make_workflow: Make
) -> None:
    folder = tmp_path / "older"
    (folder / "src").mkdir(parents=True)
    (folder / "agent.yaml").write_text(
        'name: older\nversion: "1.0"\nentrypoint: src.main:handler\nruntime: python3.11\n'
        "metadata: {version: 0.3.1}\n"
    )
    (folder / "src" / "main.py").write_text(
        "def handler(inputs):\n    return {'got': inputs, 'count': len(inputs)}\n"
    )
    cli.ok("agent", "pack", folder, "-o", tmp_path)
    cli.ok("agent", "register", tmp_path / "older-0.3.1.apkg")
    assert "..." in cli.ok("agent", "info", "older").out
    done = cli.ok("agent", "run", "older", '{"a": 1, "b": {"c": []}}', "--json")
    assert done.json["outputs"] == {"got": {"a": 1, "b": {"c": []}}, "count": 2}
    flow = make_workflow(
        "name: flow\nversion: 1.0.0\nsteps:\n"
        "  - {id: one, agent: older, inputs: {x: y}}\n"
        "  - {id: two, agent: older, inputs: {before: '${steps.one.outputs.got.x}'}}\n"
        "outputs:\n  last: '${steps.two.outputs.got.before}'\n"
    )
    cli.ok("workflow", "register", flow)
    assert cli.ok("run", "flow", "--json").json["outputs"] == {"last": "y"}
