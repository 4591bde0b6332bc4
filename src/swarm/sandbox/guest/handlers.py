"""Python handlers: finding them, what they are given, and running them whatever their kind.

Used inside a sandbox, and by the host for packages that it runs in its own process.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import inspect
import logging
import math
import os
import sys
import traceback
from collections.abc import Callable
from importlib.machinery import SourceFileLoader
from types import FunctionType, ModuleType
from typing import Any

from .protocol import Failure, Transport, printable

_TRACEBACK_LIMIT = 32 * 1024
_FOLDER = os.path.dirname(__file__)


class Outputs(dict[str, Any]):
    """Marks a yielded value as the handler's output; made by ``context.outputs``."""


class Log:
    """Lines for the invocation's log. Arguments are put in as ``message % arguments``."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def __call__(self, message: object, *arguments: object) -> None:
        self._write("info", message, arguments)

    def debug(self, message: object, *arguments: object) -> None:
        self._write("debug", message, arguments)

    def info(self, message: object, *arguments: object) -> None:
        self._write("info", message, arguments)

    def warning(self, message: object, *arguments: object) -> None:
        self._write("warning", message, arguments)

    def error(self, message: object, *arguments: object) -> None:
        self._write("error", message, arguments)

    def _write(self, level: str, message: object, arguments: tuple[object, ...]) -> None:
        text = str(message) % arguments if arguments else str(message)
        self._transport.notify("log", {"level": level, "message": printable(text)})


class Files:
    """Files that the handler hands out."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        """Where they are written: the same as ``$SWARM_OUTPUTS``."""

    def output(self, path: str | os.PathLike[str], media_type: str | None = None) -> dict[str, Any]:
        """The value that hands out a file or folder written below ``$SWARM_OUTPUTS``.

        Args:
            path: relative to ``$SWARM_OUTPUTS``, or absolute and below it.
            media_type: such as ``text/markdown``.

        Raises:
            ValueError: the path leads elsewhere.
            FileNotFoundError: nothing was written there.
        """
        full = os.path.normpath(os.path.join(self.folder, path))
        relative = os.path.relpath(full, self.folder)
        if relative == os.pardir or relative.startswith(os.pardir + os.sep):
            raise ValueError(f"{path} is not below $SWARM_OUTPUTS ({self.folder})")
        if not os.path.lexists(full):
            raise FileNotFoundError(f"{path} was not written to $SWARM_OUTPUTS ({self.folder})")
        value: dict[str, Any] = {"$file": relative}
        if media_type is not None:
            value["media_type"] = media_type
        return value


class Context:
    """What a handler gets as its second argument."""

    def __init__(self, facts: dict[str, Any], transport: Transport, outputs_folder: str) -> None:
        self.invocation_id: str = facts["invocation_id"]
        self.idempotency_key: str = facts["idempotency_key"]
        self.run_id: str | None = facts["run_id"]
        self.step_id: str | None = facts["step_id"]
        self.attempt: int = facts["attempt"]
        self.agent: str = facts["agent"]
        self.agent_version: str = facts["agent_version"]
        self.log = Log(transport)
        self.files = Files(outputs_folder)
        self._transport = transport

    def progress(self, fraction: float | None, message: str = "") -> None:
        """Say how far the work is: 0 to 1, or None when that is not known."""
        if fraction is not None:
            fraction = float(fraction)
            if not math.isfinite(fraction):
                raise ValueError("the fraction of progress must be a finite number or None")
            fraction = min(max(fraction, 0.0), 1.0)
        self._transport.notify(
            "progress", {"fraction": fraction, "message": printable(str(message))}
        )

    def secret(self, name: str) -> str:
        """A granted secret's value; raises Refused when it is not granted or not set."""
        return str(self._transport.request("secret", {"name": name}))

    def usage(self, *, tokens: int = 0, usd: float = 0.0) -> None:
        """Add to what this invocation has used of models, in tokens and US dollars; raises Refused
        once the run's budget is used up."""
        self._transport.request("usage", {"tokens": tokens, "usd": usd})

    def outputs(self, values: dict[str, Any] | None = None, **more: Any) -> Outputs:
        """What a generator yields last to give its output."""
        return Outputs({**(values or {}), **more})

    def emit(self, value: Any) -> None:
        """Send ``value`` as a stream event now; the same as yielding it."""
        self._transport.notify("event", {"value": value})


class LogRecords(logging.Handler):
    """Sends the records of Python's ``logging`` to the invocation's log."""

    def __init__(self, transport: Transport | None = None) -> None:
        super().__init__(logging.INFO)
        self.transport = transport
        """Without one, records go nowhere."""
        self.setFormatter(logging.Formatter("%(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        if self.transport is None:
            return
        level = "debug" if record.levelno < logging.INFO else "info"
        if record.levelno >= logging.WARNING:
            level = "error" if record.levelno >= logging.ERROR else "warning"
        self.transport.notify("log", {"level": level, "message": printable(self.format(record))})


_RECORDS = LogRecords()


def prepare_logging() -> None:
    """Make ``logging`` lead to :func:`send_records`; may be done before a fork."""
    root = logging.getLogger()
    if _RECORDS not in root.handlers:
        root.addHandler(_RECORDS)
        root.setLevel(logging.INFO)


def send_records(transport: Transport) -> None:
    """Send the records of Python's ``logging`` on this transport."""
    prepare_logging()
    _RECORDS.transport = transport


def load_handler(entry: str, package: str) -> Callable[..., Any]:
    """Import the handler that ``entry`` names: ``main.py`` or ``module:function``."""
    module_name, _, attribute = entry.partition(":")
    if entry.endswith(".py"):
        module = _import_file(os.path.join(package, entry))
        attribute = "handler"
    else:
        module = importlib.import_module(module_name)
        attribute = attribute or "handler"
    found: Any = module
    for part in attribute.split("."):
        found = getattr(found, part, None)
    if not callable(found):
        raise Failure("load", f"{entry}: there is no function `{attribute}` in {module.__name__}")
    handler: Callable[..., Any] = found
    return handler


def _import_file(path: str, name: str | None = None) -> ModuleType:
    stem = os.path.splitext(os.path.basename(path))[0]
    name = name or (stem if stem not in sys.modules else f"swarm_entry_{stem}")
    # With a loader, and no search for what lies below a folder: a file's spec at half the cost.
    specification = importlib.util.spec_from_file_location(
        name,
        path,
        loader=SourceFileLoader(name, path),
        submodule_search_locations=None,
    )
    if specification is None or specification.loader is None:
        raise Failure("load", f"{path} cannot be imported")
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module
    specification.loader.exec_module(module)
    return module


def wants_context(handler: Callable[..., Any]) -> bool:
    """Whether the handler takes ``(inputs, context)`` rather than ``(inputs)``."""
    if type(handler) is FunctionType and not handler.__dict__:
        # Nothing wraps it: its code says the same as its signature, at a fraction of the cost.
        code = handler.__code__
        takes_any = bool(code.co_flags & inspect.CO_VARARGS)
        return _takes_context(code.co_argcount, takes_any)
    try:
        parameters = inspect.signature(handler).parameters.values()
    except (TypeError, ValueError):
        return True
    positional = [
        parameter
        for parameter in parameters
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    takes_any = any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters)
    return _takes_context(len(positional), takes_any)


def _takes_context(positional: int, takes_any: bool) -> bool:
    if not positional and not takes_any:
        raise Failure("load", "the handler must take `inputs`, or `inputs` and `context`")
    return takes_any or positional > 1


def execute(handler: Callable[..., Any], inputs: Any, context: Context) -> Any:
    """Run a handler of any kind to its end, on this thread. Returns its output."""
    produced = handler(inputs, context) if wants_context(handler) else handler(inputs)
    if inspect.isgenerator(produced):
        return drain(produced, context)
    if inspect.isasyncgen(produced) or inspect.isawaitable(produced):
        return asyncio.run(finish(produced, context))
    return produced


async def finish(produced: Any, context: Context) -> Any:
    """Await what an async handler made: a coroutine or an async generator."""
    if not inspect.isasyncgen(produced):
        return await produced
    output: Any = None
    async for value in produced:
        if isinstance(value, Outputs):
            output = dict(value)
        else:
            context.emit(value)
    return output


def drain(produced: Any, context: Context) -> Any:
    """Run a generator: events on the way, its output at the end."""
    output: Any = None
    while True:
        try:
            value = next(produced)
        except StopIteration as end:
            return output if end.value is None else end.value
        if isinstance(value, Outputs):
            output = dict(value)
        else:
            context.emit(value)


def failure_of(error: BaseException, machinery: tuple[str, ...] = ()) -> Failure:
    """What the host is told of an exception that left the handler.

    Args:
        machinery: files beside the guest's own whose frames say nothing to the agent's author.
    """
    if isinstance(error, Failure):
        return error
    if isinstance(error, SystemExit):
        return Failure("error", f"the handler called sys.exit({error.code!r})")
    name = type(error).__qualname__
    text = str(error)
    kind = "oom" if isinstance(error, MemoryError) else "error"
    return Failure(kind, printable(f"{name}: {text}" if text else name), _trace(error, machinery))


def _trace(error: BaseException, machinery: tuple[str, ...]) -> str:
    summary = traceback.TracebackException.from_exception(error, limit=-50)
    link: traceback.TracebackException | None = summary
    while link is not None:
        kept = [frame for frame in link.stack if not _is_machinery(frame.filename, machinery)]
        link.stack = traceback.StackSummary.from_list(kept)
        link = link.__cause__ or link.__context__
    return printable("".join(summary.format()))[-_TRACEBACK_LIMIT:]


def _is_machinery(filename: str, more: tuple[str, ...]) -> bool:
    return filename.startswith((_FOLDER, "<frozen importlib", *more))
