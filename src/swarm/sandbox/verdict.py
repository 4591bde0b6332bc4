"""What the end of a call means: pure, and the same for every isolation level."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from typing import Final

from swarm.sandbox.ports import InvocationResult, Limits, Outcome, ResourceUsage
from swarm.sandbox.wire import Answer

_CODES: Final = frozenset({"error", "bad_output", "output_too_large", "load", "protocol"})
_MEBIBYTE: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Ending:
    """What is known once a call is over and nothing of it runs any more."""

    answer: Answer | None = None
    """What came over the wire, if anything came before the end."""
    is_late: bool = False
    """The time limit passed first."""
    is_out_of_memory: bool = False
    """Something was killed for want of memory."""
    status: int | None = None
    """The handler's wait status, where it ended by itself."""
    loss: str | None = None
    """Why the sandbox went away, if neither its host nor its handler ended it."""


def conclude(ending: Ending, limits: Limits, usage: ResourceUsage) -> InvocationResult:
    """The result of the invocation.

    A valid answer counts, whatever happened after it. Without one, the strongest cause is told:
    memory, then time, then what the handler or something outside did.
    """
    answer = ending.answer
    if answer is not None and answer.kind is None:
        return InvocationResult(Outcome.OK, outputs=answer.outputs, usage=usage)
    if ending.is_out_of_memory or (answer is not None and answer.kind == "oom"):
        mebibytes = limits.memory_bytes // _MEBIBYTE
        text = f"the handler needed more than its {mebibytes} MiB of memory (/tmp counts too)"
        trace = answer.traceback if answer is not None else None
        return InvocationResult(Outcome.OOM, None, text, "oom", trace, usage)
    if ending.is_late:
        text = f"the handler did not finish within {limits.timeout_seconds:g} seconds"
        return InvocationResult(Outcome.TIMEOUT, None, text, "timeout", usage=usage)
    if answer is not None and answer.kind != "closed":
        code = answer.kind if answer.kind in _CODES else "error"
        return InvocationResult(Outcome.ERROR, None, answer.message, code, answer.traceback, usage)
    if ending.status is not None:
        text = f"the handler ended without an answer: it {status_text(ending.status)}"
        if os.waitstatus_to_exitcode(ending.status) == -signal.SIGKILL:
            return InvocationResult(Outcome.KILLED, None, text, "killed", usage=usage)
        return InvocationResult(Outcome.ERROR, None, text, "exited", usage=usage)
    if ending.loss is not None:
        return InvocationResult(Outcome.KILLED, None, ending.loss, "killed", usage=usage)
    text = "the handler closed its connection to the host without an answer"
    return InvocationResult(Outcome.ERROR, None, text, "protocol", usage=usage)


def status_text(status: int) -> str:
    """A wait status in words: ``exited with code 3``, ``was killed by SIGSEGV``."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"exited with code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"
