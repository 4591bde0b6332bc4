"""What a secret may be called, and where a run looks for one."""

from __future__ import annotations

import re
from collections.abc import Iterator

from swarm.definitions.fields import IDENTIFIER_PATTERN
from swarm.kernel.errors import InvalidError
from swarm.store.records import DEFAULT_ORGANIZATION, SecretIdentity

MAX_NAME = 64
"""Characters of a secret's name; the most that a manifest can request."""


def lookup_order(
    name: str,
    workflow: str | None,
    project_id: str,
    organization_id: str = DEFAULT_ORGANIZATION,
) -> Iterator[SecretIdentity]:
    """Where a run looks for a secret: the narrowest scope first."""
    if workflow is not None:
        yield SecretIdentity(name, workflow, project_id)
    yield SecretIdentity(name, None, project_id)
    yield SecretIdentity.of_organization(name, organization_id)


def check_name(name: str) -> str:
    """``name`` if a manifest could request it. Raises InvalidError."""
    if re.fullmatch(IDENTIFIER_PATTERN, name) is None or len(name) > MAX_NAME:
        raise InvalidError(
            f"{name[:MAX_NAME]!r} cannot be a secret's name",
            remedy=f"use letters, digits and underscores, at most {MAX_NAME}, and no digit first",
        )
    return name
