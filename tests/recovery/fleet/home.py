"""Machines whose workers share one PostgreSQL, and what can befall each of them."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from tests.fleet.network import Machine
from tests.postgres.bouncer import Bouncer
from tests.postgres.server import PostgresServer
from tests.recovery.kills.home import Home, Process, Surroundings, wait_until
from tests.recovery.kills.journal import query

HELD_SECONDS = 0.3
"""How long the disk stays full, or all connections taken."""
_HOSTS = "SELECT pid FROM fleet_hosts WHERE role <> 'client'"
_OTHERS = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
    "WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
)


@dataclass(frozen=True)
class Place:
    """The machines, and the database of them all."""

    server: PostgresServer
    database: str
    server_machine: Machine
    machines: tuple[Machine, ...]
    bouncer: Bouncer
    """On the last machine: what runs there reaches the database through it."""

    def addresses(self, number: int) -> dict[str, str]:
        """The settings of a machine that say where the database is."""
        url = self.server.url(self.database)
        if number < len(self.machines) - 1:
            return {"SWARM_DATABASE_URL": url}
        own = f"{self.server.address}:{self.server.port}"
        pooled = url.replace(own, f"127.0.0.1:{self.bouncer.port}")
        return {"SWARM_DATABASE_URL": pooled, "SWARM_DATABASE_LISTEN_URL": url}


class FleetHome(Home):
    """Commands come by the Unix socket; each worker has a machine, and a home, of its own."""

    def __init__(self, root: Path, place: Place, **settings: str) -> None:
        self.place = place
        self.server = place.server
        self.machines = place.machines
        self.url = place.server.socket_url(place.database)
        super().__init__(root, SWARM_DATABASE_URL=self.url, **settings)
        self.surroundings = [
            Surroundings(
                machine.network, {"SWARM_HOME": f"{self.root}-{number}", **place.addresses(number)}
            )
            for number, machine in enumerate(place.machines)
        ]
        """Of programs on each machine."""
        self._asked = root / "asked"
        self._asked.mkdir()

    @property
    def journal(self) -> str:
        return self.url

    def start_worker(self, number: int) -> Process:
        """Start a worker on a machine; it says ``ready`` when it takes part."""
        return self.start(f"worker{number}", "worker", at=self.surroundings[number])

    def write_requests(self, text: str) -> str:
        """Keep what a program is to ask for (see ``asking``); gives the file's path."""
        file = self._asked / str(len(list(self._asked.iterdir())))
        file.write_text(text)
        return str(file)

    def hosts(self) -> list[int]:
        """The processes that drive runs, as they have told the others."""
        return [row["pid"] for row in query(self.url, _HOSTS) if self.owns(row["pid"])]

    def crashes(self) -> list[str]:
        reports = self.root.parent.glob("home*/registry/logs/crash-*.txt")
        return [report.read_text() for report in reports]

    # -- what befalls the database ---------------------------------------------------------------

    def until_answered(self) -> None:
        """Wait until the database answers; a server that has given up is started again."""

        def answers() -> bool:
            if not self.server.is_running:
                self.server.start()
            with suppress(psycopg.Error), psycopg.connect(self.url):
                return True
            return False

        wait_until(answers, self.server.log())

    def kill_server(self) -> None:
        self.server.kill()
        self.server.start()

    def restart_server(self) -> None:
        self.server.restart()

    def pause_server(self, seconds: float) -> None:
        """Have the server answer nobody for a while: its connections stay."""
        self.server.pause()
        time.sleep(seconds)
        self.server.resume()

    def end_backends(self) -> None:
        query(self.url, _OTHERS)

    def exhaust_connections(self) -> None:
        """End all connections, and take all that there are: nobody comes in for a while."""
        with ExitStack() as taken:
            own: psycopg.Connection[Any] = taken.enter_context(
                psycopg.connect(self.url, autocommit=True)
            )
            own.execute(_OTHERS.encode())
            ends = None
            while ends is None or time.monotonic() < ends:
                try:
                    taken.enter_context(psycopg.connect(self.url))
                except psycopg.Error:  # none is left, until somebody gives one up
                    ends = ends or time.monotonic() + HELD_SECONDS
        self.until_answered()

    def fill_disk(self) -> None:
        """Leave the server no room; it may well give up."""
        ballast = self.server.folder / "ballast"
        with ballast.open("wb", buffering=0) as file:
            ends = time.monotonic() + HELD_SECONDS
            while time.monotonic() < ends:
                with suppress(OSError):  # full, until the server lets something go
                    file.write(bytes(1 << 16))
                    continue
                os.sched_yield()
        ballast.unlink()
        self.until_answered()

    def restart_bouncer(self) -> None:
        """Kill what stands between a machine and the database, and start it again."""
        self.place.bouncer.kill()
        self.place.bouncer.start()
