"""Keeps three machines busy, and has misfortunes befall them and their database."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from swarm.kernel.json import JsonObject
from tests.recovery.fleet.home import FleetHome
from tests.recovery.fleet.misfortunes import Misfortune, Misfortunes
from tests.recovery.kills.asking import NAME as ASK
from tests.recovery.kills.chaos import KEYED, NUMBERS, Chaos
from tests.recovery.kills.home import HERE, Process, wait_until
from tests.recovery.kills.journal import Row, query
from tests.recovery.kills.outside import Errand
from tests.recovery.kills.workflows import Flow

RECOVERY_SECONDS = 240.0
"""From the end of all misfortunes to the end of the last run, on however slow a machine."""
STALL_SECONDS = 30.0
"""How long nothing may be recorded meanwhile: less than the time between the sweeps that are made
without a reason."""
RESTART_SECONDS = 0.5
"""From the start of a worker until it is started again, should it have ended."""
RUNS_EACH = 5
"""Runs that begin before each misfortune, if they can within LONGEST_BETWEEN_SECONDS."""
LONGEST_BETWEEN_SECONDS = 4.0
MOST_OF_A_FLOW = 6
"""Runs of a workflow on their way from which on no new ones are asked for."""
MOST_AT_ONCE = 10
"""Runs, answers and the like that one program asks for."""
SANDBOXED = 0.1
"""Share of the runs that are isolated."""
ELSEWHERE = 0.7
"""Share of the programs that run on a worker's machine, and not where the database is."""
TWICE = 0.3
"""Share of the programs that are started on two machines at once."""

_OPEN = "status IN ('pending', 'running', 'waiting')"
OPEN_RUNS = (
    "SELECT id, workflow_name, status, owner, epoch, cancel_requested, parent_run_id, wake_at, "
    f"concurrency_key, created_at, started_at FROM workflow_runs WHERE {_OPEN}"
)
OPEN_STEPS = (
    "SELECT run_id, step_id, item_index, status, wait_kind, started_at FROM step_executions "
    f"WHERE {_OPEN}"
)
OPEN_FLOWS = (
    f"SELECT workflow_name AS name, count(*) AS runs FROM workflow_runs WHERE {_OPEN} "
    "AND parent_run_id IS NULL GROUP BY workflow_name"
)
OWNERS = "SELECT host.pid FROM fleet_hosts AS host JOIN workflow_runs AS run ON run.owner = host.id"
QUEUED = "SELECT count(*) AS jobs FROM procrastinate_jobs WHERE status = 'todo'"
COUNTED = "SELECT count(*) AS count FROM workflow_runs"
RECORDED = (
    "SELECT (SELECT sum(epoch) FROM workflow_runs) AS claims, "
    "(SELECT count(*) FROM invocations) AS attempts, status, count(*) AS steps "
    "FROM step_executions GROUP BY status ORDER BY status"
)


class FleetChaos(Chaos):
    """What goes on in a fleet until enough has happened."""

    clients_at_once = 3

    def __init__(
        self, home: FleetHome, flows: list[Flow], enduring: Flow, rng: random.Random
    ) -> None:
        """
        Args:
            home: the machines.
            flows: what is run.
            enduring: one of them, whose runs take long.
            rng: the choices.
        """
        super().__init__(home, flows, "none", rng)
        self.fleet = home
        self.recovered_seconds = self.lag_seconds = 0.0
        """From the end of all misfortunes to the end of the last run, and of the queue."""
        self._enduring = enduring
        self._workers: dict[int, Process] = {}
        self._started_at: dict[int, float] = {}
        self._misfortunes = Misfortunes(home, self._workers, rng)
        self._asked: dict[Path, tuple[Sequence[JsonObject], Sequence[Errand]]] = {}
        """What programs ask for, by their output; and whose errands those are."""
        self._under_way: set[tuple[str, str, str]] = set()
        self._keyed: list[JsonObject] = []

    def begin(self) -> None:
        """Start the workers, and wait until each takes part."""

        def are_ready() -> bool:
            self._keep_workers()
            return all(
                not worker.has_ended and "ready" in worker.output.read_text()
                for worker in self._workers.values()
            )

        wait_until(are_ready, "a worker does not get ready")

    def settle(self) -> None:
        """Lose one worker for good, let nothing more happen, and wait until every run has ended."""
        self._misfortunes.heal(float("inf"))
        self.fleet.until_answered()
        self.begin()
        self._clients.append(self._ask([self._request(self._enduring) for _ in range(4)]))
        wait_until(self._lose_worker, "no worker drives a run")
        began = changed = time.monotonic()
        recorded: list[Row] = []
        while self._clients or self._unfinished():
            waited = time.monotonic() - began
            if (latest := query(self.fleet.url, RECORDED)) != recorded:
                recorded, changed = latest, time.monotonic()
            is_stalled = time.monotonic() - changed > STALL_SECONDS
            assert waited < RECOVERY_SECONDS and not is_stalled, self._tell()
            for client in [client for client in self._clients if client.has_ended]:
                self._collect(client)
            if not self._under_way and (errands := self._due()):  # a program costs half a second
                self._clients.append(self._send_all(errands))
            if query(self.fleet.url, QUEUED) != [{"jobs": 0}]:
                self.lag_seconds = waited
            time.sleep(0.05)
        self.recovered_seconds = time.monotonic() - began
        for worker in self._workers.values():
            os.kill(worker.pid, signal.SIGTERM)
        for worker in self._workers.values():
            code = self.home.collect(worker)
            assert code == 0, f"a worker ended with {code}:\n{worker.output.read_text()}"
        wait_until(lambda: not self.home.processes(), "something was left running")
        self._check_finished()

    def _lose_worker(self) -> bool:
        """Kill one that drives runs, for good: a new one would look for runs as it starts, but
        here it is for the others to notice."""
        owners = {row["pid"] for row in query(self.fleet.url, OWNERS)}
        for number, worker in self._workers.items():
            if worker.pid in owners and not worker.has_ended:
                signal.pidfd_send_signal(worker.pidfd, signal.SIGKILL)
                self.home.collect(self._workers.pop(number))
                self.kills["worker for good"] += 1
                return True
        return False

    def _tell(self) -> str:
        """What is known of those runs that do not end."""
        rows = [
            *query(self.fleet.url, OPEN_RUNS),
            *query(self.fleet.url, OPEN_STEPS),
            *query(self.fleet.url, "SELECT * FROM fleet_hosts"),
            *query(self.fleet.url, "SELECT * FROM procrastinate_jobs"),
        ]
        told = [client.output.read_text() for client in (*self._clients, *self._workers.values())]
        return "\n".join(("these runs do not end:", *map(str, rows), *told))

    # -- who is there ----------------------------------------------------------------------------

    def _keep_busy(self) -> None:
        """Keep runs beginning, so that whatever happens next befalls some of them."""
        wanted = RUNS_EACH * (self.kills.total() + 1)
        ends = time.monotonic() + LONGEST_BETWEEN_SECONDS
        while True:
            self._misfortunes.heal(time.monotonic())
            self._keep_workers()
            super()._keep_busy()
            (counted,) = query(self.fleet.url, COUNTED)
            if counted["count"] >= wanted or time.monotonic() >= ends:
                return
            time.sleep(0.02)

    def _keep_workers(self) -> None:
        for number in range(len(self.fleet.machines)):
            worker = self._workers.get(number)
            if worker is not None and worker.has_ended:
                if time.monotonic() < self._started_at[number] + RESTART_SECONDS:
                    continue
                code = self.home.collect(worker)
                told = worker.output.read_text()
                # One that starts while the database is away says so, and its supervisor tries anew.
                assert code in (-signal.SIGKILL, 5), f"a worker ended with {code}:\n{told}"
                worker = None
            if worker is None:
                self._workers[number] = self.fleet.start_worker(number)
                self._started_at[number] = time.monotonic()

    def _victims(self) -> dict[Misfortune, int]:
        return {
            self._kill_client: 3,
            self._kill_keeper: 1,
            self._kill_sandbox: 3,
            **self._misfortunes.all(),
        }

    # -- what is asked for -----------------------------------------------------------------------

    def _kinds(self) -> dict[str, int]:
        kinds = {"errands": 6, "resume": 1, "answer": 1, "event": 1, "cancel": 1}
        return kinds | {"batch": 8, "run": 2, "detach": 2} if self._free_flows() else kinds

    def _free_flows(self) -> list[Flow]:
        """Those of which another run may begin, as often as it may."""
        going = {row["name"]: row["runs"] for row in query(self.fleet.url, OPEN_FLOWS)}
        return [
            flow for flow in self._flows for _ in range(MOST_OF_A_FLOW - going.get(flow.name, 0))
        ]

    def _start(self, kind: str) -> Process:
        if kind == "errands" and (errands := self._due()):
            return self._send_all(errands)
        if kind in ("errands", "batch") and (free := self._free_flows()):
            flows = self._rng.sample(free, min(len(free), self._rng.randint(1, MOST_AT_ONCE)))
            requests = [self._request(flow) for flow in flows]
            keyed = [request for request in requests if request["key"] is not None]
            if keyed and self._rng.random() < TWICE:
                self._clients.append(self._ask(keyed))
            return self._ask(requests)
        return super()._start("resume" if kind in ("errands", "batch") else kind)

    def _request(self, flow: Flow) -> JsonObject:
        """A new run of ``flow``, or one that was asked for before, by its idempotency key."""
        is_keyed = self._rng.random() < KEYED
        if is_keyed and self._keyed and self._rng.random() < 0.5:
            return self._rng.choice(self._keyed[-MOST_AT_ONCE:])
        inputs: JsonObject = {"number": self._rng.randrange(NUMBERS)}
        is_isolated = self._rng.random() < SANDBOXED
        if not is_isolated:
            inputs["ledger"] = str(self.home.ledger)
        request: JsonObject = {
            "kind": "start",
            "workflow": flow.name,
            "inputs": inputs,
            "isolation": "sandbox" if is_isolated else "none",
            "key": f"key-{len(self._keyed)}-{flow.name}" if is_keyed else None,
        }
        if is_keyed:
            self._keyed.append(request)
        return request

    def _due(self) -> list[Errand]:
        """Errands without which no run goes on, and on which nobody is."""
        return [errand for errand in self.outside.due() if _subject(errand) not in self._under_way]

    def _send_all(self, errands: list[Errand]) -> Process:
        chosen = self._rng.sample(errands, min(len(errands), MOST_AT_ONCE))
        for errand in chosen:
            self.outside.start(errand)
            self._under_way.add(_subject(errand))
        return self._ask([errand.request for errand in chosen], chosen)

    def _ask(self, requests: Sequence[JsonObject], errands: Sequence[Errand] = ()) -> Process:
        """Have a program ask for all of these, here or on some machine."""
        file = self.fleet.write_requests("".join(json.dumps(each) + "\n" for each in requests))
        is_elsewhere = self._rng.random() < ELSEWHERE
        process = self.home.start(
            ASK, ASK, file, at=self._rng.choice(self.fleet.surroundings) if is_elsewhere else HERE
        )
        self._asked[process.output] = (requests, errands)
        return process

    def _collect(self, client: Process) -> None:
        if client.output not in self._asked:
            super()._collect(client)
            return
        self._clients.remove(client)
        code = self.home.collect(client)
        told = client.output.read_text()
        assert code in (0, 5, -signal.SIGKILL), f"a program ended with {code}:\n{told}"
        requests, errands = self._asked.pop(client.output)
        self._under_way -= {_subject(errand) for errand in errands}
        for line in told.splitlines():
            match line.split(" ", 2):
                case ["started", number, run_id]:
                    if (key := requests[int(number)]["key"]) is not None:
                        self.told.setdefault(key, []).append({run_id})
                case ["done", number]:
                    self.outside.end(errands[int(number)])


def _subject(errand: Errand) -> tuple[str, str, str]:
    return errand.kind, errand.run_id, errand.subject
