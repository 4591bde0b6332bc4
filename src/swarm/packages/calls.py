"""The workflows that a workflow of a home calls, directly and through others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from swarm.definitions.loading import workflow_from_json
from swarm.definitions.workflow import WorkflowDefinition
from swarm.expressions.calls import Call, calls, endless_path
from swarm.kernel.errors import NotFoundError
from swarm.packages.references import WORKFLOWS, choose_version
from swarm.store.records import WorkflowRecord


@dataclass(frozen=True, slots=True)
class _Version:
    """A workflow that is registered, or about to be."""

    name: str
    version: str
    record: WorkflowRecord | None
    """None for the one that is about to be."""

    @property
    def key(self) -> str:
        return f"{self.name}@{self.version}"


class CallTree:
    """What a workflow calls, once it is registered among the others of its home."""

    def __init__(self, definition: WorkflowDefinition, others: Sequence[WorkflowRecord]) -> None:
        own = _Version(definition.name, definition.version, None)
        self._own = own
        self._versions = [own] + [
            _Version(record.name, record.version, record)
            for record in others
            if (record.name, record.version) != (own.name, own.version)
        ]
        self._definitions: dict[str, WorkflowDefinition] = {own.key: definition}
        self._resolved: dict[str, _Version | NotFoundError] = {}
        self._endless: dict[str, tuple[str, ...] | None] = {}
        self._certain: dict[str, list[str]] | None = None

    def direct(self, called: Iterable[Call]) -> dict[str, WorkflowDefinition]:
        """The definitions that calls name, by reference; without those that mean nothing."""
        found: dict[str, WorkflowDefinition] = {}
        for reference in {call.reference for call in called}:
            version = self._resolve(reference)
            if isinstance(version, _Version):
                found[reference] = self._definition(version)
        return found

    def fault(self, call: Call) -> tuple[str, str | None] | None:
        """What is wrong with a call of the workflow itself, and the remedy; or None."""
        version = self._resolve(call.reference)
        if isinstance(version, NotFoundError):
            return version.message, version.remedy
        if not call.is_certain:
            return None
        if version.key not in self._endless:
            path = endless_path(self._own.key, version.key, self._certain_calls())
            self._endless[version.key] = path
        if (path := self._endless[version.key]) is None:
            return None
        return (
            f"the workflow calls itself without end: {' -> '.join(path)}",
            "give a step on the way a `when` that is false at some point",
        )

    def _resolve(self, reference: str) -> _Version | NotFoundError:
        if reference not in self._resolved:
            try:
                self._resolved[reference] = choose_version(reference, self._versions, WORKFLOWS)
            except NotFoundError as error:
                self._resolved[reference] = error
        return self._resolved[reference]

    def _definition(self, version: _Version) -> WorkflowDefinition:
        if version.key not in self._definitions and version.record is not None:
            self._definitions[version.key] = workflow_from_json(version.record.definition)
        return self._definitions[version.key]

    def _certain_calls(self) -> dict[str, list[str]]:
        """What each workflow that can be reached certainly calls."""
        if self._certain is not None:
            return self._certain
        found: dict[str, list[str]] = {}
        waiting = [self._own]
        for current in waiting:
            if current.key in found:
                continue
            found[current.key] = []
            for call in calls(self._definition(current)):
                version = self._resolve(call.reference)
                if call.is_certain and isinstance(version, _Version):
                    found[current.key].append(version.key)
                    waiting.append(version)
        self._certain = found
        return found
