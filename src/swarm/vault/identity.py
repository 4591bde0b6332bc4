"""Which secret is meant: its scope and its name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from swarm.definitions.fields import IDENTIFIER_PATTERN
from swarm.kernel.errors import InvalidError
from swarm.store.records import DEFAULT_PROJECT, SecretScope

MAX_NAME = 64
"""Characters of a secret's name; the most that a manifest can request."""


@dataclass(frozen=True, slots=True)
class SecretIdentity:
    """One secret: unique in a home."""

    name: str
    workflow: str | None = None
    """The workflow whose runs alone may read it, in all its versions; None: the whole project."""
    project_id: str = DEFAULT_PROJECT

    @property
    def scope(self) -> SecretScope:
        return SecretScope.PROJECT if self.workflow is None else SecretScope.WORKFLOW

    def __str__(self) -> str:
        return self.name if self.workflow is None else f"{self.name} of workflow {self.workflow}"


def lookup_order(name: str, workflow: str | None, project_id: str) -> Iterator[SecretIdentity]:
    """Where a run looks for a secret: the narrowest scope first.

    A wider scope, such as an organization's, is one more line at the end.
    """
    if workflow is not None:
        yield SecretIdentity(name, workflow, project_id)
    yield SecretIdentity(name, None, project_id)


def check_name(name: str) -> str:
    """``name`` if a manifest could request it. Raises InvalidError."""
    if re.fullmatch(IDENTIFIER_PATTERN, name) is None or len(name) > MAX_NAME:
        raise InvalidError(
            f"{name[:MAX_NAME]!r} cannot be a secret's name",
            remedy=f"use letters, digits and underscores, at most {MAX_NAME}, and no digit first",
        )
    return name
