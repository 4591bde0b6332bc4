"""`make prove` runs both its parts, and fails if one of them does."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.architecture.rules import ROOT

PYTEST = """\
#!/bin/sh
printf '%s\\n' "$*" >>"$LOG"
case $* in *"not alone"*) exit "$OTHERS" ;; *) exit "$ALONE" ;; esac
"""


@pytest.mark.parametrize(
    ("alone", "others", "code"), [(0, 0, 0), (1, 0, 1), (0, 1, 1), (0, 5, 0), (5, 0, 0), (5, 5, 5)]
)
def test_both_parts_count(tmp_path: Path, alone: int, others: int, code: int) -> None:
    python, log = tmp_path / "python", tmp_path / "log"
    python.write_text(PYTEST)
    python.chmod(0o755)
    done = subprocess.run(
        ["/bin/sh", str(ROOT / "scripts" / "prove.sh"), str(python), "-k", "a b"],
        env={"LOG": str(log), "ALONE": str(alone), "OTHERS": str(others)},
        check=False,
    )
    assert done.returncode == code
    assert log.read_text().splitlines() == [
        "-m pytest -m alone -k a b",
        "-m pytest -m not alone -n 2 --dist worksteal -k a b",
    ]
