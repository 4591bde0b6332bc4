"""The page on capacity says what its figures and its model say."""

from __future__ import annotations

import subprocess
import sys
import tomllib

from swarm.kernel.settings import Settings
from swarm.store.postgres import blobs
from tests.architecture.rules import ROOT

PROGRAM = ROOT / "benchmarks" / "capacity.py"
PAGE = ROOT / "docs" / "concepts" / "capacity.md"


def test_the_tables_are_those_that_the_figures_give() -> None:
    done = subprocess.run([sys.executable, str(PROGRAM), "--check"], check=False)
    assert done.returncode == 0, "run `python benchmarks/capacity.py`"


def test_what_the_page_sums_up_is_what_its_tables_say() -> None:
    """The prose gives no figure that a new measurement would make wrong, but these claims."""
    code = (
        "import capacity\n"
        "model = capacity.read_model()\n"
        "work = model.works()[1]\n"
        "small, middle, large = (max(model.workers(rate, work).values())"
        " for rate in capacity.TARGETS)\n"
        "assert small == 1, small\n"
        "assert 2 <= middle <= 20, middle\n"
        "assert 200 <= large <= 2_000, large\n"
        "share = lambda rate, count: max(need.share for need in model.needs(rate, count)"
        " if need.is_hard)\n"
        "assert share(1_000, middle) < 0.35, share(1_000, middle)\n"
        "assert share(100_000, large) > 3, share(100_000, large)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=PROGRAM.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_figures_that_are_settings_are_those_settings() -> None:
    figures = tomllib.loads((PROGRAM.parent / "capacity.toml").read_text())
    settings = Settings()
    of_the_fleet = 2
    of_the_records = settings.database_writers + settings.database_readers
    connections = of_the_records + of_the_fleet + blobs.CONNECTIONS
    assert figures["connections_per_worker"]["value"] == connections
    compose = (ROOT / "deploy" / "compose.yaml").read_text()
    assert f"max_connections={figures['database_connections']['value']}," in compose


def test_a_table_without_an_end_is_noticed() -> None:
    code = "import capacity\ncapacity.page('<!-- table: limits -->', capacity.read_model())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=PROGRAM.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "the table limits has no end" in done.stderr
