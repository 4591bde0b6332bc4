"""Asking a worker whether it lives and is ready: the socket and the question.

Who connects sends ``live`` or ``ready`` as one line and gets one line of JSON,
``{"ok", "state", "reason", "runs", "version"}``.
"""

from __future__ import annotations

import socket
from enum import StrEnum
from pathlib import Path

from swarm.kernel.errors import InvalidError, UnavailableError
from swarm.kernel.json import JsonObject, loads


class Probe(StrEnum):
    """What may be asked."""

    LIVE = "live"
    READY = "ready"


def listen(path: Path) -> socket.socket:
    """A socket for the owner alone, which takes the place of one at which nobody listens any more.

    Raises:
        UnavailableError: it cannot be made there.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_socket() and not _is_served(path):
            path.unlink()
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen()
    except OSError as error:
        listener.close()
        raise UnavailableError(
            f"the health socket cannot be made: {error.strerror or error}",
            where=str(path),
            remedy="set SWARM_HEALTH_SOCKET to a short path of this worker's own",
        ) from None
    return listener


def _is_served(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        try:
            client.connect(str(path))
        except ConnectionRefusedError:
            return False
    return True


def ask(path: Path, probe: Probe, seconds: float) -> JsonObject:
    """What the worker at ``path`` says of itself; blocks, for ``seconds`` at most at each step.

    Raises:
        UnavailableError: nobody listens there, or there was no answer in time.
    """
    remedy = "see whether the worker runs, and with the same SWARM_HEALTH_SOCKET"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(seconds)
        try:
            client.connect(str(path))
            client.sendall(f"{probe.value}\n".encode())
            with client.makefile("rb") as answers:
                answer = loads(answers.readline())
        except TimeoutError:
            message = f"the worker has not answered for {seconds:g} s"
            raise UnavailableError(message, where=str(path), remedy="restart it") from None
        except (OSError, InvalidError) as error:
            message = f"no worker answers: {error}"
            raise UnavailableError(message, where=str(path), remedy=remedy) from None
    if not isinstance(answer, dict):
        raise UnavailableError("what answers is no worker", where=str(path), remedy=remedy)
    return answer
