"""The manifests of Node, Rust, Go, Ruby, Java, PHP and .NET."""

from __future__ import annotations

import json
import re
import tomllib
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator

from declared import (
    BUILD,
    DEVELOPMENT,
    INDIRECT,
    OPTIONAL,
    PEER,
    RUNTIME,
    Dependency,
    Found,
    Json,
    Partly,
    constraint_of,
    table_at,
)

PACKAGE_JSON = {
    "dependencies": RUNTIME,
    "devDependencies": DEVELOPMENT,
    "peerDependencies": PEER,
    "optionalDependencies": OPTIONAL,
}
CARGO = {"dependencies": RUNTIME, "dev-dependencies": DEVELOPMENT, "build-dependencies": BUILD}
MAX_LINE = 500
"""Longer lines are cut: some patterns take quadratic time on what nobody writes."""

GEM = re.compile(r"^[ \t]*gem[ \t(]+[\"']([^\"'\n]+)[\"']([^\n]*)")
GEM_GROUP = re.compile(r"^[ \t]*group[ \t(]([^\n]*)\bdo\b")
GEM_OPTION = re.compile(r"\bgroups?:[ \t]*([^\n]*)")
GEMSPEC = re.compile(
    r"\.add(_runtime|_development|)_dependency[ \t(]+[\"']([^\"'\n]+)[\"']([^\n]*)"
)
QUOTED_VERSION = re.compile(r",[ \t]*[\"']([^\"'\n]*\d[^\"'\n]*)[\"']")
BLOCK_START = re.compile(r"\bdo\b[ \t]*(\|[^|\n]*\|)?[ \t]*$|^[ \t]*(if|unless|case)\b")
GRADLE = re.compile(
    r"\b(\w*(?:implementation|api|compileOnly|runtimeOnly|kapt|ksp|annotationProcessor))"
    r"[ \t]*\(?[ \t]*[\"']([\w.-]+:[\w.-]+)(?::([^\"'\n]*))?[\"']",
    re.I,
)


def read_package_json(text: str, _: str) -> Iterator[Found]:
    document = json_table(text)
    for key, scope in PACKAGE_JSON.items():
        for name, value in table_at(document, key).items():
            yield Dependency(name, constraint_of(value), scope)


def read_composer(text: str, _: str) -> Iterator[Found]:
    document = json_table(text)
    for key, scope in (("require", RUNTIME), ("require-dev", DEVELOPMENT)):
        for name, value in table_at(document, key).items():
            # PHP itself and its extensions have no vendor before a slash.
            if "/" in name:
                yield Dependency(name, constraint_of(value), scope)


def json_table(text: str) -> Json:
    document = json.loads(text)
    if not isinstance(document, dict):
        raise ValueError("it is not a JSON object")
    return document


def read_cargo(text: str, _: str) -> Iterator[Found]:
    document = tomllib.loads(text)
    places = [document, *table_at(document, "target").values(), table_at(document, "workspace")]
    for place in places:
        for key, scope in CARGO.items():
            for name, value in table_at(place, key).items():
                optional = isinstance(value, dict) and value.get("optional") is True
                yield Dependency(name, constraint_of(value), OPTIONAL if optional else scope)


def read_go_mod(text: str, _: str) -> Iterator[Found]:
    inside = False
    for line in text.splitlines():
        words = line.split(None, 3)
        if inside and words[:1] == [")"]:
            inside = False
        elif not inside and "".join(words[:2]).startswith("require("):
            inside = True
        else:
            if not inside and words[:1] == ["require"]:
                words = words[1:]
            elif not inside:
                continue
            if len(words) >= 2 and not words[0].startswith("//"):
                scope = INDIRECT if "// indirect" in line else RUNTIME
                yield Dependency(words[0].strip('"`'), words[1], scope)


def read_gemfile(text: str, _: str) -> Iterator[Found]:
    """A Gemfile is Ruby; its ``gem`` lines are read with the groups they stand in."""
    blocks: list[str] = []
    for line in text.splitlines():
        line = line[:MAX_LINE].split(" #")[0]
        gem = GEM.match(line)
        group = GEM_GROUP.match(line)
        if gem is not None:
            option = GEM_OPTION.search(gem[2])
            groups = " ".join([*blocks, option[1] if option else ""])
            version = QUOTED_VERSION.search(gem[2])
            yield Dependency(gem[1], version[1] if version else "", gem_scope(groups))
        elif group is not None:
            blocks.append(group[1])
        elif BLOCK_START.search(line):
            blocks.append("")
        elif line.strip() == "end" and blocks:
            blocks.pop()


def gem_scope(groups: str) -> str:
    return DEVELOPMENT if re.search(r"\b(development|test|ci|lint|docs?)\b", groups) else RUNTIME


def read_gemspec(text: str, _: str) -> Iterator[Found]:
    for match in GEMSPEC.finditer(text):
        version = QUOTED_VERSION.search(match[3][:MAX_LINE])
        scope = DEVELOPMENT if match[1] == "_development" else RUNTIME
        yield Dependency(match[2], version[1] if version else "", scope)


def read_gradle(text: str, _: str) -> Iterator[Found]:
    for match in GRADLE.finditer(text):
        scope = DEVELOPMENT if "test" in match[1].lower() else RUNTIME
        yield Dependency(match[2], match[3] or "", scope)
    if re.search(r"\blibs\.\w", text):
        yield Partly("it uses a version catalog, which is not read")


def read_pom(text: str, _: str) -> Iterator[Found]:
    for node in parse_xml(text).findall("./{*}dependencies/{*}dependency"):
        group, artifact = node.findtext("{*}groupId"), node.findtext("{*}artifactId")
        scope = RUNTIME
        if node.findtext("{*}scope") == "test":
            scope = DEVELOPMENT
        elif node.findtext("{*}optional") == "true":
            scope = OPTIONAL
        if group and artifact:
            name = f"{group.strip()}:{artifact.strip()}"
            yield Dependency(name, (node.findtext("{*}version") or "").strip(), scope)


def read_project_file(text: str, _: str) -> Iterator[Found]:
    """``PackageReference`` of a .csproj or .fsproj."""
    for node in parse_xml(text).iter():
        if isinstance(node.tag, str) and node.tag.rpartition("}")[2] == "PackageReference":
            version = node.get("Version") or node.findtext("{*}Version") or ""
            if name := node.get("Include"):
                yield Dependency(name, version.strip(), RUNTIME)


def parse_xml(text: str) -> ElementTree.Element:
    """The root element; declarations of entities are refused, they can grow without bound."""
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise ValueError("it declares a document type, which is not read")
    return ElementTree.fromstring(text)
