"""Instances of scientific workflows in WfFormat, read and checked.

WfFormat is the JSON format of the WfCommons project (https://wfcommons.org/format). An instance
says which tasks an execution had, which waited for which, how long each took and which files it
wrote.

* Versions 1.5 and 1.6 keep the structure in ``workflow.specification`` and the measurements in
  ``workflow.execution``; tasks refer to each other by id.
* Version 1.4 has both in ``workflow.tasks``; tasks refer to each other by name. As in the project's
  own migration, a task's id becomes its name, followed by its id if the name does not hold it.

A task waits for its ``parents`` and for the tasks that list it among their ``children``. Properties
that are not needed here are ignored, as the format lets programs add their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, FailFast, Field, ValidationError

from swarm.kernel.errors import DefinitionError, InvalidError, Problem, nearest_names
from swarm.kernel.json import JsonValue, loads

VERSIONS = ("1.4", "1.5", "1.6")
MAX_PROBLEMS = 20
MAX_VALUES = 4_000_000
"""Lists, objects and what they hold; 4 million take up to 1 GiB of memory. Instances that were
looked at have up to 70 for each task."""
_SHOWN = 8
"""Tasks of a cycle that are named."""
_SHOWN_TEXT = 100
"""Characters that are shown of a name that leads nowhere."""
_COMPARED = 2_000
"""Names that such a name is compared with; more would take seconds."""
_LARGEST_NUMBER = 2**53
"""The largest integer that every program reads from JSON as it is written (RFC 8259, section 6)."""


@dataclass(frozen=True, slots=True)
class InstanceTask:
    """One task of an instance."""

    id: str
    seconds: float
    """How long it took; 0 if that was not recorded."""
    output_bytes: int
    """Size of the files it wrote."""
    parents: tuple[str, ...]
    """The tasks that it waits for, in the order of the instance."""


@dataclass(frozen=True, slots=True)
class Instance:
    """A workflow instance: each task is named once, and none waits for itself."""

    name: str
    description: str
    tasks: tuple[InstanceTask, ...]


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True, frozen=True, allow_inf_nan=False)


_Model = TypeVar("_Model", bound=_Part)

_Text = Annotated[str, Field(min_length=1, max_length=1_000)]
_Seconds = Annotated[float, Field(ge=0, le=_LARGEST_NUMBER)]
_Bytes = Annotated[int, Field(ge=0, le=_LARGEST_NUMBER)]
# Of many wrong items, one is told: each that is found takes a kilobyte.
_Texts = Annotated[list[_Text], FailFast()]


class _SpecifiedTask(_Part):
    id: _Text
    parents: _Texts
    children: _Texts
    output_files: _Texts = Field([], alias="outputFiles")


class _SpecifiedFile(_Part):
    id: str
    size: _Bytes = Field(alias="sizeInBytes")


class _Specification(_Part):
    tasks: list[_SpecifiedTask] = Field(min_length=1)
    files: Annotated[list[_SpecifiedFile], FailFast()] = []


class _ExecutedTask(_Part):
    id: _Text
    seconds: _Seconds = Field(alias="runtimeInSeconds")


class _Execution(_Part):
    tasks: Annotated[list[_ExecutedTask], FailFast()]


class _Workflow(_Part):
    specification: _Specification
    execution: _Execution | None = None


class _Document(_Part):
    """Versions 1.5 and 1.6."""

    name: str = Field(max_length=1_000)
    description: str = ""
    workflow: _Workflow


class _LinkedFile(_Part):
    link: str
    size: _Bytes = Field(alias="sizeInBytes")


class _OlderTask(_Part):
    name: _Text
    id: _Text | None = None
    parents: _Texts = []
    children: _Texts = []
    seconds: _Seconds = Field(0, alias="runtimeInSeconds")
    files: Annotated[list[_LinkedFile], FailFast()] = []


class _OlderWorkflow(_Part):
    tasks: list[_OlderTask] = Field(min_length=1)


class _OlderDocument(_Part):
    """Version 1.4."""

    name: str = Field(max_length=1_000)
    description: str = ""
    workflow: _OlderWorkflow


@dataclass(frozen=True, slots=True)
class _Found:
    """A task as both forms give it; ``place`` says where it stands in the document."""

    place: str
    id: str
    names: tuple[str, ...]
    """What others may call it."""
    parents: Sequence[str]
    children: Sequence[str]
    seconds: float
    output_bytes: int


def parse_instance(data: bytes, file: str, max_tasks: int) -> Instance:
    """Read an instance of WfFormat; ``file`` is how messages call it.

    Raises:
        DefinitionError: it cannot be used; holds every problem, up to :data:`MAX_PROBLEMS`.
    """
    document = _loaded(data, file)
    version = document.get("schemaVersion") if isinstance(document, dict) else None
    if version not in VERSIONS:
        raise DefinitionError([_version_problem(version, file)])
    _check_count(document, version, file, max_tasks)
    if version == "1.4":
        older = _validated(_OlderDocument, document, file)
        name, description, found = older.name, older.description, list(_older_tasks(older))
    else:
        newer = _validated(_Document, document, file)
        name, description, found = newer.name, newer.description, list(_newer_tasks(newer))
    return Instance(name, description, _connected(found, file))


def _loaded(data: bytes, file: str) -> JsonValue:
    # Counted before they are made: what stands in text counts too, and does not matter.
    if sum(map(data.count, (b",", b"[", b"{"))) > MAX_VALUES:
        message = f"it holds more than {MAX_VALUES} values"
        raise DefinitionError([Problem(message, file, remedy="import a smaller instance")])
    try:
        return loads(data)
    except InvalidError as error:
        problem = Problem(error.message, file, remedy="give an instance in WfCommons' JSON format")
        raise DefinitionError([problem]) from None


def _check_count(document: JsonValue, version: str, file: str, most: int) -> None:
    """Refuse too many tasks before each of them is looked at."""
    tasks = document
    for key in (
        ("workflow", "tasks") if version == "1.4" else ("workflow", "specification", "tasks")
    ):
        tasks = tasks.get(key) if isinstance(tasks, dict) else None
    if isinstance(tasks, list) and len(tasks) > most:
        message = f"it has {len(tasks)} tasks; a workflow may have {most} steps"
        remedy = "import a smaller instance, or raise the setting max_steps"
        raise DefinitionError([Problem(message, file, remedy=remedy)])


def _validated(model: type[_Model], document: JsonValue, file: str) -> _Model:
    try:
        return model.model_validate(document)
    except ValidationError as error:
        problems = []
        for detail in error.errors(include_url=False, include_input=False)[:MAX_PROBLEMS]:
            place = ".".join(str(part) for part in detail["loc"])
            if detail["type"] == "missing":
                message = f"`{place}` is missing"
            else:
                message = f"`{place}` is not usable: {detail['msg'][:1].lower()}{detail['msg'][1:]}"
            remedy = "mend the instance; WfCommons' validator names everything that is wrong"
            problems.append(Problem(message, file, remedy=remedy))
    raise DefinitionError(problems)


def _version_problem(version: JsonValue, file: str) -> Problem:
    known = ", ".join(VERSIONS)
    if version is None:
        message = "it is no instance of WfFormat: it has no `schemaVersion`"
        return Problem(message, file, remedy=f"give a JSON instance of version {known}")
    shown = version if isinstance(version, str) and len(version) < 20 else "of another kind"
    return Problem(
        f"its `schemaVersion` is {shown}; what can be read is {known}",
        file,
        remedy="convert it with wfcommons-migrate-instance.py of the WfFormat project",
    )


def _newer_tasks(document: _Document) -> Iterator[_Found]:
    workflow = document.workflow
    sizes = {one.id: one.size for one in workflow.specification.files}
    execution = workflow.execution.tasks if workflow.execution is not None else []
    seconds = {task.id: task.seconds for task in execution}
    for index, task in enumerate(workflow.specification.tasks):
        written = sum(sizes.get(one, 0) for one in set(task.output_files))
        yield _Found(
            f"workflow.specification.tasks.{index}",
            task.id,
            (task.id,),
            task.parents,
            task.children,
            seconds.get(task.id, 0.0),
            written,
        )


def _older_tasks(document: _OlderDocument) -> Iterator[_Found]:
    for index, task in enumerate(document.workflow.tasks):
        holds_id = task.id is None or task.id in task.name
        id_ = task.name if holds_id else f"{task.name}_{task.id}"
        yield _Found(
            f"workflow.tasks.{index}",
            id_,
            tuple(dict.fromkeys(filter(None, (id_, task.name, task.id)))),
            task.parents,
            task.children,
            task.seconds,
            sum(one.size for one in task.files if one.link == "output"),
        )


def _connected(found: Sequence[_Found], file: str) -> tuple[InstanceTask, ...]:
    """The tasks with what each waits for, once all references are known to lead somewhere."""
    graph = _Graph(found, file)
    graph.connect()
    if graph.problems:
        raise DefinitionError(graph.problems[:MAX_PROBLEMS])
    order = {task.id: index for index, task in enumerate(found)}
    return tuple(
        InstanceTask(
            task.id,
            task.seconds,
            task.output_bytes,
            tuple(sorted(graph.waits[task.id], key=order.__getitem__)),
        )
        for task in found
    )


class _Graph:
    """Resolves what tasks call each other, noting each fault."""

    def __init__(self, found: Sequence[_Found], file: str) -> None:
        self.problems: list[Problem] = []
        self.waits: dict[str, set[str]] = {}
        self._found = found
        self._file = file
        self._called: dict[str, list[str]] = {}

    def connect(self) -> None:
        for task in self._found:
            if task.id in self.waits:
                self._problem(task, f"the task `{task.id}` is there twice", "remove one of them")
                continue
            self.waits[task.id] = set()
            for name in task.names:
                self._called.setdefault(name, []).append(task.id)
        for task in self._found:
            for parent in self._resolved(task, "parents", task.parents):
                self.waits[task.id].add(parent)
            for child in self._resolved(task, "children", task.children):
                self.waits[child].add(task.id)
        if not self.problems:
            self._check_cycle()

    def _resolved(self, task: _Found, key: str, references: Iterable[str]) -> Iterator[str]:
        for reference in dict.fromkeys(references):
            if len(self.problems) >= MAX_PROBLEMS:
                return
            meant = self._called.get(reference, [])
            if len(meant) == 1:
                yield meant[0]
                continue
            said = f"among the {key} of the task `{task.id}` is `{reference[:_SHOWN_TEXT]}`,"
            if meant:
                self._problem(task, f"{said} which {len(meant)} tasks are called", "name one task")
            else:
                may_compare = len(self._called) <= _COMPARED and len(reference) <= _SHOWN_TEXT
                nearest = nearest_names(reference, self._called) if may_compare else ()
                remedy = f"did you mean {' or '.join(nearest)}?" if nearest else "name a task of it"
                self._problem(task, f"{said} which is no task", remedy)

    def _check_cycle(self) -> None:
        try:
            TopologicalSorter(self.waits).prepare()
        except CycleError as error:
            cycle = error.args[1]  # each waits for the one before it; the first is also the last
            shown = " → ".join(cycle[:_SHOWN]) + (" → …" if len(cycle) > _SHOWN else "")
            message = f"tasks wait for each other in a circle: {shown}"
            remedy = "remove one of these dependencies"
            self.problems.append(Problem(message, self._file, remedy=remedy))

    def _problem(self, task: _Found, message: str, remedy: str) -> None:
        self.problems.append(Problem(f"{message} ({task.place})", self._file, remedy=remedy))
