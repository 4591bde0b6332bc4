"""Instances of WfFormat: what is read, and what is refused with a place and a remedy."""

from __future__ import annotations

import json
from typing import Any

import pytest

from swarm.definitions.wfformat import MAX_PROBLEMS, MAX_VALUES, Instance, parse_instance
from swarm.kernel.errors import DefinitionError, Problem


def specified(
    id_: str, *parents: str, children: tuple[str, ...] = (), **more: Any
) -> dict[str, Any]:
    return {"name": id_, "id": id_, "parents": [*parents], "children": [*children], **more}


def newer(*tasks: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A document of version 1.6."""
    specification = {"tasks": [*tasks], **more}
    return {"name": "n", "schemaVersion": "1.6", "workflow": {"specification": specification}}


def older(*tasks: dict[str, Any]) -> dict[str, Any]:
    """A document of version 1.4."""
    return {"name": "n", "schemaVersion": "1.4", "workflow": {"tasks": [*tasks]}}


def parsed(document: Any, max_tasks: int = 100) -> Instance:
    return parse_instance(json.dumps(document).encode(), "f.json", max_tasks)


def refused(data: Any, max_tasks: int = 100) -> tuple[Problem, ...]:
    text = data if isinstance(data, bytes) else json.dumps(data).encode()
    with pytest.raises(DefinitionError) as caught:
        parse_instance(text, "f.json", max_tasks)
    assert all(problem.file == "f.json" and problem.remedy for problem in caught.value.problems)
    return caught.value.problems


def waits(instance: Instance) -> dict[str, tuple[str, ...]]:
    return {task.id: task.parents for task in instance.tasks}


@pytest.mark.parametrize("version", ["1.5", "1.6"])
def test_structure_times_and_sizes_are_read(version: str) -> None:
    document = newer(
        specified("a", outputFiles=["x", "y", "x"], inputFiles=["z"], more="ignored"),
        specified("b", "a", outputFiles=["unlisted"]),
        files=[{"id": "x", "sizeInBytes": 10}, {"id": "y", "sizeInBytes": 5}],
    )
    document["schemaVersion"] = version
    document["workflow"]["execution"] = {
        "makespanInSeconds": 3,
        "executedAt": "2026-01-01T00:00:00Z",
        "tasks": [{"id": "a", "runtimeInSeconds": 1.5}, {"id": "b", "runtimeInSeconds": 2}],
    }
    first, second = parsed(document).tasks
    assert (first.id, first.seconds, first.output_bytes, first.parents) == ("a", 1.5, 15, ())
    assert (second.id, second.seconds, second.output_bytes, second.parents) == ("b", 2, 0, ("a",))


def test_version_1_4_refers_by_name() -> None:
    document = older(
        {
            "name": "split_ID01",
            "id": "ID01",
            "runtimeInSeconds": 2,
            "files": [
                {"link": "input", "name": "i", "sizeInBytes": 7},
                {"link": "output", "name": "o", "sizeInBytes": 9},
            ],
        },
        {"name": "work", "id": "ID02", "parents": ["split_ID01"]},
        {"name": "join", "parents": ["work", "ID01"]},
    )
    instance = parsed(document)
    assert waits(instance) == {
        "split_ID01": (),
        "work_ID02": ("split_ID01",),
        "join": ("split_ID01", "work_ID02"),
    }
    assert (instance.tasks[0].seconds, instance.tasks[0].output_bytes) == (2, 9)


def test_a_dependency_may_stand_at_either_end() -> None:
    document = newer(specified("c", "b", "a", "b"), specified("a", children=("b",)), specified("b"))
    assert waits(parsed(document)) == {"c": ("a", "b"), "a": (), "b": ("a",)}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b"[" * 5000 + b"]" * 5000, "JSON"),
        (b"[" * 300 + b"]" * 300, "nested"),
        ([], "no instance of WfFormat"),
        ({}, "no instance of WfFormat"),
        ({"schemaVersion": 1.5}, "of another kind"),
        ({"schemaVersion": "1.3"}, "1.3; what can be read is 1.4, 1.5, 1.6"),
        ({"schemaVersion": "1.6"}, "`name` is missing"),
        ({"schemaVersion": "1.4", "name": "n", "workflow": {}}, "`workflow.tasks` is missing"),
        (newer(), "`workflow.specification.tasks` is not usable"),
        (newer({"id": "a", "parents": []}), "`workflow.specification.tasks.0.children` is missing"),
        (newer(specified("")), "`workflow.specification.tasks.0.id` is not usable"),
        (newer(specified("a" * 2000)), "`workflow.specification.tasks.0.id` is not usable"),
        (newer(specified("a"), files=[{"id": "x", "sizeInBytes": -1}]), "sizeInBytes` is not"),
        (newer(specified("a"), files=[{"id": "x", "sizeInBytes": 1e300}]), "sizeInBytes` is not"),
        (newer(specified("a"), files=[{"id": "x", "sizeInBytes": True}]), "sizeInBytes` is not"),
        (older({"name": "a", "runtimeInSeconds": -0.1}), "runtimeInSeconds` is not usable"),
        (older({"name": "a", "runtimeInSeconds": "1"}), "runtimeInSeconds` is not usable"),
        (
            newer(specified("a"), specified("a")),
            "`a` is there twice (workflow.specification.tasks.1)",
        ),
        (older({"name": "a"}, {"name": "a"}), "`a` is there twice (workflow.tasks.1)"),
        (newer(specified("a", "a")), "in a circle: a → a"),
        (newer(specified("a", "b"), specified("b", "a")), "in a circle: "),
    ],
)
def test_what_cannot_be_used_is_refused(data: Any, said: str) -> None:
    problems = refused(data)
    assert said in problems[0].message, problems


def test_a_number_that_is_none_is_refused() -> None:
    text = json.dumps(older({"name": "a", "runtimeInSeconds": 1})).replace(": 1}", ": 1e999}")
    refused(text.encode())


def test_a_reference_that_leads_nowhere_offers_the_nearest() -> None:
    (problem,) = refused(newer(specified("mAdd_01"), specified("b", "mAdd_1")))
    assert "among the parents of the task `b` is `mAdd_1`, which is no task" in problem.message
    assert problem.remedy == "did you mean mAdd_01?"


def test_a_name_of_several_tasks_is_refused_where_it_is_used() -> None:
    tasks = [{"name": "work", "id": "1"}, {"name": "work", "id": "2"}]
    assert waits(parsed(older(*tasks))) == {"work_1": (), "work_2": ()}
    (problem,) = refused(older(*tasks, {"name": "end", "parents": ["work"]}))
    assert "which 2 tasks are called" in problem.message


def test_a_long_cycle_is_shown_in_short() -> None:
    names = [f"t{number}" for number in range(50)]
    document = newer(*(specified(name, names[index - 1]) for index, name in enumerate(names)))
    (problem,) = refused(document)
    assert problem.message.endswith(" → …")
    assert problem.message.count("→") == 8


def test_problems_are_bounded() -> None:
    tasks = [specified(f"t{number}", "gone", "x" * 500) for number in range(90)]
    problems = refused(newer(*tasks))
    assert len(problems) == MAX_PROBLEMS
    assert all(len(problem.message) < 300 for problem in problems)


@pytest.mark.parametrize(
    "document",
    [
        newer(specified("a", *[""] * 100_000)),
        newer(specified("a"), files=[{}] * 100_000),
        older({"name": "a", "files": [{}] * 100_000}),
        {"schemaVersion": "1.6", "workflow": {"specification": {"tasks": [{}] * 100_000}}},
        {"schemaVersion": "1.4", "workflow": {"tasks": [{}] * 100_000}},
    ],
)
def test_few_of_many_faults_are_told(document: dict[str, Any]) -> None:
    assert len(refused(document)) < 5


def test_more_values_than_fit_are_refused_unread() -> None:
    assert "more than 4000000 values" in refused(b"[" * MAX_VALUES + b",")[0].message
    assert "not valid JSON" in refused(b"[" * MAX_VALUES)[0].message


def test_too_many_tasks_are_refused() -> None:
    tasks = [specified(f"t{number}") for number in range(4)]
    assert len(parsed(newer(*tasks), 4).tasks) == 4
    (problem,) = refused(newer(*tasks), 3)
    assert "4 tasks" in problem.message
    assert "max_steps" in (problem.remedy or "")
