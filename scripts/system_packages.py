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
}
"""Program: its Debian packages, and what the tests cannot show without it."""


def main() -> int:
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing and os.geteuid() == 0 and shutil.which("apt-get"):
        packages = [package for name in missing for package in PROGRAMS[name][0].split()]
        print(f"swarm: installing {' '.join(packages)} for the tests", file=sys.stderr, flush=True)
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in (
            ["apt-get", "update", "-q"],
            ["apt-get", "install", "-q", "-y", "--no-install-recommends", *packages],
        ):
            subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, check=False)
        missing = [name for name in missing if shutil.which(name) is None]
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
