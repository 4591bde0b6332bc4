"""A real worker, asked by `swarm health` as the probes of containers do, and watched by systemd."""

from __future__ import annotations

import asyncio
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from swarm.bootstrap.assembly import open_swarm
from swarm.bootstrap.health import Health, WorkerState, watched
from swarm.bootstrap.supervisor import Supervisor
from swarm.dispatch.health import Probe, ask
from swarm.kernel.settings import Settings

SECONDS = 60
SWARM = (sys.executable, "-P", "-m", "swarm")
SOURCES = os.pathsep.join(str(Path(path).absolute()) for path in sys.path if path)


class Machine:
    """A home, a health socket and a service manager, and the commands that know them."""

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "health.sock"
        self.notified = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notified.bind(str(folder / "notify.sock"))
        self._lines: queue.Queue[str] = queue.Queue()
        # As systemd, it takes what comes at once: the kernel's queue is short.
        threading.Thread(target=self._listen, daemon=True).start()
        self._environment = {
            **os.environ,
            "PYTHONPATH": SOURCES,
            "SWARM_HOME": str(folder / "home"),
            "SWARM_HEALTH_SOCKET": str(self.socket),
        }
        self._manager = {"NOTIFY_SOCKET": str(folder / "notify.sock"), "WATCHDOG_USEC": "300000"}

    def worker(self, *options: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*SWARM, "worker", *options],
            env={**self._environment, **self._manager},
            stdout=subprocess.PIPE,
        )

    def health(self, *options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*SWARM, "health", *options],
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )

    def _listen(self) -> None:
        while message := self.notified.recv(1024):
            for line in message.decode().splitlines():
                self._lines.put(line)
        self.notified.close()

    def heard(self, line: str) -> None:
        """Wait until the service manager hears ``line``."""
        while self._lines.get(timeout=SECONDS) != line:
            pass

    def close(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
            client.sendto(b"", self.notified.getsockname())


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path)
    yield machine
    machine.close()


def document(done: subprocess.CompletedProcess[str]) -> Any:
    return json.loads(done.stdout)


def test_a_worker_is_asked_from_start_to_end(machine: Machine) -> None:
    before = machine.health()
    assert before.returncode == 5
    assert "no worker answers" in before.stderr
    worker = machine.worker()
    try:
        machine.heard("READY=1")
        machine.heard("WATCHDOG=1")
        ready = machine.health("--json")
        assert ready.returncode == 0
        assert document(ready) | {"version": ""} == {
            "ok": True,
            "state": "ready",
            "reason": None,
            "runs": 0,
            "version": "",
        }
        worker.send_signal(signal.SIGSTOP)  # one that hangs
        hung = machine.health("--live", "--timeout", "0.2")
        assert hung.returncode == 5
        assert "has not answered for 0.2 s" in hung.stderr
        worker.send_signal(signal.SIGCONT)
        assert machine.health("--live").returncode == 0
        worker.terminate()
        machine.heard("STOPPING=1")
        worker.communicate(timeout=SECONDS)
        assert worker.returncode == 0
        assert not machine.socket.exists()
    finally:
        worker.kill()
        worker.communicate()


def test_one_that_ends_when_idle_is_no_service_though_it_has_the_variables_of_one(
    machine: Machine,
) -> None:
    service = machine.worker()
    try:
        machine.heard("READY=1")
        passing = machine.worker("--until-idle")
        try:
            assert passing.stdout is not None
            assert passing.stdout.readline() == b"ready\n"
        finally:
            passing.terminate()
            passing.communicate(timeout=SECONDS)
        assert machine.health("--live").returncode == 0, "the socket is the service's"
    finally:
        service.terminate()
        service.communicate(timeout=SECONDS)


def test_without_the_setting_there_is_nobody_to_ask() -> None:
    done = subprocess.run(
        [*SWARM, "health"],
        env={**os.environ, "PYTHONPATH": SOURCES},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "SWARM_HEALTH_SOCKET" in done.stderr


async def test_one_whose_database_is_gone_lives_but_is_not_ready(tmp_path: Path) -> None:
    async with open_swarm(Settings(home=tmp_path / "home"), role="worker") as swarm:
        health = Health(swarm, Supervisor())
        assert (await health.answer(Probe.READY))["reason"] == "it is starting"
        health.ready()
        assert (await health.answer(Probe.READY))["ok"] is True
        await swarm.store.close()
        answer = await health.answer(Probe.READY)
        assert answer["ok"] is False
        assert "the database does not answer" in str(answer["reason"])
        assert (await health.answer(Probe.LIVE))["ok"] is True
        health.draining()
        assert (await health.answer(Probe.READY))["reason"] == "it is draining"
        assert health.state is WorkerState.DRAINING
        nobody = Health(swarm, Supervisor(str(tmp_path / "nobody")))
        nobody.draining()
        assert nobody.state is WorkerState.DRAINING


async def test_a_stranger_at_the_socket_gets_no_answer(tmp_path: Path) -> None:
    path = tmp_path / "health.sock"
    settings = Settings(home=tmp_path / "home", health_socket=path)
    async with open_swarm(settings, role="worker") as swarm, watched(swarm):
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(b"x" * 1000 + b"\n")
        assert await reader.read() == b""
        writer.close()
        answer = await asyncio.to_thread(ask, path, Probe.LIVE, 10)
        assert answer["ok"] is True
