"""``name`` and ``name@version``: what they mean among the versions that are registered. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from swarm.kernel.errors import NotFoundError
from swarm.store.versions import version_key


class Versioned(Protocol):
    """A record that has a name and a semantic version."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...


Record = TypeVar("Record", bound=Versioned)


@dataclass(frozen=True, slots=True)
class NothingRegistered:
    """The words for the error when a reference means nothing."""

    kind: str
    list_command: str
    register_command: str


AGENTS = NothingRegistered("agent", "swarm agent list", "swarm agent register <folder>")
WORKFLOWS = NothingRegistered("workflow", "swarm workflow list", "swarm workflow register <folder>")


def split_reference(reference: str) -> tuple[str, str | None]:
    """``name@version`` as its two parts; the version is None for a bare name."""
    name, at, version = reference.partition("@")
    return name, version if at else None


def choose_version(reference: str, records: Sequence[Record], words: NothingRegistered) -> Record:
    """The record that ``reference`` means: the exact version, or the highest one.

    Raises:
        NotFoundError: none does; offers the nearest names, or the versions that there are.
    """
    if "/" in reference:
        command = words.register_command.replace("<folder>", reference)
        raise NotFoundError(
            f"`{reference}` is a path, not the name of one of the {words.kind}s registered",
            remedy=f"register it first: `{command}`; then give its name",
        )
    name, version = split_reference(reference)
    versions = [record for record in records if record.name == name]
    if not versions:
        raise NotFoundError(
            f"no {words.kind} `{name}` is registered",
            name=name,
            known={record.name for record in records},
            remedy=f"see `{words.list_command}`, or register it: `{words.register_command}`",
        )
    if version is None:
        return max(versions, key=lambda record: version_key(record.version))
    for record in versions:
        if record.version == version:
            return record
    there = ", ".join(record.version for record in versions)
    raise NotFoundError(
        f"the {words.kind} `{name}` has no version {version or '(empty)'} registered",
        remedy=f"the versions registered are {there}; or register it: `{words.register_command}`",
    )
