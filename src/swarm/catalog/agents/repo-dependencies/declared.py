"""What every reader of manifests gives, and what it may raise."""

from __future__ import annotations

from typing import Any, NamedTuple

RUNTIME = "runtime"
OPTIONAL = "optional"
PEER = "peer"
DEVELOPMENT = "development"
BUILD = "build"
INDIRECT = "indirect"

Json = dict[str, Any]


class Dependency(NamedTuple):
    """One declared dependency; ``constraint`` as it stands in the manifest, "" for none."""

    name: str
    constraint: str
    scope: str


class Partly(NamedTuple):
    """In a reader's output: some of the manifest could not be read, and why."""

    reason: str


class LockFile(NamedTuple):
    """In a reader's output: the file pins versions instead of declaring dependencies."""


Found = Dependency | Partly | LockFile


def table_at(document: Any, *keys: str) -> Json:
    """The table below ``keys``, empty when there is none."""
    for key in keys:
        document = document.get(key) if isinstance(document, dict) else None
    return document if isinstance(document, dict) else {}


def strings_at(table: Json, key: str) -> list[str]:
    """The strings of the list at ``key``."""
    value = table.get(key)
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


def constraint_of(value: Any) -> str:
    """A version as TOML and JSON manifests write it: text, or a table with the details."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return ", ".join(constraint_of(one) for one in value)
    if isinstance(value, dict):
        for key in ("version", "git", "path", "url", "file"):
            if isinstance(value.get(key), str):
                return str(value[key]) if key == "version" else f"{key}: {value[key]}"
        if value.get("workspace") is True:
            return "workspace"
    return ""
