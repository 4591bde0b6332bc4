"""Commands: JSON in on stdin, JSON out on stdout, logs on stderr."""

from __future__ import annotations

import pytest

from swarm.sandbox.ports import Outcome
from tests.contract.sandbox.calling import Caller, limits

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_command_answers(call: Caller) -> None:
    script = """#!/bin/sh
        echo "reading" >&2
        cat
    """.replace("\n        ", "\n")
    result = await call(script, {"text": "naïve", "n": 1.5}, runtime="command")
    assert result.outcome is Outcome.OK, result.error
    assert result.outputs == {"text": "naïve", "n": 1.5}
    assert call.services.lines == [("stderr", "warning", "reading")]


async def test_a_program_on_the_path_with_arguments(call: Caller) -> None:
    entry = ("printf", '{"said": "%s"}', "hello world; $(id)")
    result = await call({"unused": ""}, runtime="command", entry=entry)
    assert result.outputs == {"said": "hello world; $(id)"}


async def test_the_environment_tells_the_invocation(call: Caller) -> None:
    script = """#!/bin/sh
printf '{"id": "%s", "key": "%s", "run": "%s", "step": "%s", "attempt": %s, "wire": "%s"}' \
  "$SWARM_INVOCATION_ID" "$SWARM_IDEMPOTENCY_KEY" "$SWARM_RUN_ID" "$SWARM_STEP_ID" \
  "$SWARM_ATTEMPT" "$SWARM_WIRE_FD"
"""
    result = await call(script, runtime="command")
    assert result.outputs == {
        "id": "inv_1",
        "key": "key_1",
        "run": "run_1",
        "step": "build",
        "attempt": 2,
        "wire": "",
    }


async def test_no_output_is_an_empty_object(call: Caller) -> None:
    result = await call({"unused": ""}, runtime="command", entry=("true",))
    assert result.outputs == {}


@pytest.mark.parametrize(
    ("body", "code", "reason"),
    [
        ("exit 3", "error", "the command exited with code 3; its stderr is in the log"),
        ("kill -SEGV $$", "error", "the command was killed by SIGSEGV"),
        ("echo junk", "bad_output", "the command's stdout is not JSON"),
        ("echo '{\"x\": NaN}'", "bad_output", "NaN is not JSON"),
        ("head -c 100000 /dev/zero", "output_too_large", "more than 50000 bytes"),
        ("exec yes", "output_too_large", "more than 50000 bytes"),
    ],
)
async def test_bad_behaviour(call: Caller, body: str, code: str, reason: str) -> None:
    script = f"#!/bin/sh\n{body}\n"
    result = await call(script, runtime="command", limits=limits(output_bytes=50_000))
    assert (result.outcome, result.error_code) == (Outcome.ERROR, code), result.error
    assert reason in str(result.error)


async def test_a_missing_program_is_named(call: Caller) -> None:
    result = await call({"unused": ""}, runtime="command", entry=("no-such-program",))
    assert result.error_code == "load"
    assert result.error == "no-such-program cannot be executed: No such file or directory"


async def test_a_command_may_ignore_its_inputs(call: Caller) -> None:
    result = await call("#!/bin/sh\necho '{}'\n", {"x": "y" * 500_000}, runtime="command")
    assert result.outputs == {}


async def test_a_child_that_keeps_stdout_does_not_hold_the_answer(call: Caller) -> None:
    result = await call("#!/bin/sh\nsleep 1000 &\necho '{\"a\": 1}'\n", runtime="command")
    assert result.outputs == {"a": 1}


async def test_a_command_that_never_ends_is_stopped(call: Caller) -> None:
    script = "#!/bin/sh\ntrap '' TERM INT HUP\nsleep 1000\n"
    result = await call(script, runtime="command", limits=limits(timeout_seconds=0.5))
    assert result.outcome is Outcome.TIMEOUT
