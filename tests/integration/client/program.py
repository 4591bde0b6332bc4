"""A program that drives a run until it is killed: ``python program.py HOME NOTES GO``."""

from __future__ import annotations

import sys

import swarm


def main(home: str, notes: str, go: str) -> None:
    with swarm.SyncClient(home) as client:
        run = client.start("two", {"notes": notes, "wait_for": go}, isolation="none")
        for event in run.events():
            sys.stdout.write(f"{run.id} {event.kind} {event.step_id}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
