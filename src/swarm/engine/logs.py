"""What the agents of a run logged: one JSON Lines file per run.

The size of a run's log is bounded by the limit per invocation (``max_log_bytes``, held by the
sandbox) times the attempts of its steps.
"""

from __future__ import annotations

from pathlib import Path
from typing import IO

import orjson

from swarm.kernel.clock import now_text
from swarm.kernel.errors import UnavailableError
from swarm.kernel.json import JsonObject


class RunLog:
    """Appends to one run's log; opened at the first line."""

    def __init__(self, folder: Path, run_id: str) -> None:
        self._path = log_path(folder, run_id)
        self._file: IO[bytes] | None = None

    def append(
        self, step_id: str | None, attempt: int, stream: str, level: str, message: str
    ) -> None:
        """Write one line, at once, so that it survives the process.

        Raises:
            UnavailableError: the file cannot be written (a full disk, say).
        """
        entry = {
            "time": now_text(),
            "step_id": step_id,
            "attempt": attempt,
            "stream": stream,
            "level": level,
            "message": message,
        }
        try:
            if self._file is None:
                self._file = self._path.open("ab", buffering=0)
            self._file.write(orjson.dumps(entry) + b"\n")
        except OSError as error:
            raise UnavailableError(
                f"the run's log cannot be written: {error.strerror}",
                where=str(self._path),
                remedy="free space or make the folder writable, then `swarm runs resume`",
            ) from None

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def log_path(folder: Path, run_id: str) -> Path:
    """Where a run's log lies."""
    return folder / f"{run_id}.jsonl"


def read_log(folder: Path, run_id: str) -> list[JsonObject]:
    """Every whole line of a run's log; a line cut short by a crash is left out."""
    try:
        data = log_path(folder, run_id).read_bytes()
    except FileNotFoundError:
        return []
    lines = data.split(b"\n")
    entries = []
    for line in lines:
        try:
            entries.append(orjson.loads(line))
        except orjson.JSONDecodeError:
            continue
    return entries
