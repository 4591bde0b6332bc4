"""What befalls the workers of a fleet, their network and their database."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress

from tests.recovery.fleet.home import FleetHome
from tests.recovery.kills.home import Process, wait_until

LEASE_SECONDS = 2.0
LONGEST_ILL_SECONDS = 2.5 * LEASE_SECONDS
"""A worker that is paused or cut off is so for this long at most: mostly past its lease."""
LONGEST_SERVER_PAUSE_SECONDS = 1.5 * LEASE_SECONDS

Misfortune = Callable[[], "str | None"]
"""Gives what it did, if it could do it."""


class Misfortunes:
    """Those of one fleet."""

    def __init__(self, fleet: FleetHome, workers: dict[int, Process], rng: random.Random) -> None:
        """``workers``: those that are there, by the numbers of their machines."""
        self._fleet = fleet
        self._workers = workers
        self._rng = rng
        self._ill: dict[int, tuple[float, Callable[[], None]]] = {}
        """The machines that are paused or cut off: until when, and what ends it."""

    def all(self) -> dict[Misfortune, int]:
        """How often each is."""
        fleet = self._fleet
        return {
            self._kill_worker: 5,
            self._kill_worker_group: 3,
            self._pause: 5,
            self._cut_off: 4,
            self._cut_one_way: 4,
            self._pause_server: 2,
            _strike("server killed", fleet.kill_server): 2,
            _strike("server restarted", fleet.restart_server): 1,
            _strike("backends ended", fleet.end_backends): 3,
            _strike("connections exhausted", fleet.exhaust_connections): 2,
            _strike("disk filled", fleet.fill_disk): 2,
            _strike("PgBouncer killed", fleet.restart_bouncer): 2,
        }

    def heal(self, now: float) -> None:
        """End what has lasted until ``now``."""
        for number, (ends, heal) in list(self._ill.items()):
            if ends <= now:
                heal()
                del self._ill[number]

    # -- workers ---------------------------------------------------------------------------------

    def _some_worker(self) -> tuple[int, Process] | None:
        living = [item for item in self._workers.items() if not item[1].has_ended]
        return self._rng.choice(living) if living else None

    def _kill_worker(self) -> str | None:
        if (chosen := self._some_worker()) is None:
            return None
        signal.pidfd_send_signal(chosen[1].pidfd, signal.SIGKILL)
        wait_until(lambda: chosen[1].has_ended, "a worker outlives SIGKILL")
        return "worker"

    def _kill_worker_group(self) -> str | None:
        if (chosen := self._some_worker()) is None:
            return None
        os.killpg(chosen[1].pid, signal.SIGKILL)  # not collected yet: the number is still its own
        wait_until(lambda: chosen[1].has_ended, "a worker outlives SIGKILL")
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

    # -- the network -----------------------------------------------------------------------------

    def _well(self) -> int | None:
        """A machine that nothing has befallen."""
        number = self._rng.randrange(len(self._fleet.machines))
        return None if number in self._ill else number

    def _cut_off(self) -> str | None:
        if (number := self._well()) is None:
            return None
        machine = self._fleet.machines[number]
        machine.cut_off()
        self._fall_ill(number, machine.heal)
        return "machine cut off"

    def _cut_one_way(self) -> str | None:
        if (number := self._well()) is None:
            return None
        machine, server = self._fleet.machines[number], self._fleet.place.server_machine
        is_heard = self._rng.random() < 0.5
        sender, receiver = (server, machine) if is_heard else (machine, server)
        sender.lose_what_goes_to(receiver)
        self._fall_ill(number, lambda: sender.find(receiver))
        return "machine that hears nothing" if is_heard else "machine that is not heard"

    def _fall_ill(self, number: int, heal: Callable[[], None]) -> None:
        ends = time.monotonic() + self._rng.uniform(0, LONGEST_ILL_SECONDS)
        self._ill[number] = (ends, heal)

    # -- the database ----------------------------------------------------------------------------

    def _pause_server(self) -> str:
        self._fleet.pause_server(self._rng.uniform(0, LONGEST_SERVER_PAUSE_SECONDS))
        return "server paused"


def _strike(name: str, befall: Callable[[], None]) -> Misfortune:
    def strike() -> str:
        befall()
        return name

    return strike
