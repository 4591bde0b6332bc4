"""Sweeps and lists hosts, over and over, until its stdin closes: ``sweep_process.py <folder>``."""

from __future__ import annotations

import select
import sys
from pathlib import Path

from swarm.dispatch.local_hosts import LocalHosts


def main(folder: Path) -> None:
    hosts = LocalHosts(folder)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while not select.select([sys.stdin], [], [], 0)[0]:
        hosts.sweep()
        hosts.list()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
