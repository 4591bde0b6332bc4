"""Secrets for agents, and keeping them out of whatever comes back.

Until secrets are stored, a secret comes from the variable ``SWARM_SECRET_<NAME>`` of the process
that drives the run. An agent reads only what its manifest requests and a grant gives.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from swarm.expressions.template import compile_template
from swarm.kernel.errors import NotFoundError, RefusedError
from swarm.kernel.json import JsonObject, JsonValue
from swarm.kernel.settings import SECRET_PREFIX

MASK = "********"
SHORTEST_MASKED = 4
"""Characters; masking shorter values would make noise of ordinary text."""


class EnvironmentSecrets:
    """The secrets that one invocation may read; remembers what it handed out."""

    def __init__(
        self, granted: tuple[str, ...], environment: Mapping[str, str] | None = None
    ) -> None:
        self._granted = frozenset(granted)
        self._environment = os.environ if environment is None else environment
        self._handed_out: set[str] = set()

    def read(self, name: str) -> str:
        """The value of a granted secret.

        Raises:
            RefusedError: the agent was not granted it.
            NotFoundError: it is not set.
        """
        if name not in self._granted:
            raise RefusedError(
                f"the secret {name} is not granted to this agent",
                remedy="list it under `permissions: secrets:` in agent.yaml and register again",
            )
        value = self._environment.get(SECRET_PREFIX + name)
        if value is None:
            raise NotFoundError(
                f"the secret {name} is not set",
                remedy=f"set {SECRET_PREFIX}{name} in the environment of the process",
            )
        if len(value) >= SHORTEST_MASKED:
            self._handed_out.add(value)
        return value

    def mask(self, text: str) -> str:
        """``text`` with every secret that was handed out blotted out."""
        for value in self._handed_out:
            text = text.replace(value, MASK)
        return text

    def mask_value(self, value: JsonValue) -> JsonValue:
        """The JSON value with secrets blotted out of its strings and keys."""
        if not self._handed_out:
            return value
        if isinstance(value, str):
            return self.mask(value)
        if isinstance(value, list):
            return [self.mask_value(item) for item in value]
        if isinstance(value, dict):
            return {self.mask(key): self.mask_value(item) for key, item in value.items()}
        return value


@dataclass(frozen=True, slots=True)
class SecretLeaf:
    """A leaf of a step's inputs that is ``${secrets.NAME}``.

    Known from the definition, never from values: data cannot make itself a secret.
    """

    path: tuple[str | int, ...]
    name: str


def secret_leaves(value: JsonValue, path: tuple[str | int, ...] = ()) -> Iterator[SecretLeaf]:
    """The leaves below ``value`` that are secrets, as the definition has them."""
    if isinstance(value, str) and "${" in value:
        template = compile_template(value, where="inputs")
        if template.path is not None and template.path[0] == "secrets":
            yield SecretLeaf(path, template.path[1])
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from secret_leaves(item, (*path, key))
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from secret_leaves(item, (*path, index))


def with_secrets(
    inputs: JsonObject, leaves: Iterable[SecretLeaf], secrets: EnvironmentSecrets
) -> JsonObject:
    """The inputs with the values of secrets in their places; ``inputs`` itself is left alone.

    Only what is sent to the sandbox holds values; the journal keeps the references.

    Raises:
        RefusedError, NotFoundError: a secret that is not granted or not set.
    """
    filled = inputs
    for leaf in leaves:
        filled = _replaced(filled, leaf.path, secrets.read(leaf.name))
    return filled


def _replaced(value: JsonValue, path: tuple[str | int, ...], leaf: str) -> JsonValue:
    """A copy of ``value``, as far down as ``path`` goes, with ``leaf`` at its end."""
    if not path:
        return leaf
    copy = value.copy()
    copy[path[0]] = _replaced(value[path[0]], path[1:], leaf)
    return copy
