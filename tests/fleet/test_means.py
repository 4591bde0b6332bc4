"""What can befall the processes of a fleet does befall them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from swarm.dispatch.local_hosts import LocalHosts
from tests.fleet.cluster import Cluster, is_stopped, wait_until
from tests.fleet.conftest import LEASE_SECONDS, Fleet
from tests.fleet.disk import small_disk
from tests.fleet.network import Network, why_not

KNOCK = """\
import errno, socket, sys
with socket.socket() as knocking:
    knocking.settimeout(0.3)
    sys.exit(knocking.connect_ex((sys.argv[1], 9)) != errno.ECONNREFUSED)
"""
"""Nobody listens there; only the machine itself can say so."""


def test_a_machine_is_reached_until_it_is_cut_off_and_again_when_healed(network: Network) -> None:
    here, there = network.machine(), network.machine()

    def reaches(command: tuple[str, ...] = here.command) -> bool:
        knock = (*command, sys.executable, "-c", KNOCK, there.address)
        return subprocess.run(knock, check=False).returncode == 0

    wait_until(reaches, "it is not reached")
    there.cut_off()
    assert not reaches()
    there.heal()
    wait_until(reaches, "it is not reached again")
    for sender, receiver in ((here, there), (there, here)):
        sender.lose_what_goes_to(receiver)
        assert not reaches()
        sender.find(receiver)
        wait_until(reaches, "it is not reached again")
    assert not reaches(()), "it is on a network of its own"


ROOT = Path(__file__).parents[2]
FILLER = """\
import sys
from tests.fleet.disk import small_disk
with small_disk(1) as place:
    print(place, flush=True)
    sys.stdin.read()
"""


def test_a_small_disk_is_full_and_is_gone_though_whoever_made_it_is_killed() -> None:
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    maker = subprocess.Popen(
        [sys.executable, "-c", FILLER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    )
    assert maker.stdout is not None
    left = Path(maker.stdout.readline().decode().strip())
    with pytest.raises(OSError, match="No space left"):
        (left / "file").write_bytes(bytes(1 << 21))
    with small_disk(1):
        assert left.is_mount()  # somebody has it
        maker.kill()
        maker.communicate()
    with small_disk(1) as own:
        assert own.is_mount()
        assert not left.exists()
    assert not own.exists()


def test_two_processes_share_a_home_and_one_can_be_lost(pair: Cluster) -> None:
    first, second = pair.worker(), pair.worker()
    assert hosts(pair) == {first.pid, second.pid}
    second.pause()
    wait_until(lambda: is_stopped(second.pid), "it was not stopped")
    second.resume()
    wait_until(lambda: not is_stopped(second.pid), "it did not go on")
    first.kill()
    wait_until(lambda: hosts(pair) == {second.pid}, "the dead one is still counted")
    assert second.terminate() == 0


def hosts(cluster: Cluster) -> set[int]:
    return {host.pid for host in LocalHosts(cluster.home / "run" / "hosts").list()}


ALIVE = (
    "SELECT count(*) FROM fleet_hosts JOIN procrastinate_workers AS w ON w.id = worker_id "
    "WHERE role = 'worker' AND last_heartbeat > now() - make_interval(secs => lease_seconds)"
)


def test_three_machines_have_their_addresses_and_can_be_lost(fleet: Fleet) -> None:
    workers = fleet.start_workers(3)
    seen = fleet.query(
        "SELECT DISTINCT client_addr FROM pg_stat_activity WHERE client_addr IS NOT NULL"
    )
    assert set(seen.split()) >= {machine.address for machine in fleet.machines}
    wait_until(lambda: fleet.query(ALIVE) == "3", "they did not join")

    fleet.machines[0].cut_off()
    workers[1].pause()
    took = wait_until(lambda: fleet.query(ALIVE) == "1", "they are still heard")
    assert took < 2 * LEASE_SECONDS
    fleet.machines[0].heal()
    workers[1].resume()
    wait_until(lambda: fleet.query(ALIVE) == "3", fleet.tell)
    workers[2].kill()
    wait_until(lambda: fleet.query(ALIVE) == "2", "the dead one is still counted")


def test_the_database_can_be_lost_and_comes_back(fleet: Fleet) -> None:
    worker = fleet.cluster.worker(machine=fleet.machines[0])
    wait_until(lambda: fleet.query(ALIVE) == "1", "it did not join")
    fleet.server.kill()
    fleet.server.start()
    wait_until(lambda: fleet.query(ALIVE) == "1", worker.text)
    fleet.server_machine.cut_off()
    wait_until(lambda: fleet.query(ALIVE) == "0", "it is still heard")
    fleet.server_machine.heal()
    wait_until(lambda: fleet.query(ALIVE) == "1", worker.text)
    fleet.server.pause()
    fleet.server.resume()
    wait_until(lambda: fleet.query(ALIVE) == "1", worker.text)
