"""Commits to a journal until it is killed, at a durability: ``journal_program.py <root> <level>``.

The database lies in ``<root>/registry``; each commit that was told as done is a line in
``<root>/told``. The write-ahead log goes into the database after few pages, so that what a program
does in weeks happens in seconds. ``off`` is no level that Swarm offers: the control.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from swarm.kernel.settings import Settings
from swarm.store.sqlite import connection
from tests.contract.store.crash_process import drive

CHECKPOINT_PAGES = 60


def main(root: Path, durability: str) -> None:
    told = os.open(root / "told", os.O_WRONLY | os.O_APPEND)
    os.dup2(told, 1)
    connection.CHECKPOINT_PAGES = CHECKPOINT_PAGES
    settings = Settings(home=root, durability=durability)
    asyncio.run(drive(str(root / "registry" / "registry.db"), settings))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
