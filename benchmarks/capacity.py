"""How many workers and databases carry a load: the tables of docs/concepts/capacity.md.

usage: python benchmarks/capacity.py [--check]

From the figures in capacity.toml, by the formulas and simulations of queueing.py. Writes the page's
tables anew; with --check it only says by its exit status whether they are as they should be.
"""

from __future__ import annotations

import math
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from queueing import (
    MS,
    GroupCommit,
    calibrate,
    lognormal,
    mgk,
    simulate_mgk,
    simulate_runs,
    table,
)

FIGURES = Path(__file__).parent / "capacity.toml"
PAGE = Path(__file__).parent.parent / "docs" / "concepts" / "capacity.md"
TARGETS = (10, 1_000, 100_000)
BUSY = 0.7
"""How busy anything may be planned to be; beyond, waiting grows faster than the load."""
DAY = 86_400


@dataclass(frozen=True)
class Work:
    """What an agent does in a step."""

    title: str
    cpu_ms: float
    """Of a core, sandbox included."""
    wait_ms: float
    """Of waiting for others, such as a model."""
    variation: float
    """Squared coefficient of variation of the whole."""


@dataclass(frozen=True)
class Need:
    """What of a database a load uses, and how much it has."""

    title: str
    used: float
    limit: float
    unit: str
    is_hard: bool = True
    """Whether more cannot be had; commits grow instead, and take longer."""

    @property
    def share(self) -> float:
        return self.used / self.limit


class Model:
    """The figures, and what follows from them."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        self.curve = {int(runs): rate for runs, rate in document["measured_curve"].items()}
        self.sqlite_loop_ms, self.sqlite_commit_ms = calibrate(self["chain_ms"], self["busy_steps"])
        self.loop_ms = MS / self["postgres_busy_steps"]
        """Of one worker process of a fleet, per step."""

    def __getitem__(self, name: str) -> float:
        return float(self.document[name]["value"])

    def works(self) -> list[Work]:
        """From the least to the most that a step may ask for."""
        sandbox = self["sandbox_cpu_ms"]
        return [
            Work("engine alone, no isolation", 0, 0, 0),
            Work("a sandbox that computes 10 ms", sandbox + 10, 0, 0.5),
            Work("a sandbox that waits 2 s for a model", sandbox + 20, 2_000, 1),
        ]

    def workers(self, rate: float, work: Work) -> dict[str, int]:
        """Workers that each limit asks for at ``BUSY``; the largest counts."""
        cores = self["worker_cores"]
        slots = self.slots()
        return {
            "event loop": math.ceil(rate * self.loop_ms / MS / BUSY),
            "cores": math.ceil(rate * (self.loop_ms + work.cpu_ms) / MS / cores / BUSY),
            "sandboxes": math.ceil(rate * (work.cpu_ms + work.wait_ms) / MS / slots / BUSY),
        }

    def slots(self) -> int:
        """Sandboxes that half of a worker's memory holds at once."""
        return int(self["worker_memory_mb"] / 2 / self["sandbox_memory_mb"])

    def needs(self, rate: float, workers: int) -> list[Need]:
        """What one database would have to give at this rate."""
        runs = rate / self["steps_per_run"]
        commits = min(rate, workers * MS / self["commit_ms"], self["commits_per_second"])
        return [
            Need(
                "processor",
                rate * self["database_cpu_ms"] / MS,
                self["database_cores"],
                "cores",
            ),
            Need(
                "write-ahead log",
                rate * self["wal_bytes_per_step"] / 1e6,
                self["wal_mb_per_second"],
                "MB/s",
            ),
            Need("commits", commits, self["commits_per_second"], "per s", is_hard=False),
            Need("commits that notify", runs, self["notify_per_second"], "per s"),
            Need(
                "connections",
                workers * self["connections_per_worker"],
                self["database_connections"],
                "",
            ),
        ]


def figures(model: Model) -> str:
    """Every parameter, with where it is from."""
    rows = [
        [
            f"`{name}`",
            f"{entry['value']:,}",
            entry["unit"],
            entry["meaning"],
            f"**{entry['origin']}**" if entry["origin"] == "measured" else entry["origin"],
        ]
        for name, entry in model.document.items()
        if "value" in entry
    ]
    return table(["parameter", "value", "unit", "what it is", "origin"], rows)


def check(model: Model) -> str:
    """What the model says of one process beside what was measured."""
    commit = GroupCommit(model.sqlite_commit_ms, 0.0)
    rows = []
    for runs, measured in model.curve.items():
        told = simulate_runs(runs, model.sqlite_loop_ms, commit)
        rows.append([runs, f"{measured:,}", f"{told:,.0f}", f"{told / measured - 1:+.0%}"])
    return table(["runs at once", "measured, steps/s", "model, steps/s", "off by"], rows)


def fleet(model: Model) -> str:
    """What processor times say of a fleet on one machine, beside what it did."""
    rows = []
    for found in model.document["measured_fleet"]:
        used = found["used_ms"]
        told = min(found["cores"] * MS / sum(used), found["workers"] * MS / used[0])
        off = told / found["runs"] - 1
        rows.append(
            [found["what"], found["workers"], f"{found['runs']:,}", f"{told:,.0f}", f"{off:+.0%}"]
        )
    return table(["work", "workers", "measured, runs/s", "model, runs/s", "off by"], rows)


def waiting(model: Model) -> str:
    """Waiting for a free sandbox, by formula and by simulation."""
    mean, variation = 100.0, 1.0
    rows = []
    for servers in (2, 16, 128):
        for busy in (0.5, 0.7, 0.85, 0.95):
            rate = servers * busy / mean * MS
            told = mgk(servers, rate, mean, variation)
            found = simulate_mgk(servers, rate, lognormal(mean, variation), 100_000)
            rows.append(
                [
                    servers,
                    f"{busy:.0%}",
                    f"{told.probability:.0%}",
                    f"{told.mean:.1f}",
                    f"{found.mean:.1f}",
                    f"{told.p99:.0f}",
                    f"{found.p99:.0f}",
                ]
            )
    head = ["sandboxes", "busy", "wait at all", "mean ms", "simulated", "p99 ms", "simulated"]
    return table(head, rows)


def sizes(model: Model) -> str:
    """Workers for each kind of work and each rate."""
    rows = []
    for work in model.works():
        for rate in TARGETS:
            needed = model.workers(rate, work)
            first = max(needed, key=lambda name: needed[name])
            workers = max(needed.values())
            cores = rate * (model.loop_ms + work.cpu_ms) / MS
            busy = rate * (work.cpu_ms + work.wait_ms) / MS
            p99 = pick_up(model, rate, work, workers)
            limit = first if workers > 1 else "none"
            rows.append(
                [
                    work.title,
                    f"{rate:,}",
                    f"{cores:,.1f}",
                    f"{busy:,.1f}",
                    f"{workers:,}",
                    limit,
                    p99,
                ]
            )
    head = [
        "a step is",
        "steps/s",
        "cores busy",
        "sandboxes busy",
        "workers",
        "bound by",
        "p99 wait",
    ]
    return table(head, rows)


def pick_up(model: Model, rate: float, work: Work, workers: int) -> str:
    """The p99 of waiting for a free core or sandbox on one of the workers."""
    service = work.cpu_ms + work.wait_ms
    if not service:
        found = mgk(1, rate / workers, model.loop_ms, 0)
        return f"{found.p99:.1f} ms"
    servers = model.slots() if work.wait_ms else int(model["worker_cores"])
    found = mgk(servers, rate / workers, service, work.variation)
    return f"{found.p99:.1f} ms"


def databases(model: Model) -> str:
    """How busy one database would be with each rate, its first limit, and how many it takes."""
    work = model.works()[1]
    rows = []
    for rate in TARGETS:
        workers = max(model.workers(rate, work).values())
        needs = model.needs(rate, workers)
        first = max((need for need in needs if need.is_hard), key=lambda need: need.share)
        count = math.ceil(first.share / BUSY)
        shares = [
            f"{need.used:,.0f} {need.unit}".strip() + f" ({need.share:.0%})" for need in needs
        ]
        rows.append([f"{rate:,}", f"{workers:,}", *shares, first.title, count])
    names = [need.title for need in model.needs(1, 1)]
    return table(["steps/s", "workers", *names, "first limit", "databases"], rows)


def limits(model: Model) -> str:
    """The rate at which each limit of one database is reached, at 100% and as planned."""
    rows = []
    for index, need in enumerate(model.needs(1_000, 1)):
        if need.title == "connections":
            workers = need.limit / model["connections_per_worker"]
            per_worker = BUSY * model["worker_cores"] * MS / model.works()[1].cpu_ms
            rate = workers * per_worker
        elif not need.is_hard:
            rate = math.inf
        else:
            rate = 1_000 / model.needs(1_000, 1)[index].share
        told = "none: groups grow" if math.isinf(rate) else f"{rate:,.0f}"
        planned = "" if math.isinf(rate) else f"{rate * BUSY:,.0f}"
        rows.append([need.title, f"{need.limit:,.0f} {need.unit}".strip(), told, planned])
    return table(["limit of one database", "it gives", "steps/s at 100%", "at 70%"], rows)


def storage(model: Model) -> str:
    """What is kept, by how long it is kept."""
    rows = []
    for rate in TARGETS:
        daily = rate * DAY * model["stored_bytes_per_step"]
        log = rate * DAY * model["wal_bytes_per_step"]
        kept = [size(daily * days) for days in (1, 7, 90)]
        rows.append([f"{rate:,}", f"{rate * DAY / 1e6:,.1f} million", *kept, size(log)])
    head = ["steps/s", "steps a day", "1 day", "7 days", "90 days", "log a day (archive, replica)"]
    return table(head, rows)


def size(count: float) -> str:
    """Bytes for people, in powers of ten."""
    for unit in ("kB", "MB", "GB", "TB"):
        count /= 1000
        if count < 1000:
            return f"{count:,.1f} {unit}"
    return f"{count / 1000:,.1f} PB"


TABLES = {
    "figures": figures,
    "check": check,
    "fleet": fleet,
    "waiting": waiting,
    "sizes": sizes,
    "limits": limits,
    "databases": databases,
    "storage": storage,
}


def page(text: str, model: Model) -> str:
    """The page with the tables between ``<!-- table: NAME -->`` and ``<!-- end -->`` anew."""
    return "".join(_parts(text, model))


def _parts(text: str, model: Model) -> Iterator[str]:
    first, *others = text.split("<!-- table: ")
    yield first
    for part in others:
        name, _, rest = part.partition(" -->")
        _, end, after = rest.partition("<!-- end -->")
        if not end:
            raise ValueError(f"the table {name} has no end")
        yield f"<!-- table: {name} -->\n{TABLES[name](model)}\n{end}{after}"


def read_model() -> Model:
    """The figures of capacity.toml."""
    return Model(tomllib.loads(FIGURES.read_text()))


def main() -> int:
    text = PAGE.read_text()
    written = page(text, read_model())
    if "--check" in sys.argv:
        return int(written != text)
    PAGE.write_text(written)
    return 0


if __name__ == "__main__":
    sys.exit(main())
