"""What systemd hears from a service of ``Type=notify``."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from swarm.bootstrap.supervisor import Supervisor
from swarm.kernel.errors import UnavailableError


@contextmanager
def manager_at(address: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.settimeout(10)
        listener.bind(address)
        yield listener


def test_lines_arrive_as_one_datagram(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    with manager_at(address) as manager:
        Supervisor(address).tell("READY=1", "STATUS=takes runs")
        assert manager.recv(1024) == b"READY=1\nSTATUS=takes runs"


def test_an_abstract_address_is_reached() -> None:
    name = f"swarm-test-{os.getpid()}"
    with manager_at(f"\0{name}") as manager:
        Supervisor(f"@{name}").tell("WATCHDOG=1")
        assert manager.recv(1024) == b"WATCHDOG=1"


def test_without_a_supervisor_nothing_is_sent() -> None:
    Supervisor.from_environment({}).tell("READY=1")


def test_one_that_cannot_be_told_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="cannot be told") as caught:
        Supervisor(str(tmp_path / "nobody")).tell("READY=1")
    assert caught.value.remedy is not None


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_is_the_one_meant_for_this_process(
    environment: dict[str, str], seconds: float | None
) -> None:
    supervisor = Supervisor.from_environment({"NOTIFY_SOCKET": "/run/notify", **environment})
    assert supervisor.watchdog_seconds == seconds


def test_one_that_does_not_listen_holds_nobody_up(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    with manager_at(address), pytest.raises(UnavailableError, match="cannot be told"):
        for _ in range(10_000):  # The kernel's queue is far shorter.
            Supervisor(address).tell("WATCHDOG=1")
