"""A run outlives its worker, on other machines, and no two workers write it."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.conftest import SCALE
from tests.fleet.cluster import SwarmProcess, wait_until
from tests.fleet.conftest import LEASE_SECONDS, Fleet, Ledger

pytestmark = pytest.mark.alone
AIM_SECONDS = 5.0
"""From a worker's loss to its run's next attempt elsewhere, with the lease of these tests."""
HARD_LIMIT_SECONDS = 20.0
"""What the test allows on a machine that is busy with other tests; the time is printed."""
PAUSE_MS = 8_000


def cut_off(worker: SwarmProcess) -> None:
    assert worker.machine is not None
    worker.machine.cut_off()


def heal(worker: SwarmProcess) -> None:
    assert worker.machine is not None
    worker.machine.heal()


def stay(worker: SwarmProcess) -> None:
    """The dead stay dead."""


FATES = {
    "killed": (SwarmProcess.kill, stay),
    "paused": (SwarmProcess.pause, SwarmProcess.resume),
    "cut off": (cut_off, heal),
}
"""What befalls a worker, and how it ends."""


def begin(fleet: Fleet, ledger: Ledger, pause_ms: int = PAUSE_MS) -> str:
    """Start a run and wait until its second step has begun."""
    inputs = json.dumps({"ledger": ledger.address, "pause_ms": pause_ms})
    fleet.cluster.run("run", "flow", inputs, "--isolation", "none", "--detach")
    wait_until(lambda: len(ledger.begun(2)) == 1, fleet.tell)
    return fleet.query("SELECT id FROM workflow_runs")


def owner_of(fleet: Fleet, run_id: str) -> SwarmProcess:
    pid = fleet.query(
        "SELECT host.pid FROM fleet_hosts AS host JOIN workflow_runs AS run ON run.owner = host.id "
        f"WHERE run.id = '{run_id}'"
    )
    return next(one for one in fleet.cluster.processes if str(one.pid) == pid)


def until_succeeded(fleet: Fleet, run_id: str) -> None:
    state = f"SELECT status FROM workflow_runs WHERE id = '{run_id}'"
    wait_until(lambda: fleet.query(state) == "succeeded", fleet.tell)


CHOSEN = tuple(FATES) if SCALE == "full" else ("cut off",)
"""Kills and pauses are the daily bread of the fleet's crash suite."""


@pytest.mark.parametrize("fate", CHOSEN)
def test_a_run_goes_on_where_its_worker_is_lost(
    fleet: Fleet, ledger: Ledger, fate: str, record_property: Callable[[str, object], None]
) -> None:
    fleet.start_workers(3)
    run_id = begin(fleet, ledger)
    lost = owner_of(fleet, run_id)
    befall, end = FATES[fate]
    befall(lost)
    took = wait_until(lambda: len(ledger.begun(2)) == 2, fleet.tell)
    record_property(
        "measured",
        f"worker {fate} to the agent's next attempt on another machine {took:.1f} s "
        f"(lease {LEASE_SECONDS:g} s, aim {AIM_SECONDS:g} s)",
    )
    assert took < HARD_LIMIT_SECONDS
    assert owner_of(fleet, run_id) is not lost
    # It wakes up while another drives its run: whatever it still wants to write comes to nothing.
    end(lost)
    until_succeeded(fleet, run_id)
    assert ledger.begun(1) == [1], "a finished step was run again"
    assert ledger.begun(2) == [1, 2]
    assert fleet.query(f"SELECT epoch FROM workflow_runs WHERE id = '{run_id}'") == "2"
    if fate != "killed":
        joined = "SELECT count(*) FROM fleet_hosts WHERE role = 'worker'"
        wait_until(lambda: fleet.query(joined) == "3", fleet.tell)


def test_a_worker_that_is_told_to_stop_leaves_its_runs_to_others(
    fleet: Fleet, ledger: Ledger
) -> None:
    fleet.start_workers(2)
    run_id = begin(fleet, ledger, pause_ms=4_000)
    stopped = owner_of(fleet, run_id)
    assert stopped.terminate() == 0, stopped.text()
    until_succeeded(fleet, run_id)
    # It had the time that it was given, and that was not enough.
    assert (ledger.begun(1), ledger.begun(2)) == ([1], [1, 2])
    assert owner_of(fleet, run_id) is not stopped


def test_a_run_outlives_the_death_of_the_database(fleet: Fleet, ledger: Ledger) -> None:
    fleet.start_workers(2)
    run_id = begin(fleet, ledger, pause_ms=2_000)
    fleet.server.kill()
    fleet.server.start()
    until_succeeded(fleet, run_id)
    assert ledger.begun(1) == [1], "a finished step was run again"


def test_a_cancellation_reaches_the_worker(fleet: Fleet, ledger: Ledger) -> None:
    fleet.start_workers(2)
    run_id = begin(fleet, ledger, pause_ms=100_000)
    fleet.cluster.run("runs", "cancel", run_id)
    assert fleet.query("SELECT status FROM workflow_runs") == "cancelled"


def test_a_second_job_for_a_run_changes_nothing(fleet: Fleet, ledger: Ledger) -> None:
    fleet.start_workers(2)
    run_id = begin(fleet, ledger, pause_ms=3_000)
    for _ in range(3):
        fleet.query(
            "SELECT procrastinate_defer_jobs_v1(ARRAY[ROW('swarm', 'swarm.drive', 0, NULL, NULL, "
            f"jsonb_build_object('run_id', '{run_id}'), NULL)::procrastinate_job_to_defer_v1])"
        )
    until_succeeded(fleet, run_id)
    assert (ledger.begun(1), ledger.begun(2)) == ([1], [1])
