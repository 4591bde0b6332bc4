"""From text or stored documents to definitions, with every problem found at once.

An agent's manifest has two source forms. The normal one is the model's own; the APKG form has
``entrypoint: module:function`` and ``runtime: python3.11``, and its version may stand in
``metadata``. Both become the same :class:`AgentDefinition`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, TypeVar

import orjson
from pydantic import ValidationError

from swarm.definitions.agent import AgentDefinition
from swarm.definitions.faults import structure_problems
from swarm.definitions.fields import Definition
from swarm.definitions.rules import agent_problems, workflow_problems
from swarm.definitions.source import MAX_SOURCE_BYTES, Location, Source, read_yaml
from swarm.definitions.workflow import WorkflowDefinition
from swarm.kernel.errors import DefinitionError, Problem
from swarm.kernel.json import JsonObject, JsonValue

AGENT_FILE = "agent.yaml"
WORKFLOW_FILE = "workflow.yaml"

_Model = TypeVar("_Model", bound=Definition)
_APKG_RUNTIME = re.compile(r"(python|node)(?:js)?-?(\d+(?:\.\d+)*)?")


def load_agent(path: Path) -> AgentDefinition:
    """Read ``agent.yaml`` at ``path``.

    Raises:
        DefinitionError: it cannot be read or used; holds every problem.
    """
    return parse_agent(_read(path), str(path))


def load_workflow(path: Path) -> WorkflowDefinition:
    """Read ``workflow.yaml`` at ``path``.

    Raises:
        DefinitionError: it cannot be read or used; holds every problem.
    """
    return parse_workflow(_read(path), str(path))


def parse_agent(text: str, file: str) -> AgentDefinition:
    """Read an agent's manifest; ``file`` is how messages call it.

    Raises:
        DefinitionError: it cannot be used; holds every problem.
    """
    source = read_yaml(text, file)
    document, origins = _normal_agent(source)
    definition = _validate(AgentDefinition, document, source, origins)
    _raise(agent_problems(definition, source))
    return definition


def parse_workflow(text: str, file: str) -> WorkflowDefinition:
    """Read a workflow; its expressions are checked by ``expressions.checking``.

    Raises:
        DefinitionError: it cannot be used; holds every problem.
    """
    source = read_yaml(text, file)
    definition = _validate(WorkflowDefinition, source.data, source, {})
    _raise(workflow_problems(definition, source))
    return definition


def agent_from_json(document: JsonObject) -> AgentDefinition:
    """An agent from its stored normal form.

    Raises:
        DefinitionError: it is not what :func:`definition_to_json` wrote.
    """
    return _validate(AgentDefinition, document, Source(document, "<stored agent>"), {})


def workflow_from_json(document: JsonObject) -> WorkflowDefinition:
    """A workflow from its stored normal form.

    Raises:
        DefinitionError: it is not what :func:`definition_to_json` wrote.
    """
    return _validate(WorkflowDefinition, document, Source(document, "<stored workflow>"), {})


def definition_to_json(definition: Definition) -> JsonObject:
    """The normal form to store: plain JSON, every key written out, by the manifest's names."""
    return definition.model_dump(mode="json", by_alias=True)


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_SOURCE_BYTES + 1)
        return data.decode("utf-8-sig")
    except FileNotFoundError:
        problem = Problem(f"there is no {path.name}", str(path), remedy="check the path")
    except OSError as error:
        reason = (error.strerror or "unreadable").lower()
        problem = Problem(f"the file cannot be read: {reason}", str(path), remedy="check the path")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        problem = Problem("the file is not UTF-8 text", str(path), line, remedy="save it as UTF-8")
    raise DefinitionError([problem])


def _validate(
    model: type[_Model], document: JsonValue, source: Source, origins: dict[Location, Location]
) -> _Model:
    """Check the structure; ``origins`` maps places of ``document`` to those in the source."""
    try:
        return model.model_validate_json(orjson.dumps(document))
    except ValidationError as error:
        problems = structure_problems(model, document, source, origins, error)
    raise DefinitionError(problems)


def _raise(problems: list[Problem]) -> None:
    if problems:
        raise DefinitionError(problems)


def _normal_agent(source: Source) -> tuple[JsonValue, dict[Location, Location]]:
    """The document in the normal form, and where moved values came from."""
    data = source.data
    if not isinstance(data, dict) or not _is_apkg(data):
        return data, {}
    document: dict[str, Any] = dict(data)
    origins: dict[Location, Location] = {}
    runtime: JsonObject = {"type": "python", "entry": document.pop("entrypoint", None)}
    origins["runtime", "entry"] = ("entrypoint",)
    written = document.get("runtime")
    if isinstance(written, str):
        runtime |= _apkg_runtime(written, source)
    elif isinstance(written, dict):
        runtime |= written
    document["runtime"] = runtime
    if runtime["entry"] is None:
        del runtime["entry"]
    metadata = document.get("metadata")
    if "version" not in document and isinstance(metadata, dict) and "version" in metadata:
        document["version"] = metadata["version"]
        origins["version",] = ("metadata", "version")
    return document, origins


def _is_apkg(data: JsonObject) -> bool:
    return "entrypoint" in data or isinstance(data.get("runtime"), str)


def _apkg_runtime(written: str, source: Source) -> JsonObject:
    match = _APKG_RUNTIME.fullmatch(written)
    if match is None:
        problem = source.problem(
            ("runtime",),
            f"the runtime `{written}` is not known",
            "write python3.11 or node20, or a mapping with type and entry",
        )
        raise DefinitionError([problem])
    return {"type": match[1], "version": match[2]}
