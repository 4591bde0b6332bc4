"""What reading a package says about its manifest and its entry."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarm.kernel.errors import DefinitionError, NotFoundError, Problem
from swarm.kernel.settings import Settings
from swarm.packages.entry import entry_tuple
from swarm.packages.reading import read_package

HEAD = "name: a\nversion: 1.0.0\nruntime:\n"


def problems(folder: Path) -> list[Problem]:
    with pytest.raises(DefinitionError) as caught:
        read_package(folder, Settings())
    assert all(problem.remedy for problem in caught.value.problems)
    return list(caught.value.problems)


def write(folder: Path, runtime: str, files: dict[str, str] | None = None) -> Path:
    for name, text in {"agent.yaml": HEAD + runtime, **(files or {})}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


PYTHON = "  type: python\n  memory_mb: 64\n  entry: {}\n"


@pytest.mark.parametrize(
    "source",
    [
        "def handler(inputs): ...",
        "async def handler(inputs, context): ...",
        "handler = lambda inputs: inputs",
        "handler: object = print",
        "from lib import handler",
        "from lib import run as handler",
        "from lib import *",
        "class handler: ...",
        "def __getattr__(name): ...",
        "try:\n    from lib import handler\nexcept ImportError:\n    handler = None",
        "if True:\n    def handler(inputs): ...",
        "a, (handler, b) = 1, (2, 3)",
        "(handler := print)",
        "x = '\\d'\ndef handler(inputs): ...",
    ],
)
def test_a_handler_is_found_however_it_is_bound(source: str, tmp_path: Path) -> None:
    read_package(write(tmp_path, PYTHON.format("main.py"), {"main.py": source}), Settings())


@pytest.mark.parametrize(
    "source",
    [
        "",
        "def handle(inputs): ...",
        "class A:\n    def handler(self): ...",
        "def f():\n    handler = 1",
        "print(handler)",
        "[handler for handler in ()]",
    ],
)
def test_a_missing_handler_is_told_at_the_entry(source: str, tmp_path: Path) -> None:
    (problem,) = problems(write(tmp_path, PYTHON.format("main.py"), {"main.py": source}))
    assert problem.message == "the entry's file `main.py` has no `handler`"
    assert problem.where == f"{tmp_path}/agent.yaml:6:3"
    if source.startswith("def handle"):
        assert "`main:handle`" in (problem.remedy or "")


@pytest.mark.parametrize(
    ("entry", "file", "source"),
    [
        ("agent:run", "agent.py", "run = 1"),
        ("a.b:run", "a/b.py", "run = 1"),
        ("c:run", "c/__init__.py", "run = 1"),
        ("d:Class.run", "d.py", "class Class: ..."),
        ("lib/main.py", "lib/main.py", "handler = 1"),
    ],
)
def test_modules_and_packages_are_entries(
    entry: str, file: str, source: str, tmp_path: Path
) -> None:
    package = read_package(write(tmp_path, PYTHON.format(entry), {file: source}), Settings())
    assert entry_tuple(package.definition) == (entry,)


def test_a_missing_entry_file_offers_the_nearest(tmp_path: Path) -> None:
    (problem,) = problems(write(tmp_path, PYTHON.format("main.py"), {"mian.py": "handler = 1"}))
    assert "needs the file `main.py`" in problem.message
    assert problem.where == f"{tmp_path}/agent.yaml:6:3"
    assert problem.remedy == "did you mean `mian.py`?"


def test_a_malformed_module_is_told(tmp_path: Path) -> None:
    (problem,) = problems(write(tmp_path, PYTHON.format("'src/main:run'")))
    assert "module:function" in problem.message


def test_a_syntax_error_is_told_where_it_is(tmp_path: Path) -> None:
    source = "def handler(inputs):\n    return {\n"
    (problem,) = problems(write(tmp_path, PYTHON.format("main.py"), {"main.py": source}))
    assert problem.where == f"{tmp_path}/main.py:2"
    assert "not valid Python" in problem.message


def test_the_entry_of_the_apkg_form_is_told_at_its_line(tmp_path: Path) -> None:
    (tmp_path / "agent.yaml").write_text(
        "name: a\nversion: 1.0.0\nentrypoint: main:handler\nruntime: python3.11\n"
    )
    (problem,) = problems(tmp_path)
    assert problem.where == f"{tmp_path}/agent.yaml:3:1"
    (tmp_path / "main.py").write_text("handler = 1")
    assert read_package(tmp_path, Settings()).definition.runtime.entry == "main:handler"


def test_a_node_entry_must_be_there(tmp_path: Path) -> None:
    node = "  type: node\n  entry: ./main.js\n"
    (problem,) = problems(write(tmp_path, node))
    assert "`main.js` is not a file" in problem.message
    (tmp_path / "main.js").write_text("")
    read_package(tmp_path, Settings())


def test_a_command_of_the_package_must_be_executable(tmp_path: Path) -> None:
    command = "  type: command\n  entry: [./run.sh, -v]\n"
    (problem,) = problems(write(tmp_path, command))
    assert "not a file of the package" in problem.message
    (tmp_path / "run.sh").write_text("#!/bin/sh\n")
    (problem,) = problems(tmp_path)
    assert problem.remedy is not None
    assert "chmod +x run.sh" in problem.remedy
    (tmp_path / "run.sh").chmod(0o755)
    definition = read_package(tmp_path, Settings()).definition
    assert entry_tuple(definition) == ("./run.sh", "-v")


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("[no-such-program]", "not on this host"),
        ("['sh -c x']", "not on this host"),
        ("[/bin/sh]", "absolute path"),
        ("[]", ""),
        ("['']", ""),
    ],
)
def test_a_command_that_cannot_start_is_told(entry: str, said: str, tmp_path: Path) -> None:
    (problem, *_) = problems(write(tmp_path, f"  type: command\n  entry: {entry}\n"))
    assert said in problem.message


def test_a_command_of_the_host_is_found_or_required(tmp_path: Path) -> None:
    write(tmp_path, "  type: command\n  entry: [sh, -c, cat]\n")
    read_package(tmp_path, Settings())
    write(tmp_path, "  type: command\n  entry: [rare]\n  requires: [rare]\n")
    read_package(tmp_path, Settings())


def test_a_missing_manifest_is_told_with_what_was_probably_meant(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path)
    assert problem.where == f"{tmp_path}/agent.yaml"
    assert "swarm agent new" in (problem.remedy or "")
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner/agent.yaml").write_text("")
    assert "`inner`" in (problems(tmp_path)[0].remedy or "")
    (tmp_path / "agent.yml").write_text("")
    assert "rename `agent.yml`" in (problems(tmp_path)[0].remedy or "")
    with pytest.raises(NotFoundError):
        read_package(tmp_path / "none", Settings())


def test_a_manifest_that_is_no_text_is_told_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "agent.yaml").write_bytes(b"name: a\nversion: \xff\n")
    assert problems(tmp_path)[0].where == f"{tmp_path}/agent.yaml:2"


def test_faults_of_entry_and_dependencies_are_told_together(tmp_path: Path) -> None:
    write(tmp_path, PYTHON.format("main.py") + "dependencies: ['-e .', 'a @ file:///x', six]\n")
    (tmp_path / "requirements.txt").write_text("six\n\n--index-url x\n")
    places = [problem.where.removeprefix(f"{tmp_path}/") for problem in problems(tmp_path)]
    assert places == ["agent.yaml:6:3", "agent.yaml:7:16", "agent.yaml:7:24", "requirements.txt:3"]


def test_the_manifest_itself_may_be_named(tmp_path: Path) -> None:
    write(tmp_path, PYTHON.format("main.py"), {"main.py": "handler = 1"})
    assert read_package(tmp_path / "agent.yaml", Settings()).root == tmp_path


def test_the_ignore_file_is_read_and_left_out(tmp_path: Path) -> None:
    write(tmp_path, PYTHON.format("main.py"), {"main.py": "handler = 1"})
    (tmp_path / "notes").write_text("x")
    before = read_package(tmp_path, Settings())
    assert before.has("notes")
    (tmp_path / ".swarmignore").write_text("notes\n")
    after = read_package(tmp_path, Settings())
    assert [file.path for file in after.files] == ["agent.yaml", "main.py"]
    (tmp_path / ".swarmignore").write_text("ok\n!\n")
    assert problems(tmp_path)[0].where == f"{tmp_path}/.swarmignore:2"
