"""Measure on this machine what benchmarks/capacity.toml says of Swarm, and print it.

usage: python benchmarks/measure_capacity.py [--database postgresql://...|private]

On SQLite, or with --database on an empty PostgreSQL of this machine whose commits wait for the disk
(psql and pgbench are used to ask it); `private` starts one. What is printed goes into capacity.toml
by hand: which of it is typical is for a person to say.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from private_postgres import find_binaries, running_server

PROGRAM = Path(__file__).parent / "engines" / "with_swarm.py"
STEPS_PER_RUN = 5
CURVE = (1, 2, 4, 16, 50)
CLIENTS = (1, 8, 32)
"""Connections that commit at once."""
DURABLE = Path("/var/tmp")
"""Where a private database lies: /tmp may be a RAM disk."""


def run_engine(folder: Path, work: str, runs: int, at_once: int, where: str = "instant") -> float:
    """The figure that the engine's program tells of one work."""
    sizes = {
        **{"chain": 400, "chains": 3, "runs": runs, "concurrency": at_once},
        **{"fan": 2, "fans": 1, "first": 1},
    }
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(folder), json.dumps(sizes), work, where],
        capture_output=True,
        text=True,
        check=True,
    )
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if "error" in told:
        raise RuntimeError(told["error"])
    samples = sorted(told["samples"])
    return float(samples[len(samples) // 2])


def processor_seconds() -> float:
    """Of all children so far, and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class Server:
    """A PostgreSQL on this machine."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._postmaster = self._first_process()

    def ask(self, sql: str) -> str:
        command = ["psql", "--no-psqlrc", "-qAt", "-c", sql, self.url]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    def _first_process(self) -> int:
        """The server's first process: the one that started the writer of its log."""
        text = self.ask("SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'")
        fields = Path(f"/proc/{text}/stat").read_text().rpartition(")")[2].split()
        return int(fields[1])

    def processor_seconds(self) -> float:
        """Of the connections that have ended, which is why this is asked between two programs."""
        fields = Path(f"/proc/{self._postmaster}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")

    def position(self) -> int:
        """How many bytes of log were ever written."""
        return int(self.ask("SELECT pg_current_wal_insert_lsn() - '0/0'").split(".")[0])

    def size(self) -> int:
        return int(self.ask("SELECT pg_database_size(current_database())"))


def committing(server: Server, clients: int, seconds: float, statement: str) -> float:
    """Commits per second of so many connections, each of one insert and ``statement``."""
    server.ask("CREATE TABLE IF NOT EXISTS capacity_probe (n int)")
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as script:
        script.write(f"BEGIN;\nINSERT INTO capacity_probe VALUES (1);\n{statement}COMMIT;\n")
        script.flush()
        done = subprocess.run(
            [
                pgbench(),
                *("--no-vacuum", "--protocol", "prepared", "--file", script.name),
                *("--client", str(clients), "--jobs", str(min(2, clients))),
                *("--time", f"{seconds:.0f}", server.url),
            ],
            capture_output=True,
            text=True,
            check=True,
        )
    server.ask("DROP TABLE capacity_probe")
    found = re.search(r"tps = ([0-9.]+)", done.stdout)
    if found is None:
        raise RuntimeError(f"pgbench did not tell a rate: {done.stdout}")
    return float(found[1])


def pgbench() -> str:
    """Comes with PostgreSQL's server, off the path on Debian."""
    folder = find_binaries()
    return "pgbench" if folder is None else str(folder / "pgbench")


def tell(name: str, value: float, unit: str) -> None:
    sys.stdout.write(f"{name:<28}{value:>12,.2f} {unit}\n")
    sys.stdout.flush()


def measure_engine(folder: Path, server: Server | None) -> None:
    """Chain, curve, and what is written per step."""
    tell("chain_ms", run_engine(folder / "chain", "chain", 1, 1), "ms per step")
    for at_once in CURVE:
        runs = 60 if at_once == 1 else 400
        position = server.position() if server else 0
        kept = server.size() if server else 0
        database, host = server.processor_seconds() if server else 0.0, processor_seconds()
        rate = run_engine(folder / f"runs-{at_once}", "runs", runs, at_once)
        tell(f"runs, {at_once} at once", rate, "steps/s")
        steps = (runs + 5) * STEPS_PER_RUN  # with those that warm it up
        tell("  host processor", (processor_seconds() - host) * 1000 / steps, "ms per step")
        if server is None:
            path = next((folder / f"runs-{at_once}").rglob("registry.db"))
            tell("  stored", path.stat().st_size / steps, "bytes per step")
        else:
            tell("  log", (server.position() - position) / steps, "bytes per step")
            tell("  stored", (server.size() - kept) / steps, "bytes per step")
            used = (server.processor_seconds() - database) * 1000 / steps
            tell("  database processor", used, "ms per step")


def measure_commits(server: Server, seconds: float) -> None:
    for title, statement in (("commits", ""), ("commits that notify", "NOTIFY capacity_probe;\n")):
        for clients in CLIENTS:
            rate = committing(server, clients, seconds, statement)
            tell(f"{title}, {clients} at once", rate, "commits/s")


def measure_swarm(server: Server | None) -> None:
    with tempfile.TemporaryDirectory(prefix=".swarm-bench-", dir=Path.home()) as folder:
        measure_engine(Path(folder), server)
        if server is None:
            before, calls = processor_seconds(), 200
            run_engine(Path(folder) / "sandbox", "runs", calls // STEPS_PER_RUN, 4, "sandbox")
            used = (processor_seconds() - before) * 1000 / (calls + 5 * STEPS_PER_RUN)
            tell("sandbox_cpu_ms", used, "ms per call, host included")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database", help="URL of an empty PostgreSQL here, or `private`")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each kind of commits")
    parser.add_argument("--commits-only", action="store_true", help="nothing of Swarm")
    options = parser.parse_args()
    server = None
    with ExitStack() as closing:
        url = options.database
        if url == "private":
            started = closing.enter_context(running_server(durable=True, parent=DURABLE))
            url = started.url(started.create_database())
        if url:
            os.environ["SWARM_DATABASE_URL"] = url
            server = Server(url)
            measure_commits(server, options.seconds)
        if not options.commits_only:
            measure_swarm(server)
    return 0


if __name__ == "__main__":
    sys.exit(main())
