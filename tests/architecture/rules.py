"""The rules of STYLE that no linter knows, as pure functions from source text to violations.

Each returns one line per violation, ``place: what is wrong``; an empty list means the text obeys.
The tests beside this file apply them to the checkout and, first, to a sample that breaks them.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from graphlib import CycleError, TopologicalSorter
from importlib import metadata
from pathlib import Path, PurePath

ROOT = Path(__file__).resolve().parents[2]

JUNK_NAMES = frozenset({"utils", "util", "helpers", "helper", "common", "manager", "misc"})

# Written in pieces: this file is searched for them too.
MACHINE_PATHS = ("/wo" + "rk/", "/ro" + "ot/", "/ho" + "me/user")
REGISTRY_HOSTS = ("py" + "pi.org", "python" + "hosted.org", "npm" + "js.org", "npm" + "js.com")

ISSUE_NUMBER = re.compile(
    r"\b(?:issues?|tickets?|pull requests?|PR|closes|fixes|resolves)\s+#?\d+\b", re.IGNORECASE
)


def tracked_files(*suffixes: str) -> list[Path]:
    """The files that git tracks (or would, once added), with one of these endings."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout.decode()
    paths = [ROOT / name for name in listed.split("\0") if name]
    return [
        path
        for path in paths
        if path.is_file() and not path.is_symlink() and (not suffixes or path.suffix in suffixes)
    ]


def hidden_imports(source: str, place: str, allowed: frozenset[str] = frozenset()) -> list[str]:
    """Imports inside functions, and calls of ``import_module`` or ``__import__`` anywhere.

    Args:
        allowed: names of functions that may import late.
    """
    found: list[str] = []

    def visit(node: ast.AST, function: str | None) -> None:
        for child in ast.iter_child_nodes(node):
            inside = function
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                inside = child.name
            elif function is not None and isinstance(child, ast.Import | ast.ImportFrom):
                if function not in allowed:
                    found.append(f"{place}:{child.lineno}: {function} hides an import")
            elif isinstance(child, ast.Call) and function not in allowed:
                called = ast.unparse(child.func).rpartition(".")[2]
                if called in ("import_module", "__import__"):
                    found.append(f"{place}:{child.lineno}: late import by {called}")
            visit(child, inside)

    visit(ast.parse(source), None)
    return found


def oversized(source: str, place: str, *, file_lines: int, function_lines: int) -> list[str]:
    """Files and functions of that many lines or more."""
    found = []
    lines = source.count("\n")
    if lines >= file_lines:
        found.append(f"{place}: {lines} lines; the limit is {file_lines}")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            size = (node.end_lineno or node.lineno) - node.lineno + 1
            if size >= function_lines:
                found.append(f"{place}:{node.lineno}: {node.name} has {size} lines")
    return found


def junk_names(paths: Iterable[PurePath]) -> list[str]:
    """Files and folders whose name says nothing."""
    found = []
    for path in paths:
        words = {word for part in path.parts for word in re.split(r"[._-]", part)}
        if words & JUNK_NAMES:
            found.append(f"{path}: the name says nothing; call it after what it does")
    return found


def junk_classes(source: str, place: str) -> list[str]:
    """Classes called ``...Manager``, ``...Helper`` or ``...Utils``."""
    return [
        f"{place}:{node.lineno}: class {node.name}; call it after what it does"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ClassDef) and re.search(r"(Manager|Helpers?|Utils?)$", node.name)
    ]


def private_facts(text: str, place: str) -> list[str]:
    """Paths of one machine, registry host names and issue numbers."""
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        for forbidden in (*MACHINE_PATHS, *REGISTRY_HOSTS):
            if forbidden in line:
                found.append(f"{place}:{number}: {forbidden}")
        issue = ISSUE_NUMBER.search(line)
        if issue:
            found.append(f"{place}:{number}: {issue[0]}")
    return found


def foreign_imports(source: str, place: str, allowed: frozenset[str] = frozenset()) -> list[str]:
    """Imports of anything but the standard library (relative imports are foreign too).

    Args:
        allowed: further top-level modules that may be imported.
    """
    found = []
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = ["." * node.level + (node.module or "")]
        for name in names:
            top = name.partition(".")[0]
            if top not in sys.stdlib_module_names and top not in allowed:
                found.append(f"{place}:{getattr(node, 'lineno', 0)}: imports {name}")
    return found


def declared_modules(requirements: Iterable[str]) -> frozenset[str]:
    """The top-level modules that come with these requirements (which must be installed)."""
    wanted = {canonical(requirement_name(line)) for line in requirements}
    return frozenset(
        module
        for module, distributions in metadata.packages_distributions().items()
        if wanted & {canonical(name) for name in distributions}
    )


def requirement_name(requirement: str) -> str:
    """The name in a requirement such as ``click>=8.2``."""
    return re.split(r"[<>=!~;\[ ]", requirement)[0]


def canonical(name: str) -> str:
    """A distribution's name in its normal form (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def first_cycle(imports: Mapping[str, Iterable[str]]) -> list[str] | None:
    """One import cycle as the modules along it, the first repeated at the end; None if none."""
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        cycle: list[str] = error.args[1]
        return cycle
    return None
