"""Machines whose workers share one PostgreSQL, and what can befall each of them."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import psycopg

from tests.fleet.network import Machine
from tests.postgres.server import PostgresServer
from tests.recovery.kills.home import Home, Process, wait_until
from tests.recovery.kills.journal import query

HELD_SECONDS = 0.3
"""How long the disk stays full, or all connections taken."""
_HOSTS = "SELECT pid FROM fleet_hosts WHERE role <> 'client'"
_OTHERS = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
    "WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
)


class FleetHome(Home):
    """Commands come by the Unix socket; each worker has a machine, and a home, of its own."""

    def __init__(
        self,
        root: Path,
        server: PostgresServer,
        database: str,
        machines: tuple[Machine, ...],
        **settings: str,
    ) -> None:
        self.server = server
        self.database = database
        self.machines = machines
        self.url = server.socket_url(database)
        super().__init__(root, SWARM_DATABASE_URL=self.url, **settings)
        self._places = [
            self.nursery(
                machine.command,
                SWARM_DATABASE_URL=server.url(database),
                SWARM_HOME=f"{self.root}-{number}",
            )
            for number, machine in enumerate(machines)
        ]

    @property
    def journal(self) -> str:
        return self.url

    def start_worker(self, number: int) -> Process:
        """Start a worker on a machine; it says ``ready`` when it takes part."""
        return self.start(f"worker{number}", "worker", at=self._places[number])

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
            with suppress(psycopg.Error):
                return query(self.url, "SELECT 1 AS one") == [{"one": 1}]
            return False

        wait_until(answers, self.server.log())

    def kill_server(self) -> None:
        self.server.kill()
        self.server.start()

    def restart_server(self) -> None:
        self.server.restart()

    def end_backends(self) -> None:
        query(self.url, _OTHERS)

    def exhaust_connections(self) -> None:
        """End all connections, and take all that there are: nobody comes in for a while."""
        with ExitStack() as taken:
            own: psycopg.Connection[Any] = taken.enter_context(
                psycopg.connect(self.url, autocommit=True)
            )
            own.execute(_OTHERS.encode())
            ends = time.monotonic() + HELD_SECONDS
            while time.monotonic() < ends:
                with suppress(psycopg.Error):
                    taken.enter_context(psycopg.connect(self.url))
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
