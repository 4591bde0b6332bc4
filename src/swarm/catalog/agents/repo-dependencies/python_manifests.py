"""Python: pyproject.toml (PEP 621, PEP 735, Poetry, uv, PDM), requirements files, setup.cfg,
setup.py and Pipfile. Nothing is ever run: setup.py is parsed, and its literals read."""

from __future__ import annotations

import ast
import configparser
import re
import tomllib
from collections.abc import Iterator
from typing import Any

from declared import (
    BUILD,
    DEVELOPMENT,
    OPTIONAL,
    RUNTIME,
    Dependency,
    Found,
    LockFile,
    Partly,
    constraint_of,
    strings_at,
    table_at,
)

REQUIREMENT = re.compile(
    r"(?P<name>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?)[ \t]*(?:\[[^\]]*\])?[ \t]*"
    r"(?P<rest>[^;]*)"
)
EGG = re.compile(r"[#&]egg=([A-Za-z0-9._-]+)")
DEVELOPMENT_FILE = re.compile(r"dev|test|lint|doc|ci\b|typing|build", re.I)


def parse_requirement(text: str, scope: str) -> Dependency | None:
    """A requirement (PEP 508) without its extras and markers."""
    match = REQUIREMENT.match(text.strip())
    if match is None:
        return None
    rest = match["rest"].strip()
    if rest.startswith("@"):
        return Dependency(match["name"], rest[1:].strip(), scope)
    if rest and rest[0] not in "<>=!~(":
        return None
    return Dependency(match["name"], rest.strip("() \t"), scope)


def all_requirements(texts: list[str], scope: str) -> Iterator[Found]:
    for text in texts:
        dependency = parse_requirement(text, scope)
        yield dependency or Partly(f"not a requirement: {text[:80]!r}")


def read_pyproject(text: str, _: str) -> Iterator[Found]:
    document = tomllib.loads(text)
    project = table_at(document, "project")
    yield from all_requirements(strings_at(project, "dependencies"), RUNTIME)
    for texts in table_at(project, "optional-dependencies").values():
        yield from all_requirements(strings_at({"": texts}, ""), OPTIONAL)
    for texts in table_at(document, "dependency-groups").values():
        yield from all_requirements(strings_at({"": texts}, ""), DEVELOPMENT)
    yield from all_requirements(strings_at(table_at(document, "build-system"), "requires"), BUILD)
    yield from all_requirements(
        strings_at(table_at(document, "tool", "uv"), "dev-dependencies"), DEVELOPMENT
    )
    for texts in table_at(document, "tool", "pdm", "dev-dependencies").values():
        yield from all_requirements(strings_at({"": texts}, ""), DEVELOPMENT)
    yield from read_poetry(table_at(document, "tool", "poetry"))
    if "dependencies" in strings_at(project, "dynamic"):
        yield Partly("its dependencies are dynamic: they are only known when it is built")


def read_poetry(poetry: dict[str, Any]) -> Iterator[Found]:
    groups = [(RUNTIME, table_at(poetry, "dependencies"))]
    groups.append((DEVELOPMENT, table_at(poetry, "dev-dependencies")))
    for name, group in table_at(poetry, "group").items():
        scope = RUNTIME if name == "main" else DEVELOPMENT
        groups.append((scope, table_at(group, "dependencies")))
    for scope, table in groups:
        for name, value in table.items():
            if name.lower() == "python":
                continue
            optional = isinstance(value, dict) and value.get("optional") is True
            yield Dependency(name, constraint_of(value), OPTIONAL if optional else scope)


def read_requirements(text: str, name: str) -> Iterator[Found]:
    """A requirements file; one with hashes is what a resolver wrote, and counts as a lock file."""
    if re.search(r"--hash[= ]", text):
        yield LockFile()
        return
    scope = DEVELOPMENT if DEVELOPMENT_FILE.search(name.rpartition("/")[2]) else RUNTIME
    for line in text.replace("\\\r\n", " ").replace("\\\n", " ").splitlines():
        line = re.sub(r"(^|[ \t])#.*", "", line).strip()
        editable = re.match(r"(?:-e|--editable)[ =]?(.*)", line)
        if editable is not None:
            line = editable[1].strip()
        elif not line or line.startswith("-"):
            continue
        yield read_requirement_line(line, scope)


def read_requirement_line(line: str, scope: str) -> Found:
    """A line that is a requirement, a URL or a path."""
    if "://" in line.partition("@")[0] or line.startswith((".", "/")):
        egg = EGG.search(line)
        return Dependency(egg[1] if egg else line, line if egg else "", scope)
    return parse_requirement(line, scope) or Partly(f"not a requirement: {line[:80]!r}")


def read_setup_cfg(text: str, _: str) -> Iterator[Found]:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.read_string(text)
    for key, scope in (
        ("install_requires", RUNTIME),
        ("tests_require", DEVELOPMENT),
        ("setup_requires", BUILD),
    ):
        yield from all_requirements(lines(parser.get("options", key, fallback="")), scope)
    if parser.has_section("options.extras_require"):
        for _extra, value in parser.items("options.extras_require"):
            yield from all_requirements(lines(value), OPTIONAL)


def lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip() and line.strip()[0] != "#"]


def read_setup_py(text: str, _: str) -> Iterator[Found]:
    tree = ast.parse(text)
    known = {
        target.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        called = node.func.id if isinstance(node.func, ast.Name) else called
        if called == "setup":
            for keyword in node.keywords:
                yield from read_setup_argument(keyword, known)


def read_setup_argument(keyword: ast.keyword, known: dict[str, ast.expr]) -> Iterator[Found]:
    """One argument of ``setup()``: a literal, or the name of one."""
    scopes = {
        "install_requires": RUNTIME,
        "extras_require": OPTIONAL,
        "tests_require": DEVELOPMENT,
        "setup_requires": BUILD,
    }
    if keyword.arg not in scopes:
        return
    node = keyword.value
    if isinstance(node, ast.Name):
        node = known.get(node.id, node)
    try:
        value = ast.literal_eval(node)
    except (ValueError, TypeError, RecursionError):
        yield Partly(f"{keyword.arg} is computed; setup.py is not run")
        return
    groups = list(value.values()) if isinstance(value, dict) else [value]
    for group in groups:
        texts = lines(group) if isinstance(group, str) else list(group or ())
        strings = [text for text in texts if isinstance(text, str)]
        yield from all_requirements(strings, scopes[keyword.arg])


def read_pipfile(text: str, _: str) -> Iterator[Found]:
    document = tomllib.loads(text)
    for key, scope in (("packages", RUNTIME), ("dev-packages", DEVELOPMENT)):
        for name, value in table_at(document, key).items():
            yield Dependency(name, constraint_of(value), scope)
