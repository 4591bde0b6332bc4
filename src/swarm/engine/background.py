"""A worker in the background, for runs that are to outlive the process that started them."""

from __future__ import annotations

import asyncio
import subprocess
import threading
from collections.abc import Sequence

from swarm.kernel.errors import SwarmError, UnavailableError
from swarm.kernel.home import Home

WORKER_START_SECONDS = 30.0
"""How long a background worker may take until it is ready."""


class WorkerStarter:
    """Starts a worker that outlives this process and exits when idle."""

    def __init__(self, command: Sequence[str], home: Home) -> None:
        self._command = tuple(command)
        self._log = home.run_logs.parent / "worker.log"

    async def start(self) -> None:
        """Start a worker and wait until peers can reach it.

        Raises:
            UnavailableError: it could not be started.
        """
        try:
            process = await asyncio.to_thread(self._spawn)
        except OSError as error:
            raise self._failure(str(error)) from None
        if process.stdout is None:
            raise self._failure("it has no output to read")
        ready = asyncio.create_task(asyncio.to_thread(process.stdout.readline))
        # The worker outlives this event loop, so no transport of the loop may hold it. Somebody
        # must wait for it as long as this process lives, or it stays as a zombie.
        threading.Thread(target=process.wait, name="worker", daemon=True).start()
        try:
            line = await asyncio.wait_for(asyncio.shield(ready), WORKER_START_SECONDS)
        except TimeoutError:
            process.kill()
            await ready
            raise self._failure(f"it was not ready within {WORKER_START_SECONDS:g} s") from None
        if not line:
            raise self._failure("it ended at once")
        process.stdout.close()

    def _spawn(self) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            return subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )

    def _failure(self, reason: str) -> SwarmError:
        return UnavailableError(
            f"a background worker could not be started: {reason}",
            where=str(self._log),
            remedy="read the log; or run without `--detach`",
        )
