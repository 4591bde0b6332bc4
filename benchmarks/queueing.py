"""Queues of a fleet: formulas, and discrete-event simulations to check them by.

Times are in milliseconds, rates per second. Sources: Erlang's C formula; Allen and Cunneen's
approximation for M/G/k (A. O. Allen, *Probability, Statistics and Queueing Theory*, 1990, 5.2.7),
exact for M/M/k and, by Pollaczek and Khinchine, for M/G/1; J. Kiefer and J. Wolfowitz, *On the
theory of queues with many servers*, 1955, for the simulation of waiting times.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

MS = 1000.0
"""Milliseconds in a second."""


@dataclass(frozen=True)
class Waiting:
    """How long calls wait for a free server."""

    utilisation: float
    probability: float
    """That a call has to wait at all."""
    mean: float
    p99: float


def erlang_c(servers: int, load: float) -> float:
    """The probability that a call waits in M/M/k.

    Args:
        servers: k.
        load: offered load in Erlangs, arrival rate times mean service; less than ``servers``.
    """
    blocking = 1.0
    for count in range(1, servers + 1):
        blocking = load * blocking / (count + load * blocking)
    return blocking / (1 - load / servers * (1 - blocking))


def mgk(servers: int, rate: float, service: float, variation: float) -> Waiting:
    """Waiting in M/G/k, first come first served, with an exponential tail.

    Args:
        servers: k.
        rate: arrivals per second, Poisson.
        service: its mean, ms.
        variation: the squared coefficient of variation of the service; 0 always the same, 1
            exponential.

    Raises:
        ValueError: more arrives than can be served.
    """
    load = rate * service / MS
    if load >= servers:
        raise ValueError(f"{load:.1f} Erlangs do not fit {servers} servers")
    probability = erlang_c(servers, load)
    scale = (1 + variation) / 2 * service / (servers - load)
    p99 = scale * math.log(probability / 0.01) if probability > 0.01 else 0.0
    return Waiting(load / servers, probability, probability * scale, p99)


def simulate_mgk(
    servers: int, rate: float, service: Callable[[random.Random], float], calls: int, seed: int = 1
) -> Waiting:
    """The same by simulation: each call goes to the server that is free first."""
    rng = random.Random(seed)
    free = [0.0] * servers
    now, busy = 0.0, 0.0
    waits = []
    for _ in range(calls):
        now += rng.expovariate(rate / MS)
        start = max(now, free[0])
        length = service(rng)
        heapq.heapreplace(free, start + length)
        busy += length
        waits.append(start - now)
    waits = sorted(waits[calls // 10 :])  # Not those that met an empty system.
    late = sum(wait > 0 for wait in waits) / len(waits)
    mean = sum(waits) / len(waits)
    return Waiting(busy / now / servers, late, mean, waits[len(waits) * 99 // 100])


def lognormal(mean: float, variation: float) -> Callable[[random.Random], float]:
    """A service time of this mean and squared coefficient of variation."""
    sigma = math.sqrt(math.log(1 + variation))
    middle = math.log(mean) - sigma * sigma / 2
    return lambda rng: rng.lognormvariate(middle, sigma) if sigma else mean


def slowdown(servers: int, busy: float) -> float:
    """How many times as long a job takes as alone, where jobs share ``servers`` equal processors.

    The mean of M/M/k, which first come first served and an equal share of processors have in
    common.

    Args:
        servers: k.
        busy: the share of their time that they are in use, less than 1.
    """
    return 1 + erlang_c(servers, busy * servers) / (servers * (1 - busy))


@dataclass(frozen=True)
class GroupCommit:
    """A writer that commits all that has come while it committed what came before."""

    fixed: float
    """ms of a commit, however much is in it: the wait for the disk."""
    per_step: float
    """ms that each step adds."""

    @property
    def limit(self) -> float:
        """Steps per second that can never be passed."""
        return MS / self.per_step

    def group(self, rate: float) -> float:
        """Mean steps per commit where ``rate`` steps per second come, at least 1."""
        if rate >= self.limit:
            raise ValueError(f"{rate:.0f} steps per second do not fit {self.limit:.0f}")
        return max(1.0, rate / MS * self.fixed / (1 - rate / self.limit))


def simulate_runs(
    runs: int, loop: float, commit: GroupCommit, steps: int = 20_000, outside: float = 0.0
) -> float:
    """Steps per second of one host that drives ``runs`` runs at once, each a chain of steps.

    A step takes the event loop for ``loop`` ms (one at a time), then ``outside`` ms of an agent
    (all at once), then waits for the commit that it is in; then the run's next step comes.
    """
    waiting_loop: deque[int] = deque(range(runs))
    waiting_commit = 0
    loop_free, disk_free, now, done = True, True, 0.0, 0
    events: list[tuple[float, int, str, int]] = []
    number = 0
    while done < steps:
        if loop_free and waiting_loop:
            waiting_loop.popleft()
            loop_free = False
            heapq.heappush(events, (now + loop, number, "loop", 1))
        if disk_free and waiting_commit:
            length = commit.fixed + commit.per_step * waiting_commit
            heapq.heappush(events, (now + length, number, "commit", waiting_commit))
            disk_free, waiting_commit = False, 0
        now, _, kind, count = heapq.heappop(events)
        number += 1
        if kind == "loop":
            loop_free = True
            heapq.heappush(events, (now + outside, number, "agent", 1))
        elif kind == "agent":
            waiting_commit += 1
        else:
            disk_free = True
            done += count
            waiting_loop.extend(range(count))
    return done / now * MS


def calibrate(chain: float, busy_rate: float) -> tuple[float, float]:
    """What the event loop and a commit take, from two measured figures.

    Args:
        chain: ms per step of a single run.
        busy_rate: steps per second with many runs at once, where the event loop is never idle.

    Returns:
        ms of the event loop per step, ms of a commit.
    """
    loop = MS / busy_rate
    return loop, max(0.0, chain - loop)


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Rows as a table of Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)
