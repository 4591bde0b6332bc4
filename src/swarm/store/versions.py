"""The order of semantic versions."""

from __future__ import annotations

from typing import TypeAlias

VersionKey: TypeAlias = tuple[tuple[int, ...], int, tuple[tuple[int, int, str], ...], str]


def version_key(version: str) -> VersionKey:
    """A sort key that follows Semantic Versioning 2.0.0, section 11.

    Build metadata does not count there; here it settles ties, so that the order is total.

    Raises:
        ValueError: ``version`` is not ``X.Y.Z[-prerelease][+build]``.
    """
    precedence, _, build = version.partition("+")
    core, dash, prerelease = precedence.partition("-")
    numbers = tuple(int(part) for part in core.split("."))
    parts = prerelease.split(".") if dash else []
    identifiers = tuple(
        (0, int(part), "") if part.isascii() and part.isdigit() else (1, 0, part) for part in parts
    )
    return numbers, 0 if dash else 1, identifiers, build
