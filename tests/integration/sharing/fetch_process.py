"""``fetch_process.py <settings as JSON> <folder> <reference>...``: fetches, and tells each.

With ``"pause": true`` it says ``half`` when some of the first one has come, and waits to be killed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from swarm.kernel.configuration import checked_settings
from swarm.kernel.errors import SwarmError
from swarm.store.shared.ports import Blob
from tests.bucket.machines import opened_machine


def tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    given = json.loads(sys.argv[1])
    pauses = given.pop("pause")
    machine = opened_machine(Path(sys.argv[2]), checked_settings(given))
    if pauses:
        read = machine.index.read

        def slowly(blob: Blob) -> Iterator[bytes]:
            pieces = read(blob)
            yield next(pieces)
            tell("half")
            sys.stdin.read()
            yield from pieces

        machine.index.read = slowly  # type: ignore[method-assign]
    for reference in sys.argv[3:]:
        try:
            tell(f"got {machine.artifacts.path(reference).stat().st_size}")
        except SwarmError as error:
            tell(f"{type(error).__name__}: {error.message}")


main()
