"""Keeps commands of a home running, and kills processes of it at random moments."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from swarm.kernel.clock import now_text
from tests.recovery.kills.home import Home, Process, printed, wait_until
from tests.recovery.kills.journal import Row, query
from tests.recovery.kills.outside import UNFINISHED, Errand, Outside
from tests.recovery.kills.shared import ended_keys
from tests.recovery.kills.workflows import Flow
from tests.recovery.sandbox.traffic import children, kill_child

CLIENTS = 4
"""Commands that run at once; the background workers that they start come on top."""
MOST_BETWEEN_KILLS_SECONDS = 0.4
SETTLE_SECONDS = 120
MAX_UNFINISHED = 12
"""Runs on their way from which on no new ones are started."""
NUMBERS = 2
"""Few inputs: runs share the results of steps, and the keys of limits."""
KEYED = 0.25
"""Share of the runs that are asked for with an idempotency key: one for a workflow and an input."""
KEYED_FLOWS = 3


class Chaos:
    """What goes on in one home until enough has been killed."""

    clients_at_once = CLIENTS

    def __init__(self, home: Home, flows: list[Flow], isolation: str, rng: random.Random) -> None:
        self.home = home
        self.kills: Counter[str] = Counter()
        self.outside = Outside(home, flows)
        self.cached_since: dict[tuple[str, str], str] = {}
        """The results seen in the cache, and when; by agent and inputs."""
        self._keys: dict[Path, str] = {}
        self.told: dict[str, list[set[str]]] = {}
        """The runs that each command with an idempotency key told of that was not killed."""
        self._errands: dict[Path, Errand] = {}
        self._flows = flows
        self._isolation = isolation
        self._rng = rng
        self._clients: list[Process] = []
        self._seen: dict[str, dict[str, Row]] = {}

    def kill(self, wanted: int) -> None:
        """Kill so many processes, checking the journal after each."""
        while self.kills.total() < wanted:
            self._keep_busy()
            self._kill_soon()
            self._check_finished()

    def settle(self) -> None:
        """Kill nothing more, and wait until every run has ended."""
        for client in self._clients:
            if client.kind == "worker" and not client.has_ended:
                os.kill(client.pid, signal.SIGTERM)
        ends = time.monotonic() + SETTLE_SECONDS
        while self._clients or self._unfinished():
            assert time.monotonic() < ends, f"these runs do not end: {self._unfinished()}"
            for client in [client for client in self._clients if client.has_ended]:
                self._collect(client)
            for errand in self.outside.due():
                self._collect(self._send(errand))
            if self._unfinished() and not self._clients:
                # Not waited for: it follows runs that may wait for another errand.
                self._clients.append(self.home.start("resume", "runs", "resume"))
            time.sleep(0.05)
        wait_until(lambda: not self.home.processes(), "something was left running")
        self._check_finished()

    # -- commands --------------------------------------------------------------------------------

    def _keep_busy(self) -> None:
        for client in [client for client in self._clients if client.has_ended]:
            self._collect(client)
        while len(self._clients) < self.clients_at_once:
            kinds = self._kinds()
            kind = self._rng.choices(list(kinds), list(kinds.values()))[0]
            self._clients.append(self._start(kind))

    def _collect(self, client: Process) -> None:
        if client in self._clients:
            self._clients.remove(client)
        code = self.home.collect(client)
        key = self._keys.pop(client.output, None)
        if key is not None and code in (0, 1):  # 1: the run failed
            self.told.setdefault(key, []).append(printed(client.output))
        errand = self._errands.pop(client.output, None)
        if errand is not None and code == 0:
            self.outside.end(errand)

    def _kinds(self) -> dict[str, int]:
        """The commands that may be started now, and how often each is."""
        if len(self._unfinished()) >= MAX_UNFINISHED:
            return {"resume": 2, "worker": 3, "answer": 5, "event": 5, "cancel": 2}
        kinds = {"run": 8, "detach": 5, "resume": 3, "answer": 5, "event": 3, "cancel": 1}
        if not any(client.kind == "worker" for client in self._clients):
            kinds["worker"] = 2
        return kinds

    def _start(self, kind: str) -> Process:
        match kind:
            case "resume":
                return self.home.start(kind, "runs", "resume")
            case "worker":
                return self.home.start(kind, "worker")
            case "answer" | "event" | "cancel":
                if errands := self.outside.errands(kind):
                    return self._send(self._rng.choice(errands))
                kind = "run"
        return self._begin(kind)

    def _send(self, errand: Errand) -> Process:
        self.outside.start(errand)
        process = self.home.start(errand.kind, *errand.arguments)
        self._errands[process.output] = errand
        return process

    def _begin(self, kind: str) -> Process:
        """Start a run, or ask for one by an idempotency key: mostly one that is there."""
        is_keyed = self._rng.random() < KEYED
        # Few workflows are asked for so: else hardly any key would be used again.
        flow = self._rng.choice(self._flows[-KEYED_FLOWS:] if is_keyed else self._flows)
        number = self._rng.randrange(NUMBERS)
        inputs = [f"number={number}"]
        if self._isolation == "none":
            inputs.append(f"ledger={self.home.ledger}")
        arguments = [word for given in inputs for word in ("--input", given)]
        arguments += ["--isolation", self._isolation]
        arguments += ["--detach"] if kind == "detach" else []
        key = f"{flow.name}-{number}" if is_keyed else None
        arguments += ["--idempotency-key", key] if key is not None else []
        process = self.home.start(kind, "run", flow.name, *arguments)
        if key is not None:
            self._keys[process.output] = key
        return process

    # -- kills -----------------------------------------------------------------------------------

    def _victims(self) -> dict[Callable[[], str | None], int]:
        """What can be done to processes, and how often each is."""
        return {
            self._kill_client: 8,
            self._kill_group: 3,
            self._kill_host: 4,
            self._kill_keeper: 3,
            self._kill_sandbox: 6,
        }

    def _kill_soon(self) -> None:
        """Kill one process at a random moment; none if that kind is not there by then."""
        victims = self._victims()
        choose = self._rng.choices(list(victims), list(victims.values()))[0]
        time.sleep(self._rng.uniform(0, MOST_BETWEEN_KILLS_SECONDS))
        if killed := choose():
            self.kills[killed] += 1

    def _living_client(self) -> Process | None:
        """Any kind as likely as the other: workers live longest, and would be killed most."""
        living = [client for client in self._clients if not client.has_ended]
        if not living:
            return None
        kind = self._rng.choice(sorted({client.kind for client in living}))
        return self._rng.choice([client for client in living if client.kind == kind])

    def _kill_client(self) -> str | None:
        if (client := self._living_client()) is None:
            return None
        signal.pidfd_send_signal(client.pidfd, signal.SIGKILL)
        return client.kind

    def _kill_group(self) -> str | None:
        """The command with all that it started in its session, such as its zygote."""
        if (client := self._living_client()) is None:
            return None
        # Not collected yet: the number is still its own. As it begins, it has no group yet.
        with suppress(ProcessLookupError):
            os.killpg(client.pid, signal.SIGKILL)
            return f"group of {client.kind}"
        return None

    def _kill_host(self) -> str | None:
        """Whatever drives runs, a background worker too, which is nobody's child."""
        hosts = self.home.hosts()
        if not hosts:
            return None
        known = {client.pid: client.kind for client in self._clients}
        pid = self._rng.choice(hosts)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            return known.get(pid, "background worker")
        return None

    def _kill_keeper(self) -> str | None:
        """A zygote, which takes its sandboxes along."""
        found = [(child, host) for host in self.home.hosts() for child in _zygotes(host)]
        return "zygote" if found and kill_child(*self._rng.choice(found)) else None

    def _kill_sandbox(self) -> str | None:
        """A sandbox: idle, being built, or in a call; or a plain guest process."""
        found = []
        for host in self.home.hosts():
            zygotes = _zygotes(host)
            found += [(child, host) for child in children(host) if child not in zygotes]
            found += [(child, zygote) for zygote in zygotes for child in children(zygote)]
        return "sandbox" if found and kill_child(*self._rng.choice(found)) else None

    # -- checks ----------------------------------------------------------------------------------

    def _unfinished(self) -> list[str]:
        return [row["id"] for row in query(self.home.journal, UNFINISHED)]

    def _check_finished(self) -> None:
        """What was finished at the last look stands as it was."""
        known = ended_keys(self.home.journal, {flow.name: flow for flow in self._flows})
        for key in known - self.cached_since.keys():
            self.cached_since[key] = now_text()
        rows = query(
            self.home.journal,
            "SELECT * FROM step_executions WHERE status IN ('succeeded', 'failed', 'skipped')",
        )
        found: dict[str, dict[str, Row]] = {}
        for row in rows:
            found.setdefault(row["run_id"], {})[row["id"]] = row
        for run_id, steps in self._seen.items():
            now = found.get(run_id, {})
            assert steps.items() <= now.items(), f"a finished step of {run_id} was lost or changed"
        self._seen = found


def _zygotes(host: int) -> list[int]:
    return [child for child in children(host) if "zygote" in _command(child)]


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""
