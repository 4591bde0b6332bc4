"""``memory_process.py <settings as JSON> <folder> <file>``: puts a file and fetches it elsewhere.

Prints the most memory that it has had, in KiB: before, after putting and after fetching.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from swarm.kernel.configuration import checked_settings
from tests.bucket.machines import opened_machine


def tell_memory() -> None:
    """Of this program alone: what getrusage tells includes whoever started it."""
    status = Path("/proc/self/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    sys.stdout.write(f"{line.split()[1]}\n")


async def main() -> None:
    settings = checked_settings(json.loads(sys.argv[1]))
    folder, file = Path(sys.argv[2]), sys.argv[3]
    one, two = [opened_machine(folder / name, settings) for name in ("one", "two")]
    await two.artifacts.fetch(await one.artifacts.put_bytes(b"both know their places now"))
    tell_memory()
    reference = await one.artifacts.put_file(Path(file))
    tell_memory()
    path = await two.artifacts.fetch(reference)
    tell_memory()
    assert path.stat().st_size == Path(file).stat().st_size


asyncio.run(main())
