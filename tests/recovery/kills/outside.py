"""What people and other programs do to the runs of a home: answers, events and cancellations.

Each is done by a command, which may be killed. What a command said that it did is never done again:
would it be lost, its run could not end.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count

from swarm.kernel.json import JsonObject
from tests.recovery.kills.home import Home
from tests.recovery.kills.journal import Row, query
from tests.recovery.kills.workflows import EVENT, NEVER_ANSWERED, Flow

FINAL = ("succeeded", "failed", "cancelled")
UNFINISHED = "SELECT * FROM workflow_runs WHERE status IN ('pending', 'running', 'waiting')"


@dataclass(frozen=True)
class Errand:
    """Something to be done by a command."""

    kind: str
    arguments: tuple[str, ...]
    run_id: str
    subject: str = ""
    """The step that is answered, or the event's id."""
    by: str = ""
    request: JsonObject = field(default_factory=dict)
    """The same for a program that asks the engine (see ``asking``)."""


class Outside:
    """What could be done, and what was done."""

    def __init__(self, home: Home, flows: list[Flow]) -> None:
        self.answers: dict[tuple[str, str], str] = {}
        """Who answered which step of which run, as their command was told."""
        self.events: set[str] = set()
        """Ids of the events that were told to be recorded."""
        self.cancelled: set[str] = set()
        """The runs of which somebody has asked, or tried to ask, that they be cancelled."""
        self._home = home
        self._flows = {flow.name: flow for flow in flows}
        self._people = count(1)

    def errands(self, kind: str) -> list[Errand]:
        """All of a kind that could be done now, done before or not."""
        runs = query(self._home.journal, UNFINISHED)
        find = {"answer": self._answers, "event": self._events, "cancel": self._cancellations}
        return [errand for run in runs for errand in find[kind](run)]

    def due(self) -> list[Errand]:
        """Those without which no run goes on."""
        answers = [
            each
            for each in self.errands("answer")
            if (each.run_id, each.subject) not in self.answers
        ]
        events = [each for each in self.errands("event") if each.subject not in self.events]
        asked = {
            row["id"] for row in query(self._home.journal, f"{UNFINISHED} AND cancel_requested = 1")
        }
        cancellations = [
            each
            for each in self.errands("cancel")
            if each.run_id not in asked and self._is_endless(each.run_id)
        ]
        return [*answers, *events, *cancellations]

    def start(self, errand: Errand) -> None:
        if errand.kind == "cancel":
            self.cancelled.add(errand.run_id)

    def end(self, errand: Errand) -> None:
        """Take note that the errand's command has ended well."""
        match errand.kind:
            case "answer":
                subject = (errand.run_id, errand.subject)
                assert subject not in self.answers, f"two answers to {subject} were accepted"
                self.answers[subject] = errand.by
            case "event":
                self.events.add(errand.subject)
            case "cancel":
                status = self._run(errand.run_id)["status"]
                assert status in FINAL, f"{errand.run_id} was cancelled, but is {status}"

    def check(self) -> tuple[int, int]:
        """Nothing that was accepted is lost; gives how many events came before their steps waited
        for them, and how many after."""
        answers = {
            (row["run_id"], row["step_id"]): json.loads(row["data"])["by"]
            for row in query(self._home.journal, "SELECT * FROM answers")
        }
        assert self.answers.items() <= answers.items()
        steps = query(
            self._home.journal,
            "SELECT * FROM step_executions WHERE wait_kind IN ('approval', 'event') "
            "AND status IN ('succeeded', 'failed')",
        )
        received = {
            row["id"]: row["received_at"]
            for row in query(self._home.journal, "SELECT * FROM events")
        }
        assert self.events <= received.keys()
        had: dict[tuple[str, str], str] = {}
        for step in steps:
            outputs = json.loads(step["outputs"])
            if step["wait_kind"] == "approval":
                assert outputs["by"] == answers[step["run_id"], step["step_id"]]
                continue
            event = (step["run_id"], outputs["id"])
            assert event not in had, f"a run had the event {event} twice"
            had[event] = step["started_at"]
        early = sum(received[event] < began for (_, event), began in had.items())
        return early, len(had) - early

    def _answers(self, run: Row) -> Iterator[Errand]:
        waiting = query(
            self._home.journal,
            "SELECT step_id FROM step_executions WHERE run_id = ? "
            "AND status = 'waiting' AND wait_kind = 'approval'",
            run["id"],
        )
        steps = {step.id: step for step in self._flows[run["workflow_name"]].steps}
        for row in waiting:
            step = steps[row["step_id"]]
            person = f"person-{next(self._people)}"
            place = (run["id"], step.id, "--by", person)
            asked = {"kind": "answer", "run_id": run["id"], "step": step.id, "by": person}
            if step.answer == "approved":
                yes = ("runs", "approve", *place, "--value", f"amount={step.salt}")
                asked |= {"approved": True, "values": {"amount": step.salt}}
                yield Errand("answer", yes, run["id"], step.id, person, asked)
            elif step.answer == "rejected":
                no = ("runs", "reject", *place)
                asked |= {"approved": False, "values": {}}
                yield Errand("answer", no, run["id"], step.id, person, asked)

    def _events(self, run: Row) -> Iterator[Errand]:
        """One for each step that hears, for whichever comes to it first."""
        payload = {"value": json.loads(run["inputs"])["number"]}
        hearing = [step for step in self._flows[run["workflow_name"]].steps if step.hears]
        for step in hearing:
            event = f"{run['id']}/{step.id}"
            key = ("--key", run["id"], "--id", event)
            sent = ("events", "send", EVENT, json.dumps(payload), *key)
            asked = {"kind": "event", "name": EVENT, "key": run["id"], "payload": payload}
            yield Errand("event", sent, run["id"], event, request={**asked, "id": event})

    def _cancellations(self, run: Row) -> Iterator[Errand]:
        if run["parent_run_id"] is None:
            asked = {"kind": "cancel", "run_id": run["id"]}
            yield Errand("cancel", ("runs", "cancel", run["id"]), run["id"], request=asked)

    def _is_endless(self, run_id: str) -> bool:
        """Whether the run waits for what never comes."""
        steps = self._flows[self._run(run_id)["workflow_name"]].steps
        waiting = query(
            self._home.journal,
            "SELECT step_id FROM step_executions WHERE run_id = ? AND status = 'waiting'",
            run_id,
        )
        never = {step.id for step in steps if step.answer == NEVER_ANSWERED}
        return any(row["step_id"] in never for row in waiting)

    def _run(self, run_id: str) -> Row:
        (run,) = query(self._home.journal, "SELECT * FROM workflow_runs WHERE id = ?", run_id)
        return run
