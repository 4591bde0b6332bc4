"""What a container must allow for sandboxes to be made in it, and what is said where it does not.

In real containers, as an ordinary user without capabilities, with ``no_new_privs`` and a read-only
root: the options below are all that is asked for.
"""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest

from scripts import generate_deployment
from scripts.generate_deployment import PROFILE, TO_MAKE_SANDBOXES
from swarm.sandbox.linux import calls
from tests.conftest import Scale
from tests.deploy.container import Container, is_possible

in_containers = pytest.mark.skipif(
    not is_possible(), reason="containers are started by root with crun (Debian, Ubuntu: crun)"
)
REFUSED_BY_ENGINES = {
    *("mount", "mount_setattr", "move_mount", "open_tree", "pivot_root", "sethostname", "setns"),
    *("umount2", "unshare"),
}
"""What the profiles of container engines refuse to processes without CAP_SYS_ADMIN."""
OF_ROOT_OR_STRENGTHENING = {
    *("capget", "setgroups", "setresgid", "setresuid"),
    *("landlock_add_rule", "landlock_create_ruleset", "landlock_restrict_self"),
}
"""For workers that are root, and for Landlock, without which sandboxes are made too."""
NEW_NAMESPACES = 0x7E020000
DANGEROUS = {
    *("acct", "add_key", "bpf", "clock_settime", "delete_module", "finit_module", "init_module"),
    *("io_uring_enter", "io_uring_register", "io_uring_setup", "ioperm", "iopl", "kexec_file_load"),
    *("kexec_load", "keyctl", "lookup_dcookie", "nfsservctl", "open_by_handle_at", "ptrace"),
    *("perf_event_open", "process_vm_readv", "process_vm_writev", "quotactl", "reboot", "swapon"),
    *("request_key", "settimeofday", "swapoff", "syslog", "userfaultfd", "vhangup", "vm86"),
}
EVERYDAY = """
import sys
from swarm.cli.main import main
for line in ("agent register --all", "workflow register --all", 'run echo-chain {"message":"hi"}'):
    sys.argv = ["swarm", *line.split(" ")]
    try:
        main()
    except SystemExit as end:
        code = end.code
sys.exit(code)
"""


def profile() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(PROFILE.read_text())
    return document


def without(*names: str) -> dict[str, Any]:
    """Our profile, less these calls."""
    made = profile()
    for rule in made["syscalls"]:
        rule["names"] = [name for name in rule["names"] if name not in names]
    return made


def of_an_engine() -> dict[str, Any]:
    """What an engine's own profile comes to for sandboxes."""
    made = without(*REFUSED_BY_ENGINES, "clone")
    ordinary = {
        "index": 0,
        "value": NEW_NAMESPACES,
        "valueTwo": 0,
        "op": "SCMP_CMP_MASKED_EQ",
    }
    made["syscalls"].append({"names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": [ordinary]})
    return made


def options(remedy: str) -> bool:
    """Whether /proc is still covered with the options of ``--security-opt`` in a remedy, which name
    our profile."""
    given = dict(re.findall(r"--security-opt (\w+)=([\w./]+)", remedy))
    assert set(given) == {"seccomp", "apparmor", "systempaths"}
    named = json.loads((PROFILE.parent.parent / given["seccomp"]).read_text())
    assert named == profile()
    return given["systempaths"] != "unconfined"


def doctor(container: Container, folder: Path) -> tuple[int, dict[str, Any]]:
    done = container.run(folder, "-m", "swarm", "doctor", "--json")
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def test_the_profile_is_the_one_that_the_code_writes() -> None:
    assert profile() == generate_deployment.profile(), "`make docs` writes deploy/seccomp.json"


def test_the_profile_allows_what_sandboxes_have_and_nothing_dangerous() -> None:
    allowed = {
        name
        for rule in profile()["syscalls"]
        if rule["action"] == "SCMP_ACT_ALLOW"
        for name in rule["names"]
    }
    assert {*calls.ALLOWED, *calls.CONDITIONAL} - {"clone3"} <= allowed
    assert allowed & DANGEROUS == set()


LACKING = {
    "as-engines-start-it": Container(of_an_engine()),
    "seccomp-of-the-engine": Container(of_an_engine(), covers_proc=False),
    "proc-covered": Container(profile()),
    "as-root": Container(of_an_engine(), user=0),
}


@in_containers
def test_what_a_container_lacks_is_refused_with_the_options_that_mend_it(
    scale: Scale, rng: random.Random, tmp_path: Path
) -> None:
    remedies = set()
    for name in rng.sample(sorted(LACKING), scale(small=1, full=len(LACKING))):
        code, report = doctor(LACKING[name], tmp_path / name)
        assert code == 5, name
        assert report["can_sandbox"] is False
        first = next(layer for layer in report["layers"] if not layer["available"])
        assert first["required"]
        remedies.add(options(first["remedy"]))
    assert len(remedies) == 1
    code, report = doctor(Container(profile(), covers_proc=remedies.pop()), tmp_path / "mended")
    assert report["can_sandbox"] is True
    assert code == 0


@in_containers
def test_without_the_options_an_agent_is_refused_and_with_them_a_workflow_runs(
    tmp_path: Path,
) -> None:
    refused = Container(of_an_engine()).run(tmp_path / "lacking", "-c", EVERYDAY)
    assert refused.returncode != 0
    assert "--security-opt seccomp=deploy/seccomp.json" in refused.stdout + refused.stderr
    done = Container(profile(), covers_proc=False).run(tmp_path / "mended", "-c", EVERYDAY)
    assert done.returncode == 0, done.stdout + done.stderr
    assert 'The first step said: "hi"' in done.stdout


@in_containers
def test_each_call_of_the_profile_that_makes_sandboxes_is_needed(
    scale: Scale, rng: random.Random, tmp_path: Path
) -> None:
    needed = sorted(set(TO_MAKE_SANDBOXES) - OF_ROOT_OR_STRENGTHENING)
    for name in rng.sample(needed, scale(small=1, full=len(needed))):
        code, _ = doctor(Container(without(name), covers_proc=False), tmp_path / name)
        assert code == 5, f"{name} is not needed"


def test_a_remedy_without_all_options_is_noticed() -> None:
    with pytest.raises(AssertionError):
        options("start it with `--security-opt seccomp=deploy/seccomp.json`")
