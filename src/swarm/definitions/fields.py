"""A declared input or output: its name, type and what else it must satisfy."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    StringConstraints,
    model_serializer,
)

from swarm.kernel.json import JsonObject, JsonValue

IDENTIFIER_PATTERN = r"^[A-Za-z_][A-Za-z0-9_]*$"

Identifier = Annotated[str, StringConstraints(pattern=IDENTIFIER_PATTERN, max_length=64)]
"""What an expression can name: ids of steps, inputs, outputs and variables."""

NAME_PATTERN = r"^[a-z0-9]([a-z0-9._-]*[a-z0-9])?$"

Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN, max_length=64)]
"""The name of an agent, workflow or model; hyphens are welcome."""

VERSION_PATTERN = r"^[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?$"

WORKER_LABEL_PATTERN = r"^[A-Za-z0-9]([A-Za-z0-9._:-]*[A-Za-z0-9])?$"
MAX_LABEL_CHARACTERS = 32
WorkerLabel = Annotated[
    str, StringConstraints(pattern=WORKER_LABEL_PATTERN, max_length=MAX_LABEL_CHARACTERS)
]
"""What a machine has that a run may ask for, such as ``gpu`` or ``team:x``."""
MAX_WORKER_LABELS = 8
"""Labels of one worker, and those that one run may ask for."""

Version = Annotated[str, StringConstraints(pattern=VERSION_PATTERN, max_length=64)]
"""A semantic version, such as ``1.2.0`` or ``2.0.0-rc.1``."""

FieldType = Literal[
    "string", "integer", "number", "boolean", "object", "array", "file", "directory"
]


class Definition(BaseModel):
    """Base of everything read from a manifest: frozen, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class FieldDefinition(Definition):
    """One declared input or output."""

    name: Identifier = Field(description="How expressions and handlers call it.")
    type: FieldType = Field("string", description="The type of its value.")
    required: bool = Field(
        True, description="Whether it must be given; a field with a default need not be."
    )
    default: JsonValue = Field(None, description="The value used when none is given.")
    enum: tuple[JsonValue, ...] | None = Field(None, description="The only values allowed.")
    description: str = Field("", description="What it means, for people and for models.")
    schema_: JsonObject | None = Field(
        None, alias="schema", description="A JSON Schema (2020-12) that the value must satisfy too."
    )

    @property
    def has_default(self) -> bool:
        return "default" in self.model_fields_set

    @model_serializer(mode="wrap")
    def _without_absent_default(self, serialize: SerializerFunctionWrapHandler) -> JsonObject:
        """Leave ``default`` out when there is none, as null would be one."""
        document: JsonObject = serialize(self)
        if not self.has_default:
            document.pop("default", None)
        return document
