"""Runs an installer: a time limit, its output line by line, and nothing of it left behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from swarm.kernel.errors import DependencyError
from swarm.kernel.settings import MASTER_KEY_VARIABLE, SECRET_PREFIX

TAIL_LINES = 20
"""Lines of output that an error quotes."""
LINE_BYTES = 2_000
"""Longest line passed on; the rest of it is cut."""

# What would make an installer look at, or install into, Swarm's own environment.
_DROPPED = frozenset({"VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "NODE_OPTIONS"})
_SECRET = (SECRET_PREFIX, MASTER_KEY_VARIABLE)
# pip's settings of the registry, by the name under which uv knows them.
_UV_NAMES = {
    "PIP_INDEX_URL": ("UV_DEFAULT_INDEX", "UV_INDEX_URL"),
    "PIP_EXTRA_INDEX_URL": ("UV_INDEX", "UV_EXTRA_INDEX_URL"),
    "PIP_CERT": ("SSL_CERT_FILE",),
}

_SYSTEM_CERTIFICATES = (
    Path("/etc/ssl/certs/ca-certificates.crt"),
    Path("/etc/pki/tls/certs/ca-bundle.crt"),
)


def installer_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables for an installer: the user's, without Swarm's secrets and its own Python.

    Settings of the registry that are made for pip hold for uv too, unless uv has its own. The
    certificates that the system trusts are trusted, as by npm; uv alone has a list of its own.
    """
    kept = {
        name: value
        for name, value in environment.items()
        if not name.startswith(_SECRET) and name not in _DROPPED
    }
    for pip_name, uv_names in _UV_NAMES.items():
        if pip_name in kept and not any(name in kept for name in uv_names):
            kept[uv_names[0]] = kept[pip_name]
    if any(bundle.is_file() for bundle in _SYSTEM_CERTIFICATES):
        kept.setdefault("UV_SYSTEM_CERTS", "true")
    return {**kept, "NO_COLOR": "1", "UV_PYTHON_DOWNLOADS": "never"}


async def run_installer(
    command: Sequence[str],
    *,
    folder: Path,
    environment: Mapping[str, str],
    deadline: float,
    subject: str,
    on_line: Callable[[str], None] | None = None,
) -> None:
    """Run ``command`` in ``folder`` until it ends.

    Args:
        deadline: the event loop's time at which it is killed.
        subject: what is being installed, for messages.
        on_line: told each line of its output.

    Raises:
        DependencyError: it cannot be started, failed (its last lines are quoted) or took too long.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=folder,
            env=dict(environment),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        raise DependencyError(
            f"{subject}: {command[0]} cannot be started: {error.strerror}",
            remedy=f"see whether {command[0]} works on this machine",
        ) from None
    tail: deque[str] = deque(maxlen=TAIL_LINES)
    status: int | None = None
    try:
        async with asyncio.timeout_at(deadline):
            async for line in _lines(process):
                tail.append(line)
                if on_line is not None:
                    on_line(line)
            status = await process.wait()
    except TimeoutError:
        raise DependencyError(
            f"{subject}: not installed within the time limit{_quote(tail)}",
            remedy="see whether the registry can be reached, or raise install_timeout_seconds",
        ) from None
    finally:
        if status is None:
            # Its whole session, so that what it started goes too.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    if status:
        raise _failed(subject, status, tail)


def _failed(subject: str, status: int, tail: Sequence[str]) -> DependencyError:
    return DependencyError(
        f"{subject}: cannot be installed (exit {status}){_quote(tail)}",
        remedy="check the names and versions, and that the registry can be reached (your own"
        " settings of uv, pip and npm hold); packages that need building are not installed",
    )


async def _lines(process: asyncio.subprocess.Process) -> AsyncIterator[str]:
    output = process.stdout
    if output is None:
        raise AssertionError("the process was started with a pipe")
    rest = b""
    while data := await output.read(64 * 1024):
        *lines, rest = (rest + data).split(b"\n")
        rest = rest[:LINE_BYTES]
        for line in lines:
            if text := _shown(line):
                yield text
    if text := _shown(rest):
        yield text


def _shown(line: bytes) -> str:
    text = line[:LINE_BYTES].decode("utf-8", "replace").rstrip()
    return "".join(character if character.isprintable() else " " for character in text)


def _quote(tail: Sequence[str]) -> str:
    return "".join(f"\n  | {line}" for line in tail)


@dataclass(frozen=True, slots=True)
class InstallerRun:
    """Runs the commands of one installation, which share a deadline."""

    subject: str
    """What is being installed, for messages."""
    deadline: float
    """The event loop's time at which all of it must be done."""
    on_progress: Callable[[str], None] | None = None

    def tell(self, line: str) -> None:
        if self.on_progress is not None:
            self.on_progress(line)

    async def __call__(self, command: Sequence[str], folder: Path) -> None:
        """Run one command; see :func:`run_installer`."""
        await run_installer(
            command,
            folder=folder,
            environment=installer_environment(os.environ),
            deadline=self.deadline,
            subject=self.subject,
            on_line=self.on_progress,
        )
