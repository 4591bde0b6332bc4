"""Licences, dependencies, debt, tests and the score on small real repositories."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from tests.integration.catalog.repositories import GitRepository, new_repository

TEXTS = Path("/usr/share/common-licenses")
ISC = (
    "Permission to use, copy, modify, and/or distribute this software for any\npurpose with or "
    "without fee is hereby granted, provided that the above\ncopyright notice and this permission "
    "notice appear in all copies.\n"
)
MIT = (Path(__file__).parents[3] / "LICENSE").read_text()
BSD = (
    "Redistribution and use in source and binary forms, with or without modification, are "
    "permitted provided that the following conditions are met:\n1. Redistributions of source\n"
    "2. Redistributions in binary form must reproduce the above copyright notice\n"
)
BSD_3 = BSD + (
    "3. Neither the name of the copyright holder nor the names of its contributors may be used "
    "to endorse or promote products derived from this software\n"
)


@pytest.fixture
def repository(tmp_path: Path) -> GitRepository:
    return new_repository(tmp_path / "repo")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (MIT, ["MIT"]),
        (MIT.replace("\n", "\r\n * "), ["MIT"]),
        (ISC, ["ISC"]),
        (ISC.split(", provided")[0] + ".", ["0BSD"]),
        (BSD, ["BSD-2-Clause"]),
        (BSD_3, ["BSD-3-Clause"]),
        (MIT + "\n-----\n" + BSD_3, ["MIT", "BSD-3-Clause"]),
        ("This is free and unencumbered software released into the public domain.", ["Unlicense"]),
        ("SPDX-License-Identifier: Apache-2.0 OR MIT\n", ["Apache-2.0", "MIT"]),
        ("All rights reserved.", []),
    ],
)
def test_licence_texts(
    report_on: Any, repository: GitRepository, text: str, expected: list[str]
) -> None:
    repository.write("LICENSE", text)
    repository.git("add", ".")
    found = report_on(repository.path)["licence"]
    assert found["ids"] == expected
    assert found["open_source"] is bool(expected)
    assert bool(found["unrecognised"]["items"]) is not bool(expected)


def test_code_about_licences_is_none(report_on: Any, repository: GitRepository) -> None:
    for name in ("licences.json", "license.py", "license-check.sh"):
        repository.write(name, MIT)
    for name in ("LICENSE-MIT", "sub/LICENCE.md", "COPYING.lesser", "LICENSES/MIT.txt"):
        repository.write(name, MIT)
    repository.git("add", ".")
    found = report_on(repository.path)["licence"]["licences"]["items"]
    paths = [row["path"] for row in found]
    assert paths == ["COPYING.lesser", "LICENSE-MIT", "LICENSES/MIT.txt", "sub/LICENCE.md"]


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("Apache-2.0", "Apache-2.0"),
        ("GPL-2", "GPL-2.0"),
        ("GPL-3", "GPL-3.0"),
        ("LGPL-2", "LGPL-2.0"),
        ("LGPL-2.1", "LGPL-2.1"),
        ("LGPL-3", "LGPL-3.0"),
        ("MPL-1.1", "MPL-1.1"),
        ("MPL-2.0", "MPL-2.0"),
        ("CC0-1.0", "CC0-1.0"),
    ],
)
def test_whole_licence_texts(
    report_on: Any, repository: GitRepository, file: str, expected: str
) -> None:
    if not (TEXTS / file).is_file():
        pytest.skip(f"{TEXTS / file} is not on this machine")
    repository.write("COPYING", (TEXTS / file).read_bytes())
    repository.git("add", ".")
    assert report_on(repository.path)["licence"]["ids"] == [expected]


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("pyproject.toml", '[project]\nlicense = "GPL-3.0-or-later"\n', ["GPL-3.0-or-later"]),
        ("pyproject.toml", '[project]\nlicense = {text = "MIT License"}\n', ["MIT"]),
        ("package.json", '{"license": "(MIT OR Apache-2.0)"}', ["MIT", "Apache-2.0"]),
        ("package.json", '{"licenses": [{"type": "ISC"}]}', ["ISC"]),
        ("Cargo.toml", '[package]\nlicense = "MPL-2.0"\n', ["MPL-2.0"]),
        ("setup.cfg", "[metadata]\nlicense = MIT\n", ["MIT"]),
        ("x.gemspec", 's.license = "MIT"\n', ["MIT"]),
        ("package.json", '{"license": "\\ud800"}', []),
        ("package.json", "{", []),
    ],
)
def test_declared_licences(
    report_on: Any, repository: GitRepository, name: str, text: str, expected: list[str]
) -> None:
    repository.write(name, text)
    repository.git("add", ".")
    assert report_on(repository.path)["licence"]["ids"] == expected


MANIFESTS = {
    "pyproject.toml": (
        "[build-system]\nrequires=['hatchling']\n[project]\n"
        "dependencies=['click>=8', 'Foo.Bar[x]==1; python_version<\"4\"', 'u @ https://h/u.whl']\n"
        "[project.optional-dependencies]\nfast=['orjson']\n"
        "[dependency-groups]\ndev=['pytest', {include-group='x'}]\n"
        "[tool.poetry.dependencies]\npython='^3.11'\nhttpx={version='^1', optional=true}\n"
    ),
    "sub/requirements-dev.txt": (
        "# comment\n-r other.txt\nfoo-bar>1  # why\nruff \\\n  ==0.1\n-e ./local\n"
        "git+https://h/x.git#egg=eggy\n\n--index-url https://h\n"
    ),
    "requirements.lock.d/requirements.txt": "a==1 --hash=sha256:00\nb==2 --hash=sha256:00\n",
    "setup.py": (
        "from setuptools import setup\nimport os\nos.system('touch /tmp/setup-py-ran')\n"
        "REQ = ['six']\nsetup(name='x', install_requires=REQ, tests_require=open('x').read())\n"
    ),
    "Pipfile": '[packages]\nflask = "*"\n[dev-packages]\nblack = {version = "==1"}\n',
    "package.json": json.dumps(
        {"dependencies": {"a": "^1", "@s/b": "*"}, "devDependencies": {"a": "^1", "jest": "29"}}
    ),
    "Cargo.toml": (
        '[dependencies]\nserde = "1"\ntokio = {version="1", optional=true}\n'
        '[target.x.dev-dependencies]\nproptest = "1"\n[workspace.dependencies]\nrand = "0.8"\n'
    ),
    "go.mod": (
        "module x\ngo 1.22\nrequire one.example/a v1.0.0\nrequire (\n\ttwo.example/b v2.0.0\n"
        "\t// note\n\tthree.example/c v3.0.0 // indirect\n)\n"
    ),
    "Gemfile": (
        'source "https://h"\ngem "rails", "~> 7"\ngroup :development, :test do\n'
        '  gem "rspec"\nend\ngem "puma" # gem "no"\ngem "rubocop", require: false, group: :lint\n'
    ),
    "pom.xml": (
        '<project xmlns="http://maven.apache.org/POM/4.0.0"><dependencyManagement><dependencies>'
        "<dependency><groupId>no</groupId><artifactId>no</artifactId></dependency></dependencies>"
        "</dependencyManagement><dependencies><dependency><groupId>g</groupId><artifactId>a"
        "</artifactId><version>1</version></dependency><dependency><groupId>g</groupId><artifactId>"
        "t</artifactId><scope>test</scope></dependency></dependencies></project>"
    ),
    "build.gradle": "implementation 'g:n:1.0'\ntestImplementation(\"g:u:2\")\n",
    "composer.json": '{"require": {"php": ">=8", "ext-json": "*", "v/p": "^1"}}',
    "x.csproj": '<Project><G><PackageReference Include="N" Version="1"/></G></Project>',
}


def test_dependencies_of_every_kind(report_on: Any, repository: GitRepository) -> None:
    for name, text in MANIFESTS.items():
        repository.write(name, text)
    repository.git("add", ".")
    found = report_on(repository.path)["dependencies"]
    rows = {
        (row["ecosystem"], row["name"], row["scope"]): row["constraint"]
        for row in found["dependencies"]["items"]
    }
    assert rows == {
        ("Python", "hatchling", "build"): "",
        ("Python", "click", "runtime"): ">=8",
        ("Python", "Foo.Bar", "runtime"): "==1",
        ("Python", "u", "runtime"): "https://h/u.whl",
        ("Python", "orjson", "optional"): "",
        ("Python", "pytest", "development"): "",
        ("Python", "httpx", "optional"): "^1",
        ("Python", "foo-bar", "development"): ">1",
        ("Python", "ruff", "development"): "==0.1",
        ("Python", "./local", "development"): "",
        ("Python", "eggy", "development"): "git+https://h/x.git#egg=eggy",
        ("Python", "six", "runtime"): "",
        ("Python", "flask", "runtime"): "*",
        ("Python", "black", "development"): "==1",
        ("Node", "a", "runtime"): "^1",
        ("Node", "a", "development"): "^1",
        ("Node", "@s/b", "runtime"): "*",
        ("Node", "jest", "development"): "29",
        ("Rust", "serde", "runtime"): "1",
        ("Rust", "tokio", "optional"): "1",
        ("Rust", "proptest", "development"): "1",
        ("Rust", "rand", "runtime"): "0.8",
        ("Go", "one.example/a", "runtime"): "v1.0.0",
        ("Go", "two.example/b", "runtime"): "v2.0.0",
        ("Go", "three.example/c", "indirect"): "v3.0.0",
        ("Ruby", "rails", "runtime"): "~> 7",
        ("Ruby", "rspec", "development"): "",
        ("Ruby", "puma", "runtime"): "",
        ("Ruby", "rubocop", "development"): "",
        ("Java", "g:a", "runtime"): "1",
        ("Java", "g:t", "development"): "",
        ("Java", "g:n", "runtime"): "1.0",
        ("Java", "g:u", "development"): "2",
        ("PHP", "v/p", "runtime"): "^1",
        (".NET", "N", "runtime"): "1",
    }
    # foo-bar and Foo.Bar are one; Node's a counts once though it stands in two scopes.
    assert found["total"] == len(rows) - 2
    assert [row["path"] for row in found["lockfiles"]["items"]] == [
        "requirements.lock.d/requirements.txt"
    ]
    problems = {row["path"]: row["reason"] for row in found["problems"]["items"]}
    assert problems == {"setup.py": "tests_require is computed; setup.py is not run"}
    assert not Path("/tmp/setup-py-ran").exists()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("pyproject.toml", "not = [toml"),
        ("pyproject.toml", "[project]\nname = 'x'\ndynamic = ['dependencies']\n"),
        ("package.json", "[" * 100_000),
        ("package.json", "[]"),
        ("Cargo.toml", "a = " + "[" * 50_000),
        ("setup.py", "def ("),
        ("setup.py", "x = " + "(" * 5000),
        ("setup.cfg", "no section"),
        ("pom.xml", '<!DOCTYPE x [<!ENTITY a "b">]><project>&a;</project>'),
        ("pom.xml", "<project>"),
    ],
)
def test_broken_manifests_are_named(
    report_on: Any, repository: GitRepository, name: str, text: str
) -> None:
    repository.write(name, text)
    repository.git("add", ".")
    report = report_on(repository.path)
    (problem,) = report["dependencies"]["problems"]["items"]
    assert problem["path"] == name
    assert problem["reason"]
    assert problem["reason"] in report.text("report.html").replace("&#39;", "'").replace(
        "&quot;", '"'
    ).replace("&lt;", "<").replace("&gt;", ">")


def test_debt_is_what_grep_finds(report_on: Any, repository: GitRepository) -> None:
    repository.write("a.py", "# TODO one, TODO(ann): two\nx = 'FIXME'\n")
    repository.write("b/c.js", "// HACK and XXX\r\n//no TODOS, todo, MYTODO, XXX_Y, XXX-123\n")
    repository.write("wide.cs", "// TODO wide\n".encode("utf-16"))
    repository.write("README.md", "TODO in prose\n")
    repository.write("vendor/v.py", "# TODO not ours\n")
    repository.git("add", ".")
    debt = report_on(repository.path)["debt"]
    grep = repository.git("grep", "-w", "-o", "-h", "-E", "TODO|FIXME|HACK", "a.py", "b/c.js")
    assert debt["kinds"] == {"TODO": 3, "FIXME": 1, "HACK": 1, "XXX": 1}
    assert len(grep.split()) == 4
    assert debt["total"] == 6
    assert debt["in_prose"] == 1
    assert debt["lines"] == 5
    assert debt["files"]["items"][0] == {"path": "a.py", "count": 3}
    samples = {row["path"]: (row["line"], row["text"]) for row in debt["samples"]["items"]}
    assert samples["wide.cs"][0] == 1
    assert samples["a.py"] == (1, "# TODO one, TODO(ann): two")


def test_memory_does_not_grow_with_findings(
    agents: Any, report_on: Any, repository: GitRepository
) -> None:
    repository.write("a.py", "TODO\n" * 800_000)
    names = ",".join(f'"{number}":""' for number in range(21_000))
    repository.write("package.json", f'{{"dependencies":{{{names}}}}}')
    repository.write(
        "pyproject.toml",
        "[project]\ndependencies=['a']\nclassifiers=[" + "'License :: x'," * 15_000 + "]",
    )
    repository.git("add", ".")
    files = agents("repo-files", path=str(repository.path))
    tracemalloc.start()
    try:
        debt = agents("repo-debt", path=str(repository.path), listing=files["listing"])
        assert debt["total"] == 800_000
        _, peak = tracemalloc.get_traced_memory()
        assert peak < 16 * 1024**2
    finally:
        tracemalloc.stop()
    report = report_on(repository.path)
    assert report["dependencies"]["total"] == 20_000
    problems = {row["path"]: row["reason"] for row in report["dependencies"]["problems"]["items"]}
    assert problems == {
        "package.json": "only its first 20,000 entries were read",
        "pyproject.toml": "not read: there are over 20,000 entries before it",
    }
    assert report["licence"]["declared"]["total"] == 30
    assert len(json.dumps(report["score"]["report"])) < 256 * 1024


def test_tests_and_ci(report_on: Any, repository: GitRepository) -> None:
    repository.write("src/a.py", "x = 1\n" * 10)
    repository.write("tests/test_a.py", "import pytest\n" * 4)
    repository.write("web/a.spec.ts", "import { test } from 'vitest'\n")
    repository.write("lib.rs", "#[cfg(test)]\nmod t {}\n")
    repository.write("latest.py", "x = 1\n")
    repository.write("package.json", '{"devDependencies": {"mocha": "1"}}')
    repository.write(".github/workflows/ci.yml", "on: push\n")
    repository.write(".github/workflows/nested/no.yml", "x: 1\n")
    repository.git("add", ".")
    tests = report_on(repository.path)["tests"]
    assert (tests["test_files"], tests["test_lines"]) == (2, 5)
    assert (tests["source_files"], tests["source_lines"]) == (3, 13)
    assert tests["ratio"] == round(5 / 13, 3)
    names = [row["name"] for row in tests["frameworks"]["items"]]
    assert names == ["Mocha", "Vitest", "cargo test", "pytest"]
    assert tests["ci"]["items"] == [
        {"name": "GitHub Actions", "evidence": ".github/workflows/ci.yml"}
    ]


def test_the_score_is_the_sum_of_its_reasons(report_on: Any, repository: GitRepository) -> None:
    repository.write("a.py", "x = 1\n")
    repository.write("LICENSE", MIT)
    repository.commit()
    score = report_on(repository.path, as_of="2024-02-01")["score"]
    judged = [row for row in score["reasons"] if row["points"] is not None]
    assert all(0 <= row["points"] <= row["max_points"] for row in judged)
    assert sum(row["max_points"] for row in score["reasons"]) == 100
    reached, most = (sum(row[key] for row in judged) for key in ("points", "max_points"))
    assert score["score"] == round(100 * reached / most)
    points = {row["area"]: row["points"] for row in score["reasons"]}
    assert points == {
        "Licence": 15,
        "Tests": 0,
        "CI": 0,
        "Documentation": 0,
        "Activity": 10,
        "People": 1,
        "Dependencies": 5,
        "Debt": 15,
    }
    assert score["grade"] == "D"


def test_a_report_can_be_repeated(report_on: Any, repository: GitRepository) -> None:
    repository.write("a.py", "x = 1\n")
    repository.commit()
    first = report_on(repository.path, as_of="2024-02-01")
    texts = [first.text(name) for name in ("report.md", "report.html", "files.jsonl")]
    second = report_on(repository.path, as_of="2024-02-01")
    assert [second.text(name) for name in ("report.md", "report.html", "files.jsonl")] == texts
