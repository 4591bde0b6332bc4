"""The units: read by systemd itself, as hardened as sandboxes allow, and not more."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.deploy.container import Container, is_possible
from tests.deploy.test_containers import doctor
from tests.deploy.tools import DEPLOY, need, run

UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
MOST_EXPOSED = {"swarm-migrate.service": 1.5, "swarm-worker@.service": 3.5}
"""What `systemd-analyze security` may say at most, of 10."""
NOT_FOUND = "is not executable: No such file or directory"


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return run(need("systemd-analyze", "apt-get install systemd"), *arguments)


def settings(unit: Path) -> list[tuple[str, str]]:
    return re.findall(r"^(\w+)=(.*)$", unit.read_text(), re.MULTILINE)


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_reads_it_without_complaint(unit: Path) -> None:
    done = analyze("verify", "--man=no", unit)
    complaints = [line for line in done.stderr.splitlines() if NOT_FOUND not in line]
    # What the units of the machine itself lack is no fault of ours.
    assert [line for line in complaints if "swarm" in line] == []
    assert NOT_FOUND in done.stderr or done.returncode == 0


def test_a_faulty_unit_is_noticed(tmp_path: Path) -> None:
    unit = tmp_path / "swarm-faulty.service"
    unit.write_text(UNITS[0].read_text() + "\n[Service]\nProtectHome=perhaps\n")
    assert "ignoring: perhaps" in analyze("verify", "--man=no", unit).stderr


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_its_exposure_is_low(unit: Path) -> None:
    done = analyze("security", "--offline=yes", "--json=short", unit)
    text = analyze("security", "--offline=yes", unit).stdout
    assert json.loads(done.stdout), done.stderr
    exposure = re.search(r"exposure level for \S+: ([\d.]+)", text)
    assert exposure is not None
    assert float(exposure[1]) <= MOST_EXPOSED[unit.name]


def test_the_worker_has_nothing_that_keeps_sandboxes_from_being_made() -> None:
    worker = dict(settings(DEPLOY / "systemd" / "swarm-worker@.service"))
    hindering = {
        *("MemoryDenyWriteExecute", "ProcSubset", "ProtectControlGroups", "ProtectHostname"),
        *("ProtectKernelLogs", "ProtectKernelTunables", "ProtectProc", "RestrictNamespaces"),
    }
    assert not hindering & set(worker)
    assert worker["Type"] == "notify"
    assert int(worker["WatchdogSec"]) >= 30
    assert "SWARM_HEALTH_SOCKET" in worker["Environment"]


def allowed_calls(unit: Path) -> list[str]:
    """What the unit's SystemCallFilter comes to, its groups as systemd resolves them."""
    allowed: set[str] = set()
    for name, value in settings(unit):
        if name == "SystemCallFilter":
            named = set[str]().union(*map(calls_of, value.removeprefix("~").split()))
            allowed = allowed - named if value.startswith("~") else allowed | named
    return sorted(allowed)


def calls_of(name: str) -> set[str]:
    if not name.startswith("@"):
        return {name}
    lines = analyze("syscall-filter", name).stdout.splitlines()[1:]
    words = {line.strip() for line in lines if line.strip() and not line.strip().startswith("#")}
    return set[str]().union(*map(calls_of, words))


def test_groups_of_calls_are_resolved() -> None:
    assert "pivot_root" not in calls_of("@system-service")
    assert {"read", "clone", "socket"} <= calls_of("@system-service")


@pytest.mark.skipif(not is_possible(), reason="containers are started by root with crun")
def test_with_the_calls_that_the_worker_may_make_sandboxes_are_made(tmp_path: Path) -> None:
    names = allowed_calls(DEPLOY / "systemd" / "swarm-worker@.service")
    assert not {"bpf", "ptrace", "reboot", "init_module"} & set(names)
    filter_ = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{"names": names, "action": "SCMP_ACT_ALLOW"}],
    }
    code, report = doctor(Container(filter_, covers_proc=False), tmp_path / "unit")
    assert report["can_sandbox"] is True
    assert code == 0
