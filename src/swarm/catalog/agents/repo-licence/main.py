"""Recognise licences by phrases that only their text has, and read what manifests declare.

``licences.json`` lists, for each licence, phrases that must all be there and phrases that must not.
Texts are compared as lower-case words with everything else taken out, so that line breaks, quotes
and comment signs do not matter.
"""

from __future__ import annotations

import configparser
import json
import re
import tomllib
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from display import clean

TABLE = Path(__file__).with_name("licences.json")
WORDS = re.compile(r"[a-z0-9]+")
SPDX_TAG = re.compile(r"SPDX-License-Identifier:[ \t]*([^\n]{1,200})")
IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]*")
EXPRESSION = re.compile(r"[A-Za-z0-9.+\-() ]+")
OPERATORS = frozenset({"and", "or", "with"})
CLASSIFIER = "License :: "
MAX_ITEMS = 30
MAX_IDS = 10
SUFFIXES = ("-only", "-or-later", "+")

Json = dict[str, Any]


def handler(inputs: Json) -> Json:
    """Go through the documents: those with the role ``licence`` by text, manifests by field."""
    table = json.loads(TABLE.read_text("utf-8"))
    licences: list[Json] = []
    declared: list[Json] = []
    unrecognised: list[str] = []
    top: list[str] = []
    for document in documents(inputs["documents"]):
        if document["role"] == "manifest":
            name = document["path"].rpartition("/")[2].lower()
            values = [clean(one) for one in islice(declarations(name, document["text"]), MAX_ITEMS)]
            declared += [{"path": document["shown"], "value": value} for value in values if value]
            continue
        if document["role"] != "licence":
            continue
        found = recognise(document["text"], table)
        licences += [{**licence, "path": document["shown"]} for licence in found]
        if is_near_top(document["path"]) and not is_notice(document["path"]):
            top += [licence["id"] for licence in found]
        if not found and not is_notice(document["path"]):
            unrecognised.append(document["shown"])
    ids = top or declared_ids(declared)
    approved = {row["id"] for row in table if row["open_source"]}
    ids = list(dict.fromkeys(ids))[:MAX_IDS]
    return {
        "licences": bounded(licences),
        "declared": bounded(declared),
        "unrecognised": bounded(unrecognised),
        "ids": ids,
        "open_source": bool(ids) and all(without_suffix(one) in approved for one in ids),
    }


def recognise(text: str, table: list[Json]) -> list[Json]:
    """The licences whose text this is; several when a file holds several."""
    words = f" {' '.join(WORDS.findall(text.lower()))} "
    found: dict[str, Json] = {}
    for row in table:
        if all(f" {phrase} " in words for phrase in row["phrases"]) and not any(
            f" {phrase} " in words for phrase in row.get("not", ())
        ):
            found[row["id"]] = {key: row[key] for key in ("id", "name", "open_source")}
    if not found:
        by_id = {row["id"]: row for row in table}
        for tag in SPDX_TAG.findall(text)[:MAX_ITEMS]:
            for one in identifiers(tag):
                row = by_id.get(without_suffix(one), {"name": one, "open_source": False})
                name, approved = row["name"], row["open_source"]
                found[one] = {"id": one, "name": name, "open_source": approved}
    return list(found.values())


def declarations(name: str, text: str) -> Iterator[str]:
    """Licences that a manifest names; none when it cannot be read, as repo-dependencies reports."""
    reader = READERS.get(name) or next(
        (read for suffix, read in SUFFIX_READERS.items() if name.endswith(suffix)), None
    )
    if reader is None:
        return
    try:
        yield from (value for value in reader(text) if isinstance(value, str) and value.strip())
    except (ValueError, RecursionError, configparser.Error, ElementTree.ParseError):
        return


def from_pyproject(text: str) -> Iterator[Any]:
    document = tomllib.loads(text)
    project = table_at(document, "project")
    poetry = table_at(document, "tool", "poetry")
    for value in (project.get("license"), poetry.get("license")):
        if isinstance(value, dict):
            # The older form; a file's own text is recognised by itself.
            value = value.get("text")
        if isinstance(value, str) and len(value) <= 200:
            yield value
    yield from from_classifiers(project.get("classifiers"))


def from_classifiers(classifiers: Any) -> Iterator[str]:
    """``License :: OSI Approved :: MIT License`` names a licence in its last part."""
    for classifier in classifiers if isinstance(classifiers, list) else ():
        if isinstance(classifier, str) and classifier.startswith(CLASSIFIER):
            yield classifier.rpartition(" :: ")[2]


def from_setup_cfg(text: str) -> Iterator[Any]:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.read_string(text)
    yield parser.get("metadata", "license", fallback=None)
    classifiers = parser.get("metadata", "classifiers", fallback="")
    yield from from_classifiers(classifiers.split("\n"))


def from_json(text: str) -> Iterator[Any]:
    """``license`` of a package.json or composer.json: text, or in old ones objects in a list."""
    document = json.loads(text)
    if not isinstance(document, dict):
        return
    for value in (document.get("license"), document.get("licenses")):
        for one in value if isinstance(value, list) else (value,):
            yield one.get("type") if isinstance(one, dict) else one


def from_cargo(text: str) -> Iterator[Any]:
    document = tomllib.loads(text)
    yield table_at(document, "package").get("license")
    yield table_at(document, "workspace", "package").get("license")


def from_pom(text: str) -> Iterator[Any]:
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        return
    root = ElementTree.fromstring(text)
    for licence in root.findall("./{*}licenses/{*}license/{*}name"):
        yield licence.text


def from_project_file(text: str) -> Iterator[Any]:
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        return
    for expression in ElementTree.fromstring(text).iter("PackageLicenseExpression"):
        yield expression.text


def from_gemspec(text: str) -> Iterator[Any]:
    for line in re.findall(r"\.licenses?[ \t]*=[ \t]*([^\n]{1,200})", text):
        yield from re.findall(r"[\"']([^\"'\n]{1,100})[\"']", line)


READERS = {
    "pyproject.toml": from_pyproject,
    "setup.cfg": from_setup_cfg,
    "package.json": from_json,
    "composer.json": from_json,
    "cargo.toml": from_cargo,
    "pom.xml": from_pom,
}
SUFFIX_READERS = {
    ".gemspec": from_gemspec,
    ".csproj": from_project_file,
    ".fsproj": from_project_file,
}


def table_at(document: Json, *keys: str) -> Json:
    """The table below ``keys``, empty when there is none."""
    value: Any = document
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def declared_ids(declared: list[Json]) -> list[str]:
    """Identifiers from the manifests nearest the top (they come first)."""
    nearest = [row for row in declared if row["path"].count("/") == declared[0]["path"].count("/")]
    return [one for row in nearest for one in identifiers(row["value"])]


def identifiers(expression: str) -> list[str]:
    """The licences in an SPDX expression; of free text such as ``MIT License``, the known word."""
    if EXPRESSION.fullmatch(expression) is None:
        return []
    words = [word for word in IDENTIFIER.findall(expression) if word.lower() not in OPERATORS]
    if " " not in expression.strip() or OPERATORS & set(expression.lower().split()):
        return words
    known = ("MIT", "ISC", "Unlicense", "WTFPL")
    return [word for word in words if word in known]


def without_suffix(identifier: str) -> str:
    """``GPL-3.0-or-later`` is approved if ``GPL-3.0`` is."""
    for suffix in SUFFIXES:
        identifier = identifier.removesuffix(suffix)
    return identifier


def is_near_top(path: str) -> bool:
    """Whether a licence file speaks for the whole project: at the top, or in ``LICENSES/``."""
    folder = path.rpartition("/")[0].lower()
    return folder in ("", "licenses", "licences")


def is_notice(path: str) -> bool:
    """A NOTICE goes with a licence; it need not be one."""
    return path.rpartition("/")[2].lower().startswith("notice")


def documents(path: str) -> Iterator[Json]:
    """The objects of the JSON Lines file."""
    with open(path, encoding="ascii") as lines:
        for line in lines:
            yield json.loads(line)


def bounded(items: list[Any]) -> Json:
    """A list that cannot grow without limit, with how long it really is."""
    return {
        "items": items[:MAX_ITEMS],
        "total": len(items),
        "truncated": len(items) > MAX_ITEMS,
    }
