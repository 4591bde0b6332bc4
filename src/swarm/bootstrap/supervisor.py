"""What systemd is told of a service of ``Type=notify``: that it is ready, alive, about to stop.

Source: sd_notify(3), sd_watchdog_enabled(3). Lines of ``NAME=value`` as one datagram to the socket
that ``NOTIFY_SOCKET`` names. Without it nobody wants to know, and nothing is sent.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass

from swarm.kernel.errors import UnavailableError


@dataclass(frozen=True, slots=True)
class Supervisor:
    """The service manager that started this service and looks after it."""

    address: str | None = None
    """Where it listens; None if nobody does."""
    watchdog_seconds: float | None = None
    """How long it waits for a sign of life before it kills the service; None for ever."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Supervisor:
        """As systemd says in ``NOTIFY_SOCKET``, ``WATCHDOG_USEC`` and ``WATCHDOG_PID``."""
        given = os.environ if environment is None else environment
        address = given.get("NOTIFY_SOCKET") or None
        is_ours = given.get("WATCHDOG_PID") in (None, str(os.getpid()))
        microseconds = given.get("WATCHDOG_USEC", "")
        if address is None or not is_ours or not microseconds.isdigit():
            return cls(address)
        return cls(address, int(microseconds) / 1_000_000 or None)

    def tell(self, *lines: str) -> None:
        """Send ``NAME=value`` lines, without waiting.

        Raises:
            UnavailableError: the service manager's socket cannot be reached, or takes no more.
        """
        if self.address is None:
            return
        # A leading @ stands for the null byte of Linux's abstract addresses.
        address = "\0" + self.address[1:] if self.address.startswith("@") else self.address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
                client.setblocking(False)  # A full queue must not hold up the event loop.
                client.sendto("\n".join(lines).encode(), address)
        except OSError as error:
            raise UnavailableError(
                f"the service manager cannot be told: {error.strerror or error}",
                where=self.address,
                remedy="unset NOTIFY_SOCKET, unless systemd has set it",
            ) from None
