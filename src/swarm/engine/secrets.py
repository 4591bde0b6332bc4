"""Secrets for agents, and keeping them out of whatever comes back.

Until secrets are stored, a secret comes from the variable ``SWARM_SECRET_<NAME>`` of the process
that drives the run. An agent reads only what its manifest requests and a grant gives.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from swarm.kernel.errors import NotFoundError, RefusedError
from swarm.kernel.json import JsonValue
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
