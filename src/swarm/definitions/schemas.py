"""JSON Schemas (draft 2020-12) of both manifests, for editors: generated from the models."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

from swarm.definitions.agent import AgentDefinition
from swarm.definitions.apkg import CONSENT_KEYS, FOREIGN_KEYS, RUNTIME_PATTERN
from swarm.definitions.fields import Definition
from swarm.definitions.step_rules import NOT_WITH_WAIT, ONLY_WITH_AGENT, TARGETS, WAITS
from swarm.definitions.workflow import WorkflowDefinition
from swarm.kernel.json import JsonObject, JsonValue

DIALECT = "https://json-schema.org/draft/2020-12/schema"
AGENT_SCHEMA_ID = "urn:swarm:schema:agent:1"
WORKFLOW_SCHEMA_ID = "urn:swarm:schema:workflow:1"

_NAMES = frozenset({"properties", "patternProperties", "$defs"})
"""Keywords below which keys are names, not keywords."""


def agent_schema() -> JsonObject:
    """The schema of ``agent.yaml``, in its normal form and in the APKG form."""
    normal = _generated(AgentDefinition)
    definitions = normal.pop("$defs")
    return {
        "$schema": DIALECT,
        "$id": AGENT_SCHEMA_ID,
        "title": "Swarm agent (agent.yaml)",
        "description": normal["description"],
        "type": "object",
        "if": {
            "anyOf": [
                {"required": ["entrypoint"]},
                {"required": ["runtime"], "properties": {"runtime": {"type": "string"}}},
            ]
        },
        "then": {"$ref": "#/$defs/ApkgForm"},
        "else": {"$ref": "#/$defs/NormalForm"},
        "$defs": {**definitions, "NormalForm": normal, "ApkgForm": _apkg_form(normal, definitions)},
    }


def workflow_schema() -> JsonObject:
    """The schema of ``workflow.yaml``."""
    generated = _generated(WorkflowDefinition)
    definitions = generated["$defs"]
    definitions["StepDefinition"] |= _step_rules()
    definitions["WaitDefinition"] |= _exactly_one(WAITS)
    definitions["ActionDefinition"] |= _exactly_one(("notify", "step"))
    definitions["BudgetDefinition"] |= {"minProperties": 1}
    return {
        "$schema": DIALECT,
        "$id": WORKFLOW_SCHEMA_ID,
        **generated,
        "title": "Swarm workflow (workflow.yaml)",
    }


def _step_rules() -> JsonObject:
    """Which keys of a step may stand together; see :mod:`swarm.definitions.step_rules`."""
    return {
        **_exactly_one(TARGETS),
        "dependentRequired": {
            "max_parallel": ["for_each"],
            **{key: ["agent"] for key in ONLY_WITH_AGENT},
        },
        "dependentSchemas": {
            "wait": {"not": {"anyOf": [{"required": [key]} for key in NOT_WITH_WAIT]}}
        },
    }


def _exactly_one(keys: Sequence[str]) -> JsonObject:
    return {"oneOf": [{"required": [key]} for key in keys]}


def _apkg_form(normal: JsonObject, definitions: JsonObject) -> JsonObject:
    """What :mod:`swarm.definitions.apkg` turns into the normal form."""
    properties = deepcopy(normal["properties"])
    version = properties["version"]
    runtime = {**deepcopy(definitions["RuntimeDefinition"]), "required": []}
    properties |= {
        "version": {"description": "The package's version, unless `metadata` has it."},
        "entrypoint": {
            "anyOf": runtime["properties"]["entry"]["anyOf"],
            "description": "`module:function`, which the normal form has as `runtime.entry`.",
        },
        "runtime": {
            "anyOf": [{"type": "string", "pattern": f"^{RUNTIME_PATTERN}$"}, runtime],
            "description": "What runs the code, such as `python3.11` or `node20`.",
        },
        "permissions": {"anyOf": [properties["permissions"], _consents()]},
        **{key: {"description": "Kept in `metadata`, without effect."} for key in FOREIGN_KEYS},
    }
    return {
        "description": "The form that APKG tools write.",
        "type": "object",
        "properties": properties,
        "required": ["name", "entrypoint"],
        "anyOf": [
            {"required": ["version"], "properties": {"version": version}},
            {
                "required": ["metadata"],
                "properties": {
                    "metadata": {"required": ["version"], "properties": {"version": version}}
                },
            },
        ],
        "additionalProperties": False,
    }


def _consents() -> JsonObject:
    return {
        "type": "object",
        "description": "Consents of a platform's user; kept in `metadata`, without effect.",
        "properties": {key: {"type": "array"} for key in sorted(CONSENT_KEYS)},
        "minProperties": 1,
        "additionalProperties": False,
    }


def _generated(model: type[Definition]) -> JsonObject:
    schema: JsonObject = _tidy(model.model_json_schema(by_alias=True))
    return schema


def _tidy(schema: JsonValue, are_names: bool = False) -> Any:
    """Tidy what pydantic generates.

    Titles only repeat a name, and null as a default means none. For mappings whose keys must match
    a pattern, pydantic says what values under such keys are, and allows any other key; here other
    keys are refused.
    """
    if isinstance(schema, list):
        return [_tidy(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {}
    for key, value in schema.items():
        is_noise = key == "title" or (key == "default" and value is None)
        if are_names or not is_noise:
            kept[key] = _tidy(value, not are_names and key in _NAMES)
    if not are_names and len(patterns := kept.pop("patternProperties", {})) == 1:
        ((pattern, kept["additionalProperties"]),) = patterns.items()
        kept["propertyNames"] = {**kept.get("propertyNames", {}), "pattern": pattern}
    return kept
