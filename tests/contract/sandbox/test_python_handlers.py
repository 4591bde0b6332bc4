"""Python handlers: every form of entry, what they are given, what they give."""

from __future__ import annotations

import pytest

from swarm.sandbox.ports import Outcome
from tests.contract.sandbox.calling import Caller

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_function_of_inputs_answers(call: Caller) -> None:
    result = await call("def handler(inputs): return {'twice': inputs['n'] * 2}", {"n": 21})
    assert result.outcome is Outcome.OK
    assert result.outputs == {"twice": 42}
    assert result.usage.output_bytes > 0


async def test_the_context_tells_the_invocation(call: Caller) -> None:
    code = """
        import os
        NAMES = ("invocation_id", "idempotency_key", "run_id", "step_id", "attempt", "agent",
                 "agent_version")
        def handler(inputs, context):
            told = {name: getattr(context, name) for name in NAMES}
            return {"told": told, "environment": {
                name: os.environ["SWARM_" + name.upper()] for name in NAMES}}
    """
    result = await call(code)
    told = result.outputs["told"]
    assert told == {
        "invocation_id": "inv_1",
        "idempotency_key": "key_1",
        "run_id": "run_1",
        "step_id": "build",
        "attempt": 2,
        "agent": "tester",
        "agent_version": "1.2.3",
    }
    assert result.outputs["environment"] == {name: str(value) for name, value in told.items()}


@pytest.mark.parametrize(
    ("entry", "files"),
    [
        ("main.py", {"main.py": "def handler(i): return {'form': 1}"}),
        ("src/app.py", {"src/app.py": "import near\ndef handler(i): return near.answer()",
                        "src/near.py": "def answer(): return {'form': 1}"}),
        ("tool:run", {"tool.py": "def run(i): return {'form': 1}"}),
        ("tool.deep:Box.run", {"tool/__init__.py": "", "tool/deep.py":
            "class Box:\n    @staticmethod\n    def run(i): return {'form': 1}"}),
    ],
)  # fmt: skip
async def test_entries(call: Caller, entry: str, files: dict[str, str]) -> None:
    result = await call(files, entry=(entry,))
    assert (result.outcome, result.outputs) == (Outcome.OK, {"form": 1}), result.error


async def test_an_async_handler_answers(call: Caller) -> None:
    code = """
        import asyncio
        async def handler(inputs, context):
            await asyncio.sleep(0)
            return {"secret": context.secret("KEY")}
    """
    call.services.secrets = {"KEY": "value"}
    result = await call(code)
    assert result.outputs == {"secret": "value"}


@pytest.mark.parametrize(
    "code",
    [
        "def handler(i, c):\n    yield 1\n    yield {'two': 2}\n    return {'done': True}",
        "def handler(i, c):\n    yield 1\n    yield {'two': 2}\n    yield c.outputs(done=True)",
        "async def handler(i, c):\n  yield 1\n  yield {'two': 2}\n  yield c.outputs(done=True)",
    ],
)
async def test_generators_stream_events(call: Caller, code: str) -> None:
    result = await call(code)
    assert result.outputs == {"done": True}
    assert call.services.events == [1, {"two": 2}]


async def test_what_is_logged_and_printed_arrives_as_lines(call: Caller) -> None:
    code = """
        import logging, sys
        def handler(inputs, context):
            print("printed", end="")
            print("\\nbroken", file=sys.stderr)
            context.log.info("told %s", "you")
            context.log.error("bad")
            logging.getLogger("lib").warning("careful")
            context.progress(0.5, "half")
    """
    result = await call(code)
    assert result.outputs == {}
    assert set(call.services.lines) == {
        ("stdout", "info", "printed"),
        ("stdout", "info", ""),
        ("stderr", "warning", ""),
        ("stderr", "warning", "broken"),
        ("log", "info", "told you"),
        ("log", "error", "bad"),
        ("log", "warning", "lib: careful"),
    } - {("stdout", "info", "")}
    assert call.services.progressed == [(0.5, "half")]


async def test_a_secret_that_is_not_granted_is_refused(call: Caller) -> None:
    code = """
        def handler(inputs, context):
            context.secret("OTHER")
    """
    result = await call(code)
    assert result.outcome is Outcome.ERROR
    assert result.error == "Refused: OTHER is not granted"


async def test_an_exception_is_told_with_the_handlers_frames_only(call: Caller) -> None:
    code = """
        def inner(): raise ValueError("no good")
        def handler(inputs, context):
            inner()
    """
    result = await call(code)
    assert (result.outcome, result.error_code) == (Outcome.ERROR, "error")
    assert result.error == "ValueError: no good"
    assert result.traceback is not None
    assert 'main.py", line' in result.traceback
    assert "in inner" in result.traceback
    for machinery in ("sandbox/guest", "in_process", "importlib"):
        assert machinery not in result.traceback


async def test_a_package_that_cannot_be_imported_says_why(call: Caller) -> None:
    result = await call("import missing_library\ndef handler(i): pass")
    assert result.error_code == "load"
    assert result.error is not None
    assert "No module named 'missing_library'" in result.error


async def test_a_missing_function_is_named(call: Caller) -> None:
    result = await call("def other(i): pass")
    assert result.error == "main.py: there is no function `handler` in main"
