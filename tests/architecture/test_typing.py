"""The product is strictly typed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.architecture.rules import ROOT


def mypy(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml"), *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_source_passes_strict_mypy() -> None:
    result = mypy()
    assert result.returncode == 0, result.stdout + result.stderr


def test_an_untyped_function_is_noticed(tmp_path: Path) -> None:
    sample = tmp_path / "sample.py"
    sample.write_text("def f(a):\n    return a\n")
    result = mypy(str(sample))
    assert result.returncode == 1
    assert "no-untyped-def" in result.stdout
