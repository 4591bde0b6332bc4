"""The names that ``swarm`` exports: there, typed, and free until they are used."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import swarm
from swarm.client import reference
from swarm.kernel import errors

SOURCE = Path(str(swarm.__file__)).parent
STUB = ast.parse((SOURCE / "__init__.pyi").read_text())


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, env=os.environ
    )


def test_every_public_name_is_there_and_where_type_checkers_look_for_it() -> None:
    told = {
        alias.name: node.module
        for node in STUB.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert told == swarm._MODULES  # type: ignore[attr-defined]
    (named,) = [node for node in STUB.body if isinstance(node, ast.Assign)]
    assert sorted(ast.literal_eval(named.value)) == sorted(swarm.__all__)
    for name in swarm.__all__:
        assert getattr(swarm, name) is not None
        assert name in dir(swarm)
    with pytest.raises(AttributeError, match="no attribute 'Cleint'"):
        swarm.Cleint  # type: ignore[attr-defined]  # noqa: B018


def test_every_error_that_a_program_can_meet_is_public() -> None:
    kinds = {name for name, value in vars(errors).items() if is_error(value)}
    # Raised within the engine alone, when another process has taken a run over.
    assert kinds - {"OwnershipLost"} <= set(swarm.__all__)


def is_error(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, errors.SwarmError)


def test_importing_costs_nothing_until_a_name_is_used() -> None:
    shown = python(
        "-c", "import sys, swarm; print(*sorted(n for n in sys.modules if 'swarm' in n))"
    )
    assert shown.stdout.split() == ["swarm"], shown.stderr
    shown = python(
        "-c", "import sys; from swarm import NotFoundError; print('asyncio' in sys.modules)"
    )
    assert shown.stdout.strip() == "False", shown.stderr


def test_a_users_program_is_checked_strictly(tmp_path: Path) -> None:
    assert (SOURCE / "py.typed").exists()
    program = Path(__file__).with_name("user_program.py")
    configuration = tmp_path / "mypy.ini"
    # Where the package is installed, mypy finds it by itself, and refuses to be told.
    path = "" if "site-packages" in SOURCE.parts else f"mypy_path = {SOURCE.parent}\n"
    configuration.write_text(f"[mypy]\n{path}follow_imports = silent\n")
    checked = python("-m", "mypy", "--strict", "--config-file", str(configuration), str(program))
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_every_public_name_is_on_the_page() -> None:
    page = reference.markdown_page()
    for name in swarm.__all__:
        assert name == "__version__" or f"### `{name}`\n" in page


def test_a_name_without_a_docstring_is_noticed() -> None:
    class Documented:
        """It is."""

        def silent(self) -> None: ...

    class Silent(Documented): ...

    for kind, name in ((Documented, "Documented.silent"), (Silent, "Silent")):
        with pytest.raises(ValueError, match=f"{name} is public and has no docstring"):
            list(reference.class_parts(kind))
