"""All of it again without root: sandboxes are then made by way of a user namespace.

Tests with the mark ``anyone`` make no sandbox: they show the same whoever runs them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

NOBODY = 65534
ROOT = Path(__file__).parents[3]
TESTS = ("tests/contract/sandbox", "tests/integration/sandbox", "tests/security/sandbox")


@pytest.fixture
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="swarm-nobody-"))
    os.chown(made, NOBODY, NOBODY)
    yield made
    shutil.rmtree(made)


def run_as_nobody(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=ROOT,
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        env={
            "PATH": os.defpath,
            "HOME": str(folder),
            "TMPDIR": str(folder),
            "PYTHONPATH": os.pathsep.join(
                path for path in sys.path if path and not is_stdlib(path)
            ),
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )


def is_stdlib(path: str) -> bool:
    return Path(path).is_relative_to(sys.base_prefix)


@cache
def usable_python() -> str | None:
    """An interpreter that an ordinary user may execute and that finds our libraries."""
    for program in (sys.executable, "/usr/bin/python3"):
        try:
            tried = run_as_nobody(Path("/"), program, "-c", "import orjson, pytest, swarm.sandbox")
        except PermissionError:
            continue
        if tried.returncode == 0:
            return program
    return None


@pytest.mark.skipif(os.geteuid() != 0, reason="this is an ordinary user already")
@pytest.mark.parametrize("tests", TESTS)
def test_the_same_tests_pass_as_an_ordinary_user(folder: Path, tests: str) -> None:
    program = usable_python()
    if program is None:
        pytest.skip("no interpreter here is readable to an ordinary user")
    options = ("-q", "-x", "-p", "no:cacheprovider", "-m", "not anyone")
    done = run_as_nobody(folder, program, "-m", "pytest", *options, tests)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
