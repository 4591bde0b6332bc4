"""The manifest that APKG tools write, turned into the normal form.

They write ``entrypoint: module:function`` and ``runtime: python3.11`` (or leave the runtime to its
default), keep the package's version in ``metadata``, use the top ``version`` for the manifest's
own, and have keys for surfaces and consent that are no concern of Swarm; those are kept in
``metadata`` under their names. They declare neither inputs nor outputs: the agent takes and gives
any object.
"""

from __future__ import annotations

import re

from swarm.definitions.fields import VERSION_PATTERN
from swarm.definitions.source import Location
from swarm.kernel.json import JsonObject, JsonValue

RUNTIME_PATTERN = r"(python|node)(?:js)?-?([0-9]+(?:\.[0-9]+)*)?"
FOREIGN_KEYS = (
    "a2a",
    "data_access",
    "display_name",
    "http_server",
    "license",
    "mcp",
    "plan_mode",
    "required_ui_capabilities",
    "translation",
    "ui_spec_version",
)
CONSENT_KEYS = frozenset({"required", "optional"})
"""Keys of ``permissions`` in that form: consents of a platform's user, not requests of ours."""

Origins = dict[Location, Location]
"""Where values stand in the source that stand elsewhere in the normal form."""


def is_apkg(data: JsonValue) -> bool:
    """Whether a manifest is written in this form."""
    return isinstance(data, dict) and ("entrypoint" in data or isinstance(data.get("runtime"), str))


def from_apkg(data: JsonObject) -> tuple[JsonObject, Origins]:
    """The manifest in the normal form; faults stay in it, to be found there."""
    document = dict(data)
    origins: Origins = {("runtime", "entry"): ("entrypoint",)}
    document["runtime"] = _runtime(document, origins)
    for kind in ("inputs", "outputs"):
        if kind not in document:
            document.setdefault(f"additional_{kind}", True)
    metadata = document.get("metadata", {})
    if isinstance(metadata, dict):
        document["metadata"] = metadata = dict(metadata)
        _move_foreign_keys(document, metadata)
        _take_version(document, metadata, origins)
        if "tags" not in document and "tags" in metadata:
            document["tags"] = metadata["tags"]
            origins["tags",] = ("metadata", "tags")
    return document, origins


def _runtime(document: JsonObject, origins: Origins) -> JsonValue:
    written = document.get("runtime", {})
    runtime: JsonObject = {}
    if isinstance(written, str):
        match = re.fullmatch(RUNTIME_PATTERN, written)
        runtime = {"type": match[1], "version": match[2]} if match else {"type": written}
        origins["runtime", "type"] = ("runtime",)
    elif isinstance(written, dict):
        runtime = dict(written)
    else:
        return written
    if "entrypoint" in document:
        runtime["entry"] = document.pop("entrypoint")
    return runtime


def _move_foreign_keys(document: JsonObject, metadata: JsonObject) -> None:
    for key in FOREIGN_KEYS:
        if key in document:
            metadata.setdefault(key, document.pop(key))
    permissions = document.get("permissions")
    if isinstance(permissions, dict) and permissions and permissions.keys() <= CONSENT_KEYS:
        metadata.setdefault("permissions", document.pop("permissions"))


def _take_version(document: JsonObject, metadata: JsonObject, origins: Origins) -> None:
    written = document.get("version")
    is_version = isinstance(written, str) and re.search(VERSION_PATTERN, written) is not None
    if "version" in metadata and not is_version:
        document["version"] = metadata["version"]
        origins["version",] = ("metadata", "version")
