"""DBOS on PostgreSQL: workers take runs from a queue, polled every second as installed. An argument
sets another interval, and a limit of runs per worker, without which the first worker takes all.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from pathlib import Path

import fleet_work as work
from dbos import DBOS, DBOSClient

QUEUE = "bench"
POLL_SECONDS = 1.0
"""As installed."""


@DBOS.step()
async def no_op(value: int) -> int:
    return value + 1


@DBOS.step()
async def mark(name: str, value: int) -> int:
    TELLERS[0].tell(name)
    return value + 1


@DBOS.workflow()
async def run_steps(kind: str, name: str, steps: int) -> int:
    value = 0
    for step in range(steps):
        if work.tells(kind, step, steps):
            value = await mark(name, value)
        else:
            value = await no_op(value)
    return value


TELLERS: list[work.Teller] = []


def launch(url: str) -> None:
    DBOS(
        config={
            "name": "bench",
            "system_database_url": url,
            "log_level": "ERROR",
            "executor_id": f"worker-{os.getpid()}",
        }
    )
    DBOS.launch()


class Dbos:
    """See :class:`fleet_work.Asker`."""

    ended = (
        "SELECT count(*) FROM dbos.workflow_status WHERE status = 'SUCCESS' AND name = 'run_steps'"
    )

    def __init__(self, client: DBOSClient, sizes: work.Sizes, poll_seconds: float) -> None:
        self._client = client
        self._steps = {"run": work.RUN_STEPS, "chain": sizes.chain, "first": 1}
        self.poll_seconds = poll_seconds

    async def ask(self, kind: str, name: str) -> None:
        await self._client.enqueue_async(
            {"queue_name": QUEUE, "workflow_name": run_steps.__qualname__},
            kind,
            name,
            self._steps[kind],
        )


async def prepare(url: str, interval: str | None) -> None:
    launch(url)
    if interval is None:
        await DBOS.register_queue_async(QUEUE)
    else:
        await DBOS.register_queue_async(
            QUEUE, polling_interval_sec=float(interval), worker_concurrency=work.RUNS_AT_ONCE
        )
    await asyncio.to_thread(DBOS.destroy)


def be_worker(url: str, folder: Path) -> None:
    TELLERS.append(work.Teller(folder))
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    launch(url)
    work.say_ready()
    stopped.wait()
    DBOS.destroy()


async def ask(url: str, folder: Path, sizes: work.Sizes, interval: str | None) -> None:
    client = DBOSClient(system_database_url=url)
    seconds = POLL_SECONDS if interval is None else float(interval)
    await work.measure(Dbos(client, sizes, seconds), url, folder, sizes)
    await asyncio.to_thread(client.destroy)


def main() -> None:
    role, url, folder, sizes, rest = work.arguments()
    interval = rest[0] if rest else None
    if role == "prepare":
        asyncio.run(prepare(url, interval))
    elif role == "work":
        be_worker(url, folder)
    else:
        asyncio.run(ask(url, folder, sizes, interval))


if __name__ == "__main__":
    main()
