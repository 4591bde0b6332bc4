"""The two commands' first step says in one sentence what a machine lacks."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from scripts import environment
from tests.architecture import rules
from tests.architecture.rules import ROOT


def setup(
    folder: Path, programs: dict[str, str], **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run scripts/setup.sh on a made-up machine that has these programs and no others."""
    for name, script in {"dirname": 'exec /usr/bin/dirname "$@"', **programs}.items():
        program = folder / name
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
    return subprocess.run(
        ["/bin/sh", str(ROOT / "scripts" / "setup.sh"), "check"],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": str(folder), **variables},
    )


LINUX = 'case "$1" in -s) echo Linux;; -m) echo x86_64;; esac'
PYTHON = f'exec "{sys.executable}" "$@"'
OLD_PYTHON = 'case "$1" in --version) echo "Python 3.8.18";; *) exit 1;; esac'


@pytest.mark.parametrize(
    ("programs", "sentence"),
    [
        ({"uname": "case $1 in -s) echo Darwin;; -m) echo arm64;; esac"}, "Darwin arm64"),
        ({"uname": "case $1 in -s) echo Linux;; -m) echo aarch64;; esac"}, "Linux aarch64"),
        ({"uname": LINUX}, "git is missing"),
        ({"uname": LINUX, "git": ":"}, "Python 3.11 or newer"),
        ({"uname": LINUX, "git": ":", "python3": OLD_PYTHON}, "python3 is: Python 3.8.18"),
    ],
)
def test_what_is_lacking_is_said_in_one_line(
    tmp_path: Path, programs: dict[str, str], sentence: str
) -> None:
    result = setup(tmp_path, programs)
    assert result.returncode == 5
    assert result.stdout == ""
    assert result.stderr.startswith("swarm: ")
    assert result.stderr.count("\n") == 1
    assert sentence in result.stderr


@pytest.mark.parametrize("name", ["python3", "python3.12", "python3.11"])
def test_a_python_that_fits_is_found_under_any_of_its_names(tmp_path: Path, name: str) -> None:
    programs = {"uname": LINUX, "git": ":", name: PYTHON}
    if name != "python3":
        programs["python3"] = OLD_PYTHON
    result = setup(tmp_path, programs)
    assert (result.returncode, result.stderr) == (0, "")


def test_a_python_named_by_the_user_is_the_only_one_tried(tmp_path: Path) -> None:
    programs = {"uname": LINUX, "git": ":", "python3": PYTHON, "python9": OLD_PYTHON}
    result = setup(tmp_path, programs, PYTHON="python9")
    assert result.returncode == 5
    assert "python9 is: Python 3.8.18" in result.stderr


def test_uv_is_told_what_pip_was_told() -> None:
    configuration = "[global]\nindex-url = https://mirror.example/simple\ncert = /c.pem\n"
    settings = environment.fetch_settings({"HOME": "/h"}, configuration)
    assert settings == {
        "HOME": "/h",
        "UV_DEFAULT_INDEX": "https://mirror.example/simple",
        "SSL_CERT_FILE": "/c.pem",
    }


def test_the_environment_outweighs_pips_files_and_uvs_own_outweigh_both() -> None:
    configuration = "[global]\nindex-url = https://file.example/simple\n"
    of_pip = {"PIP_INDEX_URL": "https://pip.example/simple"}
    settings = environment.fetch_settings(of_pip, configuration)
    assert settings["UV_DEFAULT_INDEX"] == "https://pip.example/simple"
    of_uv = {**of_pip, "UV_DEFAULT_INDEX": "https://uv.example/simple"}
    assert environment.fetch_settings(of_uv, configuration) == of_uv
    older = {"UV_INDEX_URL": "https://uv.example/simple"}
    assert environment.fetch_settings(older, configuration) == older


def test_a_broken_pip_configuration_is_left_to_pip() -> None:
    assert environment.fetch_settings({}, "no section = here\n") == {}


def test_locks_are_hashed_and_name_no_registry() -> None:
    for name in environment.LOCKS.values():
        lines = (ROOT / name).read_text().splitlines()
        pinned = [number for number, line in enumerate(lines) if "==" in line]
        assert pinned
        assert all("--hash=sha256:" in lines[number + 1] for number in pinned)
        assert not any("://" in line for line in lines)


def pins(name: str) -> set[str]:
    lines = (ROOT / environment.LOCKS[name]).read_text().splitlines()
    return {line.split(";")[0].strip(" \\") for line in lines if "==" in line}


def test_the_development_lock_holds_the_runtime_lock() -> None:
    """What is tested is what runs, to the version."""
    assert pins("run") <= pins("test")


def test_every_declared_dependency_is_locked() -> None:
    document = tomllib.loads((ROOT / "pyproject.toml").read_text())
    groups = document["dependency-groups"]
    for lock, requirements in {
        "run": document["project"]["dependencies"],
        "test": groups["dev"],
        "build": groups["build"],
        "node": groups["node"],
    }.items():
        locked = {rules.canonical(pin.partition("==")[0]) for pin in pins(lock)}
        declared = {rules.canonical(rules.requirement_name(line)) for line in requirements}
        assert declared <= locked, "run make lock"


def test_ci_runs_make_test_and_nothing_else() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    commands = [line for line in script.read_text().splitlines() if "make" in line]
    assert commands == ["exec make test </dev/null"]
