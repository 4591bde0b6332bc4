"""Where runs go: to workers with their labels, and called runs of many items to all workers."""

from __future__ import annotations

import json
from pathlib import Path

from tests.fleet.cluster import wait_until
from tests.fleet.conftest import Fleet, Ledger

GPU = """\
name: needs-gpu
version: 1.0.0
runs_on: [gpu]
steps: [{id: only, agent: inside, inputs: {salt: 1, number: 1}}]
"""
ITEM = """\
name: item
version: 1.0.0
inputs: [{name: number, type: integer}]
steps: [{id: only, agent: inside, inputs: {salt: 1, number: "${inputs.number}", pause_ms: 500}}]
outputs: {value: "${steps.only.outputs.value}"}
"""
MANY = """\
name: many
version: 1.0.0
steps:
  - id: each
    workflow: item
    for_each: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]
    inputs: {number: "${item}"}
outputs: {values: "${steps.each.outputs|map(attribute='value')|list}"}
"""


def register(fleet: Fleet, folder: Path, text: str) -> None:
    file = folder / "placed.yaml"
    file.write_text(text)
    fleet.cluster.run("workflow", "register", str(file))


def test_a_run_waits_for_a_worker_that_has_its_labels(fleet: Fleet, tmp_path: Path) -> None:
    register(fleet, tmp_path, GPU)
    fleet.start_workers(1)
    started = fleet.cluster.start("run", "needs-gpu", "--isolation", "none", "--quiet")
    started.until("waits for a worker with the label gpu; none is there")
    run_id = fleet.query("SELECT id FROM workflow_runs")
    shown = fleet.cluster.run_all("runs", "show", run_id)
    assert "waits for a worker with the label gpu; none is there" in shown
    status = fleet.cluster.read("status")
    assert [queue["queue"] for queue in status["queues"]] == ["swarm:gpu"]
    assert "worker" in [host["role"] for host in status["hosts"]]
    assert status["lag_seconds"] > 0
    # Should its job be lost, whoever comes finds it all the same.
    fleet.query("DELETE FROM procrastinate_jobs")
    able = fleet.cluster.worker("--label", "gpu", "--label", "team:x", machine=fleet.machines[1])
    assert started.wait() == 0, started.text()
    pid = fleet.query("SELECT pid FROM fleet_hosts JOIN workflow_runs ON owner = fleet_hosts.id")
    assert pid == str(able.pid)


def test_called_runs_of_many_items_are_driven_on_all_machines(fleet: Fleet, tmp_path: Path) -> None:
    register(fleet, tmp_path, ITEM)
    register(fleet, tmp_path, MANY)
    fleet.start_workers(3)
    started = fleet.cluster.start("run", "many", "--isolation", "none", "--json")
    assert started.wait() == 0, started.text() + fleet.tell()
    parent = "SELECT status FROM workflow_runs WHERE parent_run_id IS NULL"
    assert fleet.query(parent) == "succeeded"
    owners = fleet.query("SELECT DISTINCT owner FROM workflow_runs WHERE parent_run_id IS NOT NULL")
    assert len(owners.split()) > 1
    assert fleet.query("SELECT count(*) FROM invocations") == "12", "an item was run twice"
    wait_until(lambda: fleet.query("SELECT count(*) FROM procrastinate_jobs") == "0", "jobs stay")


def test_without_a_worker_a_command_drives_its_run_itself(fleet: Fleet, ledger: Ledger) -> None:
    inputs = json.dumps({"ledger": ledger.address})
    fleet.cluster.run("run", "flow", inputs, "--isolation", "none")
    assert (ledger.begun(1), ledger.begun(2)) == ([1], [1])
