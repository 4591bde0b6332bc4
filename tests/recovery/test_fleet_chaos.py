"""Whatever befalls machines, their network and their database: runs end as if nothing had.

The workflows, the model and the judge are those of ``test_kill``. Three workers, each on a machine
with an address of its own, share a PostgreSQL. They are killed, paused past their lease and cut
off; the server is killed, its disk is filled, its connections are ended and exhausted. A witness in
the database sees whether anybody writes a run that another drives.
"""

from __future__ import annotations

import random
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import SCALE, Scale
from tests.fleet.network import Network, why_not
from tests.postgres.server import find_binaries, running_server
from tests.recovery.fleet.chaos import LEASE_SECONDS, FleetChaos
from tests.recovery.fleet.home import FleetHome
from tests.recovery.fleet.witness import check_witness, statements
from tests.recovery.kills.verdict import check, draw_flows, register

SESSIONS = 10 if SCALE == "full" else 1
WORKERS = 3
DISK = "192m"
SERVER = {"max_connections": "60", "min_wal_size": "32MB", "max_wal_size": "48MB"}


@contextmanager
def small_disk() -> Iterator[Path]:
    """A small file system of its own, which everybody may look into."""
    with tempfile.TemporaryDirectory(prefix="swarm-disk-") as folder:
        place = Path(folder)
        place.chmod(0o755)
        options = f"size={DISK},mode=755"
        subprocess.run(("mount", "-t", "tmpfs", "-o", options, "tmpfs", folder), check=True)
        try:
            yield place
        finally:
            subprocess.run(("umount", "--lazy", folder), check=True)


@pytest.fixture
def fleet_home(tmp_path: Path) -> Iterator[FleetHome]:
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    if find_binaries() is None:
        pytest.skip("PostgreSQL is missing (Debian, Ubuntu: apt-get install postgresql)")
    with small_disk() as disk, Network() as network:
        place = network.machine()
        machines = tuple(network.machine() for _ in range(WORKERS))
        with running_server(
            durable=True,
            command=place.command,
            address=place.address,
            settings=SERVER,
            parent=disk,
        ) as server:
            database = server.create_database()
            settings = {
                "SWARM_LEASE_SECONDS": f"{LEASE_SECONDS:g}",
                "SWARM_DRAIN_SECONDS": "1",
                "SWARM_IDLE_SECONDS": "0.5",
            }
            with FleetHome(tmp_path, server, database, machines, **settings) as home:
                yield home


@pytest.mark.parametrize("session", range(SESSIONS))
def test_whatever_befalls_a_fleet_every_accepted_run_ends_as_if_nothing_had(
    fleet_home: FleetHome,
    tmp_path: Path,
    rng: random.Random,
    scale: Scale,
    session: int,
    record_property: Callable[[str, object], None],
) -> None:
    wanted = scale(small=8, full=100)
    flows = draw_flows(rng, scale(small=4, full=8))
    register(fleet_home, flows, tmp_path)
    fleet_home.server.execute(statements(), fleet_home.database)
    chaos = FleetChaos(fleet_home, flows, rng)
    chaos.begin()
    chaos.kill(wanted)
    chaos.settle()
    measured = check(fleet_home, chaos, {flow.name: flow for flow in flows}, may_overlap=True)
    record_property(
        "measured",
        f"{measured}, {check_witness(fleet_home.url)}; all ended {chaos.recovered_seconds:.1f} s "
        f"after the last misfortune; misfortunes: {dict(chaos.kills.most_common())}",
    )
