"""The guest's program: serve one call, as the environment says.

``SWARM_WIRE_FD`` is the wire; ``SWARM_RUNTIME`` is ``python`` or ``command``; ``SWARM_ENTRY`` is
the entry as a JSON list; ``SWARM_LOAD`` says whether the package is imported ``at_once`` or
``at_call``; ``SWARM_PACKAGE``, ``SWARM_ENVIRONMENT``, ``SWARM_OUTPUTS`` are folders.
"""

from __future__ import annotations

import inspect
import json
import os
import site
import socket
import sys
from collections.abc import Callable
from typing import Any

from . import protocol
from .command import run_command
from .handlers import Context, execute, failure_of, load_handler, send_records
from .protocol import Failure, Wire, encode

_REHEARSE_AFTER_SECONDS = 0.005
_CONTEXT = dict.fromkeys(
    ("invocation_id", "idempotency_key", "run_id", "step_id", "attempt", "agent", "agent_version")
)
_REHEARSAL = json.dumps(
    {
        "jsonrpc": "2.0",
        "id": 1,
        "params": {"protocol": protocol.VERSION, "inputs": {}, "context": _CONTEXT},
    }
)


def main() -> None:
    """Serve one call on the wire, as the environment says."""
    Guest(int(os.environ["SWARM_WIRE_FD"])).serve()


class Guest:
    """This process as a guest. Making one does what needs neither package nor call.

    Args:
        descriptor: of the wire.
    """

    def __init__(self, descriptor: int) -> None:
        os.set_inheritable(descriptor, False)
        self._wire = Wire(descriptor)
        _open_streams()
        sys.dont_write_bytecode = True
        send_records(self._wire)

    def serve(self, *, rehearses: bool = True) -> None:
        """Wait for a call and answer it; returns without an answer when the host is gone.

        Args:
            rehearses: whether to make use of a wait before the call.
        """
        wire = self._wire
        entry: list[str] = json.loads(os.environ["SWARM_ENTRY"])
        is_command = os.environ["SWARM_RUNTIME"] == "command"
        is_late = os.environ["SWARM_LOAD"] == "at_call"
        handler = None if is_command or is_late else load(entry[0])
        if rehearses and callable(handler) and not wire.is_readable(_REHEARSE_AFTER_SECONDS):
            rehearse(is_async=inspect.iscoroutinefunction(handler))
        try:
            request = wire.receive()
        except EOFError:
            return
        if is_late and not is_command:
            handler = load(entry[0])
        _answer(request, entry, handler, wire)


def _answer(
    request: dict[str, Any],
    entry: list[str],
    handler: Callable[..., Any] | Failure | None,
    wire: Wire,
) -> None:
    params = request["params"]
    limit = int(os.environ["SWARM_MAX_OUTPUT_BYTES"])
    try:
        if params.get("protocol") != protocol.VERSION:
            raise Failure("error", f"the host speaks protocol {params.get('protocol')}, not 1")
        if handler is None:
            text = run_command(entry, params["inputs"], params["context"], limit)
        else:
            text = _call(handler, params, wire)
        size = len(text.encode())
        if size > limit:
            raise Failure("output_too_large", f"the output has {size} bytes, the limit is {limit}")
        flush()
        wire.answer(request["id"], text)
    except EOFError:
        return
    except BaseException as error:  # noqa: BLE001  whatever a handler raises is its answer
        flush()
        wire.answer_failure(request["id"], failure_of(error))


def rehearse(*, is_async: bool) -> None:
    """Go through a call that does nothing, before the one that counts.

    A fork shares its parent's memory until it touches it, which costs a copy of each page. Who
    waits for a call pays for them now; who is called at once does not come here.
    """
    host, guest = socket.socketpair()
    with host:
        wire = Wire(guest.detach())
        Wire(os.dup(host.fileno())).send_text(_REHEARSAL)
        handler = _do_nothing_async if is_async else _do_nothing
        _answer(wire.receive(), [], handler, wire)


def _do_nothing(inputs: dict[str, Any]) -> dict[str, Any]:
    return inputs


async def _do_nothing_async(inputs: dict[str, Any]) -> dict[str, Any]:
    return inputs


def _open_streams() -> None:
    """Text streams made anew: those of the zygote were made for other files."""
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        stream = open(  # noqa: SIM115
            descriptor,
            "w",
            buffering=1,
            encoding="utf-8",
            errors="backslashreplace",
            closefd=False,
        )
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def load(entry: str) -> Callable[..., Any] | Failure:
    """Import the package; what goes wrong is the answer."""
    package = os.environ["SWARM_PACKAGE"]
    sys.path.insert(0, package)
    if entry.endswith(".py") and os.path.dirname(entry):
        sys.path.insert(0, os.path.join(package, os.path.dirname(entry)))
    # A copy: what os.environ does not have, it finds out by way of two exceptions.
    environment = dict(os.environ).get("SWARM_ENVIRONMENT")
    if environment:
        site.addsitedir(os.path.join(environment, "site-packages"))
    try:
        return load_handler(entry, package)
    except BaseException as error:  # noqa: BLE001  whatever its import raises is its answer
        failure = failure_of(error)
        if failure.kind == "error":
            message = f"the package cannot be loaded: {failure.message}"
            return Failure("load", message, failure.trace)
        return failure


def _call(handler: Callable[..., Any] | Failure, params: dict[str, Any], wire: Wire) -> str:
    if isinstance(handler, Failure):
        raise handler
    context = Context(params["context"], wire, os.environ["SWARM_OUTPUTS"])
    for name, value in params["context"].items():
        if value is not None:
            os.environ[f"SWARM_{name.upper()}"] = str(value)
    output = execute(handler, params["inputs"], context)
    return encode({} if output is None else output, "outputs")


def flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            continue
