"""Opens a database of an older version, and tells once it is done: ``upgrade_program.py ROOT``."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from swarm.kernel.settings import Settings
from swarm.store.sqlite import open_store


async def main(root: Path) -> None:
    store = await open_store(root / "registry" / "registry.db", Settings(home=root))
    (root / "told").write_text("upgraded\n")
    await store.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
