"""Every command in the documentation works, and prints what the documentation says.

Commands stand in ``console`` blocks; see ``walkthrough.py``. ``make run`` and ``make test`` cannot
be run from within ``make test``; it is checked that the targets exist.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from swarm.kernel.errors import ExitCode
from tests.architecture import rules
from tests.architecture.rules import ROOT
from tests.conftest import stop_workers
from tests.docs.walkthrough import Step, follow, steps

PAGES = [path for path in rules.tracked_files(".md") if "catalog" not in path.parts]
COMMANDS = Path(sys.executable).parent


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def is_make(step: Step) -> bool:
    return step.command.startswith("make ")


@pytest.fixture(scope="module")
def kernel_allows_sandboxes(tmp_path_factory: pytest.TempPathFactory) -> None:
    home = tmp_path_factory.mktemp("doctor")
    answer = subprocess.run(
        [str(COMMANDS / "swarm"), "--home", str(home), "doctor"],
        capture_output=True,
        text=True,
        check=False,
    )
    if answer.returncode == ExitCode.ENVIRONMENT:
        pytest.skip(f"this machine cannot run agents:\n{answer.stdout}{answer.stderr}")
    assert answer.returncode == 0, answer.stdout + answer.stderr


@pytest.mark.usefixtures("kernel_allows_sandboxes")
@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if any(not is_make(step) for step in steps(page.read_text()))],
    ids=name_of,
)
def test_a_reader_can_follow_the_page(
    page: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    folder = tmp_path / "checkout"
    # The README's commands work on the checkout itself; a copy keeps the real one clean.
    subprocess.run(["git", "clone", "-q", str(ROOT), str(folder)], check=True)
    request.addfinalizer(lambda: stop_workers(tmp_path / ".swarm"))
    done = follow(
        [step for step in steps(page.read_text()) if not is_make(step)],
        folder,
        {
            "HOME": str(tmp_path),
            "SWARM_HOME": str(tmp_path / ".swarm"),
            "PATH": f"{COMMANDS}{os.pathsep}{os.environ['PATH']}",
            "COLUMNS": "100",
            "NO_COLOR": "1",
            # As on a terminal: standard output and error in the order in which they are written.
            "PYTHONUNBUFFERED": "1",
        },
    )
    faults = [fault for fault in (step.fault() for step in done) if fault]
    assert faults == [], "\n\n".join(faults)


def test_the_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        named = re.findall(r"(?:^|[`$ ])make ([a-z-]+)`?$", page.read_text(), re.MULTILINE)
        named += re.findall(r"`make ([a-z-]+)", page.read_text())
        assert set(named) <= targets, name_of(page)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    broken = [
        target
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text())
        if "://" not in target and not (page.parent / target).exists()
    ]
    assert broken == []
