"""Reads or writes secrets of a home, one vault for its whole life, until SIGTERM.

usage: secret_process.py HOME reads|writes NUMBER

Prints ``at work`` after the first one, and at its end how many there were. Any error ends it.
"""

from __future__ import annotations

import asyncio
import itertools
import signal
import sys
from pathlib import Path

from swarm.bootstrap.vaults import open_vault
from swarm.kernel.settings import Settings
from swarm.store.records import SecretIdentity
from swarm.vault.vault import NewSecret, Vault

COUNT = 200


async def read(vault: Vault, turn: int) -> None:
    """A run's look-up: through all scopes, by a vault that knows the keys of before."""
    name = f"S{turn % COUNT}"
    value = await vault.find(name, "flow", "default")
    assert value == f"value of {name}", value


async def write(vault: Vault, turn: int, number: int) -> None:
    mine = SecretIdentity(f"OWN_{number}_{turn % 5}")
    await vault.put([NewSecret(mine, f"turn {turn}")])
    assert await vault.get(mine) == f"turn {turn}"


async def main(home: Path, kind: str, number: int) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with open_vault(Settings(home=home)) as opened:
        for turn in itertools.count():
            if stop.is_set():
                print(turn, flush=True)  # noqa: T201 - what the test reads
                return
            await (
                read(opened.vault, turn) if kind == "reads" else write(opened.vault, turn, number)
            )
            if turn == 0:
                print("at work", flush=True)  # noqa: T201


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
