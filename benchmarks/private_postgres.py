"""A private PostgreSQL: its own folder, port and password, gone when whoever started it is gone.

The server runs as an unprivileged user (it refuses to run as root) in a folder below the system's
temporary folder. It gets SIGQUIT when the thread that started it ends, also by ``kill -9``; the
folder that is then left is removed by the next server that starts, which sees by its free lock that
nobody uses it.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

SUPERUSER = "swarm"
PREFIX = "swarm-postgres-"
ACCOUNTS = ("postgres", "nobody")
"""Whom the server runs as when this process is root: the first that this machine has."""
START_SECONDS = 60.0
STOP_SECONDS = 60.0

FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
"""Where commits need not be durable; nothing but a lost machine tells the difference."""
COMMON = {
    "shared_buffers": "32MB",
    "max_connections": "100",
    "log_min_messages": "warning",
    "lc_messages": "C",
    "unix_socket_permissions": "0777",
}


def find_binaries() -> Path | None:
    """The folder of ``initdb`` and ``postgres``: Debian keeps them off the path."""
    if (found := shutil.which("initdb")) and (path := Path(found).resolve()).parent.is_dir():
        return path.parent
    versions = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    newest = max(versions, key=lambda path: int(path.parent.parent.name), default=None)
    return newest.parent if newest else None


class PostgresServer:
    """One cluster; made by :func:`running_server`.

    Its processes can be killed, paused and started again; what is committed stays.
    """

    def __init__(
        self,
        binaries: Path,
        folder: Path,
        settings: Mapping[str, str],
        command: Sequence[str] = (),
        address: str = "127.0.0.1",
    ) -> None:
        self.folder = folder
        """Holds the cluster in ``data``, the Unix socket, and the server's ``log``."""
        self.address = address
        self.port = _free_port()
        self.password = secrets.token_hex(8)
        self._binaries = binaries
        self._settings = dict(settings)
        self._command = tuple(command)
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = count(1)
        self._account = _account()

    # -- its life --------------------------------------------------------------------------------

    def initialize(self) -> None:
        """Make the cluster."""
        password_file = self.folder / "password"
        password_file.write_text(self.password)
        if self._account is not None:
            for path in (self.folder, password_file):
                os.chown(path, self._account.pw_uid, self._account.pw_gid)
        subprocess.run(
            [
                *self._as_account(),
                str(self._binaries / "initdb"),
                *("--pgdata", str(self.data), "--username", SUPERUSER, "--no-sync"),
                *("--pwfile", str(password_file), "--auth", "scram-sha-256"),
                *("--encoding", "UTF8", "--locale", "C.UTF-8"),
            ],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        with (self.data / "pg_hba.conf").open("a") as access:
            access.write("host all all 0.0.0.0/0 scram-sha-256\n")

    def start(self) -> None:
        """Start the server and wait until it takes connections.

        After :meth:`kill` its last processes may still be ending: it is tried again until they are.
        """
        deadline = time.monotonic() + START_SECONDS
        while not self._started(deadline):
            assert time.monotonic() < deadline, self.log()

    def _started(self, deadline: float) -> bool:
        settings = {
            **COMMON,
            **self._settings,
            "listen_addresses": self.address,
            "port": str(self.port),
            "unix_socket_directories": str(self.folder),
        }
        options = [item for name, value in settings.items() for item in ("-c", f"{name}={value}")]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *self._command,
                    *self._as_account(),
                    str(self._binaries / "postgres"),
                    *("-D", str(self.data), *options),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        while time.monotonic() < deadline and self._process.poll() is None:
            if self._is_ready():
                return True
            time.sleep(0.01)
        return False

    def _is_ready(self) -> bool:
        """By the last line of ``postmaster.pid``, which this server has written."""
        with suppress(FileNotFoundError):
            lines = (self.data / "postmaster.pid").read_text().split("\n")
            return len(lines) > 7 and int(lines[0]) == self.pid and lines[7].strip() == "ready"
        return False

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop the server: SIGINT ends its connections (*fast*), SIGQUIT crashes it in order."""
        self.resume()
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(STOP_SECONDS)
            self._process = None

    def kill(self) -> None:
        """``kill -9`` to every process of the server."""
        self._send(signal.SIGKILL)
        if self._process is not None:
            self._process.wait(STOP_SECONDS)
            self._process = None

    def restart(self) -> None:
        self.stop()
        self.start()

    def pause(self) -> None:
        """SIGSTOP to every process of the server: connections stay, and nothing answers.

        Returns once the first one, which takes connections, has stopped: a process may run on
        for a moment after the signal.
        """
        self._send(signal.SIGSTOP)
        if self._process is not None:
            os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self) -> None:
        self._send(signal.SIGCONT)

    @property
    def pid(self) -> int:
        assert self._process is not None, "the server does not run"
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it has neither been stopped nor given up by itself."""
        return self._process is not None and self._process.poll() is None

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def _send(self, what: signal.Signals) -> None:
        for pid in self._pids():
            with suppress(ProcessLookupError):  # a connection's process may have just ended
                os.kill(pid, what)

    def _pids(self) -> list[int]:
        """The server's first process, which starts the others, then those."""
        if self._process is None or self._process.poll() is not None:
            return []
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return [self.pid, *map(int, children)]

    def _as_account(self) -> tuple[str, ...]:
        if self._account is None:
            return ("setpriv", "--pdeathsig", "QUIT")
        user, group = str(self._account.pw_uid), str(self._account.pw_gid)
        return (
            *("setpriv", "--reuid", user, "--regid", group, "--clear-groups"),
            *("--pdeathsig", "QUIT"),
        )

    # -- its databases ---------------------------------------------------------------------------

    def url(self, database: str = "postgres") -> str:
        """The address of a database, by TCP."""
        return f"postgresql://{SUPERUSER}:{self.password}@{self.address}:{self.port}/{database}"

    def socket_url(self, database: str = "postgres") -> str:
        """The address of a database, by the Unix socket."""
        return (
            f"postgresql://{SUPERUSER}:{self.password}@/{database}?host={self.folder}"
            f"&port={self.port}"
        )

    def execute(self, sql: str, database: str = "postgres") -> str:
        """Run SQL with psql; its rows, unaligned, a line each."""
        result = subprocess.run(
            [
                str(self._binaries / "psql"),
                *("--no-psqlrc", "--quiet", "--tuples-only", "--no-align"),
                *("--set", "ON_ERROR_STOP=1", "--command", sql, self.socket_url(database)),
            ],
            check=False,
            capture_output=True,
            text=True,
        )
        assert result.returncode == 0, result.stderr
        return result.stdout.rstrip("\n")

    def create_database(self, template: str = "template0") -> str:
        """Make a database, a copy of ``template`` (to which nobody may be connected)."""
        name = f"test_{os.getpid()}_{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return name

    def drop_database(self, name: str) -> None:
        """Remove a database; whoever is connected to it is cut off."""
        self.execute(f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def running_server(
    *,
    durable: bool = False,
    settings: Mapping[str, str] | None = None,
    command: Sequence[str] = (),
    address: str = "127.0.0.1",
    parent: Path | None = None,
) -> Iterator[PostgresServer]:
    """A new cluster whose server runs, until the context is left.

    Args:
        durable: whether commits wait for the disk.
        settings: of ``postgresql.conf``, beside the others.
        command: what the server is started by, such as ``("ip", "netns", "exec", NAME)``.
        address: the IPv4 address to listen on.
        parent: where its folder is made, such as a small file system; traversable by everyone.

    Raises:
        FileNotFoundError: PostgreSQL is not installed.
    """
    binaries = find_binaries()
    if binaries is None:
        raise FileNotFoundError(
            "PostgreSQL is missing (Debian, Ubuntu: apt-get install postgresql)"
        )
    _sweep()
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    folder.chmod(0o755)
    chosen = {**({} if durable else FAST), **(settings or {})}
    server = PostgresServer(binaries, folder, chosen, command, address)
    try:
        server.initialize()
        server.start()
        yield server
        server.stop(signal.SIGQUIT)
    finally:
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _sweep() -> None:
    """Remove the folders of servers whose starter was killed."""
    for folder in Path(tempfile.gettempdir()).glob(PREFIX + "*"):
        with suppress(OSError):
            lock = os.open(folder / "lock", os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)
            finally:
                os.close(lock)


def _account() -> pwd.struct_passwd | None:
    """Whom the server runs as; None if it is whoever runs this."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name: entry for entry in pwd.getpwall()}
    return next(known[name] for name in ACCOUNTS if name in known)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
