"""Secrets for agents, and keeping them out of whatever comes back.

A secret comes from the variable ``SWARM_SECRET_<NAME>`` of the process that drives the run, if it
is set there; else from the vault: the workflow's own secret, else the project's. An agent reads
only what its manifest requests and a grant gives.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from swarm.expressions.template import SecretText, compile_template
from swarm.kernel.errors import NotFoundError, RefusedError
from swarm.kernel.json import JsonObject, JsonValue
from swarm.kernel.settings import SECRET_PREFIX
from swarm.store.records import DEFAULT_PROJECT
from swarm.vault.masking import HELD, Masks


class SecretReader(Protocol):
    """Where stored secrets are read from."""

    async def find(self, name: str, workflow: str | None, project_id: str) -> str | None:
        """The value that a run of ``workflow`` gets, or None if there is none.

        Raises:
            UnavailableError, RefusedError: it is there, but cannot be opened.
        """
        ...


class InvocationSecrets:
    """The secrets that one invocation may read; remembers what it handed out."""

    def __init__(
        self,
        granted: tuple[str, ...],
        stored: SecretReader | None = None,
        *,
        workflow: str | None = None,
        project_id: str = DEFAULT_PROJECT,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """
        Args:
            granted: names that the agent may read.
            stored: the home's secrets; None if there are none.
            workflow: name of the run's workflow; None for a call outside any run.
            project_id: project of the run or the agent.
            environment: variables; ``os.environ`` when None.
        """
        self._granted = frozenset(granted)
        self._stored = stored
        self._workflow = workflow
        self._project_id = project_id
        self._environment = os.environ if environment is None else environment
        self._masks = Masks()

    async def read(self, name: str) -> str:
        """The value of a granted secret.

        Raises:
            RefusedError: the agent was not granted it.
            NotFoundError: it is not set.
            UnavailableError: it is set, but cannot be opened.
        """
        if name not in self._granted:
            raise RefusedError(
                f"the secret {name} is not granted to this agent",
                remedy="list it under `permissions: secrets:` in agent.yaml and register again",
            )
        value = self._environment.get(SECRET_PREFIX + name)
        if value is None and self._stored is not None:
            value = await self._stored.find(name, self._workflow, self._project_id)
        if value is None:
            raise NotFoundError(
                f"the secret {name} is not set",
                remedy=f"`swarm secret set {name}` stores it; or set {SECRET_PREFIX}{name} in the "
                "environment of the process that drives the run",
            )
        self._masks.add(value)
        HELD.add(value)
        return value

    @property
    def were_read(self) -> bool:
        """Whether any was handed out."""
        return bool(self._masks)

    def mask(self, text: str, *, cut_start: bool = False, cut_end: bool = False) -> str:
        """``text`` with every secret that was handed out blotted out.

        ``cut_start`` and ``cut_end`` say that it may begin or end in the middle of one.
        """
        return self._masks.text(text, cut_start=cut_start, cut_end=cut_end)

    def mask_value(self, value: JsonValue) -> JsonValue:
        """The JSON value with secrets blotted out of its strings and keys."""
        return self._masks.value(value)


@dataclass(frozen=True, slots=True)
class SecretLeaf:
    """A leaf of a step's inputs that holds ``${secrets.NAME}``, alone or within plain text.

    Known from the definition, never from values: data cannot make itself a secret.
    """

    path: tuple[str | int, ...]
    text: SecretText


def secret_leaves(value: JsonValue, path: tuple[str | int, ...] = ()) -> Iterator[SecretLeaf]:
    """The leaves below ``value`` that are secrets, as the definition has them."""
    if isinstance(value, str) and "${" in value:
        template = compile_template(value, where="inputs")
        if template.secret is not None:
            yield SecretLeaf(path, template.secret)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from secret_leaves(item, (*path, key))
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from secret_leaves(item, (*path, index))


async def with_secrets(
    inputs: JsonObject, leaves: Iterable[SecretLeaf], secrets: InvocationSecrets
) -> JsonObject:
    """The inputs with the values of secrets in their places; ``inputs`` itself is left alone.

    Only what is sent to the sandbox holds values; the journal keeps the references.

    Raises:
        RefusedError, NotFoundError, UnavailableError: as :meth:`InvocationSecrets.read`.
    """
    filled = inputs
    for leaf in leaves:
        pieces = [
            piece if isinstance(piece, str) else await secrets.read(piece[1]) for piece in leaf.text
        ]
        filled = _replaced(filled, leaf.path, "".join(pieces))
    return filled


def _replaced(value: JsonValue, path: tuple[str | int, ...], leaf: str) -> JsonValue:
    """A copy of ``value``, as far down as ``path`` goes, with ``leaf`` at its end."""
    if not path:
        return leaf
    copy = value.copy()
    copy[path[0]] = _replaced(value[path[0]], path[1:], leaf)
    return copy
