"""What every test shares: how much to do, the random seed, and a home of its own.

``SWARM_TEST_SCALE=full`` (``make prove``) gives tests their full counts; otherwise they do enough
to notice a break. ``SWARM_TEST_SEED`` repeats a run's random choices; each run prints its own.
"""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Protocol

import hypothesis
import pytest

import swarm
from swarm.kernel.settings import Settings
from tests.bucket.machines import Machines
from tests.bucket.server import BucketServer, running_bucket_server
from tests.postgres.pool import EmptyDatabases
from tests.postgres.server import PostgresServer, find_binaries, running_server

SCALE = os.environ.get("SWARM_TEST_SCALE", "small")
FULL_EXAMPLES = 2_000


class Scale(Protocol):
    def __call__(self, *, small: int, full: int) -> int: ...


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    if SCALE not in ("small", "full"):
        raise pytest.UsageError(f"SWARM_TEST_SCALE must be small or full, not {SCALE!r}")
    seed = os.environ.setdefault("SWARM_TEST_SEED", str(random.SystemRandom().randrange(2**32)))
    # Hypothesis' own plugin reads this option; the workers of xdist get the seed by the variable.
    if config.getoption("hypothesisseed", None) is None:
        config.option.hypothesisseed = seed
    hypothesis.settings.register_profile("small", deadline=None)
    hypothesis.settings.register_profile("full", deadline=None, max_examples=FULL_EXAMPLES)
    hypothesis.settings.load_profile(SCALE)
    if os.environ.get("SWARM_TEST_WHEEL") and "site-packages" not in str(swarm.__file__):
        raise pytest.UsageError(
            f"the wheel is to be tested, but swarm was imported from {swarm.__file__}: "
            "unset PYTHONPATH"
        )


def pytest_report_header() -> str:
    place = Path(str(swarm.__file__)).parent
    seed = os.environ["SWARM_TEST_SEED"]
    return f"swarm: {place}; SWARM_TEST_SCALE={SCALE} SWARM_TEST_SEED={seed}"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests recorded with ``record_property("measured", ...)``: a claim's figures."""
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            if name == "measured":
                terminalreporter.write_line(f"{report.nodeid}: {value}")


@pytest.fixture(scope="session")
def scale() -> Scale:
    """``scale(small=5, full=50)``: the count that this run of the tests asks for."""

    def choose(*, small: int, full: int) -> int:
        return full if SCALE == "full" else small

    return choose


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> random.Random:
    """Random choices that SWARM_TEST_SEED repeats, independent of which other tests run."""
    return random.Random(f"{os.environ['SWARM_TEST_SEED']} {request.node.nodeid}")


@pytest.fixture(scope="session", autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads the settings, secrets or home of whoever runs it."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith("SWARM_") and not name.startswith("SWARM_TEST_"):
                patch.delenv(name)
        patch.setenv("SWARM_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL of this session, fast rather than durable; make databases in it as you like."""
    with _server(durable=False) as server:
        yield server


@pytest.fixture
def postgres_url(postgres: PostgresServer) -> Iterator[str]:
    """The address of an empty database."""
    name = postgres.create_database()
    yield postgres.url(name)
    postgres.drop_database(name)


@pytest.fixture(scope="session")
def empty_databases(
    postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> EmptyDatabases:
    """Databases with Swarm's tables and no rows."""
    return EmptyDatabases(postgres, Settings(home=tmp_path_factory.mktemp("databases")))


@pytest.fixture
def migrated_url(empty_databases: EmptyDatabases) -> Iterator[str]:
    """The address of a database with Swarm's tables and no rows. Do not change the tables."""
    url = empty_databases.take()
    yield url
    empty_databases.give_back(url)


@pytest.fixture
def durable_postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL of this test, whose commits wait for the disk; kill, pause and restart it."""
    with _server(durable=True) as server:
        yield server


@pytest.fixture(scope="session")
def bucket_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BucketServer]:
    """A server of this session that speaks S3 and checks who asks."""
    with running_bucket_server(tmp_path_factory.mktemp("bucket") / "log") as server:
        yield server


@pytest.fixture
def open_machine(
    migrated_url: str, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Machines]:
    """Opens machines that share a database, and a bucket if told so."""
    machines = Machines(migrated_url, lambda: request.getfixturevalue("bucket_server"), tmp_path)
    yield machines
    machines.close()


def _server(*, durable: bool) -> AbstractContextManager[PostgresServer]:
    if find_binaries() is None:
        pytest.skip("PostgreSQL is missing (Debian, Ubuntu: apt-get install postgresql)")
    return running_server(durable=durable)


def stop_workers(home: Path) -> None:
    """End the background workers that a test's commands have started for a home.

    They stay while a run of theirs waits for a time, be it days.
    """
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"worker" in command and os.fsencode(home) in command:
            with suppress(ProcessLookupError):
                os.kill(int(process.name), signal.SIGTERM)
