"""From text or stored documents to definitions, with every problem found at once.

An agent's manifest has two source forms, the model's own and that of APKG tools (see
:mod:`swarm.definitions.apkg`); both become the same :class:`AgentDefinition`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import orjson
from pydantic import ValidationError

from swarm.definitions.agent import AgentDefinition
from swarm.definitions.apkg import Origins, from_apkg, is_apkg
from swarm.definitions.faults import structure_problems
from swarm.definitions.fields import Definition
from swarm.definitions.rules import agent_problems, workflow_problems
from swarm.definitions.source import MAX_SOURCE_BYTES, Source, read_yaml
from swarm.definitions.workflow import WorkflowDefinition
from swarm.kernel.errors import DefinitionError, Problem
from swarm.kernel.json import JsonObject, JsonValue

AGENT_FILE = "agent.yaml"
WORKFLOW_FILE = "workflow.yaml"

_Model = TypeVar("_Model", bound=Definition)


def load_agent(path: Path) -> AgentDefinition:
    """Read ``agent.yaml`` at ``path``.

    Raises:
        DefinitionError: it cannot be read or used; holds every problem.
    """
    return parse_agent(_read(path, MAX_SOURCE_BYTES), str(path))


def load_workflow(path: Path, max_bytes: int = MAX_SOURCE_BYTES) -> WorkflowDefinition:
    """Read ``workflow.yaml`` at ``path``, of so many bytes at most.

    Raises:
        DefinitionError: it cannot be read or used; holds every problem.
    """
    source = read_yaml(_read(path, max_bytes), str(path), max_bytes)
    return workflow_from_source(source)


def parse_agent(text: str, file: str) -> AgentDefinition:
    """Read an agent's manifest; ``file`` is how messages call it.

    Raises:
        DefinitionError: it cannot be used; holds every problem.
    """
    source = read_yaml(text, file)
    document, origins = from_apkg(source.data) if is_apkg(source.data) else (source.data, {})
    definition = _validate(AgentDefinition, document, source, origins)
    _raise(agent_problems(definition, source))
    return definition


def parse_workflow(text: str, file: str) -> WorkflowDefinition:
    """Read a workflow; its expressions are checked by ``expressions.checking``.

    Raises:
        DefinitionError: it cannot be used; holds every problem.
    """
    return workflow_from_source(read_yaml(text, file))


def workflow_from_source(source: Source) -> WorkflowDefinition:
    """A workflow from what :func:`~swarm.definitions.source.read_yaml` gave; as parse_workflow.

    Raises:
        DefinitionError: it cannot be used; holds every problem.
    """
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


def _read(path: Path, max_bytes: int) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
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


def _validate(model: type[_Model], document: JsonValue, source: Source, origins: Origins) -> _Model:
    """Check the structure; ``origins`` maps places of ``document`` to those in the source."""
    try:
        return model.model_validate_json(orjson.dumps(document))
    except ValidationError as error:
        problems = structure_problems(model, document, source, origins, error)
    raise DefinitionError(problems)


def _raise(problems: list[Problem]) -> None:
    if problems:
        raise DefinitionError(problems)
