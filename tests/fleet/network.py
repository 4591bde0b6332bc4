"""Machines with addresses of their own, on one Linux: network namespaces on a bridge.

Nothing of it has a name outside: each namespace is held by a process that ends with whoever made
it, also by ``kill -9``, and is gone with it. A machine that is cut off hears and says nothing, and
nobody is told: its connections stay as they are. What goes from one machine to another can be lost
while the way back works.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType

SUBNET = "10.213.7"
READY_SECONDS = 30.0
NOBODY = "02:00:00:00:00:99"
"""A hardware address that no machine has: what is sent to it is taken by none."""


def why_not() -> str | None:
    """Why there can be no network here; None if there can."""
    if os.geteuid() != 0:
        return "making network namespaces needs root"
    missing = [name for name in ("ip", "unshare", "nsenter", "setpriv") if not shutil.which(name)]
    return f"{', '.join(missing)} is missing" if missing else None


class Namespace:
    """A network namespace, for as long as its holder runs."""

    def __init__(self) -> None:
        self._holder = subprocess.Popen(
            ("setpriv", "--pdeathsig", "KILL", "unshare", "--net", "sleep", "infinity"),
            stdin=subprocess.DEVNULL,
        )
        own = Path("/proc/self/ns/net").readlink()
        deadline = time.monotonic() + READY_SECONDS
        while self.path.readlink() == own:
            assert time.monotonic() < deadline, "the network namespace was not made"
            assert self._holder.poll() is None, "a network namespace cannot be made"
            time.sleep(0.005)
        self.run("ip", "link", "set", "lo", "up")

    @property
    def path(self) -> Path:
        return Path(f"/proc/{self._holder.pid}/ns/net")

    @property
    def command(self) -> tuple[str, ...]:
        """What starts a program in here."""
        return ("nsenter", f"--net={self.path}")

    @property
    def pid(self) -> str:
        return str(self._holder.pid)

    def run(self, *command: str) -> None:
        subprocess.run((*self.command, *command), check=True, stdin=subprocess.DEVNULL)

    def close(self) -> None:
        self._holder.kill()
        self._holder.wait()


class Machine:
    """A machine on the network; made by :meth:`Network.machine`."""

    def __init__(self, switch: Namespace, number: int) -> None:
        self.address = f"{SUBNET}.{number}"
        self._namespace = Namespace()
        self._switch = switch
        self._port = f"port{number}"
        switch.run(
            *("ip", "link", "add", self._port, "type", "veth"),
            *("peer", "name", "eth0", "netns", self._namespace.pid),
        )
        switch.run("ip", "link", "set", self._port, "up")
        self._namespace.run("ip", "address", "add", f"{self.address}/24", "dev", "eth0")
        self._namespace.run("ip", "link", "set", "eth0", "up")
        self.heal()

    @property
    def command(self) -> tuple[str, ...]:
        """What starts a program on this machine."""
        return self._namespace.command

    @property
    def network(self) -> str:
        """The path of its network namespace."""
        return str(self._namespace.path)

    def cut_off(self) -> None:
        """Pull the cable out of the switch: whatever is sent is lost."""
        self._switch.run("ip", "link", "set", self._port, "nomaster")

    def heal(self) -> None:
        self._switch.run("ip", "link", "set", self._port, "master", "bridge")

    def lose_what_goes_to(self, other: Machine) -> None:
        """Lose what is sent from here to ``other``; what it sends arrives."""
        self._namespace.run(
            *("ip", "neighbor", "replace", other.address),
            *("lladdr", NOBODY, "nud", "permanent", "dev", "eth0"),
        )

    def find(self, other: Machine) -> None:
        """Have what is sent from here to ``other`` arrive again."""
        self._namespace.run("ip", "neighbor", "delete", other.address, "dev", "eth0")

    def close(self) -> None:
        self._namespace.close()


class Network:
    """A switch and the machines on it."""

    def __init__(self) -> None:
        self._switch = Namespace()
        self._machines: list[Machine] = []
        self._switch.run("ip", "link", "add", "bridge", "type", "bridge")
        self._switch.run("ip", "link", "set", "bridge", "up")

    def __enter__(self) -> Network:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for machine in self._machines:
            machine.close()
        self._switch.close()

    def machine(self) -> Machine:
        self._machines.append(Machine(self._switch, len(self._machines) + 1))
        return self._machines[-1]
