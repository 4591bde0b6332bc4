"""DBOS on SQLite, as installed: it leaves the database in SQLite's own mode (a rollback journal,
`synchronous=FULL`), and its queues are polled every second. An argument sets another interval.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path

import work
from dbos import DBOS, DBOSClient

QUEUE = "bench"


@DBOS.step()
async def no_op(value: int) -> int:
    return value + 1


@DBOS.step()
async def clock() -> int:
    return time.monotonic_ns()


@DBOS.workflow()
async def run_chain(steps: int) -> int:
    value = 0
    for _ in range(steps):
        value = await no_op(value)
    return value


@DBOS.workflow()
async def run_fan(width: int) -> int:
    values = await asyncio.gather(*(no_op(value) for value in range(width)))
    return await no_op(len(values) - 1)


@DBOS.workflow()
async def run_clock() -> int:
    return await clock()


class Dbos:
    """See :class:`work.Engine`."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def chain(self, steps: int) -> int:
        return await run_chain(steps)

    async def fan(self, width: int) -> int:
        return await run_fan(width)

    async def first_steps(self, count: int) -> list[float]:
        return await work.first_steps_of(__file__, self._url, str(count))


def ask(url: str, count: int) -> None:
    """Be the process that asks for runs."""
    client = DBOSClient(system_database_url=url)
    samples = []
    for _ in range(count + 1):
        time.sleep(work.BETWEEN_SECONDS)
        asked = time.monotonic_ns()
        handle = client.enqueue({"queue_name": QUEUE, "workflow_name": run_clock.__qualname__})
        began = handle.get_result(polling_interval_sec=0.05)
        samples.append(work.milliseconds_since(asked, began))
    client.destroy()
    sys.stdout.write(json.dumps(samples[1:]) + "\n")


async def main() -> None:
    folder, sizes, works, rest = work.arguments()
    url = f"sqlite:///{Path(folder) / 'dbos.db'}"
    DBOS(config={"name": "bench", "system_database_url": url, "log_level": "ERROR"})
    DBOS.launch()
    interval = {"polling_interval_sec": float(rest[0])} if rest else {}
    await DBOS.register_queue_async(QUEUE, **interval)
    await work.measure(Dbos(url), sizes, works)
    await asyncio.to_thread(DBOS.destroy)


if __name__ == "__main__":
    if len(sys.argv) == 3:
        ask(sys.argv[1], int(sys.argv[2]))
    else:
        asyncio.run(main())
