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
    │   ├── DependencyError        a package's dependencies cannot be installed
    │   └── DamagedError           a file is not what its digest says
    ├── OutputError             1  a file that an agent handed out cannot be taken
    ├── RunFailed               1  a run that a program waited for failed or was cancelled
    ├── RunInterrupted          1  nobody drives a run that a program waited for
    ├── InvocationFailed        1  a call of an agent outside any run failed
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
    """Base of all errors that Swarm raises on purpose.

    ``message`` says what is wrong, ``where`` (or None) the file and line, step or setting, and
    ``remedy`` (or None) what to do; ``str`` gives all three. ``code`` is for programs.
    """

    code: str = "failed"
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
    """What was given is malformed."""

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
        """``file:line:column``, as far as they are known."""
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
        """The error as for every other, with ``problems``."""
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
    """Values that do not fit what is declared."""

    code = "invalid_input"


class ExpressionError(InvalidError):
    """A ``${...}`` that cannot be compiled or evaluated."""

    code = "invalid_expression"


class ArchiveError(InvalidError):
    """An ``.apkg`` that is damaged or hostile."""

    code = "invalid_archive"


class NotFoundError(SwarmError):
    """No such agent, workflow, run, step, ...; the remedy offers the nearest names."""

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
    """A rule or a missing grant says no."""

    code = "refused"
    exit_code = ExitCode.REFUSED


class ConflictError(RefusedError):
    """It would overwrite or contradict what is there."""

    code = "conflict"


class UnavailableError(SwarmError):
    """This machine or installation cannot do it."""

    code = "unavailable"
    exit_code = ExitCode.ENVIRONMENT


class DatabaseError(UnavailableError):
    """The database is locked, read-only, full, damaged or of a newer version."""

    code = "database"


class MasterKeyError(UnavailableError):
    """The key that opens secrets is missing, wrong or unreadable.

    No secret is lost by it: with the right key all can be read again.
    """

    code = "master_key"


class SandboxUnavailable(UnavailableError):
    """The kernel refuses a layer that is required."""

    code = "sandbox_unavailable"


class DependencyError(UnavailableError):
    """A package's dependencies cannot be installed."""

    code = "dependencies"


class DamagedError(UnavailableError):
    """A package or an artifact has not the bytes that its digest names; none of it is used."""

    code = "damaged"


class OutputError(SwarmError):
    """What an agent handed out breaks a rule: a link, a device, a path that leaves, too many."""

    code = "bad_output"


class RunFailed(SwarmError):
    """A run failed or was cancelled.

    Its ``code`` is that of what failed: ``timeout``, ``oom``, ``budget``, ``rejected``, ``error``,
    ...; or ``cancelled``. ``run_id`` is the run, ``step`` the step that failed, where one did.
    """

    code = "run_failed"

    def __init__(
        self,
        message: str,
        *,
        run_id: str,
        code: str | None = None,
        step: str | None = None,
        remedy: str | None = None,
    ) -> None:
        super().__init__(message, where=f"step {step}" if step else None, remedy=remedy)
        self.run_id = run_id
        self.step = step
        self.code = code or self.code


class RunInterrupted(SwarmError):
    """The run ``run_id`` has not ended, and nobody drives it: the process that did is gone."""

    code = "interrupted"

    def __init__(self, message: str, *, run_id: str, remedy: str | None = None) -> None:
        super().__init__(message, remedy=remedy)
        self.run_id = run_id


class InvocationFailed(SwarmError):
    """An agent that was called outside any run failed.

    Its ``code`` says how: ``timeout``, ``oom``, ``error``, ``bad_output``, ...; ``traceback`` is
    that of the agent's code, where it raised; ``invocation_id`` names the call.
    """

    code = "invocation_failed"

    def __init__(
        self,
        message: str,
        *,
        invocation_id: str,
        code: str | None = None,
        traceback: str | None = None,
        remedy: str | None = None,
    ) -> None:
        super().__init__(message, remedy=remedy)
        self.invocation_id = invocation_id
        self.traceback = traceback
        self.code = code or self.code


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
