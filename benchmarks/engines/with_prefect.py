"""Prefect with a local server of its own on SQLite, as installed: the server, and the measuring
program beside it, since Prefect reads where its server is when it is imported.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import work

START_SECONDS = 120.0
PROGRAM = Path(__file__).with_name("prefect_flows.py")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def configure(folder: Path, port: int) -> None:
    """For the processes that are started from here."""
    os.environ |= {
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_LOGGING_LEVEL": "CRITICAL",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }


def start_server(folder: Path, port: int) -> subprocess.Popen[bytes]:
    """Start the server and wait until it answers.

    Raises:
        CannotBeMeasured: it does not.
    """
    command = [sys.executable, "-m", "prefect", "server", "start", "--no-ui"]
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)], stdout=log, stderr=log
        )
    deadline = time.monotonic() + START_SECONDS
    while not is_up(port):
        if server.poll() is not None or time.monotonic() > deadline:
            server.kill()
            raise work.CannotBeMeasured(f"its server was not up within {START_SECONDS:g} s")
        time.sleep(0.1)
    return server


def is_up(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def main() -> int:
    folder, _, works, _ = work.arguments()
    port = free_port()
    configure(folder, port)
    try:
        server = start_server(folder, port)
    except work.CannotBeMeasured as error:
        for name in works:
            work.tell(name, error=str(error))
        return 0
    try:
        return subprocess.run([sys.executable, str(PROGRAM), *sys.argv[1:]], check=False).returncode
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    sys.exit(main())
