"""What a hostile guest can say on the wire beyond what breaks the protocol at once."""

from __future__ import annotations

import pytest

from swarm.sandbox.ports import Outcome
from tests.contract.sandbox.calling import Caller

_WIRE = """
import os, socket
wire = socket.socket(fileno=int(os.environ["SWARM_WIRE_FD"]))
def send(data): wire.sendall(len(data).to_bytes(4, "big") + data)
head = b'{{"jsonrpc":"2.0",'
call = head + b'"id":1,"result":{{"outputs":{{"value":%s}}}}}}'
note = head + b'"method":"%s","params":{{"value":%s}}}}'
ask = head + b'"id":%s,"method":"secret","params":{{"name":%s}}}}'
failed = head + b'"id":1,"error":{{"message":%s,"data":{{"traceback":%s}}}}}}'
def handler(i):
    {attack}
    import threading
    threading.Event().wait()
"""


@pytest.mark.parametrize(
    ("attack", "code", "reason"),
    [
        ("send(b'\\xff\\xfe')", "bad_output", "not valid JSON"),
        ("send(b'')", "bad_output", "not valid JSON"),
        ("send(call % (b'[' * 900 + b']' * 900))", "bad_output", "more than 200 levels"),
        ("send(call % b'1e999')", "bad_output", "not valid JSON"),
        ("send(call % b'\"\\\\ud800\"')", "bad_output", "not valid JSON"),
        ("send(note % (b'event', b'[' * 900 + b']' * 900))", "bad_output", "more than 200 levels"),
        ("send(note % (b'x' * 1000, b'1'))", "protocol", "without end"),
        ("send(ask % (b'[1]', b'\"x\"'))", "protocol", "neither a number nor"),
        ("send(ask % (b'\"' + b'x' * 65 + b'\"', b'1'))", "protocol", "neither a number nor"),
        ("for _ in range(100_000): send(ask % (b'1', b'\"' + b'x' * 5000 + b'\"'))",
         "protocol", "does not read the answers"),
        ("send(failed % (b'[[1]]', b'2'))", "error", "the handler failed"),
        ("send(failed % (b'\"' + b'x' * 100_000 + b'\"', b'2'))", "error", "84000 characters cut"),
    ],
)  # fmt: skip
async def test_what_the_wire_does_not_take_ends_the_call(
    call: Caller, attack: str, code: str, reason: str
) -> None:
    result = await call(_WIRE.format(attack=attack))
    assert (result.outcome, result.error_code) == (Outcome.ERROR, code), result.error
    assert reason in str(result.error)


async def test_the_first_answer_counts(call: Caller) -> None:
    attack = "send(call % b'1'); send(call % b'2'); send(b'not json')"
    result = await call(_WIRE.format(attack=attack))
    assert result.outputs == {"value": 1}


async def test_a_flood_of_requests_is_answered_and_no_secret_given(call: Caller) -> None:
    attack = """
    count = 3000
    def ask_all():
        for number in range(count):
            send(ask % (str(number).encode(), b'"KEY"'))
    import json, threading
    threading.Thread(target=ask_all).start()
    stream = wire.makefile("rb")
    def take(): return json.loads(stream.read(int.from_bytes(stream.read(4), "big")))
    answers = [take() for _ in range(count)]
    assert sorted(answer["id"] for answer in answers) == list(range(count))
    send(call % str(sum("error" in answer for answer in answers)).encode())
"""
    result = await call(_WIRE.format(attack=attack))
    assert result.outputs == {"value": 3000}, result.error
