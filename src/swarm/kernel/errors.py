"""The tree of Swarm's errors. Every error that a user can meet is one of these.

    SwarmError                  1  something failed
    ├── InvalidError            2  what was given is malformed
    │   ├── DefinitionError        a manifest or workflow; carries every problem found
    │   ├── InputError             values that do not fit what is declared
    │   ├── ExpressionError        a ``${...}`` that cannot be compiled or evaluated
    │   └── ArchiveError           an ``.apkg`` that is damaged or hostile
    ├── NotFoundError           3  no such thing; offers the nearest names
    ├── RefusedError            4  a rule or a missing grant says no
    │   └── ConflictError          it would overwrite or contradict what is there
    ├── UnavailableError        5  this machine or installation cannot do it
    │   ├── DatabaseError          locked, read-only, full, damaged or of a newer version
    │   ├── MasterKeyError         the key that opens secrets is missing, wrong or unreadable
    │   ├── SandboxUnavailable     the kernel refuses a layer that is required
    │   └── DependencyError        a package's dependencies cannot be installed
    ├── OutputError             1  a file that an agent handed out cannot be taken
    └── OwnershipLost           1  another host has taken over the run

The number is the process's exit code. A message says what is wrong; ``where`` says the file and
line, step or setting; ``remedy`` says what to do.
"""

from __future__ import annotations

import difflib
import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar

MAX_CANDIDATES = 200
"""Names that are compared closely when the nearest ones are looked for."""


class ExitCode(IntEnum):
    """What every command returns; the numbers are a promise to scripts."""

    OK = 0
    FAILED = 1
    INVALID = 2
    NOT_FOUND = 3
    REFUSED = 4
    ENVIRONMENT = 5
    INTERRUPTED = 130


class SwarmError(Exception):
    """Base of all errors that Swarm raises on purpose."""

    code: ClassVar[str] = "failed"
    exit_code: ClassVar[ExitCode] = ExitCode.FAILED

    def __init__(
        self, message: str, *, where: str | None = None, remedy: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.remedy = remedy

    def __str__(self) -> str:
        head = f"{self.where}: {self.message}" if self.where else self.message
        return f"{head}\n  remedy: {self.remedy}" if self.remedy else head

    def as_json(self) -> dict[str, object]:
        """The error as ``{code, message, where, remedy}`` for ``--json`` and the API."""
        return {
            "code": self.code,
            "message": self.message,
            "where": self.where,
            "remedy": self.remedy,
        }


class InvalidError(SwarmError):
    code = "invalid"
    exit_code = ExitCode.INVALID


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong in a definition: where it is, what it is, what to do about it."""

    message: str
    file: str
    line: int | None = None
    column: int | None = None
    remedy: str | None = None

    @property
    def where(self) -> str:
        return ":".join(str(part) for part in (self.file, self.line, self.column) if part)

    def __str__(self) -> str:
        text = f"{self.where}: {self.message}"
        return f"{text}\n  remedy: {self.remedy}" if self.remedy else text


class DefinitionError(InvalidError):
    """A manifest or workflow that cannot be used; ``problems`` holds all that was found."""

    code = "invalid_definition"

    def __init__(self, problems: Sequence[Problem]) -> None:
        if not problems:
            raise ValueError("a DefinitionError needs at least one problem")
        first = problems[0]
        super().__init__(first.message, where=first.where, remedy=first.remedy)
        self.problems = tuple(problems)

    def __str__(self) -> str:
        return "\n".join(str(problem) for problem in self.problems)

    def as_json(self) -> dict[str, object]:
        problems = [
            {
                "message": problem.message,
                "file": problem.file,
                "line": problem.line,
                "column": problem.column,
                "remedy": problem.remedy,
            }
            for problem in self.problems
        ]
        return {**super().as_json(), "problems": problems}


class InputError(InvalidError):
    code = "invalid_input"


class ExpressionError(InvalidError):
    code = "invalid_expression"


class ArchiveError(InvalidError):
    code = "invalid_archive"


class NotFoundError(SwarmError):
    """No such agent, workflow, run, step, ...; ``known`` names feed the suggestion."""

    code = "not_found"
    exit_code = ExitCode.NOT_FOUND

    def __init__(
        self,
        message: str,
        *,
        name: str | None = None,
        known: Iterable[str] = (),
        where: str | None = None,
        remedy: str | None = None,
    ) -> None:
        self.nearest = nearest_names(name, known) if name else ()
        if self.nearest:
            offered = " or ".join(self.nearest)
            remedy = f"did you mean {offered}?" + (f" Otherwise: {remedy}" if remedy else "")
        super().__init__(message, where=where, remedy=remedy)


class RefusedError(SwarmError):
    code = "refused"
    exit_code = ExitCode.REFUSED


class ConflictError(RefusedError):
    code = "conflict"


class UnavailableError(SwarmError):
    code = "unavailable"
    exit_code = ExitCode.ENVIRONMENT


class DatabaseError(UnavailableError):
    code = "database"


class MasterKeyError(UnavailableError):
    """No secret is lost by it: with the right key all can be read again."""

    code = "master_key"


class SandboxUnavailable(UnavailableError):
    code = "sandbox_unavailable"


class DependencyError(UnavailableError):
    code = "dependencies"


class OutputError(SwarmError):
    """What an agent handed out breaks a rule: a link, a device, a path that leaves, too many."""

    code = "bad_output"


class OwnershipLost(SwarmError):
    """A journal write carried a stale epoch: another host owns the run now."""

    code = "ownership_lost"


def nearest_names(name: str, known: Iterable[str], limit: int = 3) -> tuple[str, ...]:
    """The known names most like ``name``, best first, at most ``limit`` of them."""
    candidates = sorted(set(known))
    if len(candidates) > MAX_CANDIDATES:  # comparing with 10,000 names would take half a second
        candidates = heapq.nlargest(
            MAX_CANDIDATES, candidates, key=lambda each: _shared_ends(name, each)
        )
    return tuple(difflib.get_close_matches(name, candidates, n=limit, cutoff=0.5))


def _shared_ends(left: str, right: str) -> int:
    """How many characters two names share at the begin and at the end."""
    return _shared_begin(left, right) + _shared_begin(left[::-1], right[::-1])


def _shared_begin(left: str, right: str) -> int:
    pairs = zip(left, right, strict=False)
    return next(
        (at for at, (one, other) in enumerate(pairs) if one != other), min(len(left), len(right))
    )
