"""What a sandbox's environment says of the host's interpreters."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarm.sandbox.interpreters import Interpreter
from swarm.sandbox.linux.plan import HostFacts, environment
from swarm.sandbox.ports import Limits, Program, SandboxRequest

REQUEST = SandboxRequest(
    Program("command", ("python3", "x.py"), Path("/package"), "digest"),
    Limits(memory_bytes=1 << 26, timeout_seconds=1),
)


@pytest.mark.parametrize(
    ("program", "prefix", "last"),
    [
        ("/opt/python/bin/python3.12", "/opt/python", "/opt/python/bin"),
        ("/usr/bin/python3.12", None, "/bin"),
    ],
)
def test_an_interpreter_outside_usr_is_found_last(
    program: str, prefix: str | None, last: str
) -> None:
    python = Interpreter(Path(program), Path(prefix) if prefix else None, "3.12.0")
    facts = HostFacts(
        python=python,
        node=None,
        uids=None,
        masked=(),
        has_cgroup=False,
        counts_processes=False,
    )
    folders = environment(REQUEST, facts)["PATH"].split(":")
    assert folders[0] == "/usr/local/sbin"
    assert folders[-1] == last
