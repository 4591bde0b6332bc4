"""What the end of a call means."""

from __future__ import annotations

import pytest

from swarm.sandbox.ports import Limits, Outcome, ResourceUsage
from swarm.sandbox.verdict import Ending, conclude, status_text
from swarm.sandbox.wire import Answer

LIMITS = Limits(memory_bytes=64 * 1024 * 1024, timeout_seconds=1.5)
OK = Answer(outputs={"a": 1})
CLOSED = Answer(kind="closed")


@pytest.mark.parametrize(
    ("ending", "outcome", "code"),
    [
        (Ending(OK), Outcome.OK, None),
        (Ending(OK, is_late=True, is_out_of_memory=True, status=9), Outcome.OK, None),
        (Ending(Answer(kind="error", message="x")), Outcome.ERROR, "error"),
        (Ending(Answer(kind="made up", message="x")), Outcome.ERROR, "error"),
        (Ending(Answer(kind="bad_output", message="x")), Outcome.ERROR, "bad_output"),
        (Ending(Answer(kind="oom")), Outcome.OOM, "oom"),
        (Ending(CLOSED, is_out_of_memory=True, status=9), Outcome.OOM, "oom"),
        (Ending(is_late=True), Outcome.TIMEOUT, "timeout"),
        (Ending(is_late=True, is_out_of_memory=True), Outcome.OOM, "oom"),
        (Ending(CLOSED, status=0x700), Outcome.ERROR, "exited"),
        (Ending(CLOSED, status=11), Outcome.ERROR, "exited"),
        (Ending(CLOSED, status=9), Outcome.KILLED, "killed"),
        (Ending(loss="gone"), Outcome.KILLED, "killed"),
        (Ending(CLOSED), Outcome.ERROR, "protocol"),
    ],
)
def test_the_strongest_cause_is_told(ending: Ending, outcome: Outcome, code: str | None) -> None:
    usage = ResourceUsage(wall_ms=3)
    result = conclude(ending, LIMITS, usage)
    assert (result.outcome, result.error_code) == (outcome, code)
    assert result.usage is usage
    assert (result.error is None) == (outcome is Outcome.OK)


def test_statuses_in_words() -> None:
    assert status_text(0x300) == "exited with code 3"
    assert status_text(11) == "was killed by SIGSEGV"
    assert status_text(77) == "was killed by signal 77"
