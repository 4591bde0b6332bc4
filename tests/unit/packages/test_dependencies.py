"""Only names and versions of a registry's packages pass as dependencies."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import pytest

from swarm.definitions.agent import AgentDefinition
from swarm.definitions.loading import parse_agent
from swarm.definitions.source import Source
from swarm.kernel.errors import DefinitionError
from swarm.packages.dependencies import (
    NodeDependencies,
    PythonDependencies,
    clean_node_lock,
    read_dependencies,
)
from swarm.packages.package import PackageFile

HASH = "--hash=sha256:" + "0" * 64
SOURCE = Source(None, "pkg/agent.yaml")
INTEGRITY = "sha512-" + "A" * 86 + "=="


class Files:
    """A package's contents, in memory."""

    def __init__(self, texts: dict[str, str] | None = None) -> None:
        self._data = {name: text.encode() for name, text in (texts or {}).items()}

    @property
    def files(self) -> tuple[PackageFile, ...]:
        return tuple(
            PackageFile(name, len(data), hashlib.sha256(data).hexdigest())
            for name, data in sorted(self._data.items())
        )

    @contextmanager
    def open(self, path: str) -> Iterator[IO[bytes]]:
        yield io.BytesIO(self._data[path])


def agent(kind: str = "python", *dependencies: str) -> AgentDefinition:
    entry = {"python": "main.py", "node": "main.js", "command": "[sh]"}[kind]
    return parse_agent(
        f"name: a\nversion: 1.0.0\nruntime: {{type: {kind}, entry: {entry}}}\n"
        f"dependencies: {json.dumps(dependencies)}\n",
        "agent.yaml",
    )


def faults(definition: AgentDefinition, texts: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(DefinitionError) as caught:
        read_dependencies(definition, Files(texts), SOURCE)
    assert all(problem.remedy for problem in caught.value.problems)
    return [str(problem).splitlines()[0] for problem in caught.value.problems]


def test_without_declarations_nothing_is_installed() -> None:
    for kind in ("python", "node", "command"):
        assert read_dependencies(agent(kind), Files(), SOURCE) is None
    assert read_dependencies(agent(), Files({"requirements.txt": "# none\n\n"}), SOURCE) is None
    assert read_dependencies(agent(), Files({"package.json": "not JSON"}), SOURCE) is None
    assert (
        read_dependencies(agent("node"), Files({"package.json": '{"type": "module"}'}), SOURCE)
        is None
    )


def test_manifest_and_requirements_are_put_together() -> None:
    found = read_dependencies(
        agent("python", "httpx[http2] >= 0.27 ; python_version >= '3.11'"),
        Files({"requirements.txt": "six  # as it is\n\nrich \\\n  >=13,\\\n  <15\n# end\n"}),
        SOURCE,
    )
    assert isinstance(found, PythonDependencies)
    assert not found.locked
    assert found.text.splitlines() == [
        'httpx[http2]>=0.27; python_version >= "3.11"',
        "six",
        "rich<15,>=13",
    ]


@pytest.mark.parametrize(
    "line",
    [
        "-r other.txt",
        "-e .",
        "--index-url https://example.com/simple",
        "--find-links /tmp",
        "six --global-option=x",
        "six --hash=md5:0",
        "six @ https://example.com/six.whl",
        "six @ file:///etc/passwd",
        "six @ git+https://example.com/six",
        "https://example.com/six.whl",
        "git+https://example.com/six",
        "./six.whl",
        "../six",
        "/six.whl",
        "${HOME}",
        "six==",
        "six six",
    ],
)
def test_anything_but_names_and_versions_is_refused_at_its_line(line: str) -> None:
    (fault,) = faults(agent(), {"requirements.txt": f"rich\n\n{line}\n"})
    assert fault.startswith("pkg/requirements.txt:3: ")
    (fault,) = faults(agent("python", line))
    assert fault.startswith("pkg/agent.yaml:1:1: ")


def test_a_lock_is_used_as_it_is() -> None:
    lock = f"six==1.17.0 \\\n    {HASH} \\\n    {HASH}\n"
    found = read_dependencies(
        agent("python", "six>=1.16", "other; python_version < '3'"),
        Files({"requirements.lock": lock}),
        SOURCE,
    )
    assert found == PythonDependencies(f"six==1.17.0 {HASH} {HASH}\n", locked=True)
    as_requirements = read_dependencies(agent(), Files({"requirements.txt": lock}), SOURCE)
    assert as_requirements == found


def test_a_lock_that_does_not_fit_is_told() -> None:
    lock = f"six==1.17.0 {HASH}\nrich>=13 {HASH}\nbare==1.0\nany==1.* {HASH}\n"
    told = faults(agent("python", "six<1.17", "absent"), {"requirements.lock": lock})
    assert told == [
        "pkg/requirements.lock:2: `rich>=13` is locked without an exact version and hashes",
        "pkg/requirements.lock:3: `bare==1.0` is locked without an exact version and hashes",
        "pkg/requirements.lock:4: `any==1.*` is locked without an exact version and hashes",
        "pkg/requirements.lock:1: `six<1.17` is declared, `six==1.17.0` locked",
        "pkg/requirements.lock: `absent` is not in the lock",
    ]


def test_hashes_on_some_lines_only_are_refused() -> None:
    (fault,) = faults(agent(), {"requirements.txt": f"six==1.17.0 {HASH}\nrich\n"})
    assert fault.startswith("pkg/requirements.txt:2: ")


def test_only_python_agents_have_python_dependencies() -> None:
    for kind in ("node", "command"):
        (fault,) = faults(agent(kind, "six"))
        assert f"this is a {kind} agent" in fault


def node_package(**groups: Any) -> str:
    return json.dumps({"name": "x", "scripts": {"install": "evil"}, **groups})


def test_of_package_json_only_what_an_installer_needs_is_kept() -> None:
    document = node_package(
        dependencies={"is-number": "^7.0.0", "@a/b": "1.x || >=2.0.0 <3", "c": "npm:@d/e@~1.2"},
        overrides={"f": {"g": "1.0.0", "h": "$c"}},
    )
    found = read_dependencies(agent("node"), Files({"package.json": document}), SOURCE)
    assert isinstance(found, NodeDependencies)
    assert found.lock is None
    assert set(found.manifest) == {"name", "dependencies", "overrides"}


@pytest.mark.parametrize(
    "wanted",
    [
        "git+ssh://example.com/x",
        "git://example.com/x",
        "https://example.com/x.tgz",
        "user/repository",
        "github:user/repository",
        "file:../x",
        "link:../x",
        "workspace:*",
        "../x",
        "npm:../x",
        7,
        None,
    ],
)
def test_node_dependencies_from_elsewhere_are_refused(wanted: object) -> None:
    for group in ("dependencies", "devDependencies", "overrides"):
        document = {"dependencies": {"a": "1"}, group: {"x": wanted, "a": "1"}}
        (fault,) = faults(agent("node"), {"package.json": json.dumps(document)})
        assert "x" in fault


def test_workspaces_and_what_is_no_object_are_refused() -> None:
    assert faults(agent("node"), {"package.json": node_package(dependencies=["a"])})
    assert faults(agent("node"), {"package.json": "[]"})
    (fault,) = faults(agent("node"), {"package.json": '{\n "dependencies": x}'})
    assert fault.startswith("pkg/package.json:2: ")
    told = faults(
        agent("node"), {"package.json": node_package(dependencies={"a": "1"}, workspaces=["b"])}
    )
    assert "workspaces" in told[0]


def lock_of(**entries: Any) -> Any:
    packages = {"": {"dependencies": {"a": "1"}}} | {
        name.replace("__", "/"): entry for name, entry in entries.items()
    }
    return {"lockfileVersion": 3, "packages": packages}


GOOD = {"version": "1.0.0", "resolved": "https://example.com/a.tgz", "integrity": INTEGRITY}


def test_where_a_lock_fetched_from_is_dropped() -> None:
    cleaned = clean_node_lock(lock_of(node_modules__a=GOOD), "lock")
    assert cleaned["packages"]["node_modules/a"] == {"version": "1.0.0", "integrity": INTEGRITY}
    text = json.dumps(lock_of(node_modules__a=GOOD))
    found = read_dependencies(
        agent("node"),
        Files({"package.json": node_package(dependencies={"a": "1"}), "package-lock.json": text}),
        SOURCE,
    )
    assert isinstance(found, NodeDependencies)
    assert found.lock == cleaned


@pytest.mark.parametrize(
    ("place", "entry", "said"),
    [
        ("node_modules/../../x", GOOD, "does not lie"),
        ("node_modules//x", GOOD, "does not lie"),
        ("packages/x", GOOD, "does not lie"),
        ("node_modules/x", {"resolved": "../x", "link": True}, "link"),
        ("node_modules/x", {**GOOD, "version": "git+ssh://example.com/x"}, "released"),
        ("node_modules/x", {"version": "1.0.0", "resolved": "https://example.com"}, "integrity"),
        ("node_modules/x", {**GOOD, "integrity": "sha1-AAAA"}, "integrity"),
        ("node_modules/x", "x", "object"),
    ],
)
def test_what_a_lock_may_not_hold(place: str, entry: object, said: str) -> None:
    lock = {"lockfileVersion": 2, "packages": {"": {}, place: entry}}
    with pytest.raises(DefinitionError, match=said):
        clean_node_lock(lock, "lock")


def test_locks_of_old_versions_are_refused() -> None:
    with pytest.raises(DefinitionError, match="version 2 or 3"):
        clean_node_lock({"lockfileVersion": 1, "dependencies": {}}, "lock")
