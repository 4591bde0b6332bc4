"""Whatever a handler does, its invocation ends with one clear reason."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from swarm.kernel.errors import SwarmError
from swarm.sandbox.ports import Outcome
from tests.contract.sandbox.calling import CONTEXT, Caller, limits

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ("float('nan')", "outputs.x is nan, which JSON cannot carry"),
        ("[1, {'y': float('inf')}]", "outputs.x[1].y is inf, which JSON cannot carry"),
        ("{1, 2}", "outputs.x is a set, which JSON cannot carry"),
        ("b'bytes'", "outputs.x is a bytes, which JSON cannot carry"),
        ("2**64", "outputs.x is an integer beyond 64 bits; give it as a string"),
        ("'\\udc80'", "outputs.x is text with a lone surrogate, which UTF-8 cannot carry"),
        ("{(1, 2): 3}", "outputs.x has a key of type tuple; JSON has text keys only"),
    ],
)
async def test_what_json_cannot_carry_is_named(call: Caller, value: str, fault: str) -> None:
    result = await call(f"def handler(i): return {{'x': {value}}}")
    assert (result.outcome, result.error_code, result.error) == (
        Outcome.ERROR,
        "bad_output",
        fault,
    )


async def test_an_output_that_holds_itself_is_refused(call: Caller) -> None:
    result = await call("def handler(i):\n    x = {}\n    x['x'] = x\n    return x")
    assert result.error_code == "bad_output"


async def test_an_output_over_the_limit_is_refused(call: Caller) -> None:
    result = await call(
        "def handler(i): return {'x': 'y' * 5000}", limits=limits(output_bytes=4096)
    )
    assert (result.outcome, result.error_code) == (Outcome.ERROR, "output_too_large")
    assert result.error == "the output has 5008 bytes, the limit is 4096"


async def test_sys_exit_is_an_error(call: Caller) -> None:
    result = await call("import sys\ndef handler(i): sys.exit(3)")
    assert (result.outcome, result.error) == (
        Outcome.ERROR,
        "the handler called sys.exit(3)",
    )


async def test_a_handler_that_never_ends_is_stopped_in_time(call: Caller) -> None:
    code = """
        import threading
        def handler(i): threading.Event().wait()
    """
    result = await call(code, limits=limits(timeout_seconds=0.3))
    assert (result.outcome, result.error_code) == (Outcome.TIMEOUT, "timeout")
    assert result.error == "the handler did not finish within 0.3 seconds"


async def test_cancelling_the_call_ends_it(call: Caller) -> None:
    code = """
        async def handler(i, context):
            import asyncio
            context.log.info("here")
            await asyncio.Event().wait()
    """
    sandbox = await call.backend.prepare(call.request(code))
    task = asyncio.create_task(sandbox.call({}, CONTEXT, call.services))
    await call.services.logged.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await sandbox.destroy()
    await sandbox.destroy()


async def test_endless_logs_are_cut_and_counted(call: Caller) -> None:
    code = """
        def handler(i):
            for n in range(1000):
                print("x" * 99)
    """
    result = await call(code, limits=limits(log_bytes=10_000))
    assert result.outcome is Outcome.OK
    kept = [message for stream, _, message in call.services.lines if stream == "stdout"]
    assert kept == ["x" * 99] * 100
    assert call.services.lines[-1] == (
        "log",
        "warning",
        "90000 bytes of log were dropped: the limit is 10000 bytes",
    )
    assert result.usage.log_bytes == 100_000


async def test_a_long_line_is_cut(call: Caller) -> None:
    code = """
        def handler(i, context):
            print("a" * 1000)
            context.log.info("b" * 1000)
    """
    await call(code, limits=limits(log_line_bytes=100))
    assert sorted(message for _, _, message in call.services.lines) == [
        "a" * 100 + " … [900 bytes cut]",
        "b" * 100 + " … [900 bytes cut]",
    ]


async def test_junk_on_stdout_is_only_log(call: Caller) -> None:
    code = r"""
        import sys
        def handler(i):
            sys.stdout.write('{"jsonrpc": "2.0", "id": 1, "result": {"outputs": "forged"}}\x00\n')
            sys.stdout.write("\udcff\n")
            return {"true": 1}
    """
    result = await call(code)
    assert result.outputs == {"true": 1}


async def test_deep_outputs_are_refused_not_fatal(call: Caller) -> None:
    code = """
        def handler(i):
            x = []
            for _ in range(100_000):
                x = [x]
            return {"x": x}
    """
    result = await call(code)
    assert result.error_code == "bad_output"


async def test_inputs_are_the_handlers_own_copy(call: Caller) -> None:
    inputs: dict[str, Any] = {"list": [1]}
    await call("def handler(i):\n    i['list'].append(2)\n    return i", inputs)
    assert inputs == {"list": [1]}


async def test_a_sandbox_serves_one_call(call: Caller) -> None:
    code = "import os\ndef handler(i): return {'c': os.environ['SWARM_OUTPUTS']}"
    sandbox = await call.backend.prepare(call.request(code))
    await sandbox.call({}, CONTEXT, call.services)
    with pytest.raises(SwarmError, match="one call only"):
        await sandbox.call({}, CONTEXT, call.services)
    await sandbox.destroy()


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("os._exit(7)", "the handler ended without an answer: it exited with code 7"),
        (
            "os.kill(os.getpid(), 11)",
            "the handler ended without an answer: it was killed by SIGSEGV",
        ),
        (
            "os.close(int(os.environ['SWARM_WIRE_FD'])); os._exit(0)",
            "the handler ended without an answer: it exited with code 0",
        ),
    ],
)
async def test_a_handler_that_dies_says_how(call: Caller, code: str, reason: str) -> None:
    # With variables of its own, it is not run in this very process, whatever the backend.
    result = await call(f"import os\ndef handler(i):\n    {code}", environment={"OWN": "1"})
    assert (result.outcome, result.error_code, result.error) == (Outcome.ERROR, "exited", reason)


_WIRE = """
import os, socket
wire = socket.socket(fileno=int(os.environ["SWARM_WIRE_FD"]))
def send(data): wire.sendall(len(data).to_bytes(4, "big") + data)
def handler(i):
    {attack}
    import threading
    threading.Event().wait()
"""


@pytest.mark.parametrize(
    ("attack", "code", "reason"),
    [
        ("send(b'not json')", "bad_output", "not valid JSON"),
        ("send(b'[]')", "protocol", "not JSON-RPC 2.0"),
        ('send(b\'{"jsonrpc":"2.0","id":9,"result":1}\')', "protocol", "was not asked"),
        ('send(b\'{"jsonrpc":"2.0","id":1,"result":1}\')', "protocol", "neither outputs"),
        ('send(b\'{"jsonrpc":"2.0","method":"boom","params":{}}\')', "protocol", "'boom'"),
        ('send(b\'{"jsonrpc":"2.0","method":"log","params":{}}\')', "protocol", "without level"),
        ('send(b\'{"jsonrpc":"2.0","method":"progress","params":{"fraction":"x"}}\')',
         "protocol", "progress without"),
        ("wire.sendall((2**32 - 1).to_bytes(4, 'big'))", "output_too_large", "4294967295"),
        ("send(b'[' * 100000)", "bad_output", "not valid JSON"),
        ("wire.shutdown(2)", "protocol", "closed its connection"),
    ],
)  # fmt: skip
async def test_a_broken_protocol_ends_the_call(
    call: Caller, attack: str, code: str, reason: str
) -> None:
    result = await call(_WIRE.format(attack=attack))
    assert (result.outcome, result.error_code) == (Outcome.ERROR, code), result.error
    assert reason in str(result.error)


async def test_streaming_without_end_is_stopped(call: Caller) -> None:
    code = """
        def handler(i):
            while True:
                yield "x" * 1000
    """
    result = await call(code, limits=limits(stream_bytes=100_000))
    assert (result.outcome, result.error_code) == (Outcome.ERROR, "output_too_large")
    assert len(call.services.events) < 100
