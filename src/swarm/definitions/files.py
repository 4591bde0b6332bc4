"""File values: how inputs and outputs refer to files and directories."""

from __future__ import annotations

import re
from dataclasses import dataclass

from swarm.kernel.errors import InputError
from swarm.kernel.json import JsonObject, JsonValue

ARTIFACT_KEY = "$artifact"

_REFERENCE = re.compile(r"sha256:[0-9a-f]{64}|live:[A-Za-z0-9_.-]{1,128}")
_KEYS = {ARTIFACT_KEY, "name", "size", "media_type"}

FILE_VALUE_SCHEMA: JsonObject = {
    "type": "object",
    "properties": {
        ARTIFACT_KEY: {"type": "string", "pattern": f"^({_REFERENCE.pattern})$"},
        "name": {"type": "string", "minLength": 1},
        "size": {"type": ["integer", "null"], "minimum": 0},
        "media_type": {"type": ["string", "null"]},
    },
    "required": [ARTIFACT_KEY, "name"],
    "additionalProperties": False,
}


@dataclass(frozen=True, slots=True)
class FileValue:
    """``{"$artifact": "sha256:<hex>" | "live:<id>", "name", "size", "media_type"}``."""

    reference: str
    """``sha256:<hex>`` for stored bytes, ``live:<id>`` for a directory as it is."""
    name: str
    size: int | None = None
    """In bytes; None where it is not known, as for a live directory."""
    media_type: str | None = None

    @property
    def is_live(self) -> bool:
        return self.reference.startswith("live:")

    def as_json(self) -> JsonObject:
        return {
            ARTIFACT_KEY: self.reference,
            "name": self.name,
            "size": self.size,
            "media_type": self.media_type,
        }

    @classmethod
    def from_json(cls, value: JsonValue) -> FileValue:
        """Read a file value.

        Raises:
            InputError: it is not one.
        """
        if not is_file_value(value):
            raise InputError(
                "not a file value",
                remedy='a file is {"$artifact": "sha256:...", "name", "size", "media_type"}',
            )
        return cls(value[ARTIFACT_KEY], value["name"], value.get("size"), value.get("media_type"))


def is_file_value(value: JsonValue) -> bool:
    """Whether ``value`` has exactly the form of a file value."""
    if not isinstance(value, dict) or not _KEYS.issuperset(value):
        return False
    reference, name = value.get(ARTIFACT_KEY), value.get("name")
    size, media_type = value.get("size"), value.get("media_type")
    return (
        isinstance(reference, str)
        and _REFERENCE.fullmatch(reference) is not None
        and isinstance(name, str)
        and bool(name)
        and (size is None or (isinstance(size, int) and not isinstance(size, bool) and size >= 0))
        and (media_type is None or isinstance(media_type, str))
    )
