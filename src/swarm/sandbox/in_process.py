"""Handlers that run in the host's own process: trusted, and as cheap as a function call."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import importlib.util
import inspect
import io
import logging
import os
import re
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TextIO

from swarm.kernel.errors import SwarmError
from swarm.kernel.ids import new_id
from swarm.kernel.json import JsonObject, dump_bytes, loads
from swarm.sandbox.guest import handlers
from swarm.sandbox.guest.protocol import Failure, Refused, encode
from swarm.sandbox.log_lines import LineCutter, LogBudget, line_text
from swarm.sandbox.ports import (
    CallContext,
    GuestServices,
    InvocationResult,
    Isolation,
    Limits,
    ResourceUsage,
    SandboxRequest,
)
from swarm.sandbox.verdict import Ending, conclude
from swarm.sandbox.wire import Answer

_TOUCHES_FILES: Final = re.compile(
    r"SWARM_|\.files\b|\bopen\(|\bPath\b|\bos\.path\b|\bchdir\b|\benviron\b|\bgetenv\b"
)
"""What needs a process of its own: the working folder and the environment are a process's."""

_WAITS_FOR_HOST: Final = re.compile(r"async def handler[\s\S]*\.secret\(")
"""An async handler would keep the host's loop from answering it."""


@dataclass(frozen=True, slots=True)
class InProcessHandler:
    function: Callable[..., Any]
    wants_context: bool
    is_async: bool


class InProcessHandlers:
    """Loads each handler once and keeps it; takes over ``print`` while any is loaded."""

    def __init__(self, lock_descriptors: Sequence[int] = ()) -> None:
        """``lock_descriptors``: open files whose locks must not come free while a handler runs."""
        self._locks = tuple(lock_descriptors)
        self._found: dict[tuple[Path, str, tuple[str, ...]], InProcessHandler | None] = {}
        self._streams: list[tuple[str, _RoutedStream]] = []
        self._records = _RoutedRecords()
        self._outputs = -1

    def find(self, request: SandboxRequest) -> InProcessHandler | None:
        """The handler, or None where the request needs a process of its own."""
        program = request.program
        if program.runtime != "python" or program.environment or request.inputs:
            return None
        if request.environment:
            return None
        key = (program.package, program.digest, program.entry)
        if key not in self._found:
            self._found[key] = self._load(program.package, program.entry[0])
        return self._found[key]

    async def execute(
        self, handler: InProcessHandler, inputs: JsonObject, guest: handlers.Context
    ) -> Any:
        """Run a plain handler on a thread of its own.

        A thread cannot be killed: one whose call was given up goes on, and keeps the locks.
        """
        held = [os.dup(lock) for lock in self._locks]

        def run() -> Any:
            try:
                return handlers.execute(handler.function, inputs, guest)
            finally:
                for lock in held:
                    os.close(lock)

        return await _in_thread(run)

    async def outputs_descriptor(self) -> int:
        """An empty folder: handlers that write files are not run in this process."""
        if self._outputs < 0:
            with tempfile.TemporaryDirectory(prefix="swarm-") as folder:
                self._outputs = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        return self._outputs

    def close(self) -> None:
        """Forget the handlers and give ``print`` back; safe to call twice."""
        self._found.clear()
        for name, stream in self._streams:
            if getattr(sys, name) is stream:
                setattr(sys, name, stream.original)
        self._streams.clear()
        logging.getLogger().removeHandler(self._records)
        if self._outputs >= 0:
            os.close(self._outputs)
            self._outputs = -1

    def _load(self, package: Path, entry: str) -> InProcessHandler | None:
        """None too for what cannot be loaded: the process of its own then says why."""
        name = entry if entry.endswith(".py") else f"{entry.partition(':')[0]}.py"
        path = package / name
        modules = list(package.rglob("*.py"))
        if modules != [path]:
            return None
        source = path.read_text(errors="replace")
        if _TOUCHES_FILES.search(source) or _WAITS_FOR_HOST.search(source):
            return None
        attribute = "handler" if entry.endswith(".py") else entry.partition(":")[2] or "handler"
        specification = importlib.util.spec_from_file_location(new_id("swarm_package"), path)
        assert specification is not None
        assert specification.loader is not None
        module = importlib.util.module_from_spec(specification)
        sys.modules[module.__name__] = module
        self._take_over_streams()
        try:
            specification.loader.exec_module(module)
            function = getattr(module, attribute)
            wants_context = handlers.wants_context(function)
        except (Exception, SystemExit):  # noqa: BLE001  any code runs on import; see above
            del sys.modules[module.__name__]
            return None
        is_async = inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)
        return InProcessHandler(function, wants_context, is_async)

    def _take_over_streams(self) -> None:
        if not self._streams:
            for name in ("stdout", "stderr"):
                stream = _RoutedStream(getattr(sys, name), name)
                self._streams.append((name, stream))
                setattr(sys, name, stream)
            logging.getLogger().addHandler(self._records)


class InProcessSandbox:
    """See :class:`swarm.sandbox.ports.Sandbox`. It is no sandbox: there is no wall."""

    isolation = Isolation.NONE
    layers = ("none",)

    def __init__(
        self, shared: InProcessHandlers, handler: InProcessHandler, limits: Limits
    ) -> None:
        self.id = "in-process"
        self._shared = shared
        self._handler = handler
        self._limits = limits

    async def call(
        self, inputs: JsonObject, context: CallContext, services: GuestServices
    ) -> InvocationResult:
        started = time.monotonic()
        call = _Call(self._limits, services)
        token = _current_call.set(call)
        answer, is_late = None, False
        try:
            async with asyncio.timeout(self._limits.timeout_seconds):
                answer = await self._answer(loads(dump_bytes(inputs)), context, call)
        except TimeoutError:
            is_late = True
        finally:
            _current_call.reset(token)
        call.close()
        usage = ResourceUsage(
            wall_ms=round((time.monotonic() - started) * 1000),
            output_bytes=answer.size if answer is not None else 0,
            log_bytes=call.budget.received,
        )
        return conclude(Ending(answer, is_late=is_late), self._limits, usage)

    async def outputs_descriptor(self) -> int:
        return await self._shared.outputs_descriptor()

    async def destroy(self) -> None:
        """There is nothing to remove."""

    async def _answer(self, inputs: JsonObject, context: CallContext, call: _Call) -> Answer:
        guest = handlers.Context(context.as_json(), call, "/nonexistent")
        try:
            if self._handler.is_async:
                output = await handlers.finish(self._start(inputs, guest), guest)
            else:
                output = await self._shared.execute(self._handler, inputs, guest)
            text = encode({} if output is None else output, "outputs")
        except (Exception, SystemExit) as error:  # noqa: BLE001  it is the handler's answer
            failure = handlers.failure_of(error, machinery=(__file__,))
            return Answer(kind=failure.kind, message=failure.message, traceback=failure.trace)
        size = len(text)
        if size > self._limits.output_bytes:
            message = f"the output has {size} bytes, the limit is {self._limits.output_bytes}"
            return Answer(kind="output_too_large", message=message, size=size)
        return Answer(outputs=loads(text), size=size)

    def _start(self, inputs: JsonObject, guest: handlers.Context) -> Any:
        function = self._handler.function
        return function(inputs, guest) if self._handler.wants_context else function(inputs)


class _Call:
    """The context's transport of one call, and where its prints go."""

    def __init__(self, limits: Limits, services: GuestServices) -> None:
        self.budget = LogBudget(limits.log_bytes)
        self._limits = limits
        self._services = services
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._cutters: dict[str, LineCutter] = {}
        self._streamed = 0
        self._is_open = True

    def notify(self, method: str, params: dict[str, Any]) -> None:
        if not self._is_open:
            raise RuntimeError("the call is over")
        text = encode(params, method)
        if method != "log":
            self._count_streamed(len(text))
        self._on_loop(self._tell, method, loads(text))

    def request(self, method: str, params: dict[str, Any]) -> Any:
        asking = self._services.request(method, params)
        try:
            if threading.get_ident() == self._thread:
                return _run_at_once(asking)
            return asyncio.run_coroutine_threadsafe(asking, self._loop).result()
        except SwarmError as error:
            raise Refused(str(error)) from None

    def write(self, stream: str, text: str) -> None:
        self._on_loop(self._print, stream, text.encode("utf-8", "backslashreplace"))

    def close(self) -> None:
        """Emit what has no line end; a handler that still runs is not listened to any more."""
        for cutter in self._cutters.values():
            cutter.close()
        if self.budget.dropped:
            text = (
                f"{self.budget.dropped} bytes of log were dropped: "
                f"the limit is {self._limits.log_bytes} bytes"
            )
            self._services.log("log", "warning", text)
        self._is_open = False

    def _count_streamed(self, size: int) -> None:
        self._streamed += size
        limit = self._limits.stream_bytes
        if self._streamed > limit:
            text = f"the handler streamed more than {limit} bytes of events and progress"
            raise Failure("output_too_large", text)

    def _on_loop(self, function: Callable[..., None], *arguments: Any) -> None:
        if threading.get_ident() == self._thread:
            function(*arguments)
        else:
            with contextlib.suppress(RuntimeError):  # The loop is closed: nobody listens.
                self._loop.call_soon_threadsafe(function, *arguments)

    def _tell(self, method: str, params: JsonObject) -> None:
        if not self._is_open:
            return
        if method == "log":
            data, limit = params["message"].encode(), self._limits.log_line_bytes
            self.budget.cut(max(len(data) - limit, 0))
            if self.budget.take(min(len(data), limit)):
                text = line_text(data[:limit], max(len(data) - limit, 0))
                self._services.log("log", params["level"], text)
        elif method == "progress":
            self._services.progress(params["fraction"], params["message"])
        else:
            self._services.event(params["value"])

    def _print(self, stream: str, data: bytes) -> None:
        if not self._is_open:
            return
        if stream not in self._cutters:
            level = "info" if stream == "stdout" else "warning"
            services, limit = self._services, self._limits.log_line_bytes
            self._cutters[stream] = LineCutter(
                limit, self.budget, lambda line: services.log(stream, level, line)
            )
        self._cutters[stream].feed(data)


_current_call: Final = contextvars.ContextVar[_Call | None]("swarm_in_process_call", default=None)


class _RoutedStream(io.TextIOBase):
    """Stands in for ``sys.stdout``: a handler's prints go to its log, others' where they went."""

    def __init__(self, original: TextIO, name: str) -> None:
        self.original = original
        self._name = name

    def write(self, text: str) -> int:
        call = _current_call.get()
        if call is None:
            return self.original.write(text)
        call.write(self._name, text)
        return len(text)

    def flush(self) -> None:
        if _current_call.get() is None:
            self.original.flush()

    def isatty(self) -> bool:
        return _current_call.get() is None and self.original.isatty()

    def fileno(self) -> int:
        return self.original.fileno()

    def writable(self) -> bool:
        return True

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self.original.encoding


class _RoutedRecords(logging.Handler):
    """Sends the records that a handler logs with Python's ``logging`` to its log."""

    def emit(self, record: logging.LogRecord) -> None:
        call = _current_call.get()
        if call is not None:
            handlers.LogRecords(call).emit(record)


async def _in_thread(function: Callable[[], Any]) -> Any:
    """Run on a thread of its own, which dies with the process should it never return."""
    loop = asyncio.get_running_loop()
    finished: asyncio.Future[tuple[Any, BaseException | None]] = loop.create_future()
    context = contextvars.copy_context()

    def settle(value: Any, error: BaseException | None) -> None:
        if not finished.done():
            finished.set_result((value, error))

    def work() -> None:
        value, error = None, None
        try:
            value = context.run(function)
        except BaseException as raised:  # noqa: BLE001  it is raised again where it is awaited
            error = raised
        with contextlib.suppress(RuntimeError):  # The loop is closed: nobody waits.
            loop.call_soon_threadsafe(settle, value, error)

    threading.Thread(target=work, daemon=True, name="swarm-handler").start()
    value, error = await finished
    if error is not None:
        raise error
    return value


def _run_at_once(asking: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine that need not wait; an async handler's loop cannot wait here."""
    try:
        asking.send(None)
    except StopIteration as end:
        return end.value
    asking.close()
    raise RuntimeError(
        "this request must wait, which an async handler cannot do in the host's process: "
        "use a plain function, or run with isolation"
    )
