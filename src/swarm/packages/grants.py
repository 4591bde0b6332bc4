"""Permissions that packages are granted, as records say and as people read them. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from swarm.store.records import GrantRecord

Permissions = dict[str, tuple[str, ...]]
"""What is asked for or granted: ``{permission: values}``, without empty ones."""


def collect_grants(grants: Sequence[GrantRecord]) -> Permissions:
    """The permissions that these records grant, in the order of their names."""
    found: dict[str, list[str]] = {}
    for grant in grants:
        found.setdefault(grant.permission, []).append(grant.value)
    return {name: tuple(sorted(values)) for name, values in sorted(found.items())}
