"""Keeps what a home has in other forms: all its runs as JSON lines, and a copy of its database.

usage: keeping.py HOME FOLDER
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from swarm.bootstrap.records import open_records
from swarm.kernel.settings import Settings
from swarm.store.records import RunFilter
from swarm.store.transfer import export_runs


async def keep(home: Path, folder: Path) -> None:
    folder.mkdir()
    async with open_records(Settings(home=home)) as records:
        with (folder / "runs.jsonl").open("wb") as file:
            exported = await export_runs(records.store, RunFilter(), file)
        size = await records.store.back_up(folder / "backup.db")
    print(exported, size)  # noqa: T201 - what the test reads


if __name__ == "__main__":
    asyncio.run(keep(Path(sys.argv[1]), Path(sys.argv[2])))
