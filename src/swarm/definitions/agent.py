"""``agent.yaml``: what an agent is, needs, takes and gives."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from swarm.definitions.fields import Definition, FieldDefinition, Identifier, Name, Version
from swarm.kernel.json import JsonObject

RuntimeType = Literal["python", "node", "command"]


class RuntimeDefinition(Definition):
    """How the agent's code is started, and within which limits."""

    type: RuntimeType = Field("python", description="What runs the code.")
    entry: str | tuple[str, ...] = Field(
        description=(
            "Python: `main.py` (its `handler`) or `module:function`. Node: a file that exports "
            "`handler`. Command: the argument list; a program with a slash lies in the package."
        )
    )
    version: str | None = Field(
        None, description="The interpreter's version that is needed, such as `3.11` or `20`."
    )
    memory_mb: int = Field(128, ge=16, description="Memory limit of the whole sandbox, in MiB.")
    timeout_seconds: float = Field(300, gt=0, description="Time limit of one invocation.")
    requires: tuple[str, ...] = Field(
        (),
        description="Programs to be there below `/usr` of the host, checked at registration.",
    )
    isolation: Literal["sandbox", "microvm"] = Field(
        "sandbox", description="The least isolation that the agent accepts."
    )


class PermissionsDefinition(Definition):
    """What the agent asks for; nothing of it is given without a grant."""

    network: tuple[str, ...] = Field(
        (), description="Hosts it wants to reach: `api.example.com`, `*.example.com`, or `*`."
    )
    secrets: tuple[Identifier, ...] = Field((), description="Names of secrets it wants to read.")
    models: tuple[str, ...] = Field((), description="Models it wants to call.")
    memory: tuple[str, ...] = Field((), description="Memory namespaces it wants to use.")
    agents: tuple[str, ...] = Field((), description="Other agents it wants to call.")

    @property
    def is_empty(self) -> bool:
        return not any(getattr(self, name) for name in type(self).model_fields)


class AgentDefinition(Definition):
    """An agent's manifest, in one normal form whichever way it was written."""

    name: Name = Field(description="The agent's name.")
    version: Version = Field(description="Semantic version of the package.")
    description: str = Field("", description="One sentence that says what it does.")
    author: str = Field("", description="Who wrote it.")
    runtime: RuntimeDefinition = Field(description="How its code is started.")
    capabilities: tuple[str, ...] = Field((), description="What it can do, as tags to search by.")
    inputs: tuple[FieldDefinition, ...] = Field((), description="What it takes.")
    outputs: tuple[FieldDefinition, ...] = Field((), description="What it gives.")
    additional_inputs: bool = Field(
        False,
        description="Whether inputs that are not declared are passed on, rather than refused. An "
        "APKG manifest that declares none takes any.",
    )
    additional_outputs: bool = Field(
        False,
        description="Whether outputs that are not declared are taken, rather than refused. An "
        "APKG manifest that declares none gives any.",
    )
    permissions: PermissionsDefinition = Field(
        default_factory=PermissionsDefinition, description="What it asks for."
    )
    dependencies: tuple[str, ...] = Field(
        (), description="Python requirements (PEP 508); Node packages stand in `package.json`."
    )
    environment: dict[Identifier, str] = Field(
        default_factory=dict, description="Environment variables set for the handler."
    )
    triggers: tuple[JsonObject, ...] = Field((), description="What may start it.")
    tags: tuple[str, ...] = Field((), description="Words to find it by.")
    rest: JsonObject | None = Field(None, description="HTTP surface of an APKG archive.")
    ui: JsonObject | None = Field(None, description="Static pages of an APKG archive.")
    metadata: JsonObject = Field(default_factory=dict, description="Anything else; kept as it is.")


__all__ = [
    "AgentDefinition",
    "Identifier",
    "PermissionsDefinition",
    "RuntimeDefinition",
    "RuntimeType",
]
