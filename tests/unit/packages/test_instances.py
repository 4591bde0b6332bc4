"""Workflows written from instances: ids, work in proportion, limits, and names that attack."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.definitions.loading import load_workflow
from swarm.definitions.workflow import WorkflowDefinition
from swarm.expressions.checking import check_workflow
from swarm.expressions.dependencies import step_dependencies
from swarm.expressions.template import compile_template
from swarm.kernel.errors import ConflictError, InvalidError, NotFoundError, UnavailableError
from swarm.kernel.settings import Settings
from swarm.packages.instances import (
    ROUNDS_PER_SECOND,
    ImportedInstance,
    Scale,
    import_instance,
    step_ids,
    workflow_name,
)

Task = tuple[str, float, int, tuple[str, ...]]
SETTINGS = Settings()


def instance(*tasks: Task, name: str = "An Instance") -> dict[str, Any]:
    """Version 1.4: each task's name, seconds, output bytes and parents."""
    return {
        "name": name,
        "description": "Made up",
        "schemaVersion": "1.4",
        "workflow": {
            "tasks": [
                {
                    "name": task,
                    "runtimeInSeconds": seconds,
                    "files": [{"link": "output", "name": "o", "sizeInBytes": size}],
                    "parents": [*parents],
                }
                for task, seconds, size, parents in tasks
            ]
        },
    }


def imported(
    document: dict[str, Any],
    folder: Path,
    scale: Scale = Scale(10, 100),  # noqa: B008  frozen
    settings: Settings = SETTINGS,
    **named: Any,
) -> tuple[ImportedInstance, WorkflowDefinition]:
    folder.mkdir(exist_ok=True)
    file = folder / "instance.json"
    file.write_text(json.dumps(document))
    made = import_instance(file, folder / "made", scale, settings, **named)
    workflow = load_workflow(made.folder / "workflow.yaml")
    assert check_workflow(workflow, None, "f", None) == []
    return made, workflow


CHAIN = instance(("a", 2.0, 1000, ()), ("b", 1.0, 500, ("a",)), ("c", 0.0, 0, ("b", "a")))


def test_a_step_for_each_task_in_proportion(tmp_path: Path) -> None:
    made, workflow = imported(CHAIN, tmp_path)
    assert (made.name, made.folder.name) == ("an-instance", "an-instance")
    assert (made.steps, made.dependencies, made.data_bytes) == (3, 3, 150)
    most = ROUNDS_PER_SECOND // 100
    assert made.work_seconds == pytest.approx(0.015, abs=1e-6)
    assert [step.inputs for step in workflow.steps] == [
        {"task": "a", "rounds": most, "size": 100},
        {"task": "b", "rounds": most // 2, "size": 50, "received": ["${steps.a.outputs}"]},
        {
            "task": "c",
            "rounds": 1,
            "size": 0,
            "received": ["${steps.a.outputs}", "${steps.b.outputs}"],
        },
    ]
    assert workflow.outputs == {"digests": {"c": "${steps.c.outputs.digest}"}}
    assert {step.agent for step in workflow.steps} == {"stand-in"}
    assert workflow.description == ("Imported from the WfFormat instance An Instance. Made up")


def test_without_times_and_sizes_there_is_the_least_work(tmp_path: Path) -> None:
    _, workflow = imported(instance(("a", 0, 0, ())), tmp_path)
    assert workflow.steps[0].inputs == {"task": "a", "rounds": 1, "size": 0}


def test_a_join_receives_no_more_than_a_step_may_be_given(tmp_path: Path) -> None:
    tasks = [(f"t{number}", 1.0, 1000, ()) for number in range(50)]
    join = ("join", 1.0, 10, tuple(task[0] for task in tasks))
    settings = Settings(max_input_bytes=20_000)
    _, workflow = imported(instance(*tasks, join), tmp_path, Scale(1, 10_000), settings)
    sizes = [step.inputs["size"] for step in workflow.steps[:-1]]
    items = [{"digest": "0" * 64, "data": "0" * size} for size in sizes]
    assert 10_000 < len(json.dumps(items)) < settings.max_input_bytes
    with pytest.raises(InvalidError, match="`join` waits for 50 tasks") as caught:
        imported(instance(*tasks, join), tmp_path, settings=Settings(max_input_bytes=10_000))
    assert "max_input_bytes" in (caught.value.remedy or "")


def test_a_workflow_of_more_bytes_than_may_be_is_refused(tmp_path: Path) -> None:
    tasks: list[Task] = [(f"t{number}" + "x" * 900, 1.0, 1, ()) for number in range(600)]
    with pytest.raises(InvalidError, match="larger than 1 MiB") as caught:
        imported(instance(*tasks), tmp_path, settings=Settings(max_workflow_mb=1))
    assert "max_workflow_mb" in (caught.value.remedy or "")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("name", "called"),
    [
        ("Montage", "montage"),
        ("SRA Search: 1.0 (test)", "sra-search-1.0-test"),
        ("../../etc", "etc"),
        ("日本", "instance"),
        ("", "instance"),
        ("a" * 63 + "-b", "a" * 63),
    ],
)
def test_the_name_is_the_nearest_possible(name: str, called: str, tmp_path: Path) -> None:
    assert workflow_name(name) == called
    made, workflow = imported({**CHAIN, "name": name}, tmp_path)
    assert made.folder == tmp_path / "made" / called
    assert workflow.name == called


def test_another_name_can_be_given_and_nothing_is_overwritten(tmp_path: Path) -> None:
    made, _ = imported(CHAIN, tmp_path, name="mine")
    assert made.folder.name == "mine"
    with pytest.raises(ConflictError):
        imported(CHAIN, tmp_path, name="mine")
    with pytest.raises(InvalidError, match="cannot be the name of a workflow"):
        imported(CHAIN, tmp_path, name="../mine")
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["mine"]


HOSTILE = [
    "${secrets.TOKEN}",
    "$${x}",
    "$$${x}",
    '"\n  agent: http-fetch\n  #',
    "a\u0085b\u2028c\ufeffd\x7fe\x00f",
    "*alias",
    "&anchor !!python/object:os.system",
    "1e3",
    "null",
    "NULL",
    "TRUE",
    "yes",
    "if",
    "\\",
    "{{ x }}{% y %}",
    "😀",
    "../../x",
    "-",
    "\x1b[31m",
    "a b",
    "a.b",
    "a_b",
]


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    tasks: list[Task] = [(name, 1.0, 1, ()) for name in HOSTILE]
    tasks.append(("end", 1.0, 1, tuple(HOSTILE)))
    _, workflow = imported(instance(*tasks, name='"\nsteps: []'), tmp_path)
    assert [step.name for step in workflow.steps] == [*HOSTILE, "end"]
    ids = {step.id for step in workflow.steps}
    assert step_dependencies(workflow)["end"] == ids - {"end"}
    for step in workflow.steps:
        assert step.agent == "stand-in"
        assert compile_template(step.inputs["task"], where="t", fuel=100).evaluate({}) == step.name


@given(st.data())
def test_any_dag_of_any_names_comes_out_as_it_was(data: st.DataObject) -> None:
    names = data.draw(st.lists(st.text(min_size=1, max_size=90), unique=True, min_size=1))
    tasks: list[Task] = []
    for number, name in enumerate(names):
        parents = data.draw(st.sets(st.sampled_from(names[:number]))) if number else set()
        tasks.append((name, 0, 0, tuple(parents)))
    with tempfile.TemporaryDirectory() as folder:
        _, workflow = imported(instance(*tasks, name=data.draw(st.text())), Path(folder))
    called = {step.id: step.name for step in workflow.steps}
    waits = step_dependencies(workflow)
    found = {called[step]: {called[other] for other in waits[step]} for step in called}
    assert found == {name: set(parents) for name, _, _, parents in tasks}
    for step in workflow.steps:
        task = compile_template(step.inputs["task"], where="t", fuel=100).evaluate({})
        assert task == step.name


@given(st.lists(st.text(min_size=1, max_size=90), unique=True, max_size=40))
def test_ids_differ_and_identifiers_stay(names: list[str]) -> None:
    ids = step_ids(names)
    assert list(ids) != [] or names == []
    assert set(ids) == set(names)
    assert len(set(ids.values())) == len(names)
    for id_ in ids.values():
        assert id_.isascii()
        assert id_.isidentifier()
        assert len(id_) <= 64
        assert ids.get(id_, id_) == id_


def test_ids_of_many_names_that_look_alike_take_no_time() -> None:
    marks = str.maketrans("01", "-.")
    names = [f"{number:0100b}".translate(marks) for number in range(10_000)]
    ids = step_ids([*names, "_" * 62 + "_2"])
    assert len(set(ids.values())) == 10_001
    assert ids[names[1]] == "_" * 62 + "_3"


def test_of_long_names_the_ends_stay() -> None:
    long = "NFCORE:SAREK:BAM_VARIANT_CALLING_GERMLINE_ALL:HAPLOTYPECALLER:GATK4"
    ids = step_ids([f"{long}__HG{number:05}__ID{7**number}" for number in range(100)])
    assert ids[f"{long}__HG00002__ID49"] == (
        "NFCORE_SAREK_BAM_VARIANT_CALLIN__TYPECALLER_GATK4__HG00002__ID49"
    )
    assert sum(id_.endswith(name[-12:]) for name, id_ in ids.items()) == 100


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        import_instance(tmp_path / "gone", tmp_path, Scale(1, 1), SETTINGS)
    with pytest.raises(NotFoundError):
        import_instance(tmp_path, tmp_path, Scale(1, 1), SETTINGS)
    large = tmp_path / "large.json"
    with large.open("wb") as file:
        file.truncate(2 * 1024 * 1024)
    with pytest.raises(InvalidError, match="larger than 1 MiB") as caught:
        import_instance(large, tmp_path, Scale(1, 1), Settings(max_instance_mb=1))
    assert "max_instance_mb" in (caught.value.remedy or "")
    (tmp_path / "file").write_text("")
    with pytest.raises(UnavailableError):
        imported(CHAIN, tmp_path / "in")
        import_instance(
            tmp_path / "in/instance.json", tmp_path / "file/below", Scale(1, 1), SETTINGS
        )
