"""The handlers' types, checked as a package runs: its folder is the path, its files modules."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import swarm

AGENTS = Path(str(swarm.__file__)).parent / "catalog" / "agents"
PACKAGES = sorted({path.parent for path in AGENTS.glob("*/*.py")})


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("types")


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_handlers_are_strictly_typed(package: Path, cache: Path, tmp_path: Path) -> None:
    # A copy: mypy refuses to check files that lie below the site-packages it takes stubs from.
    folder = shutil.copytree(package, tmp_path / package.name)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "mypy", "--strict", "--python-version=3.11"),
            *("--config-file=", f"--cache-dir={cache}"),
            *sorted(path.name for path in package.glob("*.py")),
        ],
        cwd=folder,
        env=os.environ | {"MYPYPATH": "."},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
