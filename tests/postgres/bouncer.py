"""A private PgBouncer in transaction mode before a test's PostgreSQL."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.postgres.server import ACCOUNTS, SUPERUSER, PostgresServer

START_SECONDS = 20.0
CONNECTIONS = 3
"""Connections to the server that all clients share."""
LISTENS = "listening on 127.0.0.1:"


def find_bouncer() -> str | None:
    """The program: Debian keeps it in ``/usr/sbin``."""
    return shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


class Bouncer:
    """A PgBouncer on a port of 127.0.0.1; made by :func:`running_bouncer`. It can be killed and
    started again."""

    def __init__(
        self, server: PostgresServer, program: str, folder: Path, command: Sequence[str]
    ) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self._log = folder / "log"
        self._command = (*command, *_as_account(), program, str(folder / "pgbouncer.ini"))
        self._process: subprocess.Popen[bytes] | None = None
        (folder / "users").write_text(f'"{SUPERUSER}" "{server.password}"\n')
        (folder / "pgbouncer.ini").write_text(
            f"[databases]\n* = host={server.address} port={server.port}\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {self.port}\n"
            f"unix_socket_dir =\nauth_type = scram-sha-256\nauth_file = {folder / 'users'}\n"
            f"pool_mode = transaction\ndefault_pool_size = {CONNECTIONS}\n"
            f"max_client_conn = 100\nlogfile = {self._log}\n"
            f"ignore_startup_parameters = extra_float_digits\nserver_login_retry = 1\n"
        )

    def start(self) -> None:
        """Start it and wait until it takes connections."""
        told = self._told()
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + START_SECONDS
        while LISTENS not in (log := self._told()[len(told) :]):
            assert self._process.poll() is None and time.monotonic() < deadline, log
            time.sleep(0.01)

    def kill(self) -> None:
        """``kill -9``."""
        if self._process is not None:
            self._process.kill()  # what other signals mean changed between releases
            self._process.wait(START_SECONDS)
            self._process = None

    def _told(self) -> str:
        return self._log.read_text() if self._log.exists() else ""


@contextmanager
def running_bouncer(
    server: PostgresServer, program: str, command: Sequence[str] = ()
) -> Iterator[Bouncer]:
    """A PgBouncer before ``server``. It takes the server's own password.

    Args:
        server: where it connects to.
        program: of PgBouncer.
        command: what it is started by, such as what puts it on another machine.
    """
    with tempfile.TemporaryDirectory(prefix="swarm-pgbouncer-") as name:
        folder = Path(name)
        bouncer = Bouncer(server, program, folder, command)
        if (account := _account()) is not None:
            for path in (folder, *folder.iterdir()):
                os.chown(path, account.pw_uid, account.pw_gid)
        try:
            bouncer.start()
            yield bouncer
        finally:
            bouncer.kill()


def _as_account() -> tuple[str, ...]:
    """What gives root up, as it refuses to run as root."""
    account = _account()
    if account is None:
        return ("setpriv", "--pdeathsig", "KILL")
    user, group = str(account.pw_uid), str(account.pw_gid)
    return (
        *("setpriv", "--reuid", user, "--regid", group, "--clear-groups"),
        *("--pdeathsig", "KILL"),
    )


def _account() -> pwd.struct_passwd | None:
    """Whom it runs as; None if it is whoever runs this."""
    if os.geteuid() != 0:
        return None
    for name in ACCOUNTS:
        with suppress(KeyError):
            return pwd.getpwnam(name)
    raise FileNotFoundError(f"there is none of the accounts {', '.join(ACCOUNTS)}")
