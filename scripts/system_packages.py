"""Install the system packages that the tests make use of, where this may be done.

usage: python scripts/system_packages.py

Each program is looked for first. What is missing is installed with apt-get when this process is
root on a system that has it; otherwise one line says what the tests will skip. Never fails: a test
that needs an absent program skips itself and says why. Standard library only.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

PROGRAMS = {
    "openssl": ("openssl", "that TLS passes the egress proxy unopened"),
    "bwrap": ("bubblewrap", "what a sandbox costs beside bubblewrap (make bench)"),
    "gnome-keyring-daemon": ("gnome-keyring", "a master key in the OS keyring"),
    "dbus-daemon": ("dbus-daemon", "a master key in the OS keyring"),
    "dbus-send": ("dbus-bin", "a master key in the OS keyring"),
    "sqlite3": ("sqlite3", "that the journal is readable with plain sqlite3"),
    "gcc": ("gcc libc6-dev", "that the journal survives the loss of power"),
    "qemu-system-x86_64": ("qemu-system-x86", "virtual machines (level microvm)"),
    "sqfstar": ("squashfs-tools", "virtual machines (level microvm)"),
    "initdb": ("postgresql", "everything on PostgreSQL: its store, and a fleet of workers"),
    "pgbouncer": ("pgbouncer", "the store on PostgreSQL behind a pooler"),
    "crun": ("crun", "that sandboxes are made in containers, and refused with the right remedy"),
    "systemd-analyze": ("systemd", "the units for systemd"),
    "ip": ("iproute2", "machines of a fleet that are cut off from each other"),
}
"""Program: its Debian packages, and what the tests cannot show without it."""

OFF_THE_PATH = {"initdb": "/usr/lib/postgresql"}
"""Program: the folder below which Debian keeps it, by version."""


def is_here(name: str) -> bool:
    folder = Path(OFF_THE_PATH.get(name, os.devnull))
    return shutil.which(name) is not None or any(folder.glob(f"*/bin/{name}"))


def main() -> int:
    missing = [name for name in PROGRAMS if not is_here(name)]
    if missing and os.geteuid() == 0 and shutil.which("apt-get"):
        packages = [package for name in missing for package in PROGRAMS[name][0].split()]
        print(f"swarm: installing {' '.join(packages)} for the tests", file=sys.stderr, flush=True)
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in (
            ["apt-get", "update", "-q"],
            ["apt-get", "install", "-q", "-y", "--no-install-recommends", *packages],
        ):
            subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, check=False)
        missing = [name for name in missing if not is_here(name)]
    for name in missing:
        package, loss = PROGRAMS[name]
        print(
            f"swarm: {name} is missing (package {package}); not tested: {loss}",
            file=sys.stderr,
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
