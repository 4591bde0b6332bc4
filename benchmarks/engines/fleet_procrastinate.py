"""Procrastinate alone, the floor: a run is one job, and what its steps do is not recorded. A chain
is a job for each step, which the job before puts into the queue. Workers are notified of jobs; an
argument says how often they look for them besides, as not each notification reaches them.
"""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import fleet_work as work
import procrastinate
from procrastinate.worker import Worker

QUEUE = "bench"


def open_app(url: str) -> procrastinate.App:
    return procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=url))


class Procrastinate:
    """See :class:`fleet_work.Asker`."""

    ended = (
        "SELECT count(*) FROM procrastinate_jobs WHERE status = 'succeeded' AND task_name = 'run'"
    )
    poll_seconds = 0.0  # it is notified

    def __init__(self, app: procrastinate.App, chain: int) -> None:
        self._run = app.configure_task("run", queue=QUEUE)
        self._link = app.configure_task("link", queue=QUEUE)
        self._chain = chain

    async def ask(self, kind: str, name: str) -> None:
        if kind == "chain":
            await self._link.defer_async(name=name, left=self._chain, is_first=True)
        else:
            await self._run.defer_async(name=name, steps=1 if kind == "first" else work.RUN_STEPS)


async def no_op(value: int) -> int:
    return value + 1


def register(app: procrastinate.App, teller: work.Teller) -> None:
    @app.task(name="run", queue=QUEUE)
    async def run(name: str, steps: int) -> None:
        value = 0
        for step in range(steps):
            if step == steps - 1:
                teller.tell(name)
            value = await no_op(value)

    @app.task(name="link", queue=QUEUE)
    async def link(name: str, left: int, is_first: bool) -> None:
        if is_first:
            teller.tell(name)
        await no_op(left)
        if left > 2:
            await link.defer_async(name=name, left=left - 1, is_first=False)
        else:
            await run.defer_async(name=name, steps=1)


async def prepare(url: str) -> None:
    async with open_app(url).open_async() as app:
        await app.schema_manager.apply_schema_async()


async def be_worker(url: str, folder: Path, options: dict[str, float]) -> None:
    app = open_app(url)
    register(app, work.Teller(folder))
    async with app.open_async():
        worker = Worker(
            app,
            queues=[QUEUE],
            concurrency=work.RUNS_AT_ONCE,
            install_signal_handlers=False,
            **options,
        )
        running = asyncio.create_task(worker.run())
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.stop)
        while not running.done():
            await asyncio.sleep(0.01)
            if worker.worker_id is not None:
                break
        work.say_ready()
        await running


async def ask(url: str, folder: Path, sizes: work.Sizes) -> None:
    async with open_app(url).open_async() as app:
        await work.measure(Procrastinate(app, sizes.chain), url, folder, sizes)


async def main() -> None:
    role, url, folder, sizes, rest = work.arguments()
    if role == "prepare":
        await prepare(url)
    elif role == "work":
        options = {"fetch_job_polling_interval": float(rest[0])} if rest else {}
        await be_worker(url, folder, options)
    else:
        await ask(url, folder, sizes)


if __name__ == "__main__":
    asyncio.run(main())
