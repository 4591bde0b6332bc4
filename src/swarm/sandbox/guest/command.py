"""Commands: JSON of the inputs on stdin, JSON of the outputs on stdout, logs on stderr."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
from typing import Any, NoReturn

from .protocol import Failure, encode

_CHUNK = 65_536
_FOR_THE_GUEST = (
    "SWARM_WIRE_FD",
    "SWARM_RUNTIME",
    "SWARM_ENTRY",
    "SWARM_LOAD",
    "SWARM_MAX_OUTPUT_BYTES",
)


def run_command(entry: list[str], inputs: Any, facts: dict[str, Any], limit: int) -> str:
    """Run a command: JSON of the inputs on its stdin, JSON on its stdout. Returns the JSON text."""
    environment = dict(os.environ)
    for name in _FOR_THE_GUEST:
        environment.pop(name, None)
    for name, value in facts.items():
        if value is not None:
            environment[f"SWARM_{name.upper()}"] = str(value)
    program = list(entry)
    if os.sep not in program[0] and os.path.isfile(program[0]):
        program[0] = os.path.join(os.curdir, program[0])
    try:
        process = subprocess.Popen(
            program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
        )
    except OSError as error:
        raise Failure("load", f"{entry[0]} cannot be executed: {error.strerror}") from None
    output = _exchange(process, encode(inputs, "inputs").encode(), limit)
    code = process.wait()
    if len(output) > limit:
        raise Failure("output_too_large", f"the command wrote more than {limit} bytes to stdout")
    if code < 0:
        raise Failure("error", f"the command was killed by {_signal_name(-code)}")
    if code > 0:
        raise Failure("error", f"the command exited with code {code}; its stderr is in the log")
    return _check_command_output(output)


def _check_command_output(output: bytes) -> str:
    if not output.strip():
        return "{}"
    try:
        value = json.loads(output, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        shown = output[:200].decode("utf-8", "replace")
        raise Failure(
            "bad_output", f"the command's stdout is not JSON ({error}): {shown!r}"
        ) from None
    return encode(value, "outputs")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _exchange(process: subprocess.Popen[bytes], data: bytes, limit: int) -> bytes:
    """Feed stdin and read stdout until the command ends, though its children may hold the pipe."""
    stdin, stdout = process.stdin, process.stdout
    assert stdin is not None
    assert stdout is not None
    os.set_blocking(stdin.fileno(), False)
    os.set_blocking(stdout.fileno(), False)
    ended = os.pidfd_open(process.pid)
    output = bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(stdin, selectors.EVENT_WRITE)
        selector.register(stdout, selectors.EVENT_READ)
        selector.register(ended, selectors.EVENT_READ)
        is_running = True
        while is_running and len(output) <= limit:
            for key, _ in selector.select():
                if key.fileobj is stdin:
                    data = _feed(stdin, data)
                    if not data:
                        selector.unregister(stdin)
                        stdin.close()
                elif key.fileobj is stdout:
                    if not _collect(stdout.fileno(), output):
                        selector.unregister(stdout)
                else:
                    is_running = False
    while len(output) <= limit and _collect(stdout.fileno(), output):
        pass
    os.close(ended)
    if len(output) > limit:
        process.kill()
    return bytes(output)


def _feed(stdin: Any, data: bytes) -> bytes:
    try:
        return data[os.write(stdin.fileno(), data[:_CHUNK]) :]
    except BlockingIOError:
        return data
    except BrokenPipeError:
        return b""


def _collect(descriptor: int, output: bytearray) -> bool:
    """Read once; False when there is nothing (more) to read."""
    try:
        chunk = os.read(descriptor, _CHUNK)
    except BlockingIOError:
        return False
    output += chunk
    return bool(chunk)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
