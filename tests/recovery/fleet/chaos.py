"""Keeps three machines busy, and has misfortunes befall them and their database."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress

from tests.recovery.fleet.home import FleetHome
from tests.recovery.kills.chaos import MAX_UNFINISHED, Chaos
from tests.recovery.kills.home import Process, wait_until
from tests.recovery.kills.journal import query
from tests.recovery.kills.workflows import Flow

LEASE_SECONDS = 2.0
LONGEST_ILL_SECONDS = 2.5 * LEASE_SECONDS
"""A worker that is paused or cut off is so for this long at most: mostly past its lease."""
RECOVERY_SECONDS = 60.0
"""From the end of all misfortunes to the end of the last run; some of it goes to the commands that
answer and cancel, one after the other."""

OPEN_RUNS = (
    "SELECT id, workflow_name, status, owner, epoch, cancel_requested, parent_run_id, wake_at, "
    "concurrency_key, created_at, started_at FROM workflow_runs "
    "WHERE status IN ('pending', 'running', 'waiting')"
)
OPEN_STEPS = (
    "SELECT run_id, step_id, item_index, status, wait_kind, started_at FROM step_executions "
    "WHERE status IN ('pending', 'running', 'waiting')"
)

Misfortune = Callable[[], "str | None"]


class FleetChaos(Chaos):
    """What goes on in a fleet until enough has happened."""

    def __init__(self, home: FleetHome, flows: list[Flow], rng: random.Random) -> None:
        super().__init__(home, flows, "none", rng)
        self.fleet = home
        self.recovered_seconds = 0.0
        """From the end of all misfortunes to the end of the last run."""
        self._workers: dict[int, Process] = {}
        self._ill: dict[int, tuple[float, Callable[[], None]]] = {}
        """The machines that are paused or cut off: until when, and what ends it."""

    def begin(self) -> None:
        """Start the workers, and wait until each takes part."""
        self._keep_workers()
        for worker in self._workers.values():
            wait_until(
                lambda worker=worker: "ready" in worker.output.read_text(),  # type: ignore[misc]
                "a worker does not get ready",
            )

    def settle(self) -> None:
        """Let nothing more happen, and wait until every run has ended."""
        self._heal(float("inf"))
        self.fleet.until_answered()
        began = time.monotonic()
        while self._clients or self._unfinished():
            waited = time.monotonic() - began
            assert waited < RECOVERY_SECONDS, self._tell()
            self._keep_workers()
            for client in [client for client in self._clients if client.has_ended]:
                self._collect(client)
            for errand in self.outside.due():
                self._collect(self._send(errand))
            time.sleep(0.05)
        self.recovered_seconds = time.monotonic() - began
        for worker in self._workers.values():
            os.kill(worker.pid, signal.SIGTERM)
        for worker in self._workers.values():
            code = self.home.collect(worker)
            assert code == 0, f"a worker ended with {code}:\n{worker.output.read_text()}"
        wait_until(lambda: not self.home.processes(), "something was left running")
        self._check_finished()

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

    # -- commands --------------------------------------------------------------------------------

    def _keep_busy(self) -> None:
        self._heal(time.monotonic())
        self._keep_workers()
        super()._keep_busy()

    def _keep_workers(self) -> None:
        for number in range(len(self.fleet.machines)):
            worker = self._workers.get(number)
            if worker is not None and worker.has_ended:
                code = self.home.collect(worker)
                told = worker.output.read_text()
                # One that starts while the database is away says so, and its supervisor tries anew.
                assert code in (-signal.SIGKILL, 5), f"a worker ended with {code}:\n{told}"
                worker = None
            if worker is None:
                self._workers[number] = self.fleet.start_worker(number)

    def _kinds(self) -> dict[str, int]:
        if len(self._unfinished()) >= MAX_UNFINISHED:
            return {"resume": 1, "answer": 5, "event": 5, "cancel": 2}
        return {"run": 4, "detach": 9, "resume": 1, "answer": 5, "event": 3, "cancel": 1}

    # -- misfortunes -----------------------------------------------------------------------------

    def _victims(self) -> dict[Misfortune, int]:
        fleet = self.fleet
        return {
            self._kill_client: 3,
            self._kill_worker: 5,
            self._kill_worker_group: 3,
            self._kill_keeper: 1,
            self._kill_sandbox: 3,
            self._pause: 5,
            self._cut_off: 5,
            self._strike("server killed", fleet.kill_server): 2,
            self._strike("server restarted", fleet.restart_server): 1,
            self._strike("backends ended", fleet.end_backends): 3,
            self._strike("connections exhausted", fleet.exhaust_connections): 2,
            self._strike("disk filled", fleet.fill_disk): 2,
        }

    def _strike(self, name: str, befall: Callable[[], None]) -> Misfortune:
        def strike() -> str:
            befall()
            return name

        return strike

    def _some_worker(self) -> tuple[int, Process] | None:
        living = [item for item in self._workers.items() if not item[1].has_ended]
        return self._rng.choice(living) if living else None

    def _kill_worker(self) -> str | None:
        if (chosen := self._some_worker()) is None:
            return None
        signal.pidfd_send_signal(chosen[1].pidfd, signal.SIGKILL)
        return "worker"

    def _kill_worker_group(self) -> str | None:
        if (chosen := self._some_worker()) is None:
            return None
        os.killpg(chosen[1].pid, signal.SIGKILL)  # not collected yet: the number is still its own
        return "group of worker"

    def _pause(self) -> str | None:
        if (chosen := self._some_worker()) is None or chosen[0] in self._ill:
            return None
        number, worker = chosen

        def resume() -> None:
            with suppress(ProcessLookupError):  # it was killed meanwhile, but is not collected
                signal.pidfd_send_signal(descriptor, signal.SIGCONT)
            os.close(descriptor)

        descriptor = os.dup(worker.pidfd)
        signal.pidfd_send_signal(worker.pidfd, signal.SIGSTOP)
        self._fall_ill(number, resume)
        return "paused worker"

    def _cut_off(self) -> str | None:
        number = self._rng.randrange(len(self.fleet.machines))
        if number in self._ill:
            return None
        machine = self.fleet.machines[number]
        machine.cut_off()
        self._fall_ill(number, machine.heal)
        return "machine cut off"

    def _fall_ill(self, number: int, heal: Callable[[], None]) -> None:
        ends = time.monotonic() + self._rng.uniform(0, LONGEST_ILL_SECONDS)
        self._ill[number] = (ends, heal)

    def _heal(self, now: float) -> None:
        """End what has lasted until ``now``."""
        for number, (ends, heal) in list(self._ill.items()):
            if ends <= now:
                heal()
                del self._ill[number]
