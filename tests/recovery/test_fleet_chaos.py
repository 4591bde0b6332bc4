"""Whatever befalls machines, their network and their database: runs end as if nothing had.

The workflows, the model and the judge are those of ``test_kill``. Three workers, each on a machine
with an address of its own, share a PostgreSQL. They are killed, paused past their lease and cut
off; the server is killed, its disk is filled, its connections are ended and exhausted. A witness in
the database sees whether anybody writes a run that another drives.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.conftest import SCALE, Scale
from tests.fleet.disk import small_disk
from tests.fleet.network import Network, why_not
from tests.postgres.bouncer import find_bouncer, running_bouncer
from tests.postgres.server import find_binaries, running_server
from tests.recovery.fleet.chaos import FleetChaos
from tests.recovery.fleet.home import FleetHome, Place
from tests.recovery.fleet.misfortunes import LEASE_SECONDS
from tests.recovery.fleet.witness import check_witness, statements
from tests.recovery.kills.journal import query
from tests.recovery.kills.verdict import check, draw_flows, register
from tests.recovery.kills.workflows import lingering

SESSIONS = 10 if SCALE == "full" else 1
WORKERS = 3
DISK_MIB = 192
SERVER = {"max_connections": "100", "min_wal_size": "32MB", "max_wal_size": "48MB"}


@pytest.fixture
def fleet_home(tmp_path: Path) -> Iterator[FleetHome]:
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    if find_binaries() is None:
        pytest.skip("PostgreSQL is missing (Debian, Ubuntu: apt-get install postgresql)")
    if (pooler := find_bouncer()) is None:
        pytest.skip("PgBouncer is missing (Debian, Ubuntu: apt-get install pgbouncer)")
    with ExitStack() as stack:
        disk = stack.enter_context(small_disk(DISK_MIB))
        network = stack.enter_context(Network())
        place = network.machine()
        machines = tuple(network.machine() for _ in range(WORKERS))
        server = stack.enter_context(
            running_server(
                durable=True,
                command=place.command,
                address=place.address,
                settings=SERVER,
                parent=disk,
            )
        )
        bouncer = stack.enter_context(running_bouncer(server, pooler, machines[-1].command))
        settings = {
            "SWARM_LEASE_SECONDS": f"{LEASE_SECONDS:g}",
            "SWARM_DRAIN_SECONDS": "1",
            "SWARM_IDLE_SECONDS": "0.5",
        }
        all_of_it = Place(server, server.create_database(), place, machines, bouncer)
        yield stack.enter_context(FleetHome(tmp_path, all_of_it, **settings))


@pytest.mark.parametrize("session", range(SESSIONS))
def test_whatever_befalls_a_fleet_every_accepted_run_ends_as_if_nothing_had(
    fleet_home: FleetHome,
    tmp_path: Path,
    rng: random.Random,
    scale: Scale,
    session: int,
    record_property: Callable[[str, object], None],
) -> None:
    flows = draw_flows(rng, scale(small=4, full=14), quick=scale(small=4, full=8))
    enduring = next(each for each in flows if each.name == "flow-1")
    flows[flows.index(enduring)] = enduring = lingering(enduring)
    register(fleet_home, flows, tmp_path)
    fleet_home.server.execute(statements(), fleet_home.place.database)
    chaos = FleetChaos(fleet_home, flows, enduring, rng)
    chaos.begin()
    chaos.kill(scale(small=3, full=100))
    chaos.settle()
    measured = check(fleet_home, chaos, {flow.name: flow for flow in flows}, may_overlap=True)
    (steps,) = query(fleet_home.url, "SELECT count(*) AS count FROM step_executions")
    record_property(
        "measured",
        f"{measured}, {steps['count']} steps, {check_witness(fleet_home.url)}; after the last "
        f"misfortune, the queue was empty in {chaos.lag_seconds:.1f} s, all ended in "
        f"{chaos.recovered_seconds:.1f} s; {chaos.kills.total()} misfortunes: "
        f"{dict(chaos.kills.most_common())}",
    )
