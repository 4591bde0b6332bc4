"""What is looked at in a soak: processes, tables, files, and the write-ahead log."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from psycopg import AsyncConnection

_TABLES = """
SELECT class.relname, pg_total_relation_size(class.oid), pg_indexes_size(class.oid),
       coalesce(stat.n_live_tup, 0), coalesce(stat.n_dead_tup, 0),
       coalesce(stat.autovacuum_count, 0)
FROM pg_class AS class
JOIN pg_stat_user_tables AS stat ON stat.relid = class.oid
WHERE class.relkind = 'r' ORDER BY class.relname
"""
_SERVER = """
SELECT pg_database_size(current_database()), pg_current_wal_insert_lsn() - '0/0',
       (SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()),
       (SELECT count(*) FROM workflow_runs WHERE status = 'pending'),
       (SELECT count(*) FROM procrastinate_jobs WHERE status = 'todo'),
       (SELECT coalesce(extract(epoch FROM now() - min(event.at)), 0)
        FROM procrastinate_jobs AS job JOIN procrastinate_events AS event
        ON event.job_id = job.id AND event.type = 'deferred' WHERE job.status = 'todo'),
       (SELECT coalesce(sum(size), 0) FROM blobs WHERE state = 'present')
"""
_SCALE = {"Pss:": 1024, "Rss:": 1024, "Anonymous:": 1024}
_TICKS = os.sysconf("SC_CLK_TCK")


class Watch:
    """Takes samples of one fleet."""

    def __init__(
        self,
        database: AsyncConnection[Any],
        server_pid: int,
        workers: dict[str, tuple[int, Path]],
        disk: Path,
    ) -> None:
        """
        Args:
            database: a connection of its own.
            server_pid: PostgreSQL's first process.
            workers: process and home of each.
            disk: a folder of the disk that must not fill up.
        """
        self._database = database
        self._server_pid = server_pid
        self._workers = workers
        self._disk = disk
        self._begun = time.monotonic()
        self.samples: list[dict[str, float]] = []

    def begin(self) -> None:
        """Count seconds from now on."""
        self._begun = time.monotonic()

    async def look(self) -> dict[str, float]:
        """Take a sample."""
        sample: dict[str, float] = {"at": time.monotonic() - self._begun}
        for name, (pid, home) in self._workers.items():
            sample |= await asyncio.to_thread(of_worker, name, pid, home)
        sample |= await asyncio.to_thread(of_server, self._server_pid)
        sample |= of_machine()
        cursor = await self._database.execute(_SERVER)
        row = await cursor.fetchone()
        assert row is not None
        names = ("database bytes", "log written", "connections", "pending", "queue", "lag", "blobs")
        sample |= {name: float(value) for name, value in zip(names, row, strict=True)}
        sample["artifact bytes"] = sample.pop("blobs")
        cursor = await self._database.execute(_TABLES)
        for name, total, indexes, live, dead, vacuums in await cursor.fetchall():
            sample[f"{name} bytes"] = float(total)
            sample[f"{name} indexes"] = float(indexes)
            sample[f"{name} rows"] = float(live)
            sample[f"{name} dead"] = float(dead)
            sample[f"{name} vacuums"] = float(vacuums)
        sample["disk free"] = float(shutil.disk_usage(self._disk).free)
        self.samples.append(sample)
        return sample


def of_worker(name: str, pid: int, home: Path) -> dict[str, float]:
    """A worker by itself, with all its sandboxes, and its home."""
    found: dict[str, float] = {}
    with suppress(FileNotFoundError, ProcessLookupError):
        memory = memory_of(pid)
        family = list(descendants(pid))
        found = {
            f"{name} memory": memory["Pss:"],
            f"{name} resident": memory["Rss:"],
            f"{name} descriptors": count_of(f"/proc/{pid}/fd"),
            f"{name} threads": count_of(f"/proc/{pid}/task"),
            f"{name} children": float(len(family)),
            f"{name} processor": processor_seconds(pid),
        }
    total = found.get(f"{name} memory", 0.0)
    for child in family if found else ():
        with suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            total += memory_of(child)["Pss:"]
    if found:
        found[f"{name} with its sandboxes memory"] = total
    files = size = 0
    for folder, _, names in os.walk(home):
        for file in names:
            with suppress(FileNotFoundError):
                size += Path(folder, file).lstat().st_blocks * 512
                files += 1
    return {**found, f"{name} home files": float(files), f"{name} home bytes": float(size)}


def of_server(pid: int) -> dict[str, float]:
    """PostgreSQL's own memory, without what its processes share."""
    anonymous = processor = 0.0
    count = 0
    for process in (pid, *descendants(pid)):
        with suppress(FileNotFoundError, ProcessLookupError):
            anonymous += memory_of(process)["Anonymous:"]
            count += 1
    with suppress(FileNotFoundError):
        processor = processor_seconds(pid) + sum(map(running_seconds, descendants(pid)))
    return {"server memory": anonymous, "server processes": count, "server processor": processor}


def of_machine() -> dict[str, float]:
    """Processor time of this process, and of all that this machine does."""
    user, nice, system, idle, waiting, *rest = map(
        int, Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
    )
    busy = user + nice + system + sum(rest)
    return {
        "asker processor": processor_seconds(os.getpid()),
        "machine busy": busy / _TICKS,
        "machine idle": (idle + waiting) / _TICKS,
    }


def count_of(folder: str) -> float:
    return float(sum(1 for _ in Path(folder).iterdir()))


def memory_of(pid: int) -> dict[str, float]:
    """Bytes by the kernel's own account."""
    found = dict.fromkeys(_SCALE, 0.0)
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        name, *rest = line.split()
        if name in found:
            found[name] = float(rest[0]) * _SCALE[name]
    return found


def processor_seconds(pid: int) -> float:
    """Of a process and its children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / _TICKS


def running_seconds(pid: int) -> float:
    try:
        return processor_seconds(pid)
    except (FileNotFoundError, ProcessLookupError):
        return 0.0


def descendants(pid: int) -> Iterator[int]:
    """The processes below one, which may be ending."""
    with suppress(FileNotFoundError, ProcessLookupError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            children = (task / "children").read_text().split()
            for child in map(int, children):
                yield child
                yield from descendants(child)
