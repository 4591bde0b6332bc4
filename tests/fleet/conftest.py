"""Fleets to try things on: two processes over SQLite, three machines over PostgreSQL.

``pair`` and ``fleet`` are for all tests of what several processes do together. Each process of them
can be killed, paused and resumed; a machine of ``fleet`` can be cut off and healed, and so can the
server, which can be killed, paused and restarted as well.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.fleet.cluster import Cluster, SwarmProcess
from tests.fleet.network import Machine, Network, why_not
from tests.postgres.server import PostgresServer, find_binaries, running_server
from tests.recovery.kills.agents import write_agents
from tests.recovery.kills.home import Recorder

LEASE_SECONDS = 3.0
"""As a user might tune it: others take over within 5 s."""
FLOW = """\
name: flow
version: 1.0.0
inputs: [{name: ledger, type: string}, {name: pause_ms, type: integer, default: 0}]
steps:
  - {id: first, agent: inside, inputs: {salt: 1, number: 1, ledger: "${inputs.ledger}"}}
  - id: second
    agent: inside
    needs: [first]
    inputs: {salt: 1, number: 2, ledger: "${inputs.ledger}", pause_ms: "${inputs.pause_ms}"}
"""


@dataclass(frozen=True)
class Fleet:
    """Three machines, and a fourth with the database."""

    cluster: Cluster
    machines: tuple[Machine, Machine, Machine]
    server: PostgresServer
    server_machine: Machine
    database: str

    def start_workers(self, count: int) -> list[SwarmProcess]:
        """Start a worker on each of the first machines."""
        return [self.cluster.worker(machine=machine) for machine in self.machines[:count]]

    def tell(self) -> str:
        """What all processes have printed."""
        return "\n".join(process.text() for process in self.cluster.processes)

    def query(self, sql: str) -> str:
        """Ask the database, past the network."""
        return self.server.execute(sql, self.database)


@pytest.fixture
def network() -> Iterator[Network]:
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    with Network() as network:
        yield network


@pytest.fixture
def fleet(network: Network, tmp_path: Path) -> Iterator[Fleet]:
    """No worker runs yet: ``fleet.cluster.worker(machine=fleet.machines[0])`` starts one."""
    if find_binaries() is None:
        pytest.skip("PostgreSQL is missing (Debian, Ubuntu: apt-get install postgresql)")
    place = network.machine()
    machines = (network.machine(), network.machine(), network.machine())
    with running_server(durable=True, command=place.command, address=place.address) as server:
        name = server.create_database()
        with Cluster(
            tmp_path,
            server.socket_url(name),
            server.url(name),
            SWARM_LEASE_SECONDS=str(LEASE_SECONDS),
            SWARM_DRAIN_SECONDS="1",
        ) as cluster:
            prepare(cluster, tmp_path)
            yield Fleet(cluster, machines, server, place, name)


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Cluster]:
    """One home on SQLite; start two workers of it."""
    with Cluster(tmp_path) as cluster:
        prepare(cluster, tmp_path)
        yield cluster


def prepare(cluster: Cluster, folder: Path) -> None:
    """Register the agents and a workflow that can be made to take long."""
    for package in write_agents(folder / "agents"):
        cluster.run("agent", "register", str(package))
    file = folder / "flow.yaml"
    file.write_text(FLOW)
    cluster.run("workflow", "register", str(file))


@dataclass(frozen=True)
class Ledger:
    """What the agents did to the world outside."""

    recorder: Recorder
    address: str
    """Where they tell it."""

    def begun(self, number: int) -> list[int]:
        """The attempts of a step that have begun, by the step's number."""
        lines = [line.split() for line in self.recorder.lines]
        return [int(words[3]) for words in lines if (words[1], words[4]) == ("begin", str(number))]


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    with tempfile.TemporaryDirectory(prefix="ledger-") as folder:  # an address has 107 bytes
        address = Path(folder) / "ledger"
        recorder = Recorder(address)
        yield Ledger(recorder, str(address))
        recorder.close()
