"""A private PgBouncer in transaction mode before a test's PostgreSQL."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.postgres.server import ACCOUNTS, SUPERUSER, PostgresServer

START_SECONDS = 20.0
CONNECTIONS = 3
"""Connections to the server that all clients share."""


def find_bouncer() -> str | None:
    """The program: Debian keeps it in ``/usr/sbin``."""
    return shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


@contextmanager
def running_bouncer(server: PostgresServer, program: str) -> Iterator[int]:
    """A PgBouncer before ``server``; gives its port. It takes the server's own password."""
    with tempfile.TemporaryDirectory(prefix="swarm-pgbouncer-") as name, socket.socket() as probe:
        folder = Path(name)
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
        probe.close()
        (folder / "users").write_text(f'"{SUPERUSER}" "{server.password}"\n')
        (folder / "pgbouncer.ini").write_text(
            f"[databases]\n* = host=127.0.0.1 port={server.port}\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
            f"auth_type = scram-sha-256\nauth_file = {folder / 'users'}\npool_mode = transaction\n"
            f"default_pool_size = {CONNECTIONS}\nmax_client_conn = 100\n"
            f"logfile = {folder / 'log'}\nignore_startup_parameters = extra_float_digits\n"
        )
        account = None
        if os.geteuid() == 0:  # it refuses to run as root
            account = next(
                entry for entry in (_account(one) for one in ACCOUNTS) if entry is not None
            )
            for path in (folder, *folder.iterdir()):
                os.chown(path, account.pw_uid, account.pw_gid)
        process = subprocess.Popen(
            [program, str(folder / "pgbouncer.ini")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            user=account.pw_uid if account else None,
            group=account.pw_gid if account else None,
        )
        try:
            _wait_until_it_listens(process, port, folder / "log")
            yield port
        finally:
            process.kill()  # what other signals mean changed between releases
            process.wait(START_SECONDS)


def _account(name: str) -> pwd.struct_passwd | None:
    with suppress(KeyError):
        return pwd.getpwnam(name)
    return None


def _wait_until_it_listens(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        with suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
            return
        told = log.read_text() if log.exists() else ""
        assert process.poll() is None and time.monotonic() < deadline, told
        time.sleep(0.01)
