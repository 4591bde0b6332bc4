"""Whether this host has what an agent needs to run."""

from __future__ import annotations

import shutil

from swarm.definitions.agent import AgentDefinition
from swarm.kernel.errors import UnavailableError
from swarm.kernel.settings import Settings
from swarm.sandbox.interpreters import find_node, python_program
from swarm.sandbox.programs import find_visible


def check_host(definition: AgentDefinition, settings: Settings) -> None:
    """Check that sandboxes here have the programs and the interpreter that an agent asks for.

    Raises:
        UnavailableError: names every program that is missing, or the version that is.
    """
    unseen = [each for each in definition.runtime.requires if not find_visible(each, settings)]
    if unseen:
        agent = f"{definition.name}@{definition.version}"
        missing = [program for program in unseen if not shutil.which(program)]
        names = ", ".join(f"`{program}`" for program in missing or unseen)
        if missing:
            raise UnavailableError(
                f"{agent} needs {names}, which this host lacks",
                remedy=f"install {names} below /usr and register the agent again",
            )
        places = ", ".join(f"{shutil.which(program)}" for program in unseen)
        raise UnavailableError(
            f"{agent} needs {names}, which sandboxes do not see at {places}",
            remedy=f"install {names} below /usr, or put what it needs into the package",
        )
    if definition.runtime.type == "python":
        _check_version(definition, "Python", python_program().version)
    elif definition.runtime.type == "node":
        _check_version(definition, "Node", find_node(settings).version)


def is_recent_enough(wanted: str, present: str) -> bool:
    """Whether version ``present`` is not older than ``wanted``; both are numbers with dots.

    ``3.11`` is met by ``3.11.4`` and ``3.12.0``.
    """
    return [int(part) for part in present.split(".")] >= [int(part) for part in wanted.split(".")]


def _check_version(definition: AgentDefinition, interpreter: str, present: str) -> None:
    wanted = definition.runtime.version
    if wanted is not None and not is_recent_enough(wanted, present):
        raise UnavailableError(
            f"{definition.name}@{definition.version} needs {interpreter} {wanted};"
            f" here it is {present}",
            remedy=f"run Swarm with {interpreter} {wanted}, or change the version in its manifest",
        )
