"""The master key in a real keyring: GNOME's, on a bus of its own, reached by the Secret Service.

Specification: freedesktop.org, "Secret Service API Draft".
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.functional.cli.conftest import Cli

PASSWORD = b"the keyring's own password"
COLLECTION = "/org/freedesktop/secrets/collection/login"
# The usual configuration would start another keyring, a locked one, for whoever asks too early.
BUS = """\
<busconfig>
  <type>session</type>
  <listen>unix:tmpdir=/tmp</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow send_destination="*"/>
    <allow receive_sender="*"/>
    <allow own="*"/>
  </policy>
</busconfig>
"""
DEADLINE_SECONDS = 60
NEEDED = ("dbus-daemon", "gnome-keyring-daemon", "dbus-send")

pytestmark = [
    pytest.mark.skipif(
        any(shutil.which(name) is None for name in NEEDED), reason="gnome-keyring is missing"
    ),
    pytest.mark.skipif(find_spec("keyring") is None, reason="the library keyring is missing"),
]


@dataclass
class Keyring:
    """A session bus, and a keyring's service that can be stopped and started."""

    folder: Path
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)

    def start_bus(self) -> None:
        runtime = self.folder / "runtime"
        runtime.mkdir(mode=0o700)
        self.environment = {
            **{name: value for name, value in os.environ.items() if name != "DISPLAY"},
            "HOME": str(self.folder),
            "XDG_RUNTIME_DIR": str(runtime),
            "XDG_DATA_HOME": str(self.folder / "data"),
        }
        configuration = self.folder / "bus.conf"
        configuration.write_text(BUS)
        bus = subprocess.Popen(
            ["dbus-daemon", f"--config-file={configuration}", "--nofork", "--print-address"],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self.processes.append(bus)
        assert bus.stdout is not None
        self.environment["DBUS_SESSION_BUS_ADDRESS"] = bus.stdout.readline().decode().strip()

    def start(self) -> None:
        """Start the service and wait until its collection is there and unlocked."""
        daemon = subprocess.Popen(
            ["gnome-keyring-daemon", "--foreground", "--components=secrets", "--unlock"],
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.processes.append(daemon)
        assert daemon.stdin is not None
        daemon.stdin.write(PASSWORD)
        daemon.stdin.close()
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not self._is_unlocked():
            assert time.monotonic() < deadline, "the keyring does not start"

    def lock(self) -> None:
        collection = f"array:objpath:{COLLECTION}"
        self._send("/org/freedesktop/secrets", "org.freedesktop.Secret.Service.Lock", collection)
        assert not self._is_unlocked()

    def _is_unlocked(self) -> bool:
        words = ("string:org.freedesktop.Secret.Collection", "string:Locked")
        answer = self._send(COLLECTION, "org.freedesktop.DBus.Properties.Get", *words)
        return b"boolean false" in answer

    def _send(self, *words: str) -> bytes:
        to = ("--session", "--print-reply", "--dest=org.freedesktop.secrets")
        command = ["dbus-send", *to, *words]
        return subprocess.run(
            command, env=self.environment, capture_output=True, check=False
        ).stdout

    def stop(self) -> None:
        """End the service, and leave the bus."""
        daemon = self.processes.pop()
        daemon.terminate()
        daemon.wait()

    def end(self) -> None:
        for process in reversed(self.processes):
            process.send_signal(signal.SIGKILL)
            process.wait()


@pytest.fixture
def keyring(tmp_path: Path) -> Iterator[Keyring]:
    made = Keyring(tmp_path / "session")
    made.folder.mkdir()
    try:
        made.start_bus()
        made.start()
        yield made
    finally:
        made.end()


@pytest.fixture
def cli(keyring: Keyring, tmp_path: Path) -> Cli:
    names = ("HOME", "XDG_RUNTIME_DIR", "XDG_DATA_HOME", "DBUS_SESSION_BUS_ADDRESS")
    variables = {name: keyring.environment[name] for name in names}
    return Cli(tmp_path / "home", {**variables, "SWARM_MASTER_KEY_SOURCE": "keyring"})


def key_files(cli: Cli) -> list[Path]:
    return list((cli.home / "registry" / "secrets").glob("*.key"))


def test_the_keyring_keeps_the_key_through_rotations(cli: Cli) -> None:
    cli.ok("secret", "set", "TOKEN", stdin=b"value")
    first = cli.ok("secret", "list", "--json").json["secrets"][0]["key_id"]
    assert cli.ok("secret", "get", "TOKEN").out == "value\n"
    rotated = cli.ok("secret", "rotate", "--retire", "--json").json
    assert (rotated["made_key"], rotated["rewrapped"], rotated["retired"]) == (True, 1, 1)
    assert rotated["key_id"] != first
    again = cli.ok("secret", "rotate", "--retire", "--json").json
    assert (again["rewrapped"], again["retired"]) == (1, 1)
    assert cli.ok("secret", "get", "TOKEN").out == "value\n"
    assert key_files(cli) == []


def test_a_keyring_that_is_gone_is_told_and_nothing_is_lost(cli: Cli, keyring: Keyring) -> None:
    cli.ok("secret", "set", "TOKEN", stdin=b"value")
    keyring.stop()
    for arguments in (("get", "TOKEN"), ("set", "MORE"), ("rotate",)):
        done = cli("secret", *arguments, stdin=b"new")
        assert (done.code, done.out) == (5, ""), done.err
        assert "the OS keyring: " in done.err
        assert "remedy:" in done.err
        assert "unexpected" not in done.err
    assert [one["name"] for one in cli.ok("secret", "list", "--json").json["secrets"]] == ["TOKEN"]
    keyring.start()
    keyring.lock()
    done = cli("secret", "get", "TOKEN")
    assert (done.code, done.out) == (5, ""), done.err
    assert "the OS keyring: " in done.err
    keyring.stop()
    keyring.start()
    assert cli.ok("secret", "get", "TOKEN").out == "value\n"
    assert key_files(cli) == []


def test_a_machine_without_a_keyring_says_so(cli: Cli) -> None:
    cli.variables["DBUS_SESSION_BUS_ADDRESS"] = "unix:path=/nonexistent"
    done = cli("secret", "set", "TOKEN", stdin=b"value")
    assert (done.code, done.out) == (5, ""), done.err
    assert "the OS keyring: " in done.err
    assert "master_key_source" in done.err
    assert key_files(cli) == []


def test_a_key_that_was_changed_in_the_keyring_is_told_without_it(
    cli: Cli, keyring: Keyring
) -> None:
    cli.ok("secret", "set", "TOKEN", stdin=b"value")
    folder = cli.home / "registry" / "secrets"
    program = "import keyring, sys; keyring.set_password('swarm', sys.argv[1], sys.argv[2])"
    changed = [cli.program[0], "-c", program, f"{folder}#1", "no-key-but-secret"]
    subprocess.run(changed, env=cli.environment(), check=True)
    done = cli("secret", "get", "TOKEN")
    assert done.code == 5
    assert f"{folder}#1" in done.err
    assert "no-key-but-secret" not in done.err + done.out
